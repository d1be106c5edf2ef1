//! X11, the same answer everywhere: generated routes and requests go through a gateway's listener and through a sidecar, over HTTP/1 and
//! HTTP/2, and want the same rule, the same backend and the same fields on both ways; and that rule is the one which the
//! specification names, as the slow oracle of the `route` crate reads it.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    dead_code,
    reason = "a test that fails says where"
)]

#[path = "../../../route/tests/routes/generate.rs"]
mod generate;
#[path = "../../../route/tests/routes/language.rs"]
mod language;
#[path = "../../../route/tests/routes/oracle.rs"]
mod oracle;
#[path = "../http/world.rs"]
mod world;

use bytes::Bytes;
use language::Request;
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::{TcpListener, TcpStream};
use weft_proto::{names::env, rpc::discovery as rpc};
use weft_proxy::{
    connection::{self, Connection, Toward},
    exchange,
    front::At,
    hop,
    io::Io,
    record::{Direction, Facts},
};
use weft_route::rule::{Filter, HeaderChange, PathChange, Redirect, Rewrite, Rule};
use world::{Raw, SERVICE, SOON, Way, World, backend};

/// Tables, each with a few requests, each of those twice over each way.
const TABLES: u32 = 500;
const REQUESTS: usize = 3;

/// What a client was told, and what the application had been asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    status: u16,
    /// Fields of the answer: `x-rule` names the rule, `x-app` the backend.
    fields: BTreeMap<String, String>,
    asked: Option<Asked>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    method: String,
    target: String,
    host: Option<String>,
    fields: BTreeMap<String, String>,
}

/// Fields that belong to the connection, or that a gateway says and a sidecar does not.
fn is_apart(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "forwarded" | "host" | "connection" | "content-length" | "transfer-encoding" | "te" | "traceparent"
        )
}

fn note<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> BTreeMap<String, String> {
    let mut noted = BTreeMap::<String, String>::new();
    for (name, value) in fields.filter(|(name, _)| !is_apart(name)) {
        let all = noted.entry(name.to_owned()).or_default();
        all.push('|');
        all.push_str(&String::from_utf8_lossy(value));
    }
    noted
}

type Heard = Arc<Mutex<Option<Asked>>>;

/// An application that says its number, and remembers what it was asked; over HTTP/1 and HTTP/2.
async fn recording(number: usize, heard: Heard) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(record(number, stream, heard.clone()));
        }
    });
    address
}

async fn record(number: usize, stream: TcpStream, heard: Heard) {
    stream.set_nodelay(true).unwrap();
    let mut first = [0; 3];
    while matches!(stream.peek(&mut first).await, Ok(1 | 2)) {
        tokio::task::yield_now().await;
    }
    if first == *b"PRI" {
        let mut h2 = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = h2.accept().await {
            let fields = request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()));
            *heard.lock().unwrap() = Some(Asked {
                method: request.method().to_string(),
                target: request
                    .uri()
                    .path_and_query()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                host: request.uri().authority().map(ToString::to_string),
                fields: note(fields),
            });
            let answer = http::Response::builder().header("x-app", number).body(()).unwrap();
            // The client may be gone.
            let _ = respond.send_response(answer, true);
        }
        return;
    }
    let mut peer = Raw::new(stream);
    while let Some(head) = peer.next_head().await {
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let fields: Vec<_> = lines.map(|line| line.split_once(':').unwrap()).collect();
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let host = fields
            .iter()
            .find(|(name, _)| name == "host")
            .map(|(_, value)| value.clone());
        let mut words = line.split(' ');
        *heard.lock().unwrap() = Some(Asked {
            method: words.next().unwrap().to_owned(),
            target: words.next().unwrap().to_owned(),
            host,
            fields: note(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
        });
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nx-app: {number}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
    }
}

/// A gateway and a sidecar before the same applications.
struct Both {
    edge: World,
    sidecar: World,
    connection: Arc<Connection>,
    apps: Vec<SocketAddr>,
    heard: Heard,
    versions: u32,
}

