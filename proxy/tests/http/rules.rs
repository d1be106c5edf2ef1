//! What rules do to real requests, over every way that rules act on.

use crate::{
    streams::h2c,
    world::{SOON, Seen, Way, World, answering, app, backend, h1_on, h2_on},
};
use http::Request;
use std::{net::SocketAddr, sync::Arc};
use weft_proto::rpc::discovery::{
    self as rpc, Filter, HeaderChange, HeaderValue, Match, PathChange, Redirect, Rewrite, Rule, WeightedBackend,
    filter, r#match::Path, path_change,
};
use weft_proxy::connection::Connection;

const RULED: [Way; 2] = [Way::Plain, Way::Mesh];

pub fn rule(number: u32, prefix: &str, filters: Vec<filter::Kind>, backends: Vec<WeightedBackend>) -> Rule {
    Rule {
        origin: Some(rpc::Origin {
            kind: rpc::RouteKind::HttpRoute.into(),
            route: Some(rpc::ObjectName {
                namespace: "shop".into(),
                name: "route".into(),
            }),
            rule: number,
            ..Default::default()
        }),
        matches: vec![Match {
            path: Some(Path::PathPrefix(prefix.into())),
            ..Default::default()
        }],
        filters: filters.into_iter().map(|kind| Filter { kind: Some(kind) }).collect(),
        backends,
        ..Default::default()
    }
}

pub fn to(backend: u32) -> WeightedBackend {
    WeightedBackend {
        backend: Some(backend),
        weight: 1,
        ..Default::default()
    }
}

pub fn field(name: &str, value: &str) -> HeaderValue {
    HeaderValue {
        name: name.into(),
        value: value.into(),
    }
}

async fn ruled(world: &mut World, way: Way, app: SocketAddr, rules: Vec<Rule>) -> Arc<Connection> {
    world
        .connection_with(way, &[app], |destination| destination.rules = rules)
        .await
}

async fn ask(connection: &Arc<Connection>, request: &str) -> String {
    let mut client = h1_on(connection.clone());
    client.send(request).await;
    client.head().await
}

#[tokio::test]
async fn a_sidecar_leads_bytes_by_tls_and_tcp_routes_before_the_default_backend() {
    use weft_proxy::hop::open_any;
    use weft_route::Ask;
    let greeting = |text: &'static str| app(move |_, mut peer| async move { peer.send(text).await });
    let (first, second, third) = (
        greeting("default").await,
        greeting("by name").await,
        greeting("all").await,
    );
    let of = |kind: rpc::RouteKind, hosts: &[&str], backend: u32| {
        let mut rule = rule(backend, "/", vec![], vec![to(backend)]);
        rule.origin.as_mut().unwrap().kind = kind.into();
        rule.matches.clear();
        rule.hosts = hosts.iter().map(|&host| host.into()).collect();
        rule
    };
    let mut world = World::new();
    let leads = async |connection: &Arc<Connection>, ask: &Ask<'_>| {
        let opened = open_any(connection, ask).await.map_err(|fault| fault.reason.label())?;
        let rule = opened.rule.as_ref().map(|rule| rule.rule.to_string());
        Ok::<_, &'static str>((opened.lease.address, rule))
    };
    let backends = |destination: &mut rpc::Destination| {
        destination.backends.push(backend("shop/by-name:443", &[second], ""));
        destination.backends.push(backend("shop/all:443", &[third], ""));
    };
    let connection = world.connection_with(Way::Plain, &[first], backends).await;
    let sni = |name| Ask::Tls { sni: Some(name) };
    assert_eq!(leads(&connection, &sni("a.test")).await, Ok((first, None)));
    let mut world = World::new();
    let connection = world
        .connection_with(Way::Plain, &[first], |destination| {
            backends(destination);
            destination.rules = vec![of(rpc::RouteKind::TlsRoute, &["*.test"], 1)];
        })
        .await;
    assert_eq!(leads(&connection, &sni("a.test")).await, Ok((second, Some("1".into()))));
    assert_eq!(leads(&connection, &sni("a.other")).await, Err("no_rule"));
    assert_eq!(leads(&connection, &Ask::Tcp).await, Ok((first, None)));
    let mut world = World::new();
    let connection = world
        .connection_with(Way::Plain, &[first], |destination| {
            backends(destination);
            destination.rules = vec![of(rpc::RouteKind::TcpRoute, &[], 2)];
        })
        .await;
    assert_eq!(leads(&connection, &Ask::Tcp).await, Ok((third, Some("2".into()))));
}

