//! A strict pod and what comes to it in plaintext: its own probes are let in, nothing beside or after them.

use crate::{
    streams::h2c,
    world::{Raw, SOON, Way, World, answering, h1_on, h2_on},
};
use http::Request;
use std::{net::SocketAddr, sync::Arc};
use tokio::time::timeout;
use weft_proto::names::env;
use weft_proxy::{authorize, connection::Connection, detect::Seen, fault::Reason, io::Io, tables::Workload};

/// The inbound side of a strict pod whose application has these probes.
async fn strict(app: SocketAddr) -> Arc<Connection> {
    let port = app.port();
    let mut world = World::with(&[(env::PROBES, &format!("http:{port}:/healthz,grpc:{port}"))]);
    let strict_mtls = true;
    world.shared.tables.set_workload(Workload {
        strict_mtls,
        ..Workload::default()
    });
    world.connection(Way::Inbound, &[app]).await
}

async fn h1() -> Raw<Io> {
    let app = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()).await;
    h1_on(strict(app).await)
}

#[tokio::test]
async fn a_probe_passes_and_nothing_follows_it() {
    let mut client = h1().await;
    let probe = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send(format!("{probe}{probe}")).await;
    let (answer, _) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn everything_else_is_refused_and_the_connection_closed() {
    let upgrade = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /x/../healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        "CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n",
        upgrade,
    ] {
        let mut client = h1().await;
        client.send(request).await;
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
        assert!(answer.contains("weft-error: plaintext_refused"), "{request}: {answer}");
        assert!(answer.contains("connection: close"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_grpc_probe_passes_and_nothing_follows_it() {
    let app = h2c(|_, mut respond| async move {
        respond.send_response(http::Response::new(()), true).unwrap();
    })
    .await;
    for (path, status) in [("/grpc.health.v1.Health/Check", 200), ("/shop.Cart/Add", 403)] {
        let mut send = h2_on(strict(app).await).await;
        let request = Request::post(format!("http://web{path}")).body(()).unwrap();
        let (answer, _) = send.send_request(request, true).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let more = timeout(SOON, send.ready()).await.unwrap();
        assert!(more.is_err(), "{path}: it takes another");
    }
}

#[tokio::test]
async fn a_connection_that_is_no_http_of_a_probe_does_not_begin() {
    let app: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let connection = strict(app).await;
    let (facts, shared) = (&connection.facts, &connection.shared);
    for seen in [None, Some(Seen::Opaque), Some(Seen::Tls(Default::default()))] {
        let fault = authorize::connection(facts, seen.as_ref(), shared).unwrap_err();
        assert_eq!(fault.reason, Reason::PlaintextRefused, "{seen:?}");
    }
    authorize::connection(facts, Some(&Seen::Http1), shared).unwrap();
    shared.tables.set_workload(Workload::default());
    authorize::connection(facts, None, shared).unwrap();
}
