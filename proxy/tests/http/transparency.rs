//! HTTP/1 crosses as it is: through one side, through the other, and through both with HTTP/2 in between.

use crate::world::{Raw, Seen, WAYS, Way, World, answering, app, h1_on};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The order of fields of different names is HTTP/1's own; HTTP/2 keeps it only within a name.
fn sorted(head: &str) -> Vec<String> {
    let mut lines: Vec<String> = head.trim_end().split("\r\n").map(str::to_owned).collect();
    lines[1..].iter_mut().for_each(|line| {
        let (name, value) = line.split_once(':').unwrap();
        *line = format!("{}:{value}", name.to_ascii_lowercase());
    });
    lines[1..].sort();
    lines
}

#[tokio::test]
async fn heads_keep_their_order_case_and_bytes() {
    for way in [Way::Plain, Way::Inbound] {
        let mut world = World::new();
        let request = "GET /a%2Fb/../c?x=%00&y HTTP/1.1\r\nhOsT: Example.COM:8080\r\nX-B: 1\r\nX-A:  two words \r\nx-b: \r\nX-Latin: \u{e9}\r\n\r\n";
        let response = "HTTP/1.1 299 Quite Fine\r\nX-B: 1\r\nContent-Length: 2\r\nx-a: 2\r\nX-B: 3\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\nok";
        let address = app(move |_, mut peer| async move {
            peer.expect(request).await;
            peer.send(response).await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send(request).await;
        client.expect(response).await;
    }
}

#[tokio::test]
async fn heads_keep_their_meaning_over_the_mesh() {
    let mut world = World::new();
    let request = "GET /a%2Fb/../c?x=%00&y HTTP/1.1\r\nHost: Example.COM:8080\r\nX-B: 1\r\nx-b: \r\nX-A: two words\r\nX-Latin: \u{e9}\r\nCookie: a=b; c=d\r\nweft-identity: forged\r\n\r\n";
    let expected = request.replace("weft-identity: forged\r\n", "");
    let response = "HTTP/1.1 299 Quite Fine\r\nX-B: 1\r\nContent-Length: 2\r\nx-a: 2\r\nX-B: 3\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n";
    let address = app(move |_, mut peer| {
        let expected = expected.clone();
        async move {
            assert_eq!(sorted(&peer.head().await), sorted(&expected));
            peer.send(format!("{response}ok")).await;
        }
    })
    .await;
    let mut client = world.h1(Way::Mesh, address).await;
    client.send(request).await;
    assert_eq!(sorted(&client.head().await), sorted(response));
    client.expect("ok").await;
}

#[tokio::test]
async fn t29_mesh_fields_and_hop_by_hop_fields_stay_behind() {
    for way in WAYS {
        let mut world = World::new();
        let seen = Seen::default();
        let (address, saw) = {
            let seen2 = seen.clone();
            let address = answering(move |head| {
                seen2.add(head);
                "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nweft-version: 1.0\r\ncontent-length: 0\r\n\r\n"
                    .into()
            })
            .await;
            (address, seen)
        };
        let mut client = world.h1(way, address).await;
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: 1\r\nProxy-Connection: keep-alive\r\nWeft-Version: 1.0\r\nweft-method: DELETE\r\nX-Kept: 1\r\n\r\n")
            .await;
        let answer = client.head().await.to_ascii_lowercase();
        let head = saw.all()[0].to_ascii_lowercase();
        for gone in ["x-named:", "keep-alive", "proxy-connection", "weft-"] {
            assert!(!head.contains(gone), "{way:?} {gone}: {head}");
        }
        assert!(
            head.starts_with("get / http/1.1") && head.contains("x-kept: 1"),
            "{way:?} {head}"
        );
        for gone in ["x-hop", "keep-alive", "weft-version"] {
            assert!(!answer.contains(gone), "{way:?} {gone}: {answer}");
        }
    }
}

#[tokio::test]
async fn framing_stays_what_it_was() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            let head = peer.head().await.to_ascii_lowercase();
            assert!(
                head.contains("transfer-encoding: chunked") && !head.contains("content-length"),
                "{head}"
            );
            peer.expect("3\r\nabc\r\n").await;
            peer.expect("0\r\n\r\n").await;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\n\r\n")
                .await;
            let head = peer.head().await.to_ascii_lowercase();
            assert!(
                head.contains("content-length: 5") && !head.contains("chunked"),
                "{head}"
            );
            peer.expect("hello").await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let head = peer.head().await.to_ascii_lowercase();
            assert!(head.contains("content-length: 0\r\n"), "{head}");
            peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            let head = peer.head().await.to_ascii_lowercase();
            assert!(!head.contains("content-length") && !head.contains("chunked"), "{head}");
            peer.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n")
                .await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n")
            .await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(
            head.contains("transfer-encoding: chunked") && !head.contains("content-length"),
            "{way:?} {head}"
        );
        client.expect("2\r\nhi\r\n0\r\n\r\n").await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
            .await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(head.contains("content-length: 0\r\n"), "{way:?} {head}");
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            .await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 204 no content") && !head.contains("chunked"),
            "{way:?} {head}"
        );
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 304") && head.contains("content-length: 77"),
            "{way:?} {head}"
        );
    }
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            let head = peer.head().await.to_ascii_lowercase();
            assert!(head.contains("te: trailers"), "{head}");
            peer.expect("1\r\na\r\n0\r\n").await;
            let trailers = peer.head().await.to_ascii_lowercase();
            assert_eq!(trailers, "x-sum: 1\r\n\r\n");
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\nb\r\n0\r\nX-Sum: 2\r\nAuthorization: no\r\n\r\n").await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n").await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(head.contains("trailer: x-sum"), "{way:?} {head}");
        client.expect("1\r\nb\r\n0\r\n").await;
        assert_eq!(client.head().await.to_ascii_lowercase(), "x-sum: 2\r\n\r\n", "{way:?}");
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body_and_with_its_length() {
    for way in WAYS {
        let mut world = World::new();
        let address = answering(|head| {
            if head.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into()
            } else {
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()
            }
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.expect("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.expect("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    }
}

#[tokio::test]
async fn a_body_that_lasts_until_the_close_stays_one() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\n\r\nfirst ").await;
            peer.send("second").await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(
            !head.contains("chunked") && head.contains("connection: close"),
            "{way:?} {head}"
        );
        assert_eq!(client.rest().await, ("first second".into(), true), "{way:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_never_looks_complete() {
    for way in WAYS {
        for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let mut world = World::new();
            let address = app(move |_, mut peer| async move {
                peer.head().await;
                let body = if head.starts_with('C') {
                    "five5"
                } else {
                    "5\r\nfive5\r\n"
                };
                peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")).await;
            })
            .await;
            let mut client = world.h1(way, address).await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let (text, clean) = client.rest().await;
            assert!(!clean && !text.contains("\r\n0\r\n"), "{way:?} {head}: {text}");
        }
    }
}

#[tokio::test]
async fn http_10_stays_http_10() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|number, mut peer| async move {
            let head = peer.head().await;
            assert!(head.starts_with("GET / HTTP/1.0\r\n"), "{head}");
            assert!(!head.to_ascii_lowercase().contains("host:"), "{head}");
            if number == 0 {
                peer.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
            } else {
                peer.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
                    .await;
                peer.head().await;
            }
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let (text, clean) = client.rest().await;
        assert!(
            clean && text.ends_with("\r\n\r\nall of it") && !text.contains("chunked"),
            "{way:?} {text}"
        );
        let mut world = World::new();
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let head = client.head().await.to_ascii_lowercase();
        assert!(
            head.contains("connection: keep-alive") && head.contains("content-length: 2"),
            "{way:?} {head}"
        );
        client.expect("ok").await;
        client.silent().await;
    }
}

