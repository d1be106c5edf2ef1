//! Upgrade, CONNECT and extended CONNECT: tunnels open when both sides agree, and never otherwise.

use crate::world::{Raw, SOON, Seen, WAYS, Way, World, answering, app};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::ext::Protocol;
use http::{Method, Request};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\nX-Own: 1\r\n\r\n";

#[tokio::test]
async fn t10_early_bytes_wait_for_101_and_then_arrive_in_order() {
    for way in WAYS {
        for head in [ASK, &ASK.replace("GET", "POST")] {
            let head = head.to_owned();
            let method = head[..4].to_owned();
            let mut world = World::new();
            let address = app(move |_, mut peer| {
                let method = method.clone();
                async move {
                    let head = peer.head().await;
                    assert!(head.starts_with(&format!("{method}{}/chat?room=1 HTTP/1.1\r\n", if method.ends_with(' ') { "" } else { " " })), "{head}");
                    let head = head.to_ascii_lowercase();
                    assert!(head.contains("upgrade: foo/2") && head.contains("connection: upgrade") && head.contains("x-own: 1"), "{head}");
                    assert!(!head.contains("weft-"), "{head}");
                    peer.silent().await;
                    peer.send("HTTP/1.1 101 Go Ahead\r\nConnection: upgrade\r\nUpgrade: foo/2\r\nX-Too: 2\r\n\r\nserver first").await;
                    peer.expect("early bytes").await;
                    peer.send(" and last").await;
                }
            })
            .await;
            let mut client = world.h1(way, address).await;
            client.send(format!("{head}early ")).await;
            client.send("bytes").await;
            let answer = client.head().await;
            assert!(answer.starts_with("HTTP/1.1 101 Go Ahead\r\n"), "{way:?} {answer}");
            let answer = answer.to_ascii_lowercase();
            assert!(
                answer.contains("upgrade: foo/2") && answer.contains("x-too: 2") && !answer.contains("weft"),
                "{answer}"
            );
            assert_eq!(client.rest().await, ("server first and last".into(), true), "{way:?}");
        }
    }
}

#[tokio::test]
async fn t08_bytes_after_a_refused_upgrade_are_never_delivered() {
    for way in WAYS {
        for status in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
            let mut world = World::new();
            let seen = Seen::default();
            let saw = seen.clone();
            let address = answering(move |head| {
                saw.add(head);
                format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno")
            })
            .await;
            let mut client = world.h1(way, address).await;
            client
                .send(format!("{ASK}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let (text, clean) = client.rest().await;
            assert!(
                clean && text.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{way:?} {text}"
            );
            assert!(
                text.ends_with("\r\n\r\nno") && text.to_ascii_lowercase().contains("connection: close"),
                "{text}"
            );
            assert_eq!(seen.all().len(), 1, "{way:?} {:?}", seen.all());
        }
    }
}

#[tokio::test]
async fn t09_another_token_or_an_unasked_101_is_a_bad_gateway() {
    for way in WAYS {
        for (ask, answer) in [
            (ASK, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: bar\r\n\r\n"),
            (ASK, "HTTP/1.1 101 X\r\n\r\n"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
            ),
        ] {
            let mut world = World::new();
            let address = answering(move |_| answer.into()).await;
            let mut client = world.h1(way, address).await;
            client.send(ask).await;
            let head = client.head().await;
            assert!(
                head.starts_with("HTTP/1.1 502 ") && head.contains("bad_upgrade"),
                "{way:?} {head}"
            );
        }
    }
}

#[tokio::test]
async fn t11_h2c_is_never_offered_to_a_server() {
    for way in WAYS {
        for upgrade in ["h2c", "H2C", "h2"] {
            let mut world = World::new();
            let seen = Seen::default();
            let saw = seen.clone();
            let address = answering(move |head| {
                saw.add(head.to_ascii_lowercase());
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()
            })
            .await;
            let mut client = world.h1(way, address).await;
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 OK"), "{way:?}");
            let head = &seen.all()[0];
            assert!(
                !head.contains("h2") && !head.contains("http2") && !head.contains("upgrade"),
                "{way:?} {head}"
            );
        }
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            let head = peer.head().await.to_ascii_lowercase();
            assert!(
                head.contains("upgrade: websocket\r\n") && !head.contains("h2c"),
                "{head}"
            );
            peer.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n")
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 X"), "{way:?}");
    }
}

#[tokio::test]
async fn an_upgrade_on_a_request_with_a_body_goes_on_without_it() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            let head = peer.head().await.to_ascii_lowercase();
            assert!(!head.contains("upgrade"), "{head}");
            peer.expect("body").await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        })
        .await;
        let mut client = world.h1(way, address).await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 4\r\n\r\nbody")
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK"), "{way:?}");
    }
}