impl Both {
    async fn new() -> Self {
        let heard = Heard::default();
        let mut apps = Vec::new();
        for number in 0..4 {
            apps.push(recording(number, heard.clone()).await);
        }
        let mut sidecar = World::new();
        let connection = sidecar.connection(Way::Plain, &apps[..1]).await;
        Self {
            edge: World::with(&[(env::GATEWAY, "shop/edge"), (env::WORKERS, "1")]),
            sidecar,
            connection,
            apps,
            heard,
            versions: 0,
        }
    }

    fn serve(&mut self, rules: &[Rule]) {
        self.serve_as(rules, rpc::ListenerProtocol::ListenerHttp);
    }

    fn serve_as(&mut self, rules: &[Rule], protocol: rpc::ListenerProtocol) {
        self.versions += 1;
        let version = self.versions.to_string();
        let rules: Vec<rpc::Rule> = rules.iter().map(Into::into).collect();
        let apps = self.apps.iter().enumerate();
        let backends: Vec<_> = apps
            .map(|(number, app)| backend(&format!("shop/app-{number}:80"), &[*app], ""))
            .collect();
        let content = rpc::Gateway {
            listeners: vec![rpc::Listener {
                name: "web".into(),
                port: 80,
                protocol: protocol.into(),
                rules: rules.clone(),
                ..Default::default()
            }],
            backends: backends.clone(),
            certificates: Vec::new(),
        };
        self.edge
            .shared
            .front
            .as_ref()
            .unwrap()
            .apply(&version, content, &|_| false);
        let content = rpc::Destination {
            kind: rpc::DestinationKind::Service.into(),
            default_backend: Some(0),
            backends,
            rules,
            ..Default::default()
        };
        self.sidecar
            .shared
            .tables
            .answer(SERVICE.parse().unwrap(), &version, content);
    }

    /// A client's connection to either.
    fn client(&self, to_gateway: bool, over_h2: bool) -> Io {
        let (near, far) = Io::pair(64 << 10);
        if to_gateway {
            let shared = self.edge.shared.clone();
            let open = shared.front.as_ref().unwrap().opens().borrow()[0].clone();
            let client: SocketAddr = "192.0.2.9:40000".parse().unwrap();
            let facts = Facts::new(Direction::Gateway, client, ([10, 96, 0, 1], 80).into(), None, false);
            tokio::spawn(connection::gateway::serve(far, facts, open, shared));
        } else if over_h2 {
            tokio::spawn(exchange::serve_h2(far, self.connection.clone()));
        } else {
            tokio::spawn(exchange::serve_h1(far, self.connection.clone()));
        }
        near
    }

    /// What comes of a request; `None` where it cannot be said in this version.
    async fn ask(&self, request: &Request, to_gateway: bool, over_h2: bool) -> Option<Outcome> {
        *self.heard.lock().unwrap() = None;
        let io = self.client(to_gateway, over_h2);
        let asking = async {
            match over_h2 {
                true => ask_h2(io, request).await,
                false => Some(ask_h1(io, request).await),
            }
        };
        let (status, fields) = tokio::time::timeout(SOON, asking).await.unwrap()?;
        let asked = self.heard.lock().unwrap().take();
        Some(Outcome { status, fields, asked })
    }
}

async fn ask_h1(io: Io, request: &Request) -> (u16, BTreeMap<String, String>) {
    let (version, host) = match &request.host {
        Some(host) => ("1.1", format!("host: {host}\r\n")),
        None => ("1.0", String::new()),
    };
    let target = String::from_utf8(request.target.clone()).unwrap();
    let mut text = format!("{} {target} HTTP/{version}\r\n{host}", request.method);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut client = Raw::new(io);
    client.send(text).await;
    let head = client.head().await;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let fields: Vec<_> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.trim()))
        .collect();
    (
        status,
        note(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))),
    )
}

