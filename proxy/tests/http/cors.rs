//! CORS at the proxy: preflights are answered in place, responses are told what the rule allows, weft's own errors too.

use crate::{
    rules::{rule, to},
    world::{Seen, Way, World, answering, h1_on, h2_on},
};
use http::Request;
use std::sync::Arc;
use weft_proto::rpc::discovery::{self as rpc, Redirect, WeightedBackend, filter};
use weft_proxy::connection::Connection;

fn cors() -> filter::Kind {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    filter::Kind::Cors(rpc::Cors {
        allow_origins: list(&["https://www.foo.com", "https://*.bar.com"]),
        allow_credentials: true,
        allow_methods: list(&["GET", "OPTIONS"]),
        allow_headers: list(&["x-one", "x-two"]),
        expose_headers: list(&["x-three"]),
        max_age_seconds: Some(3600),
    })
}

async fn ruled(world: &mut World, way: Way, seen: &Seen) -> Arc<Connection> {
    let seen = seen.clone();
    let address = answering(move |head| {
        seen.add(head.lines().next().unwrap());
        // What a backend says of its own is not the rule's.
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\ncontent-length: 2\r\n\r\nok".into()
    })
    .await;
    let invalid = WeightedBackend {
        invalid: "no Service of that name".into(),
        weight: 1,
        ..Default::default()
    };
    let redirect = filter::Kind::Redirect(Redirect {
        status: 302,
        host: "else.where".into(),
        ..Default::default()
    });
    world
        .connection_with(way, &[address], |destination| {
            destination.rules = vec![
                rule(0, "/good", vec![cors()], vec![to(0)]),
                rule(1, "/bad", vec![cors()], vec![invalid]),
                rule(2, "/redirect", vec![cors(), redirect], vec![]),
            ];
        })
        .await
}

fn preflight(path: &str, origin: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-one\r\n\r\n"
    )
}

#[tokio::test]
async fn a_preflight_is_answered_in_place_and_its_connection_goes_on() {
    for way in [Way::Plain, Way::Mesh] {
        let seen = Seen::default();
        let mut world = World::new();
        let connection = ruled(&mut world, way, &seen).await;
        let mut client = h1_on(connection.clone());
        for (origin, allowed) in [
            ("https://www.foo.com", true),
            ("https://deep.www.bar.com", true),
            ("https://bar.com", false),
        ] {
            client.send(preflight("/good", origin)).await;
            let head = client.head().await.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 204 "), "{head}");
            assert!(!head.contains("content-length"), "{head}");
            assert_eq!(
                head.contains(&format!("access-control-allow-origin: {origin}\r\n")),
                allowed,
                "{head}"
            );
            assert_eq!(head.contains("access-control-max-age: 3600\r\n"), allowed, "{head}");
            assert_eq!(
                head.contains("access-control-allow-credentials: true\r\n"),
                allowed,
                "{head}"
            );
        }
        // Also where the rule could not be carried out.
        client.send(preflight("/bad", "https://www.foo.com")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 204 "));
        assert!(seen.all().is_empty(), "{way:?} {:?}", seen.all());

        let mut send = h2_on(connection).await;
        let request = Request::builder()
            .method("OPTIONS")
            .uri("http://a/good")
            .header("origin", "https://www.foo.com")
            .header("access-control-request-method", "GET");
        let answer = send
            .send_request(request.body(()).unwrap(), true)
            .unwrap()
            .0
            .await
            .unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://www.foo.com");
        assert!(answer.body().is_end_stream() && seen.all().is_empty());
    }
}

#[tokio::test]
async fn responses_say_what_the_rule_allows_and_nothing_that_the_backend_allows() {
    for way in [Way::Plain, Way::Mesh] {
        let seen = Seen::default();
        let mut world = World::new();
        let connection = ruled(&mut world, way, &seen).await;
        let mut client = h1_on(connection.clone());
        for (path, origin, status, allowed) in [
            ("/good", "https://www.foo.com", "200", true),
            ("/good", "https://foobar.com", "200", false),
            ("/bad", "https://www.foo.com", "500", true),
            ("/redirect", "https://www.foo.com", "302", true),
        ] {
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n"))
                .await;
            let head = client.head().await.to_ascii_lowercase();
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path} {head}");
            assert_eq!(
                head.contains(&format!("access-control-allow-origin: {origin}\r\n")),
                allowed,
                "{head}"
            );
            assert!(!head.contains("access-control-allow-origin: *"), "{head}");
            assert!(!head.contains("access-control-max-age"), "{head}");
            if status == "200" {
                assert!(head.contains("vary: accept"), "{head}");
                client.expect("ok").await;
            } else if status == "500" {
                client.until("\n").await;
            }
        }
        let mut send = h2_on(connection).await;
        let request = Request::builder()
            .uri("http://a/bad")
            .header("origin", "https://www.foo.com");
        let answer = send
            .send_request(request.body(()).unwrap(), true)
            .unwrap()
            .0
            .await
            .unwrap();
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://www.foo.com");
    }
}
