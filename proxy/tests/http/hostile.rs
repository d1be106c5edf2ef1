//! Bad input: answered or closed, bounded, counted, and never a second request.

use crate::{
    streams::h2c,
    world::{SOON, Seen, WAYS, Way, World, answering, app, h1_on},
};
use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use weft_proto::limits;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn t01_to_t06_what_is_refused_never_reaches_a_server() {
    for way in WAYS {
        for (request, status) in [
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
                "400",
            ),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", "400"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                "400",
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n",
                "400",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\n\r\n", "400"),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
            ("GET / HTTP/1.7\r\nHost: a\r\n\r\n", "505"),
        ] {
            let mut world = World::new();
            let seen = Seen::default();
            let saw = seen.clone();
            let address = answering(move |head| {
                saw.add(head);
                OK.into()
            })
            .await;
            let mut client = world.h1(way, address).await;
            client
                .send(format!("{request}GET /second HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let (text, clean) = client.rest().await;
            assert!(
                clean && text.starts_with(&format!("HTTP/1.1 {status} ")),
                "{way:?} {request:?} {text}"
            );
            assert!(
                text.contains("connection: close\r\n") && text.contains("weft-error: "),
                "{text}"
            );
            assert!(seen.all().is_empty(), "{way:?} {request:?} {:?}", seen.all());
        }
    }
}

#[tokio::test]
async fn t05_a_malformed_chunk_ends_everything() {
    for way in WAYS {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = app(move |_, mut peer| {
            let saw = saw.clone();
            async move {
                let (text, _) = peer.rest().await;
                saw.add(text);
            }
        })
        .await;
        let mut client = world.h1(way, address).await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        client
            .send("5\nhello\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let (text, _) = client.rest().await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{way:?} {text}");
        while seen.all().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let got = seen.all().remove(0);
        assert!(!got.contains("second") && !got.ends_with("0\r\n\r\n"), "{way:?} {got}");
    }
}

#[tokio::test]
async fn t07_a_body_that_was_not_wanted_is_no_request() {
    for way in WAYS {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = app(move |number, mut peer| {
            let saw = saw.clone();
            async move {
                saw.add(format!("{number}: {}", peer.head().await));
                peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
                // Whatever comes now belongs to the body that nobody wanted.
                peer.rest().await;
            }
        })
        .await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut client = world.h1(way, address).await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{smuggled}"
            ))
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{way:?} {head}");
        // Nothing more is answered on this connection: it is closed, since the rest of the body may never come.
        let (text, _) = client.rest().await;
        assert_eq!(text, "", "{way:?}");
        // The server's connection has an unfinished body on it, and is not used for anybody else.
        let mut other = world.h1(way, address).await;
        other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
        other.expect("HTTP/1.1 403 Forbidden\r\n").await;
        let all = seen.all();
        assert_eq!(all.len(), 2, "{way:?} {all:?}");
        assert!(all[1].starts_with("1: GET /other "), "{way:?} {all:?}");
    }
}

#[tokio::test]
async fn t58_a_head_that_is_too_large_is_431_or_414() {
    let mut world = World::new();
    let address = answering(|_| OK.into()).await;
    for (request, status) in [
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(limits::HEAD)),
            "431",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(limits::FIELDS)),
            "431",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(limits::HEAD)),
            "414",
        ),
    ] {
        let mut client = world.h1(Way::Plain, address).await;
        client.send(request).await;
        let (text, _) = client.rest().await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    }
}

