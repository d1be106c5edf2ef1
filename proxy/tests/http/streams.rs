//! HTTP/2 clients: gRPC's shapes, cancellation, balance, and what must not become HTTP/1.

use crate::world::{SOON, Seen, WAYS, Way, World};
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

type Handler =
    Arc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An h2c application that runs a script for each stream.
pub async fn h2c<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script: Handler = Arc::new(move |request, respond| Box::pin(script(request, respond)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                // What an application does with small frames is its own matter.
                builder.initial_window_size(64 << 10).data_frame_budget(1 << 30);
                let mut h2 = builder.handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = h2.accept().await {
                    tokio::spawn(script(request, respond));
                }
            });
        }
    });
    address
}

pub fn call(path: &str) -> Request<()> {
    Request::builder()
        .method("POST")
        .uri(format!("http://cart.shop:80{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .header("x-bin", "AAE=")
        .body(())
        .unwrap()
}

fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers.insert("x-last", "1".parse().unwrap());
    trailers
}

/// Sends back each piece, then ends with trailers.
pub async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["grpc-timeout"], "5S");
    assert!(
        request.headers().keys().all(|name| !name.as_str().starts_with("weft-")),
        "{:?}",
        request.headers()
    );
    let mut body = request.into_body();
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut send = respond.send_response(response, false).unwrap();
    while let Some(Ok(part)) = body.data().await {
        body.flow_control().release_capacity(part.len()).unwrap();
        let mut part = part;
        while !part.is_empty() {
            send.reserve_capacity(part.len());
            let room = std::future::poll_fn(|cx| send.poll_capacity(cx))
                .await
                .unwrap()
                .unwrap();
            send.send_data(part.split_to(room.min(part.len())), false).unwrap();
        }
    }
    send.send_trailers(status("0")).unwrap();
}

