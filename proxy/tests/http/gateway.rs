//! A gateway's front door: what it says of its clients, which listener takes a request, and what comes of a bad part.

mod ports;
mod tls;

use crate::{
    streams::h2c,
    world::{Raw, SOON, World, answering, app, backend},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use weft_proto::{names::env, rpc::discovery as rpc};
use weft_proxy::{
    app::Shared,
    connection,
    front::{Front, Open},
    io::Io,
    record::{Direction, Facts},
};

/// A gateway in this process.
pub struct Edge {
    pub shared: Arc<Shared>,
    versions: u32,
}

impl Edge {
    pub fn new() -> Self {
        let world = World::with(&[(env::GATEWAY, "shop/edge"), (env::WORKERS, "1")]);
        Self {
            shared: world.shared,
            versions: 0,
        }
    }

    pub fn front(&self) -> &Arc<Front> {
        self.shared.front.as_ref().unwrap()
    }

    /// What the controller says from now on.
    pub fn serve(&mut self, content: rpc::Gateway) {
        self.versions += 1;
        self.front().apply(&self.versions.to_string(), content, &|_| false);
    }

    pub fn open(&self, port: u16) -> Arc<Open> {
        let opens = self.front().opens().borrow().clone();
        opens.iter().find(|open| open.number == port).cloned().unwrap()
    }

    /// A client of a port, in memory.
    pub fn client(&self, port: u16) -> Io {
        let (near, far) = Io::pair(256 << 10);
        let client: SocketAddr = "192.0.2.9:40000".parse().unwrap();
        let facts = Facts::new(Direction::Gateway, client, ([10, 0, 0, 9], port).into(), None, false);
        tokio::spawn(connection::gateway::serve(
            far,
            facts,
            self.open(port),
            self.shared.clone(),
        ));
        near
    }

    /// The head of the answer to a request in the clear.
    pub async fn ask(&self, port: u16, request: &str) -> String {
        let mut client = Raw::new(self.client(port));
        client.send(request).await;
        client.head().await
    }
}

/// Listeners over one backend for each of these applications, by name.
pub fn content(listeners: Vec<rpc::Listener>, apps: &[SocketAddr]) -> rpc::Gateway {
    let backends = apps.iter().enumerate();
    rpc::Gateway {
        listeners,
        backends: backends
            .map(|(number, app)| backend(&format!("shop/app-{number}:80"), &[*app], ""))
            .collect(),
        certificates: Vec::new(),
    }
}

pub fn listener(name: &str, port: u16, hostname: &str, rules: Vec<rpc::Rule>) -> rpc::Listener {
    rpc::Listener {
        name: name.into(),
        port: port.into(),
        hostname: hostname.into(),
        rules,
        ..Default::default()
    }
}

/// A rule for every request to these hosts; none: to every host.
pub fn rule(hosts: &[&str], backend: u32) -> rpc::Rule {
    rpc::Rule {
        origin: Some(rpc::Origin {
            route: Some(rpc::ObjectName {
                namespace: "shop".into(),
                name: format!("to-{backend}"),
            }),
            ..Default::default()
        }),
        hosts: hosts.iter().map(|&host| host.into()).collect(),
        backends: vec![rpc::WeightedBackend {
            backend: Some(backend),
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A rule of a TLSRoute, or of a TCPRoute.
pub fn bytes_rule(kind: rpc::RouteKind, hosts: &[&str], backend: u32) -> rpc::Rule {
    let mut rule = rule(hosts, backend);
    rule.origin.as_mut().unwrap().kind = kind.into();
    rule
}

/// An application that says its name, and what it was asked; over HTTP/2 too.
pub async fn named(name: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_named(name, stream));
        }
    });
    address
}

async fn serve_named(name: &'static str, stream: tokio::net::TcpStream) {
    let mut first = [0; 3];
    stream.set_nodelay(true).unwrap();
    while stream.peek(&mut first).await.unwrap_or(0) == 1 {}
    if first == *b"PRI" {
        let mut h2 = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = h2.accept().await {
            let answer = http::Response::builder().header("x-app", name).body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        }
        return;
    }
    let mut peer = Raw::new(stream);
    while let Some(head) = peer.next_head().await {
        let body = if head.starts_with("HEAD ") {
            String::new()
        } else {
            format!("{name}: {head}")
        };
        let length = body.len();
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nx-app: {name}\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }
}

pub fn get(host: &str) -> String {
    format!("GET /path HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

#[tokio::test]
async fn a_request_belongs_to_the_most_specific_listener_and_to_no_other() {
    let apps = [
        named("any").await,
        named("wild").await,
        named("deep").await,
        named("exact").await,
    ];
    let mut edge = Edge::new();
    let listeners = vec![
        listener("any", 80, "", vec![rule(&[], 0)]),
        listener("wild", 80, "*.example.com", vec![rule(&["*.example.com"], 1)]),
        listener("deep", 80, "*.foo.example.com", vec![rule(&["*.foo.example.com"], 2)]),
        // No rule of the others' may act for its host.
        listener("exact", 80, "abc.foo.example.com", vec![rule(&["other.test"], 3)]),
    ];
    edge.serve(content(listeners, &apps));
    for (host, expected) in [
        ("bar.com", "x-app: any"),
        ("example.com", "x-app: any"),
        ("bar.example.com", "x-app: wild"),
        ("BAR.example.com:8080", "x-app: wild"),
        ("a.b.example.com", "x-app: wild"),
        ("bar.foo.example.com.", "x-app: deep"),
        ("foo.example.com", "x-app: wild"),
        ("abc.foo.example.com", "404 Not Found\r\nweft-error: no_rule"),
    ] {
        let head = edge.ask(80, &get(host)).await;
        assert!(head.contains(expected), "{host}: {head}");
    }
}

#[tokio::test]
async fn without_a_listener_for_the_host_it_is_404_and_its_reason_is_told() {
    let mut edge = Edge::new();
    let rules = vec![rule(&[], 0)];
    edge.serve(content(
        vec![listener("one", 80, "one.test", rules)],
        &[named("one").await],
    ));
    let head = edge.ask(80, &get("two.test")).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert!(head.contains("weft-error: no_listener: "), "{head}");
    // A listener that has no routes.
    edge.serve(content(vec![listener("one", 80, "", vec![])], &[]));
    let head = edge.ask(80, &get("two.test")).await;
    assert!(head.contains("404 Not Found\r\nweft-error: no_rule: "), "{head}");
}

#[tokio::test]
async fn t29_what_a_client_claims_of_itself_never_reaches_the_application() {
    let (seen, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let one = answering(move |head| {
        seen.send(head.to_owned()).unwrap();
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()
    })
    .await;
    let mut edge = Edge::new();
    edge.serve(content(vec![listener("web", 8080, "", vec![rule(&[], 0)])], &[one]));
    let mut client = Raw::new(edge.client(8080));
    client
        .send(
            "GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nHost: shop.test:8080\r\nX_Forwarded_For: 1.2.3.4\r\nX-First: 1\r\n\
             Connection: X-Forwarded-For, X-Forwarded-Proto\r\nForwarded: for=1.2.3.4\r\nX-SSL-Client-CN: root\r\nX-Real-IP: 1.2.3.4\r\n\
             X-Request-Id: r-1\r\nx-forwarded-proto: https\r\nX-Forwarded-Client-Cert: mine\r\nweft-identity: x\r\n\r\n",
        )
        .await;
    client.head().await;
    let head = asked.recv().await.unwrap();
    assert!(
        !head.contains("1.2.3.4") && !head.contains("root") && !head.contains("mine"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("weft-identity"), "{head}");
    for line in [
        "GET / HTTP/1.1\r\nHost: shop.test:8080\r\nX-First: 1\r\n",
        "x-forwarded-for: 192.0.2.9\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: shop.test:8080\r\n",
        "x-forwarded-port: 8080\r\n",
        "forwarded: for=192.0.2.9;host=\"shop.test:8080\";proto=http;by=_weft.1\r\n",
        "X-Request-Id: r-1\r\n",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert_eq!(head.to_lowercase().matches("x-forwarded-for").count(), 1, "{head}");
}

#[tokio::test]
async fn t29_rules_look_at_what_the_gateway_knows_and_have_the_last_word_on_what_is_sent() {
    let one = named("one").await;
    let mut edge = Edge::new();
    let mut by_claim = rule(&[], 0);
    by_claim.matches = vec![rpc::Match {
        headers: vec![rpc::ValueMatch {
            name: "x-forwarded-proto".into(),
            value: Some(rpc::value_match::Value::Exact("https".into())),
        }],
        ..Default::default()
    }];
    let mut plain = rule(&[], 0);
    plain.origin.as_mut().unwrap().rule = 1;
    plain.filters = vec![rpc::Filter {
        kind: Some(rpc::filter::Kind::RequestHeaders(rpc::HeaderChange {
            set: vec![rpc::HeaderValue {
                name: "x-forwarded-port".into(),
                value: "443".into(),
            }],
            ..Default::default()
        })),
    }];
    by_claim.filters = vec![rpc::Filter {
        kind: Some(rpc::filter::Kind::Redirect(rpc::Redirect {
            status: 302,
            ..Default::default()
        })),
    }];
    by_claim.backends.clear();
    edge.serve(content(vec![listener("web", 80, "", vec![by_claim, plain])], &[one]));
    let mut client = Raw::new(edge.client(80));
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\n\r\n")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let asked = client.until("\r\n\r\n").await;
    assert!(asked.contains("x-forwarded-port: 443\r\n"), "{asked}");
}

#[tokio::test]
async fn a_redirect_knows_the_scheme_and_the_port_of_its_listener() {
    let mut edge = Edge::new();
    let mut redirect = rule(&[], 0);
    redirect.backends.clear();
    redirect.filters = vec![rpc::Filter {
        kind: Some(rpc::filter::Kind::Redirect(rpc::Redirect {
            status: 301,
            ..Default::default()
        })),
    }];
    let listeners = vec![
        listener("web", 80, "", vec![redirect.clone()]),
        listener("other", 8080, "", vec![redirect]),
    ];
    edge.serve(content(listeners, &[]));
    let head = edge.ask(80, &get("shop.test")).await;
    assert!(head.contains("location: http://shop.test/path\r\n"), "{head}");
    let head = edge.ask(8080, &get("shop.test")).await;
    assert!(head.contains("location: http://shop.test:8080/path\r\n"), "{head}");
}

#[tokio::test]
async fn t11_a_clients_own_connect_is_refused() {
    let one = named("one").await;
    let mut edge = Edge::new();
    edge.serve(content(vec![listener("web", 80, "", vec![rule(&[], 0)])], &[one]));
    let mut client = Raw::new(edge.client(80));
    client
        .send(format!("CONNECT {one} HTTP/1.1\r\nhost: {one}\r\n\r\nsecret"))
        .await;
    let (answer, _) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert!(answer.contains("weft-error: no_forward_proxy: "), "{answer}");

    let mut h2 = h2_on(edge.client(80)).await;
    let request = http::Request::connect(one.to_string()).body(()).unwrap();
    let (answer, _) = h2.send_request(request, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 501);
}

/// HTTP/2 with prior knowledge, on any stream.
pub async fn h2_on<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(
    io: S,
) -> h2::client::SendRequest<bytes::Bytes> {
    let (send, driver) = weft_proxy::hop::h2::client_builder()
        .handshake::<_, bytes::Bytes>(io)
        .await
        .unwrap();
    tokio::spawn(async move { drop(driver.await) });
    send.ready().await.unwrap()
}

#[tokio::test]
async fn http_2_with_prior_knowledge_grpc_and_extended_connect_are_taken() {
    let calls = h2c(crate::streams::echo).await;
    let upgrades = app(|_, mut peer| async move {
        let head = peer.head().await;
        assert!(head.to_lowercase().contains("upgrade: hotrod"), "{head}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: hotrod\r\n\r\nhello")
            .await;
        peer.exactly(4).await;
    })
    .await;
    let mut edge = Edge::new();
    let rules = vec![rule(&["cart.shop"], 0), rule(&["up.shop"], 1)];
    let mut content = content(vec![listener("web", 80, "", rules)], &[calls, upgrades]);
    content.backends[0].protocol = rpc::Protocol::H2c.into();
    edge.serve(content);

    let mut h2 = h2_on(edge.client(80)).await;
    let (answer, mut body) = h2.send_request(crate::streams::call("/a.B/C"), false).unwrap();
    body.send_data("ping".into(), true).unwrap();
    let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "ping");

    let mut h1 = Raw::new(edge.client(80));
    h1.send("GET / HTTP/1.1\r\nhost: up.shop\r\nconnection: upgrade\r\nupgrade: hotrod\r\n\r\n")
        .await;
    let head = h1.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    h1.expect("hello").await;
    h1.send("done").await;
    h1.rest().await;

    let mut h2 = crate::gateway::h2_on(edge.client(80)).await;
    while !h2.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut request = http::Request::connect("http://up.shop/").body(()).unwrap();
    request
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("hotrod"));
    let (answer, _send) = h2.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn new_content_acts_on_the_next_request_of_an_open_connection() {
    let (one, two) = (named("one").await, named("two").await);
    let mut edge = Edge::new();
    edge.serve(content(vec![listener("web", 80, "", vec![rule(&[], 0)])], &[one, two]));
    let mut client = Raw::new(edge.client(80));
    let mut ask = async |expected: &str| {
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.contains(expected), "{head}");
    };
    ask("x-app: one").await;
    edge.serve(content(vec![listener("web", 80, "", vec![rule(&[], 1)])], &[one, two]));
    ask("x-app: two").await;
    edge.serve(content(vec![listener("web", 80, "b", vec![rule(&[], 1)])], &[one, two]));
    ask("404 Not Found").await;
    // The backends come in another order, and one of them goes away.
    edge.serve(content(vec![listener("web", 80, "", vec![rule(&[], 0)])], &[two]));
    ask("x-app: two").await;
}

#[tokio::test]
async fn what_is_equal_is_kept_and_endpoints_keep_what_is_known_of_them() {
    let (one, two) = (named("one").await, named("two").await);
    let mut edge = Edge::new();
    let listeners = || {
        vec![
            listener("a", 80, "", vec![rule(&[], 0)]),
            listener("b", 81, "", vec![rule(&[], 1)]),
        ]
    };
    edge.serve(content(listeners(), &[one, two]));
    let table = |edge: &Edge, at: usize| edge.front().current().unwrap().listeners[at].destination.table.clone();
    let before = (table(&edge, 0), table(&edge, 1), edge.open(80));
    let load = |edge: &Edge| {
        let content = edge.front().current().unwrap();
        content.listeners[1].destination.backends[1].endpoints[0].load.clone()
    };
    let load_before = load(&edge);

    let mut changed = content(listeners(), &[one, two]);
    changed.listeners[0].rules[0].hosts = vec!["other.test".into()];
    // Its place moves, and it is a backend of more endpoints.
    changed.backends.insert(0, backend("shop/new:80", &[one], ""));
    changed.listeners[0].rules[0].backends[0].backend = Some(1);
    changed.listeners[1].rules[0].backends[0].backend = Some(2);
    let more = changed.backends[1].endpoints[0].clone();
    changed.backends[2].endpoints.push(more);
    edge.serve(changed);
    assert!(!Arc::ptr_eq(&before.0, &table(&edge, 0)));
    assert!(Arc::ptr_eq(&before.1, &table(&edge, 1)), "its rules are the same");
    assert!(Arc::ptr_eq(&before.2, &edge.open(80)));
    assert!(Arc::ptr_eq(&load_before, &load(&edge)));
    let head = edge.ask(81, &get("a")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn every_bad_part_is_told_and_the_rest_serves() {
    let one = named("one").await;
    let mut edge = Edge::new();
    let mut bad_rule = rule(&["bad.test"], 7);
    bad_rule.origin.as_mut().unwrap().rule = 3;
    let mut kind = rule(&["bad.test"], 0);
    kind.origin.as_mut().unwrap().kind = 99;
    let mut listeners = vec![
        listener("good", 80, "", vec![rule(&["good.test"], 0), bad_rule, kind]),
        listener("no-port", 1, "", vec![]),
        listener("bad-name", 80, "a b", vec![]),
        listener("twice", 80, "", vec![]),
        listener("strange", 80, "strange.test", vec![]),
        listener("mixed", 80, "mixed.test", vec![]),
        listener("bare", 443, "", vec![]),
    ];
    listeners[1].port = 70_000;
    listeners[4].protocol = 42;
    listeners[5].protocol = rpc::ListenerProtocol::ListenerTcp.into();
    listeners[6].protocol = rpc::ListenerProtocol::ListenerHttps.into();
    edge.serve(content(listeners, &[one]));
    let head = edge.ask(80, &get("good.test")).await;
    assert!(head.contains("x-app: one"), "{head}");
    let mistakes = edge.front().current().unwrap().mistakes.join("\n");
    for (listener, why) in [
        ("good", "rule 3 of shop/to-7"),
        ("good", "99"),
        ("no-port", "70000 is not a port"),
        ("bad-name", "\"a b\""),
        ("twice", "the same hostname"),
        ("strange", "protocol 42 is not known"),
        ("mixed", "a protocol of another kind"),
        ("bare", "no certificate"),
    ] {
        assert!(
            mistakes
                .lines()
                .any(|line| line.starts_with(&format!("listener {listener}: ")) && line.contains(why)),
            "{listener}: {mistakes}"
        );
    }
    assert_eq!(edge.front().current().unwrap().counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn t58_a_body_that_stops_ends_in_time() {
    let one = app(|_, mut peer| async move {
        peer.head().await;
        peer.rest_paused().await;
    })
    .await;
    let mut edge = Edge::new();
    edge.serve(content(vec![listener("web", 80, "", vec![rule(&[], 0)])], &[one]));
    let mut client = Raw::new(edge.client(80));
    let began = tokio::time::Instant::now();
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let (answer, _) = client.rest_paused().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(began.elapsed() < 2 * weft_proto::limits::GATEWAY_BODY_IDLE);
}

#[tokio::test(start_paused = true)]
async fn t58_a_client_that_never_finishes_its_head_is_told_so_and_closed() {
    let mut edge = Edge::new();
    edge.serve(content(vec![listener("web", 80, "", vec![])], &[]));
    let mut slow = Raw::new(edge.client(80));
    let mut silent = Raw::new(edge.client(80));
    slow.send("GET / HTTP/1.1\r\nhost: a\r\nx: ").await;
    let (answer, _) = slow.rest_paused().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(silent.rest_paused().await.0, "");
    // One byte, and then another after a while, is no head either.
    let mut drop_by_drop = Raw::new(edge.client(80));
    let began = tokio::time::Instant::now();
    for byte in "GET /".chars() {
        drop_by_drop.send(byte.to_string()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    drop_by_drop.rest_paused().await;
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn t58_a_head_is_no_larger_than_its_limits() {
    let mut edge = Edge::new();
    edge.serve(content(vec![listener("web", 80, "", vec![])], &[]));
    let many = "a: b\r\n".repeat(weft_proto::limits::FIELDS + 1);
    let head = edge.ask(80, &format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    let long = "x".repeat(weft_proto::limits::HEAD);
    let head = edge
        .ask(80, &format!("GET / HTTP/1.1\r\nhost: a\r\na: {long}\r\n\r\n"))
        .await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[tokio::test]
async fn a_tcp_listener_lets_the_server_speak_first() {
    let greeting = app(|_, mut peer| async move {
        peer.send("220 hello\r\n").await;
        let said = peer.exactly(4).await;
        peer.send(said).await;
    })
    .await;
    let mut edge = Edge::new();
    let rules = vec![bytes_rule(rpc::RouteKind::TcpRoute, &[], 0)];
    let mut tcp = listener("tcp", 25, "", rules);
    tcp.protocol = rpc::ListenerProtocol::ListenerTcp.into();
    edge.serve(content(vec![tcp], &[greeting]));
    let mut client = Raw::new(edge.client(25));
    client.expect("220 hello\r\n").await;
    client.send("HELO").await;
    client.expect("HELO").await;
    assert!(client.rest().await.1);
    // Without a route there is nobody to lead it to.
    let mut tcp = listener("tcp", 25, "", vec![]);
    tcp.protocol = rpc::ListenerProtocol::ListenerTcp.into();
    edge.serve(content(vec![tcp], &[greeting]));
    assert!(!Raw::new(edge.client(25)).rest().await.1);
}

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    use weft_proxy::explain::{Question, explain};
    let (one, two) = (named("one").await, named("two").await);
    let mut edge = Edge::new();
    let mut by_path = rule(&["a.test"], 1);
    by_path.matches = vec![rpc::Match {
        path: Some(rpc::r#match::Path::PathPrefix("/two".into())),
        ..Default::default()
    }];
    let listeners = vec![
        listener("web", 80, "a.test", vec![rule(&["a.test"], 0), by_path]),
        listener("empty", 80, "b.test", vec![]),
    ];
    edge.serve(content(listeners, &[one, two]));
    for (host, path) in [
        ("a.test", "/"),
        ("A.test:80", "/two/x"),
        ("b.test", "/"),
        ("c.test", "/"),
    ] {
        let question = Question::parse(&format!("port=80&host={host}&target={path}")).unwrap();
        let answer = explain(&question, &edge.shared).await.unwrap();
        let head = edge
            .ask(80, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        match answer["refused"]["reason"].as_str() {
            Some(reason) => assert!(head.contains(&format!("weft-error: {reason}: ")), "{answer} {head}"),
            None => {
                let endpoint = answer["backends"][0]["endpoints"][0]["address"].as_str().unwrap();
                let name = if endpoint == one.to_string() { "one" } else { "two" };
                assert!(head.contains(&format!("x-app: {name}\r\n")), "{answer} {head}");
                assert_eq!(answer["listener"], "web");
                let steps = answer["steps"].as_array().unwrap();
                assert!(
                    steps.iter().any(|step| step.as_str().unwrap().ends_with("taken")),
                    "{answer}"
                );
            }
        }
    }
    let nowhere = explain(&Question::parse("port=81&host=a").unwrap(), &edge.shared)
        .await
        .unwrap();
    assert_eq!(nowhere["refused"]["reason"], "no_listener");
    assert!(
        explain(&Question::parse("port=80&header=a b:c").unwrap(), &edge.shared)
            .await
            .is_err()
    );
}