#[tokio::test]
async fn the_target_is_sent_on_as_it_came() {
    for way in WAYS {
        for (line, host) in [
            ("GET http://a.example:8080/x?y HTTP/1.1", "a.example:8080"),
            ("GET http://a.example HTTP/1.1", "a.example"),
            ("OPTIONS * HTTP/1.1", "a"),
            ("GET /%7e//../%zz?%%%2f&=[]{}|^ HTTP/1.1", "a"),
            ("BREW /pot HTTP/1.1", "a"),
        ] {
            let mut world = World::new();
            let seen = Seen::default();
            let saw = seen.clone();
            let address = answering(move |head| {
                saw.add(head);
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()
            })
            .await;
            let mut client = world.h1(way, address).await;
            client.send(format!("{line}\r\nHost: {host}\r\n\r\n")).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 OK"), "{way:?} {line}");
            let head = seen.all().remove(0);
            assert!(head.starts_with(&format!("{line}\r\n")), "{way:?} {line}: {head}");
            assert!(
                head.to_ascii_lowercase().contains(&format!("host: {host}\r\n")),
                "{way:?} {line}: {head}"
            );
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for way in WAYS {
        let mut world = World::new();
        let address = answering(|head| {
            let path = head.split(' ').nth(1).unwrap();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())
        })
        .await;
        let mut client = world.h1(way, address).await;
        let all: String = (0..50)
            .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .collect();
        client.send(all).await;
        for number in 0..50 {
            let path = format!("/{number}");
            client
                .expect(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}",
                    path.len()
                ))
                .await;
        }
    }
}