#[tokio::test]
async fn no_rule_is_404_and_an_invalid_backend_500() {
    for way in RULED {
        let mut world = World::new();
        let address = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
        let invalid = WeightedBackend {
            invalid: "no Service of that name".into(),
            weight: 1,
            ..Default::default()
        };
        let rules = vec![
            rule(0, "/good", vec![], vec![to(0)]),
            rule(1, "/bad", vec![], vec![invalid]),
        ];
        let connection = ruled(&mut world, way, address, rules).await;
        for (path, status, why) in [
            ("/good", "200", ""),
            ("/other", "404", "no_rule"),
            ("/bad", "500", "invalid_backend"),
        ] {
            let head = ask(&connection, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains(why),
                "{way:?} {path} {head}"
            );
        }
        let mut send = h2_on(connection).await;
        let grpc = Request::post("http://a/pkg.Cart/Get")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, _) = send.send_request(grpc, true).unwrap();
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], "12");
    }
}

#[tokio::test]
async fn headers_target_and_host_are_edited_and_nothing_else() {
    for way in RULED {
        let mut world = World::new();
        let seen = Seen::default();
        let saw = seen.clone();
        let address = answering(move |head| {
            saw.add(head);
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nServer: app\r\nX-Kept: 1\r\n\r\n".into()
        })
        .await;
        let request = HeaderChange {
            set: vec![field("x-set", "new")],
            add: vec![field("x-add", "2")],
            remove: vec!["x-gone".into()],
        };
        let response = HeaderChange {
            set: vec![field("server", "weft")],
            add: vec![],
            remove: vec!["x-none".into()],
        };
        let rewrite = Rewrite {
            host: "inner.example".into(),
            path: Some(PathChange {
                kind: Some(path_change::Kind::Prefix("/v2".into())),
            }),
        };
        let filters = vec![
            filter::Kind::RequestHeaders(request),
            filter::Kind::ResponseHeaders(response),
            filter::Kind::Rewrite(rewrite),
        ];
        let connection = ruled(&mut world, way, address, vec![rule(0, "/v1", filters, vec![to(0)])]).await;
        let head = ask(
            &connection,
            "GET /v1/a%2Fb?q=1 HTTP/1.1\r\nHost: outer.example\r\nX-Set: old\r\nX-Add: 1\r\nX-Gone: 1\r\nX-Kept: 1\r\n\r\n",
        )
        .await;
        let lower = head.to_ascii_lowercase();
        assert!(
            lower.contains("server: weft\r\n") && lower.contains("x-kept: 1"),
            "{way:?} {head}"
        );
        let got = seen.all().remove(0);
        assert!(got.starts_with("GET /v2/a%2Fb?q=1 HTTP/1.1\r\n"), "{way:?} {got}");
        let got = got.to_ascii_lowercase();
        for there in [
            "host: inner.example\r\n",
            "x-set: new\r\n",
            "x-add: 1\r\n",
            "x-add: 2\r\n",
            "x-kept: 1\r\n",
        ] {
            assert!(got.contains(there), "{way:?} {there} {got}");
        }
        assert!(
            !got.contains("x-gone") && !got.contains("outer.example") && !got.contains("old"),
            "{way:?} {got}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_answered_in_place() {
    for way in RULED {
        let mut world = World::new();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let redirect = Redirect {
            scheme: "https".into(),
            host: "new.example".into(),
            status: 301,
            ..Default::default()
        };
        let rules = vec![rule(0, "/", vec![filter::Kind::Redirect(redirect)], vec![])];
        let connection = ruled(&mut world, way, address, rules).await;
        let mut client = h1_on(connection.clone());
        for _ in 0..2 {
            client.send("GET /a?b HTTP/1.1\r\nHost: old.example\r\n\r\n").await;
            client
                .expect(
                    "HTTP/1.1 301 Moved Permanently\r\nlocation: https://new.example/a?b\r\ncontent-length: 0\r\n\r\n",
                )
                .await;
        }
        let mut send = h2_on(connection).await;
        let (answer, _) = send
            .send_request(Request::get("http://old.example/a").body(()).unwrap(), true)
            .unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (301, &"https://new.example/a".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_504_and_the_server_is_let_go() {
    for way in RULED {
        let mut world = World::new();
        let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
        let address = app(move |_, mut peer| {
            let told = told.clone();
            async move {
                peer.head().await;
                let (text, _) = peer.rest().await;
                told.send(text).unwrap();
            }
        })
        .await;
        let rules = vec![Rule {
            request_timeout_ms: Some(50),
            ..rule(0, "/", vec![], vec![to(0)])
        }];
        let connection = ruled(&mut world, way, address, rules).await;
        let head = ask(&connection, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 504 ") && head.contains("request_timeout"),
            "{way:?} {head}"
        );
        assert_eq!(
            tokio::time::timeout(SOON, gone.recv()).await.unwrap(),
            Some(String::new()),
            "{way:?}"
        );

        let address = h2c(|request, respond| async move {
            let _held = (request, respond);
            std::future::pending::<()>().await;
        })
        .await;
        let mut world = World::new();
        let rules = vec![Rule {
            backend_request_timeout_ms: Some(50),
            ..rule(0, "/", vec![], vec![to(0)])
        }];
        let connection = ruled(&mut world, way, address, rules).await;
        let mut send = h2_on(connection).await;
        let grpc = Request::post("http://a/pkg.Cart/Get")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, _) = send.send_request(grpc, true).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4", "{way:?}");
    }
}

#[tokio::test]
async fn weights_hold_for_each_request_of_one_connection() {
    for way in RULED {
        let mut world = World::new();
        let one = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none".into()).await;
        let two = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo".into()).await;
        let identity = if way == Way::Mesh {
            "spiffe://cluster.local/ns/shop/sa/web"
        } else {
            ""
        };
        let shares = vec![
            WeightedBackend { weight: 90, ..to(0) },
            WeightedBackend { weight: 10, ..to(1) },
            WeightedBackend { weight: 0, ..to(0) },
        ];
        let connection = world
            .connection_with(way, &[one], |destination| {
                destination.backends.push(backend("shop/cart-new:80", &[two], identity));
                destination.rules = vec![rule(0, "/", vec![], shares)];
            })
            .await;
        let mut client = h1_on(connection);
        let mut to_two = 0;
        for _ in 0..600 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.expect("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n").await;
            to_two += usize::from(client.exactly(3).await == b"two");
        }
        // 60 are expected; five standard deviations are 37.
        assert!((23..=97).contains(&to_two), "{way:?} {to_two}");
    }
}

#[tokio::test]
async fn t12_rules_hold_for_an_upgrade_as_for_any_request() {
    for way in RULED {
        let mut world = World::new();
        let address = answering(|_| "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n".into()).await;
        let connection = ruled(&mut world, way, address, vec![rule(0, "/open", vec![], vec![to(0)])]).await;
        let upgrade =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n");
        assert!(
            ask(&connection, &upgrade("/open")).await.starts_with("HTTP/1.1 101 "),
            "{way:?}"
        );
        assert!(
            ask(&connection, &upgrade("/shut")).await.starts_with("HTTP/1.1 404 "),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn filters_of_a_backend_act_on_its_share_alone() {
    for way in RULED {
        let identity = if way == Way::Mesh {
            "spiffe://cluster.local/ns/shop/sa/web"
        } else {
            ""
        };
        let echo = |name: &'static str| {
            answering(move |head| {
                let line = head.lines().next().unwrap_or_default();
                let own = head.to_ascii_lowercase().contains("x-share: ");
                format!("HTTP/1.1 200 OK\r\nx-line: {name} {line} {own}\r\ncontent-length: 0\r\n\r\n")
            })
        };
        let (one, two) = (echo("one").await, echo("two").await);
        let only = |kinds: Vec<filter::Kind>, backend| WeightedBackend {
            filters: kinds.into_iter().map(|kind| Filter { kind: Some(kind) }).collect(),
            ..to(backend)
        };
        let rewrite = |kind| {
            filter::Kind::Rewrite(Rewrite {
                path: Some(PathChange { kind: Some(kind) }),
                ..Default::default()
            })
        };
        let set = filter::Kind::RequestHeaders(HeaderChange {
            set: vec![field("x-share", "1")],
            ..Default::default()
        });
        let redirect = filter::Kind::Redirect(Redirect {
            status: 302,
            path: Some(PathChange {
                kind: Some(path_change::Kind::Full("/elsewhere".into())),
            }),
            ..Default::default()
        });
        let rules = vec![
            rule(
                0,
                "/both",
                vec![],
                vec![
                    only(vec![rewrite(path_change::Kind::Prefix("/first".into())), set], 0),
                    only(vec![rewrite(path_change::Kind::Full("/second".into()))], 1),
                ],
            ),
            rule(1, "/redirect", vec![], vec![only(vec![redirect], 0)]),
        ];
        let mut world = World::new();
        let connection = world
            .connection_with(way, &[one], |destination| {
                destination.backends.push(backend("shop/cart-new:80", &[two], identity));
                destination.rules = rules;
            })
            .await;
        let mut client = h1_on(connection.clone());
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..40 {
            client.send("GET /both/a HTTP/1.1\r\nHost: shop\r\n\r\n").await;
            let head = client.head().await;
            met.insert(
                head.lines()
                    .find(|line| line.starts_with("x-line: "))
                    .unwrap()
                    .to_owned(),
            );
        }
        let expected = [
            "x-line: one GET /first/a HTTP/1.1 true",
            "x-line: two GET /second HTTP/1.1 false",
        ];
        assert_eq!(met, expected.map(str::to_owned).into(), "{way:?}");
        let head = ask(&connection, "GET /redirect/a?q HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 302 "), "{head}");
        assert!(head.contains("location: http://shop/elsewhere?q\r\n"), "{way:?} {head}");
    }
}

#[tokio::test]
async fn every_status_of_a_redirect_is_answered_as_it_is_written() {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    for status in [301, 302, 303, 307, 308] {
        let redirect = Redirect {
            status,
            port: Some(8443),
            scheme: "https".into(),
            ..Default::default()
        };
        let rules = vec![rule(0, "/", vec![filter::Kind::Redirect(redirect)], vec![])];
        let connection = ruled(&mut World::new(), Way::Plain, address, rules).await;
        let head = ask(&connection, "POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("location: https://b:8443/a\r\n"), "{head}");
    }
}

#[tokio::test]
async fn no_timeout_of_a_rule_cuts_a_tunnel() {
    for way in RULED {
        let address = app(|_, mut peer| async move {
            peer.head().await;
            peer.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            peer.expect("still").await;
            peer.send("here").await;
        })
        .await;
        let rules = vec![Rule {
            request_timeout_ms: Some(200),
            backend_request_timeout_ms: Some(200),
            ..rule(0, "/", vec![], vec![to(0)])
        }];
        let connection = ruled(&mut World::new(), way, address, rules).await;
        let mut client = h1_on(connection);
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nstill")
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "), "{way:?}");
        client.expect("here").await;
    }
}
