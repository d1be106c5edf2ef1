//! Sessions stay at one endpoint, for as long as it is there: by cookie and by header field, over weights and changes.

use crate::{
    rules::{field, rule, to},
    world::{Way, World, answering, backend, h1_on, h2_on},
};
use http::Request;
use std::{net::SocketAddr, sync::Arc};
use weft_proto::rpc::discovery::{
    self as rpc, Filter, HeaderChange, Rule, SessionCarrier, SessionKey, WeightedBackend, filter,
};
use weft_proxy::connection::Connection;

const RULED: [Way; 2] = [Way::Plain, Way::Mesh];

fn sticky(carrier: SessionCarrier, backends: Vec<WeightedBackend>) -> Rule {
    Rule {
        session: Some(rpc::Session {
            name: "x-session".into(),
            carrier: carrier.into(),
            keys: vec![SessionKey {
                id: 1,
                secret: vec![7; 32],
            }],
            ..Default::default()
        }),
        ..rule(0, "/", vec![], backends)
    }
}

/// So many applications, each of which answers with its number.
async fn apps(count: usize) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for number in 0..count {
        all.push(answering(move |_| format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}")).await);
    }
    all
}

/// A backend for each application, whose pods are told apart by their ports.
async fn ruled(way: Way, backends: &[&[SocketAddr]], rule: Rule) -> Arc<Connection> {
    let identity = if way == Way::Mesh {
        "spiffe://cluster.local/ns/shop/sa/web"
    } else {
        ""
    };
    let mut world = World::new();
    world
        .connection_with(way, &[], |destination| {
            destination.rules = vec![rule];
            destination.backends.clear();
            for (number, apps) in backends.iter().enumerate() {
                let mut backend = backend(&format!("shop/cart-{number}:80"), apps, identity);
                backend.protocol = rpc::Protocol::Http1.into();
                for endpoint in &mut backend.endpoints {
                    endpoint.pod_uid = format!("uid-{}", endpoint.address.as_ref().unwrap().port);
                }
                destination.backends.push(backend);
            }
        })
        .await
}

/// Who answered, and the session that the client was told.
async fn ask(connection: &Arc<Connection>, token: Option<&str>) -> (String, Option<String>) {
    let mut client = h1_on(connection.clone());
    let shown = token.map(|token| format!("{token}\r\n")).unwrap_or_default();
    client
        .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{shown}Connection: close\r\n\r\n"))
        .await;
    let (text, _) = client.rest().await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
    (body.to_owned(), told(head))
}

/// The field with which a client shows what a response has told it.
fn told(head: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "set-cookie" => Some(format!("Cookie: other=1; {}", value.trim().split(';').next()?)),
            "x-session" => Some(format!("X-Session: {}", value.trim())),
            _ => None,
        }
    })
}

#[tokio::test]
async fn a_session_stays_where_it_began_and_is_told_once() {
    let apps = apps(4).await;
    for way in RULED {
        for carrier in [SessionCarrier::SessionCookie, SessionCarrier::Header] {
            let connection = ruled(way, &[&apps], sticky(carrier, vec![to(0)])).await;
            let mut met = std::collections::BTreeSet::new();
            for _ in 0..12 {
                let (first, token) = ask(&connection, None).await;
                let token = token.unwrap();
                for _ in 0..3 {
                    assert_eq!(
                        ask(&connection, Some(&token)).await,
                        (first.clone(), None),
                        "{way:?} {token}"
                    );
                }
                met.insert(first);
            }
            assert!(met.len() > 1, "sessions begin at any endpoint");
        }
    }
}