async fn ask_h2(io: Io, request: &Request) -> Option<(u16, BTreeMap<String, String>)> {
    let host = request.host.as_ref()?;
    let target = String::from_utf8(request.target.clone()).unwrap();
    let mut head = http::Request::builder()
        .method(&*request.method)
        .uri(format!("http://{host}{target}"));
    for (name, value) in &request.headers {
        head = head.header(name, value);
    }
    let (send, driver) = weft_proxy::hop::h2::client_builder()
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    tokio::spawn(async move { drop(driver.await) });
    let mut send = send.ready().await.unwrap();
    let answer = send.send_request(head.body(()).ok()?, true).unwrap().0.await.unwrap();
    let fields = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    Some((answer.status().as_u16(), note(fields)))
}

/// One filter beside the one that names the rule.
fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let value = |value: &'static str| Arc::<str>::from(value);
    let fields = (select(&["x", "y", "x-new"][..]), select(&["1", "2"][..]));
    let change = fields.prop_map(move |(name, to)| HeaderChange {
        set: vec![(value(name), value(to))],
        add: vec![(value("x-more"), value(to))],
        remove: vec![value("z")],
    });
    let path = prop_oneof![
        select(&["/", "/new", "/new/"][..]).prop_map(move |path| PathChange::Full(value(path))),
        select(&["/", "/new", "/new/"][..]).prop_map(move |path| PathChange::Prefix(value(path))),
    ];
    let rewrite = (
        proptest::option::of(Just(value("rewritten.test"))),
        proptest::option::of(path.clone()),
    )
        .prop_map(|(host, path)| Filter::Rewrite(Rewrite { host, path }));
    let redirect = (select(&[301, 302, 307][..]), proptest::option::of(path)).prop_map(|(status, path)| {
        Filter::Redirect(Redirect {
            scheme: None,
            host: None,
            port: None,
            status,
            path,
        })
    });
    let one = prop_oneof![
        2 => change.clone().prop_map(Filter::RequestHeaders),
        2 => change.prop_map(Filter::ResponseHeaders),
        2 => rewrite,
        1 => redirect,
    ];
    proptest::collection::vec(one, 0..3)
}

/// Rules as `generate.rs` makes them, with filters; of the backends of each one alone is drawn, so that the draw is no difference.
fn tables() -> impl Strategy<Value = Vec<Rule>> {
    let filters = proptest::collection::vec(filters(), 16);
    (generate::rules(), filters).prop_map(|(mut rules, filters)| {
        for (number, (rule, more)) in rules.iter_mut().zip(filters).enumerate() {
            rule.filters = more;
            rule.filters.push(Filter::ResponseHeaders(HeaderChange {
                set: vec![("x-rule".into(), number.to_string().into())],
                ..HeaderChange::default()
            }));
        }
        rules.iter_mut().for_each(draw_one);
        rules
    })
}

/// Of the backends one alone is drawn.
fn draw_one(rule: &mut Rule) {
    let mut has_weight = false;
    for backend in &mut rule.backends {
        backend.weight = u32::from(backend.weight > 0 && !std::mem::replace(&mut has_weight, true));
    }
}