#[tokio::test]
async fn interim_responses_are_passed_on_to_http_11() {
    for way in WAYS {
        let mut world = World::new();
        let address = answering(|_| {
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client
            .expect("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n")
            .await;
        client.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let (text, _) = client.rest().await;
        assert!(!text.contains("103") && text.contains("200 OK"), "{way:?} {text}");
    }
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_server_wants_it() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            let head = peer.head().await.to_ascii_lowercase();
            assert!(head.contains("expect: 100-continue"), "{head}");
            peer.silent().await;
            peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            peer.expect("body").await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            peer.head().await;
            peer.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
                .await;
            peer.rest().await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        client.send(head).await;
        client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send("body").await;
        client.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        client.send(head).await;
        let (text, clean) = client.rest().await;
        assert!(clean && text.starts_with("HTTP/1.1 417"), "{way:?} {text}");
        assert!(
            text.to_ascii_lowercase().contains("connection: close"),
            "{way:?} {text}"
        );
    }
}

#[tokio::test]
async fn a_server_that_never_says_100_gets_the_body_all_the_same() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            peer.head().await;
            peer.expect("body").await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await;
        client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send("body").await;
        client.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn a_client_that_shuts_its_write_side_gets_its_answer() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            peer.head().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.io.shutdown().await.unwrap();
        let (text, clean) = client.rest().await;
        assert!(clean && text.ends_with("late"), "{way:?} {text}");
    }
}

#[tokio::test]
async fn large_bodies_cross_whole_both_ways() {
    for way in WAYS {
        let mut world = World::new();
        let body: Vec<u8> = (0..5u32 << 20).map(|number| (number % 251) as u8).collect();
        let expected = body.clone();
        let address = app(move |_, mut peer| {
            let expected = expected.clone();
            async move {
                peer.head().await;
                assert!(peer.exactly(expected.len()).await == expected);
                peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", expected.len()))
                    .await;
                peer.send(&expected).await;
            }
        })
        .await;
        let client = world.h1(way, address).await;
        let (read, mut write) = tokio::io::split(client.io);
        let upload = body.clone();
        let sending = tokio::spawn(async move {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", upload.len());
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&upload).await.unwrap();
            write
        });
        let mut client = Raw::new(tokio::io::join(read, tokio::io::sink()));
        client.head().await;
        assert!(client.exactly(body.len()).await == body, "{way:?}");
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_connection_is_used_again_and_a_stale_one_replaced() {
    for way in WAYS {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = app(move |number, mut peer| {
            let saw = saw.clone();
            async move {
                for _ in 0..2 {
                    peer.head().await;
                    saw.add(number.to_string());
                    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        })
        .await;
        let connection = world.connection(way, &[address]).await;
        for _ in 0..6 {
            let mut client = h1_on(connection.clone());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
        assert_eq!(seen.all(), ["0", "0", "1", "1", "2", "2"], "{way:?}");
    }
}

#[tokio::test]
async fn a_failed_dial_is_answered_with_its_reason() {
    for way in WAYS {
        let mut world = World::new();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let mut client = world.h1(way, address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(
            head.starts_with("HTTP/1.1 503 Service Unavailable\r\nweft-error: "),
            "{way:?} {head}"
        );
    }
}

#[tokio::test]
async fn another_endpoint_is_taken_when_the_first_does_not_answer_the_dial() {
    for way in [Way::Plain, Way::Mesh] {
        let mut world = World::new();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let live = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
        let connection = world.connection(way, &[dead, live]).await;
        for _ in 0..20 {
            let mut client = h1_on(connection.clone());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.expect("HTTP/1.1 200 OK\r\n").await;
        }
    }
}

#[tokio::test]
async fn while_draining_an_answer_says_close_and_idle_connections_end() {
    for way in [Way::Plain, Way::Inbound] {
        let mut world = World::new();
        let address = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
        let connection = world.connection(way, &[address]).await;
        let mut idle = h1_on(connection.clone());
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        idle.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        connection.drain().drain();
        assert_eq!(idle.rest().await, (String::new(), true));
        let mut late = h1_on(connection.clone());
        late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (text, clean) = late.rest().await;
        assert!(
            clean && text.to_ascii_lowercase().contains("connection: close"),
            "{way:?} {text}"
        );
    }
}