#[tokio::test]
async fn http_2_clients_have_sessions_too() {
    let apps = apps(4).await;
    for way in RULED {
        let connection = ruled(way, &[&apps], sticky(SessionCarrier::SessionCookie, vec![to(0)])).await;
        let mut send = h2_on(connection).await;
        let mut cookie = String::new();
        let mut first = None;
        for _ in 0..6 {
            let mut request = Request::builder().uri("http://a/");
            if !cookie.is_empty() {
                // Over HTTP/2 cookies may come one by one.
                request = request.header("cookie", "other=1").header("cookie", &cookie);
            }
            let answer = send
                .send_request(request.body(()).unwrap(), true)
                .unwrap()
                .0
                .await
                .unwrap();
            let told = answer
                .headers()
                .get("set-cookie")
                .map(|value| value.to_str().unwrap().to_owned());
            let mut body = answer.into_body();
            let who = body.data().await.unwrap().unwrap();
            match &first {
                None => {
                    let told = told.unwrap();
                    assert!(told.contains("HttpOnly") && !told.contains("Secure"), "{told}");
                    cookie = told.split(';').next().unwrap().to_owned();
                    first = Some(who);
                }
                Some(first) => assert!(told.is_none() && who == first, "{way:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_session_outlives_its_backends_weight_and_keeps_its_filters() {
    let apps = apps(2).await;
    for way in RULED {
        let backends = |weights: [u32; 2]| {
            let share = |index: u32, weight| WeightedBackend {
                weight,
                filters: vec![Filter {
                    kind: Some(filter::Kind::ResponseHeaders(HeaderChange {
                        set: vec![field("x-share", &index.to_string())],
                        ..Default::default()
                    })),
                }],
                ..to(index)
            };
            vec![share(0, weights[0]), share(1, weights[1])]
        };
        let rule = |weights| sticky(SessionCarrier::Header, backends(weights));
        let connection = ruled(way, &[&apps[..1], &apps[1..]], rule([0, 1])).await;
        let (who, token) = ask(&connection, None).await;
        assert_eq!(who, "1");
        // All new sessions go to the other one now.
        let connection = ruled(way, &[&apps[..1], &apps[1..]], rule([1, 0])).await;
        assert_eq!(ask(&connection, None).await.0, "0");
        let mut client = h1_on(connection.clone());
        client
            .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", token.unwrap()))
            .await;
        let head = client.head().await;
        assert!(
            head.contains("x-share: 1") && !head.to_ascii_lowercase().contains("x-session"),
            "{way:?} {head}"
        );
        client.expect("1").await;
    }
}

#[tokio::test]
async fn a_session_whose_pod_is_gone_begins_anew_elsewhere() {
    let apps = apps(2).await;
    for way in RULED {
        let rule = || sticky(SessionCarrier::SessionCookie, vec![to(0)]);
        let connection = ruled(way, &[&apps[..1]], rule()).await;
        let (who, token) = ask(&connection, None).await;
        assert_eq!(who, "0");
        let connection = ruled(way, &[&apps[1..]], rule()).await;
        for _ in 0..3 {
            let (who, anew) = ask(&connection, token.as_deref()).await;
            assert_eq!(who, "1", "{way:?}");
            assert_eq!(ask(&connection, anew.as_deref()).await, ("1".into(), None));
        }
        // Still listed, and no longer there.
        let gone = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let connection = ruled(way, &[&[gone][..]], rule()).await;
        let mut client = h1_on(connection);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(told(&client.head().await).is_none(), "nothing to stay at");
    }
}

#[tokio::test]
async fn a_token_that_nobody_signed_is_no_session() {
    let apps = apps(2).await;
    let connection = ruled(Way::Plain, &[&apps], sticky(SessionCarrier::Header, vec![to(0)])).await;
    let (_, token) = ask(&connection, None).await;
    let token = token.unwrap();
    let forged = [
        token.replace("v1.1.", "v1.2."),
        format!("{}x", &token[..token.len() - 1]),
        "X-Session: v1.1.AAAAAAAAAAAAAAAAAAAAAA.0.0.AAAAAAAAAAAAAAAAAAAAAA".into(),
        "X-Session: \u{7f}".replace('\u{7f}', "none"),
    ];
    for forged in forged {
        assert!(ask(&connection, Some(&forged)).await.1.is_some(), "{forged}");
    }
}