#[test]
fn x11_a_gateway_and_a_sidecar_answer_alike_and_as_the_specification_says() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let both = std::cell::RefCell::new(runtime.block_on(Both::new()));
    let (compared, ruled) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut runner = TestRunner::new(Config {
        cases: TABLES,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = (tables(), proptest::collection::vec(generate::request(), REQUESTS));
    let ran = runner.run(&cases, |(rules, requests)| {
        // Without rules a Service has a backend and a listener has none.
        prop_assume!(!rules.is_empty());
        both.borrow_mut().serve(&rules);
        let both = both.borrow();
        for request in &requests {
            let wanted = oracle::answer(&rules, request);
            for over_h2 in [false, true] {
                let gateway = runtime.block_on(both.ask(request, true, over_h2));
                let sidecar = runtime.block_on(both.ask(request, false, over_h2));
                prop_assert_eq!(&gateway, &sidecar, "{:?} over HTTP/{}", request, 1 + u8::from(over_h2));
                let Some(outcome) = gateway else { continue };
                compared.set(compared.get() + 1);
                // An answer of weft's own has no field of the rule's; a path of more than one reading is refused.
                let named = outcome
                    .fields
                    .get("x-rule")
                    .map(|name| name.trim_start_matches('|').to_owned());
                if let Some(named) = named {
                    ruled.set(ruled.get() + 1);
                    prop_assert_eq!(Some(named), wanted.map(|(rule, _)| rule.to_string()), "{:?}", request);
                } else if outcome.status == 404 {
                    prop_assert_eq!(wanted, None, "{:?}", request);
                }
            }
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    let (compared, ruled) = (compared.get(), ruled.get());
    eprintln!("{compared} requests through a gateway and a sidecar, {ruled} of them answered by an application");
    assert!(compared > 2 * TABLES && ruled > TABLES / 2, "{compared} {ruled}");
}

/// Where bytes went and by which rule, or why they went nowhere.
type Led = Result<(SocketAddr, Option<(String, String)>), &'static str>;

impl Both {
    async fn lead(&self, sni: Option<Option<&str>>, to_gateway: bool) -> Led {
        let facts = |direction| {
            Facts::new(
                direction,
                ([192, 0, 2, 9], 4).into(),
                ([10, 96, 0, 1], 80).into(),
                None,
                false,
            )
        };
        let ask = match sni {
            Some(sni) => weft_route::Ask::Tls { sni },
            None => weft_route::Ask::Tcp,
        };
        let at_gateway = to_gateway.then(|| {
            let shared = self.edge.shared.clone();
            let open = shared.front.as_ref().unwrap().opens().borrow()[0].clone();
            let at = match sni {
                Some(sni) => At::tls(open, sni.map(Into::into), None),
                None => At::plain(open),
            };
            Connection {
                facts: facts(Direction::Gateway),
                peer: None,
                toward: Toward::Port(Box::new(at)),
                shared,
            }
        });
        let connection = at_gateway.as_ref().unwrap_or(&self.connection);
        let opened = hop::open_any(connection, &ask)
            .await
            .map_err(|fault| fault.reason.label())?;
        let rule = opened.rule.map(|rule| (rule.route.to_string(), rule.rule.to_string()));
        Ok((opened.lease.address, rule))
    }
}

#[test]
fn x11_connections_go_the_same_way_from_a_gateway_and_from_a_sidecar() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let both = std::cell::RefCell::new(runtime.block_on(Both::new()));
    let (compared, ruled) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut runner = TestRunner::new(Config {
        cases: TABLES,
        failure_persistence: None,
        ..Config::default()
    });
    let names = proptest::collection::vec(proptest::option::weighted(0.8, generate::server_name()), REQUESTS);
    let ran = runner.run(&(generate::connection_rules(), names), |(mut rules, names)| {
        rules.iter_mut().for_each(draw_one);
        both.borrow_mut()
            .serve_as(&rules, rpc::ListenerProtocol::ListenerPassthrough);
        let both = both.borrow();
        for name in &names {
            let sni = name.as_ref().map(Option::as_deref);
            let gateway = runtime.block_on(both.lead(sni, true));
            let sidecar = runtime.block_on(both.lead(sni, false));
            compared.set(compared.get() + 1);
            let wanted = oracle::connection(&rules, sni).map(|rule| {
                let origin = &rules[rule].origin;
                (format!("{}/{}", origin.namespace, origin.name), origin.rule.to_string())
            });
            match (&gateway, &sidecar) {
                // No rule speaks of such connections: a Service has a backend all the same, a listener has none.
                (Err("no_rule"), Ok((_, None))) => prop_assert_eq!(&wanted, &None, "{:?}", name),
                _ => prop_assert_eq!(&gateway, &sidecar, "{:?}", name),
            }
            if let Ok((_, rule)) = gateway {
                ruled.set(ruled.get() + 1);
                prop_assert_eq!(rule, wanted, "{:?}", name);
            }
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    let (compared, ruled) = (compared.get(), ruled.get());
    eprintln!("{compared} connections from a gateway and from a sidecar, {ruled} of them to an application");
    assert!(compared > 2 * TABLES && ruled > TABLES / 4, "{compared} {ruled}");
}
