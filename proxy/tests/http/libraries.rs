//! Real HTTP libraries on both sides: hyper as client and as server, in both versions.

use crate::world::{SOON, WAYS, Way, World};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, net::SocketAddr};
use tokio::net::TcpListener;
use weft_proxy::{exchange, io::Io};

type Body = http_body_util::combinators::BoxBody<bytes::Bytes, Infallible>;

/// Echoes the body in the framing that it came in, and says what it saw.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let all = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let response = Response::builder()
        .header("x-method", parts.method.as_str())
        .header("x-target", parts.uri.path_and_query().map_or("", |path| path.as_str()))
        .header("x-version", format!("{:?}", parts.version));
    let body = if parts.headers.contains_key("content-length") {
        Full::new(all).boxed()
    } else {
        let pieces: Vec<_> = all
            .chunks(1000)
            .map(|piece| Ok(hyper::body::Frame::data(piece.to_vec().into())))
            .collect();
        StreamBody::new(futures_util::stream::iter(pieces)).boxed()
    };
    Ok(response.body(body).unwrap())
}

async fn server(h2: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                if h2 {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service_fn(echo))
                        .await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .half_close(true)
                        .serve_connection(io, service_fn(echo))
                        .await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn hyper_speaks_http_1_through_every_way() {
    for way in WAYS {
        let mut world = World::new();
        let address = server(false).await;
        let connection = world.connection(way, &[address]).await;
        let (near, far) = Io::pair(64 << 10);
        tokio::spawn(exchange::serve_h1(far, connection));
        let (mut send, driver) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(driver);
        for (method, size, chunked) in [
            ("GET", 0, false),
            ("POST", 10, false),
            ("PUT", 300_000, false),
            ("POST", 300_000, true),
        ] {
            let sent = vec![b'z'; size];
            let body: Body = if chunked {
                let pieces: Vec<_> = sent
                    .chunks(7000)
                    .map(|piece| Ok(hyper::body::Frame::data(piece.to_vec().into())))
                    .collect();
                StreamBody::new(futures_util::stream::iter(pieces)).boxed()
            } else {
                Full::new(sent.clone().into()).boxed()
            };
            let request = Request::builder()
                .method(method)
                .uri("/a?b")
                .header("host", "shop.example")
                .body(body)
                .unwrap();
            let answer = tokio::time::timeout(SOON, send.send_request(request))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(answer.headers()["x-method"], method, "{way:?}");
            assert_eq!(answer.headers()["x-target"], "/a?b");
            assert_eq!(answer.headers()["x-version"], "HTTP/1.1", "{way:?}");
            let got = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(got == sent, "{way:?} {method} {}", got.len());
            send.ready().await.unwrap();
        }
    }
}

#[tokio::test]
async fn hyper_speaks_http_2_through_every_way() {
    for way in WAYS {
        let mut world = World::new();
        let address = server(true).await;
        let connection = world.connection(way, &[address]).await;
        let (near, far) = Io::pair(64 << 10);
        tokio::spawn(exchange::serve_h2(far, connection));
        let (send, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
        tokio::spawn(driver);
        let mut calls = Vec::new();
        for size in [0, 1, 70_000, 1 << 20] {
            let mut send = send.clone();
            calls.push(tokio::spawn(async move {
                let sent = vec![b'q'; size];
                let body: Body = Full::new(sent.clone().into()).boxed();
                let request = Request::post("http://shop.example/x").body(body).unwrap();
                let answer = send.send_request(request).await.unwrap();
                assert_eq!(answer.headers()["x-version"], "HTTP/2.0", "{way:?}");
                assert!(answer.into_body().collect().await.unwrap().to_bytes() == sent);
            }));
        }
        for call in calls {
            tokio::time::timeout(SOON, call).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn the_version_is_the_clients_own_on_both_ends_of_the_mesh() {
    // One destination, two clients of different versions, and the application is spoken to as each of them speaks.
    let mut world = World::new();
    let seen = crate::world::Seen::default();
    let saw = seen.clone();
    let address = crate::world::app(move |_, mut peer| {
        let saw = saw.clone();
        async move { saw.add(peer.until("\r\n").await) }
    })
    .await;
    let connection = world.connection(Way::Mesh, &[address]).await;
    let mut one = crate::world::h1_on(connection.clone());
    one.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    one.head().await;
    let mut two = crate::world::h2_on(connection).await;
    let (answer, _) = two
        .send_request(http::Request::get("http://a/").body(()).unwrap(), true)
        .unwrap();
    let _ = tokio::time::timeout(SOON, answer).await.unwrap();
    let all = seen.all();
    assert_eq!(all[0], "GET / HTTP/1.1\r\n");
    assert!(
        all[1..].iter().all(|line| line == "PRI * HTTP/2.0\r\n") && all.len() > 1,
        "{all:?}"
    );
}