#[tokio::test]
async fn t13_a_tunnel_keeps_half_close_and_reset() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|number, mut peer| async move {
            peer.head().await;
            peer.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo/2\r\n\r\n")
                .await;
            if number == 0 {
                let (text, clean) = peer.rest().await;
                assert!(clean && text == "all I have", "{text}");
                peer.send("and my answer").await;
            } else {
                peer.expect("x").await;
                peer.send("cut").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                weft_proxy::io::Io::socket(peer.io).reset();
            }
        })
        .await;
        let mut client = world.h1(way, address).await;
        client.send(ASK).await;
        client.head().await;
        client.send("all I have").await;
        client.io.shutdown().await.unwrap();
        assert_eq!(client.rest().await, ("and my answer".into(), true), "{way:?}");

        let mut world = World::new();
        let mut client = world.h1(way, address).await;
        client.send(ASK).await;
        client.head().await;
        client.send("x").await;
        let (_, clean) = client.rest().await;
        assert!(!clean, "{way:?}: a reset became an end");
    }
}

#[tokio::test]
async fn a_clients_own_connect_goes_on_verbatim() {
    for way in WAYS {
        for version in ["1.1", "1.0"] {
            let mut world = World::new();
            let address = app(move |_, mut peer| async move {
                let head = peer.head().await;
                assert!(
                    head.starts_with(&format!("CONNECT other:443 HTTP/{version}\r\nHost: other:443\r\n")),
                    "{head}"
                );
                peer.send(format!("HTTP/{version} 200 Connection established\r\n\r\nhello"))
                    .await;
                peer.expect("early late").await;
            })
            .await;
            let mut client = world.h1(way, address).await;
            client
                .send(format!(
                    "CONNECT other:443 HTTP/{version}\r\nHost: other:443\r\nX-Proxy: 1\r\n\r\nearly "
                ))
                .await;
            client
                .expect(format!("HTTP/{version} 200 Connection established\r\n\r\nhello"))
                .await;
            client.send("late").await;
            assert_eq!(client.rest().await, (String::new(), true), "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_connect_is_an_answer() {
    for way in WAYS {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = answering(move |head| {
            saw.add(head);
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n".into()
        })
        .await;
        let mut client = world.h1(way, address).await;
        client
            .send("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let (text, clean) = client.rest().await;
        assert!(clean && text.starts_with("HTTP/1.1 407 "), "{way:?} {text}");
        assert_eq!(seen.all().len(), 1);
    }
}

/// A WebSocket echo by a real library, with its own handshake over HTTP/1.
async fn echo() -> std::net::SocketAddr {
    app(|_, peer: Raw<tokio::net::TcpStream>| async move {
        let mut socket = tokio_tungstenite::accept_async(peer.io).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let sent = match message {
                Message::Text(_) | Message::Binary(_) => socket.send(message).await,
                // The library has queued its answer.
                Message::Close(_) => return drop(socket.flush().await),
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn websocket_of_a_real_library_crosses_with_everything_it_has() {
    for way in WAYS {
        let mut world = World::new();
        let address = echo().await;
        let client = world.h1(way, address).await;
        let (mut socket, answer) = tokio_tungstenite::client_async("ws://chat.example/room", client.io)
            .await
            .unwrap();
        assert_eq!(answer.status(), 101);
        for message in [
            Message::text("hello"),
            Message::binary(vec![0xff; 100]),
            Message::binary((0..1u32 << 20).map(|number| (number % 253) as u8).collect::<Vec<_>>()),
        ] {
            socket.send(message.clone()).await.unwrap();
            let back = tokio::time::timeout(SOON, socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert!(back == message, "{way:?}");
        }
        socket.send(Message::Ping("p".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
        let bye = CloseFrame {
            code: 4321.into(),
            reason: "enough".into(),
        };
        socket.close(Some(bye.clone())).await.unwrap();
        let back = tokio::time::timeout(SOON, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(back, Message::Close(Some(bye)), "{way:?}");
    }
}

#[tokio::test]
async fn an_hour_of_silence_does_a_websocket_no_harm() {
    for way in WAYS {
        let mut world = World::new();
        let address = echo().await;
        let client = world.h1(way, address).await;
        let (mut socket, _) = tokio_tungstenite::client_async("ws://chat.example/room", client.io)
            .await
            .unwrap();
        socket.send(Message::text("before")).await.unwrap();
        socket.next().await.unwrap().unwrap();
        tokio::time::pause();
        for _ in 0..360 {
            tokio::time::advance(Duration::from_secs(10)).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::resume();
        socket.send(Message::text("after")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("after"), "{way:?}");
    }
}

fn extended(token: &'static str) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://chat.example/room")
        .body(())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static(token));
    request
}

#[tokio::test]
async fn rfc_8441_of_a_client_becomes_the_upgrade_that_its_server_knows() {
    for way in WAYS {
        let mut world = World::new();
        let address = echo().await;
        let mut send = world.h2(way, &[address]).await;
        let mut request = extended("websocket");
        request
            .headers_mut()
            .insert("sec-websocket-version", "13".parse().unwrap());
        let (answer, mut up) = send.send_request(request, false).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
        assert!(!answer.headers().contains_key("sec-websocket-accept"), "{way:?}");
        // "hi", masked with zeros.
        up.send_data(Bytes::from_static(b"\x81\x82\0\0\0\0hi"), false).unwrap();
        let mut down = answer.into_body();
        assert_eq!(&down.data().await.unwrap().unwrap()[..], b"\x81\x02hi", "{way:?}");
        up.send_data(Bytes::from_static(b"\x88\x80\0\0\0\0"), true).unwrap();
        while let Some(part) = down.data().await {
            part.unwrap();
        }
    }
}

#[tokio::test]
async fn t12_an_extended_connect_with_a_length_or_a_bad_token_is_reset() {
    let mut world = World::new();
    let seen = Seen::default();
    let saw = seen.clone();
    let address = answering(move |head| {
        saw.add(head);
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()
    })
    .await;
    let mut send = world.h2(Way::Plain, &[address]).await;
    let mut with_length = extended("websocket");
    with_length.headers_mut().insert("content-length", "5".parse().unwrap());
    for request in [with_length, extended("a b"), extended("h2c")] {
        let (answer, _up) = send.send_request(request, false).unwrap();
        let error = tokio::time::timeout(SOON, answer).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR));
        send = send.ready().await.unwrap();
    }
    assert!(seen.all().is_empty(), "{:?}", seen.all());
}

#[tokio::test]
async fn t09_a_200_is_no_tunnel_for_rfc_8441_either() {
    for way in WAYS {
        let mut world = World::new();
        let address = answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".into()).await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, _up) = send.send_request(extended("foo"), false).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 502, "{way:?}");
        assert!(!answer.headers().contains_key("weft-status"), "{way:?}");
    }
}

#[tokio::test]
async fn rfc_8441_stays_rfc_8441_towards_a_server_that_offers_it() {
    for way in WAYS {
        let mut world = World::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    let mut h2 = builder
                        .enable_connect_protocol()
                        .handshake::<_, Bytes>(stream)
                        .await
                        .unwrap();
                    while let Some(Ok((request, mut respond))) = h2.accept().await {
                        assert_eq!(request.method(), Method::CONNECT);
                        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
                        assert_eq!(request.uri().path(), "/room");
                        assert!(!request.headers().contains_key("sec-websocket-key"));
                        tokio::spawn(async move {
                            let mut body = request.into_body();
                            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                            while let Some(Ok(part)) = body.data().await {
                                send.send_data(part, false).unwrap();
                            }
                            send.send_data(Bytes::from_static(b"end"), true).unwrap();
                        });
                    }
                });
            }
        });
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(extended("websocket"), false).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
        up.send_data(Bytes::from_static(b"frame"), true).unwrap();
        let mut down = answer.into_body();
        let mut got = Vec::new();
        while let Some(part) = tokio::time::timeout(SOON, down.data()).await.unwrap() {
            got.extend_from_slice(&part.unwrap());
        }
        assert_eq!(got, b"frameend", "{way:?}");
    }
}

#[tokio::test]
async fn t10_early_data_of_an_extended_connect_waits_too() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            // What comes first is a look whether this server speaks HTTP/2 with RFC 8441: it does not.
            let first = peer.head().await;
            if first.starts_with("PRI ") {
                return;
            }
            assert!(first.starts_with("GET /room HTTP/1.1\r\n"), "{first}");
            peer.silent().await;
            peer.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
                .await;
            peer.expect("early late").await;
            peer.send("done").await;
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(extended("foo"), false).unwrap();
        up.send_data(Bytes::from_static(b"early "), false).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
        up.send_data(Bytes::from_static(b"late"), false).unwrap();
        let mut down = answer.into_body();
        assert_eq!(&down.data().await.unwrap().unwrap()[..], b"done", "{way:?}");
        while let Some(part) = tokio::time::timeout(SOON, down.data()).await.unwrap() {
            assert!(part.unwrap().is_empty(), "{way:?}");
        }
    }
}

#[tokio::test]
async fn t13_a_tunnel_over_http_2_keeps_reset_as_reset() {
    for way in WAYS {
        let mut world = World::new();
        let address = app(|_, mut peer| async move {
            if peer.head().await.starts_with("PRI ") {
                return;
            }
            peer.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
                .await;
            peer.expect("x").await;
            peer.send("partial").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            weft_proxy::io::Io::socket(peer.io).reset();
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(extended("foo"), false).unwrap();
        let mut down = tokio::time::timeout(SOON, answer).await.unwrap().unwrap().into_body();
        up.send_data(Bytes::from_static(b"x"), false).unwrap();
        let ended = loop {
            match tokio::time::timeout(SOON, down.data()).await.unwrap() {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(matches!(ended, Some(Err(_))), "{way:?}: a reset became an end");
    }
}

#[tokio::test]
async fn a_clients_own_connect_over_http_2_goes_on_to_a_server_without_weft() {
    for way in [Way::Plain, Way::Inbound] {
        let mut world = World::new();
        let address = crate::streams::h2c(|request, mut respond| async move {
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.uri().authority().unwrap(), "other:443");
            let mut body = request.into_body();
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            while let Some(Ok(part)) = body.data().await {
                send.send_data(part, false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("other:443")
            .body(())
            .unwrap();
        let (answer, mut up) = send.send_request(request, false).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200, "{way:?}");
        up.send_data(Bytes::from_static(b"bytes"), false).unwrap();
        assert_eq!(
            &answer.into_body().data().await.unwrap().unwrap()[..],
            b"bytes",
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn an_end_after_which_a_server_hears_no_more_is_an_end() {
    for way in [Way::Plain, Way::Inbound] {
        let mut world = World::new();
        // What is dropped here with the client's direction still open is told by RST_STREAM(NO_ERROR).
        let address = crate::streams::h2c(|request, mut respond| async move {
            let mut body = request.into_body();
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            let part = body.data().await.unwrap().unwrap();
            send.send_data(part, true).unwrap();
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("other:443")
            .body(())
            .unwrap();
        let (answer, mut up) = send.send_request(request, false).unwrap();
        let mut down = tokio::time::timeout(SOON, answer).await.unwrap().unwrap().into_body();
        up.send_data(Bytes::from_static(b"bytes"), false).unwrap();
        let mut got = Vec::new();
        while let Some(part) = tokio::time::timeout(SOON, down.data()).await.unwrap() {
            got.extend_from_slice(&part.unwrap_or_else(|error| panic!("{way:?} {error}")));
        }
        assert_eq!(got, b"bytes", "{way:?}");
    }
}
