//! Copies of requests: whole, to every mirror, and nothing of theirs is felt by the request.

use crate::{
    rules::{rule, to},
    streams::h2c,
    world::{Seen, Way, World, app, backend, h1_on, h2_on},
};
use bytes::Bytes;
use http::{Request, Response};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;
use weft_proto::rpc::discovery::{self as rpc, Rule, filter};
use weft_proxy::connection::Connection;

const RULED: [Way; 2] = [Way::Plain, Way::Mesh];

fn mirror(backend: u32, numerator: u32, denominator: u32) -> filter::Kind {
    filter::Kind::Mirror(rpc::Mirror {
        backend: Some(backend),
        numerator,
        denominator,
        ..Default::default()
    })
}

/// Rules on the first application, with the others as backends 1 and on.
async fn ruled(world: &mut World, way: Way, apps: &[SocketAddr], rule: Rule) -> Arc<Connection> {
    let identity = if way == Way::Mesh {
        "spiffe://cluster.local/ns/shop/sa/web"
    } else {
        ""
    };
    world
        .connection_with(way, &apps[..1], |destination| {
            destination.rules = vec![rule];
            for (number, app) in apps.iter().enumerate().skip(1) {
                destination
                    .backends
                    .push(backend(&format!("shop/mirror-{number}:80"), &[*app], identity));
            }
        })
        .await
}

/// Writes down the first line and the body of each request, and answers with something that nobody must see.
async fn mirrored(seen: &Seen) -> SocketAddr {
    let seen = seen.clone();
    app(move |_, mut peer| {
        let seen = seen.clone();
        async move {
            while let Some(head) = peer.next_head().await {
                let lower = head.to_ascii_lowercase();
                let body = if lower.contains("transfer-encoding: chunked") {
                    let text = peer.until("0\r\n\r\n").await;
                    text.split("\r\n").skip(1).step_by(2).collect::<String>()
                } else {
                    let length = lower
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                    String::from_utf8(peer.exactly(length.unwrap_or(0)).await).unwrap()
                };
                assert!(!lower.contains("weft-"), "{head}");
                seen.add(format!("{} {body}", head.lines().next().unwrap()));
                peer.send("HTTP/1.1 500 Mirror\r\nx-mirror: 1\r\ncontent-length: 6\r\n\r\nmirror")
                    .await;
            }
        }
    })
    .await
}

async fn own() -> SocketAddr {
    app(|_, mut peer| async move {
        while let Some(head) = peer.next_head().await {
            let lower = head.to_ascii_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            peer.exactly(length.unwrap_or(0)).await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown").await;
        }
    })
    .await
}

async fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(5), "it does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_mirror_gets_a_whole_copy_and_the_client_its_own_answer() {
    for way in RULED {
        let (first, second) = (Seen::default(), Seen::default());
        let apps = [own().await, mirrored(&first).await, mirrored(&second).await];
        let mut world = World::new();
        let filters = vec![mirror(1, 1, 1), mirror(2, 100, 100)];
        let connection = ruled(&mut world, way, &apps, rule(0, "/", filters, vec![to(0)])).await;
        let mut client = h1_on(connection.clone());
        for (number, body) in ["", "with a body"].iter().enumerate() {
            let length = body.len();
            client
                .send(format!(
                    "POST /{number}?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{way:?}");
            client.expect("own").await;
        }
        until(|| first.all().len() == 2 && second.all().len() == 2).await;
        for seen in [first, second] {
            let mut all = seen.all();
            all.sort();
            assert_eq!(
                all,
                ["POST /0?q=1 HTTP/1.1 ", "POST /1?q=1 HTTP/1.1 with a body"],
                "{way:?}"
            );
        }
    }
}

