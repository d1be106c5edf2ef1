//! What a rule's retry does: statuses, connections that break, attempts that take too long; and when it does nothing.

use crate::{
    rules::{rule, to},
    streams::{call, h2c},
    world::{SOON, Seen, Way, World, app, h1_on, h2_on},
};
use bytes::Bytes;
use http::{Request, Response};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;
use weft_proto::rpc::discovery::{self as rpc, Rule};
use weft_proxy::connection::Connection;

const RULED: [Way; 2] = [Way::Plain, Way::Mesh];

fn retrying(codes: &[u32], attempts: u32) -> Rule {
    Rule {
        retry: Some(rpc::Retry {
            codes: codes.to_vec(),
            attempts,
            backoff_ms: None,
        }),
        ..rule(0, "/", vec![], vec![to(0)])
    }
}

async fn ruled(world: &mut World, way: Way, apps: &[SocketAddr], rule: Rule) -> Arc<Connection> {
    world
        .connection_with(way, apps, |destination| destination.rules = vec![rule])
        .await
}

/// Answers `failures` requests with `answer`, then all with 200 and what they sent; each request's first line and body is seen.
async fn failing(failures: usize, answer: &'static str, seen: &Seen) -> SocketAddr {
    let seen = seen.clone();
    app(move |_, mut peer| {
        let seen = seen.clone();
        async move {
            loop {
                let Some(head) = peer.next_head().await else { return };
                let length = head
                    .to_ascii_lowercase()
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let body = peer.exactly(length.unwrap_or(0)).await;
                let body = String::from_utf8(body).unwrap();
                seen.add(format!("{} {}", head.split(' ').next().unwrap(), body.len()));
                if seen.all().len() > failures {
                    peer.send(format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ))
                    .await;
                } else if answer.is_empty() {
                    return weft_proxy::io::Io::socket(peer.io).reset();
                } else {
                    peer.send(answer).await;
                }
            }
        }
    })
    .await
}

