//! What a backend's port declares (`appProtocol`) is what its application is spoken to with, whatever the client spoke.

use crate::{
    streams::{call, h2c},
    world::{SOON, Seen, Way, World, answering, app, h1_on, h2_on},
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Method, Request, Response};
use std::{net::SocketAddr, sync::Arc};
use weft_proto::rpc::discovery::Protocol;
use weft_proxy::{
    connection::Connection,
    record::{Direction, Facts},
};

const REACHED: [Way; 2] = [Way::Plain, Way::Mesh];

async fn to(world: &mut World, way: Way, address: SocketAddr, protocol: Protocol) -> Arc<Connection> {
    world
        .connection_with(way, &[address], |destination| {
            destination.backends[0].protocol = protocol.into()
        })
        .await
}

/// The same client at a gateway.
fn at_gateway(connection: Arc<Connection>) -> Arc<Connection> {
    let connection = Arc::into_inner(connection).unwrap();
    let facts = &connection.facts;
    Arc::new(Connection {
        facts: Facts::new(Direction::Gateway, facts.client, facts.destination, None, false),
        ..connection
    })
}

async fn says_h2(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let names: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
    assert!(names.iter().all(|name| !name.starts_with("weft-")), "{names:?}");
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_data(Bytes::from_static(b"h2"), true).unwrap();
}

async fn says_h1() -> SocketAddr {
    answering(|head| {
        let is_own = head.starts_with("GET /x HTTP/1.1\r\n") && !head.contains("weft-");
        let status = if is_own { "200 OK" } else { "400 Bad Request" };
        format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nh1")
    })
    .await
}

async fn ask_h1(connection: Arc<Connection>) -> String {
    let mut client = h1_on(connection);
    client
        .send("GET /x HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        .await;
    client.rest().await.0
}

async fn ask_h2(connection: Arc<Connection>) -> (u16, Bytes) {
    let mut send = h2_on(connection).await;
    let request = Request::builder().uri("http://shop/x").body(()).unwrap();
    let answer = send.send_request(request, true).unwrap().0;
    let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
    (
        answer.status().as_u16(),
        answer.into_body().data().await.unwrap().unwrap(),
    )
}

#[tokio::test]
async fn an_h2c_backend_gets_http_2_from_an_http_1_client() {
    for way in REACHED {
        let address = h2c(says_h2).await;
        let mut world = World::new();
        let connection = to(&mut world, way, address, Protocol::H2c).await;
        let answer = ask_h1(connection.clone()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("h2"),
            "{way:?} {answer}"
        );
        assert_eq!(ask_h2(connection).await.0, 200, "{way:?}");
    }
}

#[tokio::test]
async fn an_http_1_backend_gets_http_1_from_an_http_2_client_but_for_grpc() {
    for way in REACHED {
        let mut world = World::new();
        let connection = to(&mut world, way, says_h1().await, Protocol::Http1).await;
        assert_eq!(ask_h2(connection).await, (200, "h1".into()), "{way:?}");
        let connection = to(&mut World::new(), way, h2c(says_h2).await, Protocol::Http1).await;
        let mut send = h2_on(connection).await;
        let answer = send.send_request(call("/a.B/C"), true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
    }
}

#[tokio::test]
async fn at_a_gateway_what_is_not_declared_is_http_1_and_grpc_http_2() {
    for way in REACHED {
        let mut world = World::new();
        let connection = at_gateway(to(&mut world, way, says_h1().await, Protocol::Detect).await);
        assert_eq!(ask_h2(connection).await, (200, "h1".into()), "{way:?}");
        let connection = at_gateway(to(&mut World::new(), way, h2c(says_h2).await, Protocol::Detect).await);
        let mut send = h2_on(connection).await;
        let answer = send.send_request(call("/a.B/C"), true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
    }
}

#[tokio::test]
async fn a_websocket_reaches_backends_that_declare_ws_and_h2c_whatever_its_client_speaks() {
    for way in REACHED {
        for protocol in [Protocol::Http1, Protocol::H2c] {
            let seen = Seen::default();
            let saw = seen.clone();
            let address = app(move |_, mut peer| {
                let saw = saw.clone();
                async move {
                    let head = peer.head().await;
                    saw.add(&head[..4]);
                    if head.starts_with("PRI ") {
                        // A look whether this server speaks HTTP/2 with RFC 8441: it does not.
                        return;
                    }
                    let key = head.lines().find_map(|line| {
                        let (name, value) = line.split_once(':')?;
                        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
                    });
                    let accept = weft_proxy::relay::upgrade::handshake::accept(&key.unwrap());
                    peer.send(format!("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")).await;
                    peer.expect("frame").await;
                    peer.send("back").await;
                }
            })
            .await;
            let mut world = World::new();
            let connection = to(&mut world, way, address, protocol).await;
            let mut client = h1_on(connection.clone());
            client.send("GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nframe").await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{way:?} {protocol:?} {head}");
            assert!(
                head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                "{way:?} {protocol:?} {head}"
            );
            client.expect("back").await;

            let mut send = h2_on(connection).await;
            let mut request = Request::builder()
                .method(Method::CONNECT)
                .uri("http://shop/ws")
                .body(())
                .unwrap();
            request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
            let (answer, mut up) = send.send_request(request, false).unwrap();
            let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
            assert_eq!(answer.status(), 200, "{way:?} {protocol:?}");
            up.send_data(Bytes::from_static(b"frame"), false).unwrap();
            assert_eq!(&answer.into_body().data().await.unwrap().unwrap()[..], b"back");
            if way == Way::Plain && protocol == Protocol::Http1 {
                assert_eq!(
                    seen.all(),
                    ["GET ", "GET "],
                    "no look at HTTP/2 where HTTP/1 is declared"
                );
            }
        }
    }
}