#[tokio::test]
async fn t58_a_slow_head_is_408_and_a_silent_client_is_let_go() {
    let mut world = World::new();
    let connection = world.connection(Way::Plain, &["127.0.0.1:1".parse().unwrap()]).await;
    tokio::time::pause();
    let mut slow = h1_on(connection.clone());
    let started = tokio::time::Instant::now();
    let dripping = async {
        for byte in "GET / HTTP/1.1\r\nHost: a\r\nX: "
            .bytes()
            .chain(std::iter::repeat_n(b'x', 100))
        {
            if slow.io.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    dripping.await;
    let mut slow = h1_on(connection.clone());
    slow.send("GET / HTTP/1.1\r\n").await;
    let started = {
        let _ = started;
        tokio::time::Instant::now()
    };
    let (text, _) = slow.rest_paused().await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(
        started.elapsed() <= limits::HEAD_TIME + Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );

    let mut silent = h1_on(connection);
    let started = tokio::time::Instant::now();
    assert_eq!(silent.rest_paused().await, (String::new(), true));
    assert!(started.elapsed() >= limits::CLIENT_IDLE && started.elapsed() < limits::CLIENT_IDLE * 2);
}

#[tokio::test]
async fn t58_a_body_that_stops_is_408() {
    let mut world = World::new();
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let address = app(move |_, mut peer| {
        let told = told.clone();
        async move {
            peer.head().await;
            peer.expect("half").await;
            told.send(()).unwrap();
            peer.rest_paused().await;
        }
    })
    .await;
    let mut client = world.h1(Way::Plain, address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
        .await;
    asked.recv().await.unwrap();
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let (text, _) = client.rest_paused().await;
    assert!(
        text.starts_with("HTTP/1.1 408 ") && text.contains("request_body_idle"),
        "{text}"
    );
    // It is waited for since the half came, which was a moment before.
    let waited = started.elapsed() + Duration::from_secs(1);
    assert!(waited >= limits::BODY_IDLE, "{waited:?}");
}

#[tokio::test]
async fn what_a_client_sends_ahead_is_bounded() {
    let mut world = World::new();
    let (go, wait) = tokio::sync::watch::channel(false);
    let address = app(move |_, mut peer| {
        let mut wait = wait.clone();
        async move {
            peer.head().await;
            wait.wait_for(|go| *go).await.unwrap();
            peer.send(OK).await;
            peer.rest().await;
        }
    })
    .await;
    let mut client = world.h1(Way::Plain, address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut ahead = 0;
    let filling = async {
        loop {
            client.io.write_all(&[b'x'; 16 << 10]).await.unwrap();
            ahead += 16 << 10;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(300), filling).await.is_err());
    // What is held by the proxy, and what the memory between the test and the proxy holds.
    assert!(ahead <= limits::PIPELINE + (256 << 10) + (32 << 10), "{ahead}");
    go.send(true).unwrap();
    client.expect(OK).await;
}

#[tokio::test]
async fn a_server_that_never_stops_hinting_is_a_bad_gateway() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            peer.head().await;
            let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(limits::INTERIM + 1);
            peer.send(hints).await;
            peer.rest().await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let text = client.until("weft-error: ").await;
        assert!(text.contains("HTTP/1.1 502 "), "{way:?} {text}");
        assert!(text.matches("103 Early Hints").count() <= limits::INTERIM, "{way:?}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_is_told_to_the_server() {
    for way in WAYS {
        let mut world = World::new();
        let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
        let address = app(move |_, mut peer| {
            let told = told.clone();
            async move {
                peer.head().await;
                told.send("asked").unwrap();
                peer.rest().await;
                told.send("gone").unwrap();
            }
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(gone.recv().await, Some("asked"));
        client.io.reset();
        assert_eq!(
            tokio::time::timeout(SOON, gone.recv()).await.unwrap(),
            Some("gone"),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn t14_a_rapid_reset_ends_its_own_connection() {
    for way in [Way::Plain, Way::Inbound] {
        let mut world = World::new();
        let address = h2c(|_request, mut respond| async move {
            drop(respond.send_response(Response::new(()), true));
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let mut ended = None;
        for _ in 0..20_000 {
            send = match send.ready().await {
                Ok(send) => send,
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            };
            let (answer, mut up) = send
                .send_request(Request::get("http://a/").body(()).unwrap(), false)
                .unwrap();
            up.send_reset(Reason::CANCEL);
            drop(answer);
            send = send.clone();
        }
        // Bystanders go on whether or not the attacker's connection was ended; h2 ends it once resets pile up.
        if let Some(error) = ended {
            assert!(
                error.is_go_away() || error.is_io() || error.is_reset(),
                "{way:?} {error}"
            );
        }
        let mut other = world.h2(way, &[address]).await;
        let (answer, _) = other
            .send_request(Request::get("http://a/").body(()).unwrap(), true)
            .unwrap();
        assert_eq!(
            tokio::time::timeout(SOON, answer).await.unwrap().unwrap().status(),
            200,
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn t20_one_stalled_stream_does_not_stop_ninety_nine_others() {
    let mut world = World::new();
    let address = h2c(|request, mut respond| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        let size = if request.uri().path() == "/stalled" {
            8 << 20
        } else {
            100 << 10
        };
        let mut left = Bytes::from(vec![1; size]);
        while !left.is_empty() {
            send.reserve_capacity(left.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else {
                return;
            };
            send.send_data(left.split_to(room.min(left.len())), false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    let connection = world.connection(Way::Mesh, &[address]).await;
    // The stalled one has a client of its own; both meet on the one connection between the two sides.
    let mut stalled = crate::world::h2_on(connection.clone()).await;
    let (answer, _) = stalled
        .send_request(Request::get("http://a/stalled").body(()).unwrap(), true)
        .unwrap();
    let _unread = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
    let send = crate::world::h2_on(connection).await;
    let mut others = Vec::new();
    for _ in 0..99 {
        let mut send = send.clone().ready().await.unwrap();
        others.push(tokio::spawn(async move {
            let (answer, _) = send
                .send_request(Request::get("http://a/live").body(()).unwrap(), true)
                .unwrap();
            let mut body = answer.await.unwrap().into_body();
            let mut got = 0;
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                got += part.len();
            }
            got
        }));
    }
    for other in others {
        assert_eq!(tokio::time::timeout(SOON, other).await.unwrap().unwrap(), 100 << 10);
    }
}