#[tokio::test]
async fn http_2_is_copied_alike_and_a_body_streams_past_what_is_buffered() {
    for way in RULED {
        let seen = Seen::default();
        let saw = seen.clone();
        let counting = |saw: Option<Seen>| {
            move |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| {
                let saw = saw.clone();
                async move {
                    let mut body = request.into_body();
                    let mut count = 0;
                    while let Some(Ok(part)) = body.data().await {
                        body.flow_control().release_capacity(part.len()).unwrap();
                        count += part.len();
                    }
                    if let Some(saw) = saw {
                        saw.add(count.to_string());
                    }
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        };
        let apps = [h2c(counting(None)).await, h2c(counting(Some(saw))).await];
        let mut world = World::new();
        let connection = ruled(&mut world, way, &apps, rule(0, "/", vec![mirror(1, 1, 1)], vec![to(0)])).await;
        let mut send = h2_on(connection).await;
        let request = Request::builder().method("POST").uri("http://shop/x").body(()).unwrap();
        let (answer, mut up) = send.send_request(request, false).unwrap();
        for number in 0..32 {
            up.send_data(Bytes::from(vec![b'x'; 16 << 10]), number == 31).unwrap();
            // As fast as a mirror that keeps up.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(answer.await.unwrap().status(), 200, "{way:?}");
        until(|| !seen.all().is_empty()).await;
        assert_eq!(seen.all(), [(512 << 10).to_string()], "{way:?}");
    }
}

#[tokio::test]
async fn a_mirror_that_hangs_or_is_not_there_is_not_felt() {
    for way in RULED {
        let hanging = app(|_, peer| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(peer);
        })
        .await;
        let gone = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let apps = [own().await, hanging, gone];
        let mut world = World::new();
        let filters = vec![mirror(1, 1, 1), mirror(2, 1, 1)];
        let connection = ruled(&mut world, way, &apps, rule(0, "/", filters, vec![to(0)])).await;
        let mut client = h1_on(connection);
        let long = "x".repeat(1 << 20);
        let began = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{way:?}");
        client.expect("own").await;
        drop(client);
        let echo = app(|_, mut peer| async move {
            let head = peer.head().await;
            assert!(head.starts_with("POST"));
            peer.exactly(1 << 20).await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        })
        .await;
        let apps = [echo, hanging, gone];
        let filters = vec![mirror(1, 1, 1), mirror(2, 1, 1)];
        let connection = ruled(&mut World::new(), way, &apps, rule(0, "/", filters, vec![to(0)])).await;
        let mut client = h1_on(connection);
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}",
                long.len()
            ))
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{way:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied_and_none_of_it_lost_under_load() {
    let seen = Seen::default();
    let apps = [own().await, mirrored(&seen).await];
    let mut world = World::new();
    let connection = ruled(
        &mut world,
        Way::Plain,
        &apps,
        rule(0, "/all", vec![mirror(1, 1, 1)], vec![to(0)]),
    )
    .await;
    let asked = (0..10).map(|client| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let mut raw = h1_on(connection);
            for number in 0..50 {
                raw.send(format!("GET /all/{client}/{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
                    .await;
                raw.head().await;
                raw.expect("own").await;
            }
        })
    });
    for client in asked.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    until(|| seen.all().len() == 500).await;

    let seen = Seen::default();
    let apps = [own().await, mirrored(&seen).await];
    let connection = ruled(
        &mut World::new(),
        Way::Plain,
        &apps,
        rule(0, "/", vec![mirror(1, 25, 50)], vec![to(0)]),
    )
    .await;
    let mut raw = h1_on(connection);
    for _ in 0..400 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        raw.head().await;
        raw.expect("own").await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let copied = seen.all().len();
    // Five standard deviations.
    assert!((150..250).contains(&copied), "{copied} of 400");
}

#[tokio::test]
async fn a_request_that_breaks_off_is_not_whole_at_its_mirror_either() {
    let seen = Seen::default();
    let saw = seen.clone();
    let broken = app(move |_, mut peer| {
        let saw = saw.clone();
        async move {
            peer.head().await;
            peer.expect("half").await;
            let (_, clean) = peer.rest().await;
            saw.add(format!("ended, clean: {clean}"));
        }
    })
    .await;
    let waiting = app(|_, mut peer| async move {
        peer.head().await;
        peer.rest().await;
    })
    .await;
    let mut world = World::new();
    let apps = [waiting, broken];
    let connection = ruled(
        &mut world,
        Way::Plain,
        &apps,
        rule(0, "/", vec![mirror(1, 1, 1)], vec![to(0)]),
    )
    .await;
    let mut client = h1_on(connection);
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.io.reset();
    until(|| !seen.all().is_empty()).await;
}