#[tokio::test]
async fn a_unary_call_and_its_trailers_cross() {
    for way in WAYS {
        let mut world = World::new();
        let address = h2c(echo).await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(call("/pkg.Cart/Get"), false).unwrap();
        up.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let mut body = answer.into_body();
        assert_eq!(
            &timeout(SOON, body.data()).await.unwrap().unwrap().unwrap()[..],
            b"\0\0\0\0\x02hi",
            "{way:?}"
        );
        let trailers = timeout(SOON, body.trailers()).await.unwrap().unwrap().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-last"]),
            (&"0".parse().unwrap(), &"1".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    for way in WAYS {
        let mut world = World::new();
        let address = h2c(echo).await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(call("/pkg.Cart/Chat"), false).unwrap();
        let mut body = timeout(SOON, answer).await.unwrap().unwrap().into_body();
        for number in 0..20u8 {
            up.send_data(Bytes::from(vec![number; 30]), false).unwrap();
            let mut got = 0;
            while got < 30 {
                let part = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
                assert!(part.iter().all(|byte| *byte == number), "{way:?}");
                body.flow_control().release_capacity(part.len()).unwrap();
                got += part.len();
            }
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert!(timeout(SOON, body.data()).await.unwrap().is_none());
        assert!(body.trailers().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn five_megabytes_cross_both_ways() {
    for way in WAYS {
        let mut world = World::new();
        let address = h2c(echo).await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(call("/pkg.Cart/Big"), false).unwrap();
        let sent = Bytes::from((0..5u32 << 20).map(|number| (number % 241) as u8).collect::<Vec<_>>());
        let upload = sent.clone();
        tokio::spawn(async move {
            let mut left = upload;
            while !left.is_empty() {
                up.reserve_capacity(left.len());
                let room = std::future::poll_fn(|cx| up.poll_capacity(cx)).await.unwrap().unwrap();
                up.send_data(left.split_to(room.min(left.len())), false).unwrap();
            }
            up.send_data(Bytes::new(), true).unwrap();
        });
        let mut body = timeout(SOON, answer).await.unwrap().unwrap().into_body();
        let mut got = Vec::new();
        while let Some(part) = timeout(SOON, body.data()).await.unwrap() {
            let part = part.unwrap();
            body.flow_control().release_capacity(part.len()).unwrap();
            got.extend_from_slice(&part);
        }
        assert!(got == sent, "{way:?}: {} of {}", got.len(), sent.len());
        assert!(body.trailers().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn trailers_only_stays_trailers_only() {
    for way in WAYS {
        let mut world = World::new();
        let address = h2c(|_request, mut respond| async move {
            let mut response = Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            response.headers_mut().extend(status("5"));
            respond.send_response(response, true).unwrap();
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(call("/pkg.Cart/None"), false).unwrap();
        up.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "5", "{way:?}");
        assert!(answer.into_body().is_end_stream(), "{way:?}");
    }
}

#[tokio::test]
async fn a_clients_reset_reaches_the_server_with_its_code() {
    for way in WAYS {
        let mut world = World::new();
        let (told, mut seen) = mpsc::unbounded_channel();
        let address = h2c(move |_request, mut respond| {
            let told = told.clone();
            async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(Bytes::from_static(b"begun"), false).unwrap();
                let reason = std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
                told.send(reason).unwrap();
            }
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, mut up) = send.send_request(call("/pkg.Cart/Watch"), false).unwrap();
        let mut body = timeout(SOON, answer).await.unwrap().unwrap().into_body();
        timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
        up.send_reset(Reason::CANCEL);
        assert_eq!(
            timeout(SOON, seen.recv()).await.unwrap(),
            Some(Reason::CANCEL),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn a_servers_reset_reaches_the_client_with_its_code() {
    for way in WAYS {
        for (code, after_head) in [
            (Reason::ENHANCE_YOUR_CALM, true),
            (Reason::CANCEL, false),
            (Reason::INTERNAL_ERROR, true),
        ] {
            let mut world = World::new();
            let address = h2c(move |_request, mut respond| async move {
                if !after_head {
                    return respond.send_reset(code);
                }
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(Bytes::from_static(b"begun"), false).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                send.send_reset(code);
            })
            .await;
            let mut send = world.h2(way, &[address]).await;
            let (answer, _up) = send.send_request(call("/pkg.Cart/Watch"), false).unwrap();
            let error = match timeout(SOON, answer).await.unwrap() {
                Err(error) => error,
                Ok(answer) => {
                    let mut body = answer.into_body();
                    loop {
                        match timeout(SOON, body.data()).await.unwrap() {
                            Some(Ok(_)) => {}
                            Some(Err(error)) => break error,
                            None => panic!("{way:?}: a reset became an end"),
                        }
                    }
                }
            };
            assert_eq!(error.reason(), Some(code), "{way:?} {after_head}");
        }
    }
}

#[tokio::test]
async fn three_hundred_calls_on_one_connection_reach_three_pods_evenly() {
    for way in [Way::Plain, Way::Mesh] {
        let mut world = World::new();
        let seen = Seen::default();
        let mut apps = Vec::new();
        for pod in 0..3 {
            let saw = seen.clone();
            apps.push(
                h2c(move |request, respond| {
                    saw.add(pod.to_string());
                    echo(request, respond)
                })
                .await,
            );
        }
        let send = world.h2(way, &apps).await;
        for _ in 0..30 {
            let mut calls = Vec::new();
            for _ in 0..10 {
                let mut send = send.clone().ready().await.unwrap();
                calls.push(tokio::spawn(async move {
                    let (answer, mut up) = send.send_request(call("/pkg.Cart/Get"), false).unwrap();
                    up.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
                    let mut body = answer.await.unwrap().into_body();
                    while let Some(part) = body.data().await {
                        part.unwrap();
                    }
                    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
                }));
            }
            for call in calls {
                timeout(SOON, call).await.unwrap().unwrap();
            }
        }
        let all = seen.all();
        for pod in ["0", "1", "2"] {
            let count = all.iter().filter(|seen| *seen == pod).count();
            assert!(count >= 60, "{way:?} pod {pod} got {count} of {}", all.len());
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_elsewhere_with_its_body() {
    for way in [Way::Plain, Way::Mesh] {
        let mut world = World::new();
        let refusing = h2c(|_request, mut respond| async move { respond.send_reset(Reason::REFUSED_STREAM) }).await;
        let taking = h2c(echo).await;
        let send = world.h2(way, &[refusing, taking]).await;
        for _ in 0..10 {
            let mut send = send.clone().ready().await.unwrap();
            let (answer, mut up) = send.send_request(call("/pkg.Cart/Get"), false).unwrap();
            up.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).unwrap();
            let mut body = timeout(SOON, answer).await.unwrap().unwrap().into_body();
            assert_eq!(&body.data().await.unwrap().unwrap()[..], b"\0\0\0\0\x02hi", "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_call_that_fails_is_told_as_grpc_tells_it() {
    let mut world = World::new();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    for way in WAYS {
        let mut world = World::new();
        let mut send = world.h2(way, &[address]).await;
        let (answer, _up) = send.send_request(call("/pkg.Cart/Get"), true).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["grpc-status"]),
            (200, &"14".parse().unwrap()),
            "{way:?}"
        );
        assert!(answer.headers().contains_key("weft-error"), "{way:?}");
    }
    let mut send = world.h2(Way::Plain, &[address]).await;
    let plain = Request::get("http://cart.shop:80/").body(()).unwrap();
    let (answer, _) = send.send_request(plain, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 503);
}

#[tokio::test]
async fn t21_what_would_be_another_request_in_http_1_is_reset() {
    for way in [Way::Inbound, Way::Plain] {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = h2c(move |request, respond| {
            saw.add(format!("{request:?}"));
            echo(request, respond)
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        for (name, value) in [
            ("te", "gzip"),
            ("keep-alive", "1"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-connection", "close"),
        ] {
            let mut request = Request::get("http://cart.shop:80/").body(()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
            let Ok((answer, _)) = send.send_request(request, true) else {
                // The h2 crate does not even send it.
                send = send.ready().await.unwrap();
                continue;
            };
            let error = timeout(SOON, answer).await.unwrap().unwrap_err();
            assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{way:?} {name}");
            send = send.ready().await.unwrap();
        }
        assert!(seen.all().is_empty(), "{:?}", seen.all());
    }
}

#[tokio::test]
async fn t21_a_body_of_another_length_than_said_is_reset_and_never_complete() {
    for (length, sent) in [("3", &b"12345"[..]), ("10", b"12345")] {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = h2c(move |request, _respond| {
            let saw = saw.clone();
            async move {
                let mut body = request.into_body();
                while let Some(part) = body.data().await {
                    if part.is_err() {
                        return saw.add("reset");
                    }
                }
                saw.add("complete");
            }
        })
        .await;
        let mut send = world.h2(Way::Mesh, &[address]).await;
        let request = Request::post("http://cart.shop:80/")
            .header("content-length", length)
            .body(())
            .unwrap();
        let (answer, mut up) = send.send_request(request, false).unwrap();
        up.send_data(Bytes::from_static(sent), true).unwrap();
        let error = timeout(SOON, answer).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{length}");
        assert!(
            !seen.all().contains(&"complete".to_owned()),
            "{length} {:?}",
            seen.all()
        );
    }
}

#[tokio::test]
async fn t22_authority_and_host_must_agree() {
    let mut world = World::new();
    let seen = Seen::default();
    let saw = seen.clone();
    let address = h2c(move |request, mut respond| {
        saw.add(request.uri().to_string());
        async move { drop(respond.send_response(Response::new(()), true)) }
    })
    .await;
    let mut send = world.h2(Way::Plain, &[address]).await;
    let mut ask = async |host: &str| {
        let request = Request::get("http://cart.shop:80/")
            .header("host", host)
            .body(())
            .unwrap();
        let (answer, _) = send.clone().ready().await.unwrap().send_request(request, true).unwrap();
        send = send.clone().ready().await.unwrap();
        timeout(SOON, answer).await.unwrap().unwrap().status().as_u16()
    };
    assert_eq!(ask("evil.shop").await, 400);
    assert_eq!(ask("a@cart.shop").await, 400);
    assert_eq!(ask("CART.shop").await, 200);
    assert_eq!(seen.all().len(), 1);
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_calls_finish() {
    let mut world = World::new();
    let (go, wait) = tokio::sync::watch::channel(false);
    let address = h2c(move |_request, mut respond| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            drop(respond.send_response(Response::new(()), true));
        }
    })
    .await;
    let connection = world.connection(Way::Plain, &[address]).await;
    let mut send = crate::world::h2_on(connection.clone()).await;
    let (answer, _) = send
        .send_request(Request::get("http://a/").body(()).unwrap(), true)
        .unwrap();
    connection.drain().drain();
    let refused = async {
        loop {
            match send.clone().ready().await {
                Err(error) => break error,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(SOON, refused).await.unwrap();
    go.send(true).unwrap();
    assert_eq!(timeout(SOON, answer).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_server_that_says_goaway_again_and_again_loses_no_call() {
    for way in [Way::Plain, Way::Mesh] {
        let mut world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut h2 = h2::server::handshake(stream).await.unwrap();
                    for number in 0.. {
                        if number == 3 {
                            h2.graceful_shutdown();
                        }
                        let Some(Ok((request, respond))) = h2.accept().await else {
                            return;
                        };
                        tokio::spawn(echo(request, respond));
                    }
                });
            }
        });
        let send = world.h2(way, &[address]).await;
        for _ in 0..10 {
            let mut calls = Vec::new();
            for _ in 0..10 {
                let mut send = send.clone().ready().await.unwrap();
                calls.push(tokio::spawn(async move {
                    let (answer, mut up) = send.send_request(call("/pkg.Cart/Get"), false).unwrap();
                    up.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).unwrap();
                    let mut body = answer.await.unwrap().into_body();
                    while let Some(part) = body.data().await {
                        part.unwrap();
                    }
                    assert_eq!(
                        body.trailers().await.unwrap().expect("a failed call")["grpc-status"],
                        "0",
                        "{way:?}"
                    );
                }));
            }
            for call in calls {
                timeout(SOON, call).await.unwrap().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_complete_is_complete() {
    for way in WAYS {
        let mut world = World::new();
        let address = h2c(|_request, mut respond| async move {
            let mut response = Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            response.headers_mut().extend(status("3"));
            respond.send_response(response, true).unwrap();
        })
        .await;
        let mut send = world.h2(way, &[address]).await;
        let (answer, _up) = send.send_request(call("/pkg.Cart/Early"), false).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "3", "{way:?}");
    }
}

#[tokio::test]
async fn small_frames_of_a_stream_that_nobody_reads_do_not_end_the_others() {
    let mut world = World::new();
    // One call's server does not read; its frames are small.
    let address = h2c(|request, respond| async move {
        if request.uri().path() == "/stuck" {
            let _held = (request, respond);
            return std::future::pending().await;
        }
        echo(request, respond).await;
    })
    .await;
    let mut send = world.h2(Way::Mesh, &[address]).await;
    let (_answer, mut stuck) = send.send_request(call("/stuck"), false).unwrap();
    send = send.ready().await.unwrap();
    // Each costs 240 of a budget of 16 MiB for the whole connection, while it lies unread.
    for number in 0..100_000 {
        stuck.send_data(Bytes::from_static(&[7; 16]), false).unwrap();
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (answer, mut up) = send.send_request(call("/other"), false).unwrap();
    up.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
    assert_eq!(timeout(SOON, answer).await.unwrap().unwrap().status(), 200);
}