async fn post(connection: &Arc<Connection>, body: &str) -> String {
    let mut client = h1_on(connection.clone());
    let length = body.len();
    client
        .send(format!(
            "POST /x HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.rest().await.0
}

const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

#[tokio::test]
async fn a_status_of_the_list_is_tried_again_with_the_same_body_until_the_attempts_are_used_up() {
    for way in RULED {
        for (failures, attempts, status, seen_at_all) in [(2, 3, "200", 3), (4, 3, "503", 4), (1, 1, "200", 2)] {
            let seen = Seen::default();
            let address = failing(failures, BUSY, &seen).await;
            let mut world = World::new();
            let connection = ruled(&mut world, way, &[address], retrying(&[500, 503], attempts)).await;
            let answer = post(&connection, "what is sent").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{way:?} {answer}");
            let body = if status == "200" { "what is sent" } else { "busy" };
            assert!(answer.ends_with(body), "{way:?} {answer}");
            assert_eq!(seen.all(), vec!["POST 12".to_owned(); seen_at_all], "{way:?}");
        }
        let seen = Seen::default();
        let address = failing(1, BUSY, &seen).await;
        let connection = ruled(&mut World::new(), way, &[address], retrying(&[500], 3)).await;
        assert!(
            post(&connection, "").await.starts_with("HTTP/1.1 503 "),
            "{way:?}: not in the list"
        );
    }
}

#[tokio::test]
async fn http_2_clients_and_servers_are_tried_again_alike() {
    for way in RULED {
        let seen = Seen::default();
        let saw = seen.clone();
        let address = h2c(move |request, mut respond| {
            let saw = saw.clone();
            async move {
                let mut body = request.into_body();
                let part = body.data().await.unwrap().unwrap();
                saw.add(String::from_utf8_lossy(&part));
                let status = if saw.all().len() > 2 { 200 } else { 500 };
                let response = Response::builder().status(status).body(()).unwrap();
                let mut send = respond.send_response(response, false).unwrap();
                send.send_data(part, true).unwrap();
            }
        })
        .await;
        let mut world = World::new();
        let connection = ruled(&mut world, way, &[address], retrying(&[500], 2)).await;
        let mut send = h2_on(connection).await;
        let request = Request::builder().method("POST").uri("http://shop/x").body(()).unwrap();
        let (answer, mut up) = send.send_request(request, false).unwrap();
        up.send_data(Bytes::from_static(b"sent"), true).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
        assert_eq!(&answer.into_body().data().await.unwrap().unwrap()[..], b"sent");
        assert_eq!(seen.all(), ["sent", "sent", "sent"], "{way:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_kept_is_sent_once() {
    for way in RULED {
        let seen = Seen::default();
        let address = failing(1, BUSY, &seen).await;
        let mut world = World::new();
        let connection = ruled(&mut world, way, &[address], retrying(&[503], 3)).await;
        let long = "x".repeat((64 << 10) + 1);
        let answer = post(&connection, &long).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{way:?} {}", &answer[..40]);
        assert_eq!(seen.all().len(), 1, "{way:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_counts_and_what_is_left_says_that_all_failed() {
    for way in RULED {
        let seen = Seen::default();
        let address = failing(2, "", &seen).await;
        let mut world = World::new();
        let connection = ruled(&mut world, way, &[address], retrying(&[], 3)).await;
        assert!(post(&connection, "a").await.starts_with("HTTP/1.1 200 "), "{way:?}");
        assert_eq!(seen.all().len(), 3);

        let seen = Seen::default();
        let address = failing(9, "", &seen).await;
        let connection = ruled(&mut World::new(), way, &[address], retrying(&[], 3)).await;
        let answer = post(&connection, "a").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("retries_failed"),
            "{way:?} {answer}"
        );
        assert_eq!(seen.all().len(), 4, "{way:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_again_and_the_requests_time_bounds_all() {
    let slow = |failures: usize, seen: &Seen| {
        let seen = seen.clone();
        app(move |_, mut peer| {
            let seen = seen.clone();
            async move {
                while let Some(_head) = peer.next_head().await {
                    seen.add("asked");
                    if seen.all().len() <= failures {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        })
    };
    let rule = |request: Option<u64>, attempts| Rule {
        backend_request_timeout_ms: Some(100),
        request_timeout_ms: request,
        ..retrying(&[], attempts)
    };
    for (failures, attempts, request, status) in [(2, 2, None, "200"), (3, 2, None, "504"), (9, 9, Some(350), "504")] {
        let seen = Seen::default();
        let address = slow(failures, &seen).await;
        let mut world = World::new();
        let connection = ruled(&mut world, Way::Plain, &[address], rule(request, attempts)).await;
        let began = Instant::now();
        let answer = post(&connection, "").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{failures} {answer}"
        );
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        if request.is_some() {
            assert!(answer.contains("request_timeout"), "{answer}");
            assert!(seen.all().len() <= 4, "{:?}", seen.all());
        }
    }
}

#[tokio::test]
async fn another_endpoint_is_taken_where_there_is_one_and_the_pause_is_at_least_the_rules() {
    let (bad, good) = (Seen::default(), Seen::default());
    let apps = [failing(usize::MAX, BUSY, &bad).await, failing(0, BUSY, &good).await];
    let mut world = World::new();
    let mut rule = retrying(&[503], 1);
    rule.retry.as_mut().unwrap().backoff_ms = Some(50);
    let connection = ruled(&mut world, Way::Plain, &apps, rule).await;
    for _ in 0..10 {
        let (before, began) = (bad.all().len(), Instant::now());
        assert!(post(&connection, "a").await.starts_with("HTTP/1.1 200 "));
        if bad.all().len() > before {
            assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
        }
    }
    assert_eq!(good.all().len(), 10);
}

#[tokio::test]
async fn a_grpc_status_is_no_status_of_http() {
    let seen = Seen::default();
    let saw = seen.clone();
    let address = h2c(move |_, mut respond| {
        let saw = saw.clone();
        async move {
            saw.add("called");
            let response = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "14");
            respond.send_response(response.body(()).unwrap(), true).unwrap();
        }
    })
    .await;
    let mut world = World::new();
    let connection = ruled(&mut world, Way::Plain, &[address], retrying(&[500, 503], 3)).await;
    let mut send = h2_on(connection).await;
    let answer = send.send_request(call("/a.B/C"), true).unwrap().0.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(seen.all().len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_pause() {
    let seen = Seen::default();
    let address = failing(usize::MAX, BUSY, &seen).await;
    let mut world = World::new();
    let mut rule = retrying(&[503], 5);
    rule.retry.as_mut().unwrap().backoff_ms = Some(100);
    let connection = ruled(&mut world, Way::Plain, &[address], rule).await;
    let mut client = h1_on(connection);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while seen.all().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.io.reset();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(seen.all().len(), 1);
}
