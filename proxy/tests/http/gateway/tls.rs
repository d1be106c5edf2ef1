//! Listeners that end TLS or pass it on: by server name, with certificates and client validation of their own.

use super::{Edge, bytes_rule, content, get, h2_on, listener, named, rule};
use crate::world::{Raw, SOON, app};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{io, net::SocketAddr, sync::Arc};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_proto::rpc::discovery::{self as rpc, ListenerProtocol, RouteKind};
use weft_proxy::io::Io;

/// A root, and what it signs.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a leaf of the same name for its own root.
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            pem: root.pem(),
            der: root.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn certificate(&self, names: &[&str]) -> rpc::Certificate {
        self.certificate_of(names, &KeyPair::generate().unwrap())
    }

    fn certificate_of(&self, names: &[&str], key: &KeyPair) -> rpc::Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let params = CertificateParams::new(names).unwrap();
        rpc::Certificate {
            chain: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts this root.
    fn client(&self, alpn: &[&str], shows: Option<&rpc::Certificate>) -> ClientConfig {
        weft_service::tls::install_provider();
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let chain = CertificateDer::pem_slice_iter(shown.chain.as_bytes())
                    .map(Result::unwrap)
                    .collect();
                let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        config
    }
}

type Tls = TlsStream<Io>;

async fn connect(edge: &Edge, port: u16, name: &str, config: ClientConfig) -> io::Result<Tls> {
    connect_with(edge, port, name, Arc::new(config)).await
}

async fn connect_with(edge: &Edge, port: u16, name: &str, config: Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = TlsConnector::from(config).connect(name, edge.client(port));
    tokio::time::timeout(SOON, connected).await.unwrap()
}

fn shown(tls: &Tls) -> Vec<u8> {
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(certificate: &rpc::Certificate) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes())
        .unwrap()
        .to_vec()
}

fn https(name: &str, hostname: &str, certificates: &[u32], rules: Vec<rpc::Rule>) -> rpc::Listener {
    of(ListenerProtocol::ListenerHttps, name, hostname, certificates, rules)
}

fn of(
    protocol: ListenerProtocol,
    name: &str,
    hostname: &str,
    certificates: &[u32],
    rules: Vec<rpc::Rule>,
) -> rpc::Listener {
    rpc::Listener {
        protocol: protocol.into(),
        certificates: certificates.to_vec(),
        ..listener(name, 443, hostname, rules)
    }
}

/// The status of one request over HTTP/2, and the application that answered.
async fn status(send: &mut h2::client::SendRequest<bytes::Bytes>, host: &str) -> (u16, String) {
    let request = http::Request::get(format!("https://{host}/path")).body(()).unwrap();
    let answer = send.send_request(request, true).unwrap().0;
    let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
    let field = |name| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let who = field("x-app").or_else(|| field("weft-error")).unwrap_or_default();
    (
        answer.status().as_u16(),
        who.split(':').next().unwrap_or_default().to_owned(),
    )
}

/// The listeners of the suite's HTTPRouteHTTPSListenerDetectMisdirectedRequests.
fn suites(ca: &Ca, apps: &[SocketAddr]) -> rpc::Gateway {
    let listeners = vec![
        https("https", "", &[0], vec![rule(&["example.org"], 0)]),
        https(
            "https-with-hostname",
            "second-example.org",
            &[0],
            vec![rule(&["second-example.org"], 1)],
        ),
        https(
            "https-with-wildcard-hostname",
            "*.wildcard.org",
            &[0],
            vec![rule(&["*.wildcard.org"], 2)],
        ),
        https(
            "https-with-hostname-matching-wildcard",
            "fourth-example.wildcard.org",
            &[0],
            vec![rule(&["fourth-example.wildcard.org"], 0)],
        ),
    ];
    let mut content = content(listeners, apps);
    content.certificates = vec![ca.certificate(&[
        "example.org",
        "second-example.org",
        "unknown-example.org",
        "*.wildcard.org",
    ])];
    content
}

#[tokio::test]
async fn t26_a_request_for_another_listener_than_its_connections_is_misdirected() {
    let ca = Ca::new();
    let apps = [named("one").await, named("two").await, named("three").await];
    let mut edge = Edge::new();
    edge.serve(suites(&ca, &apps));
    for (sni, host, expected) in [
        ("example.org", "example.org", (200, "one")),
        ("example.org", "second-example.org", (421, "misdirected")),
        ("example.org", "unknown-example.org", (404, "no_rule")),
        ("second-example.org", "second-example.org", (200, "two")),
        ("second-example.org", "example.org", (421, "misdirected")),
        ("second-example.org", "unknown-example.org", (421, "misdirected")),
        (
            "third-example.wildcard.org",
            "third-example.wildcard.org",
            (200, "three"),
        ),
        (
            "third-example.wildcard.org",
            "fith-example.wildcard.org",
            (200, "three"),
        ),
        (
            "third-example.wildcard.org",
            "fourth-example.wildcard.org",
            (421, "misdirected"),
        ),
        ("third-example.wildcard.org", "second-example.org", (421, "misdirected")),
        (
            "third-example.wildcard.org",
            "unknown-example.org",
            (421, "misdirected"),
        ),
        (
            "fourth-example.wildcard.org",
            "fourth-example.wildcard.org",
            (200, "one"),
        ),
        (
            "fourth-example.wildcard.org",
            "fith-example.wildcard.org",
            (421, "misdirected"),
        ),
        ("unknown-example.org", "example.org", (200, "one")),
        ("unknown-example.org", "unknown-example.org", (404, "no_rule")),
    ] {
        let tls = connect(&edge, 443, sni, ca.client(&["h2", "http/1.1"], None))
            .await
            .unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (code, who) = status(&mut h2_on(tls).await, host).await;
        assert_eq!((code, who.as_str()), expected, "{sni} {host}");

        let tls = connect(&edge, 443, sni, ca.client(&[], None)).await.unwrap();
        let mut h1 = Raw::new(tls);
        h1.send(get(host)).await;
        let head = h1.head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {}", expected.0)),
            "{sni} {host}: {head}"
        );
    }
}

#[tokio::test]
async fn what_was_asked_over_tls_is_told_as_https() {
    let ca = Ca::new();
    let apps = [named("one").await; 3];
    let mut edge = Edge::new();
    edge.serve(suites(&ca, &apps));
    let mut h1 = Raw::new(
        connect(&edge, 443, "example.org", ca.client(&["http/1.1"], None))
            .await
            .unwrap(),
    );
    h1.send(get("example.org")).await;
    h1.head().await;
    let asked = h1.until("\r\n\r\n").await;
    assert!(
        asked.contains("x-forwarded-proto: https\r\n") && asked.contains("x-forwarded-port: 443\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("forwarded: for=192.0.2.9;host=\"example.org\";proto=https;by=_weft.1\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn without_a_listener_for_the_name_the_connection_is_broken_off() {
    let ca = Ca::new();
    let mut edge = Edge::new();
    let mut one = content(vec![https("one", "one.test", &[0], vec![])], &[]);
    one.certificates = vec![ca.certificate(&["one.test"])];
    edge.serve(one.clone());
    let refused = connect(&edge, 443, "two.test", ca.client(&[], None)).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset, "{refused}");
    let mut nameless = ca.client(&[], None);
    nameless.enable_sni = false;
    assert!(connect(&edge, 443, "one.test", nameless.clone()).await.is_err());
    // A listener without a hostname takes those without a name.
    one.listeners.push(https("any", "", &[0], vec![]));
    edge.serve(one);
    let tls = connect(&edge, 443, "one.test", nameless).await.unwrap();
    let mut h1 = Raw::new(tls);
    h1.send(get("whatever.test")).await;
    assert!(h1.head().await.starts_with("HTTP/1.1 404 "));
    h1.send(get("one.test")).await;
    h1.until("\n").await;
    assert!(h1.head().await.starts_with("HTTP/1.1 421 "));
}

#[tokio::test]
async fn plaintext_on_a_tls_port_and_tls_on_an_http_port_are_broken_off() {
    let ca = Ca::new();
    let mut edge = Edge::new();
    let listeners = vec![https("one", "", &[0], vec![]), listener("web", 80, "", vec![])];
    let mut content = content(listeners, &[]);
    content.certificates = vec![ca.certificate(&["one.test"])];
    edge.serve(content);
    let mut client = Raw::new(edge.client(443));
    client.send(get("one.test")).await;
    assert!(!client.rest().await.1);
    assert!(connect(&edge, 80, "one.test", ca.client(&[], None)).await.is_err());
}

#[tokio::test]
async fn f20_a_certificate_changes_under_open_connections_and_for_the_next_ones() {
    let ca = Ca::new();
    let apps = [named("one").await; 3];
    let mut edge = Edge::new();
    let mut told = suites(&ca, &apps);
    edge.serve(told.clone());
    let tls = connect(&edge, 443, "example.org", ca.client(&["h2"], None))
        .await
        .unwrap();
    assert_eq!(shown(&tls), der(&told.certificates[0]));
    let mut open = h2_on(tls).await;
    for _ in 0..5 {
        told.certificates[0] = ca.certificate(&["example.org"]);
        edge.serve(told.clone());
        assert_eq!(status(&mut open, "example.org").await, (200, "one".into()));
        let tls = connect(&edge, 443, "example.org", ca.client(&["h2"], None))
            .await
            .unwrap();
        assert_eq!(shown(&tls), der(&told.certificates[0]));
    }
}

#[tokio::test]
async fn of_two_certificates_each_client_gets_the_one_that_it_can_verify() {
    let ca = Ca::new();
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificates = vec![
        ca.certificate_of(&["one.test"], &rsa),
        ca.certificate(&["one.test"]),
        ca.certificate(&["two.test"]),
    ];
    let mut edge = Edge::new();
    let mut content = content(vec![https("any", "", &[0, 1, 2], vec![])], &[]);
    content.certificates = certificates.clone();
    edge.serve(content);
    let show = async |name: &str, config| shown(&connect(&edge, 443, name, config).await.unwrap());
    assert_eq!(show("one.test", ca.client(&[], None)).await, der(&certificates[1]));
    assert_eq!(show("two.test", ca.client(&[], None)).await, der(&certificates[2]));
    // A client that knows RSA alone.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let suites = provider.cipher_suites.iter().copied();
    let rsa_only = rustls::crypto::CryptoProvider {
        cipher_suites: suites
            .filter(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"))
            .collect(),
        ..provider
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca.der.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rsa_only))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(show("one.test", config).await, der(&certificates[0]));
}

#[tokio::test]
async fn a_listener_with_a_broken_certificate_is_refused_and_the_others_serve() {
    let ca = Ca::new();
    let one = named("one").await;
    let mut edge = Edge::new();
    let listeners = vec![
        https("good", "", &[0], vec![rule(&[], 0)]),
        https("torn", "torn.test", &[1], vec![rule(&[], 0)]),
        https("other-key", "other-key.test", &[2], vec![rule(&[], 0)]),
        https("beyond", "beyond.test", &[9], vec![rule(&[], 0)]),
        https("half", "half.test", &[1, 0], vec![rule(&[], 0)]),
    ];
    let mut content = content(listeners, &[one]);
    let good = ca.certificate(&["good.test", "half.test", "torn.test"]);
    let other_key = rpc::Certificate {
        key: KeyPair::generate().unwrap().serialize_pem(),
        ..ca.certificate(&["other-key.test"])
    };
    let torn = rpc::Certificate {
        chain: "-----BEGIN CERTIFICATE-----\nAAAA\n".into(),
        ..good.clone()
    };
    content.certificates = vec![good, torn, other_key];
    edge.serve(content);
    for (name, serves) in [
        ("good.test", true),
        ("half.test", true),
        // Not the listener for every name: its certificate and policy are not theirs.
        ("torn.test", false),
        ("other-key.test", false),
        ("beyond.test", false),
    ] {
        let connected = connect(&edge, 443, name, ca.client(&["h2"], None)).await;
        assert_eq!(connected.is_ok(), serves, "{name}");
        if let Ok(tls) = connected {
            assert_eq!(status(&mut h2_on(tls).await, name).await, (200, "one".into()));
        }
    }
    assert_eq!(edge.front().current().unwrap().counts(), (2, 3));
}

/// Serves `one.test` for clients of one root alone, `two.test` for those of another, `three.test` for everybody who was asked.
fn validating(ca: &Ca, roots: [&Ca; 2], app: SocketAddr) -> rpc::Gateway {
    let required = |roots: &Ca| rpc::ClientValidation {
        roots: roots.pem.clone(),
        allow_insecure_fallback: false,
    };
    let listeners = vec![
        rpc::Listener {
            client_validation: Some(required(roots[0])),
            ..https("one", "one.test", &[0], vec![rule(&[], 0)])
        },
        rpc::Listener {
            client_validation: Some(required(roots[1])),
            ..https("two", "two.test", &[0], vec![rule(&[], 0)])
        },
        rpc::Listener {
            client_validation: Some(rpc::ClientValidation {
                roots: String::new(),
                allow_insecure_fallback: true,
            }),
            ..https("three", "three.test", &[0], vec![rule(&[], 0)])
        },
        https("four", "four.test", &[0], vec![rule(&[], 0)]),
    ];
    let mut content = content(listeners, &[app]);
    content.certificates = vec![ca.certificate(&["one.test", "two.test", "three.test", "four.test"])];
    content
}

/// Whether a request is answered. With TLS 1.3 a client hears of its refusal when it reads.
async fn answers(edge: &Edge, name: &str, config: ClientConfig) -> bool {
    let Ok(tls) = connect(edge, 443, name, config).await else {
        return false;
    };
    let mut h1 = Raw::new(tls);
    h1.send(get(name)).await;
    let (answer, _) = {
        let mut answer = Vec::new();
        let read = async {
            use tokio::io::AsyncReadExt;
            let mut byte = [0; 16];
            let count = h1.io.read(&mut byte).await.unwrap_or(0);
            answer.extend_from_slice(&byte[..count]);
        };
        tokio::time::timeout(SOON, read).await.unwrap();
        (String::from_utf8(answer).unwrap(), ())
    };
    answer.starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn clients_show_a_certificate_of_the_listeners_own_roots() {
    let (ca, first, second) = (Ca::new(), Ca::new(), Ca::new());
    let mut edge = Edge::new();
    edge.serve(validating(&ca, [&first, &second], named("one").await));
    let (of_first, of_second) = (first.certificate(&["c"]), second.certificate(&["c"]));
    for (name, shows, expected) in [
        ("one.test", Some(&of_first), true),
        ("one.test", Some(&of_second), false),
        ("one.test", None, false),
        ("two.test", Some(&of_first), false),
        ("two.test", Some(&of_second), true),
        ("three.test", Some(&of_first), true),
        ("three.test", Some(&of_second), true),
        ("three.test", None, true),
        ("four.test", None, true),
    ] {
        assert_eq!(answers(&edge, name, ca.client(&[], shows)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn t26_a_ticket_of_one_listener_opens_no_other_and_none_skips_a_clients_certificate() {
    let (ca, first, second) = (Ca::new(), Ca::new(), Ca::new());
    let mut edge = Edge::new();
    edge.serve(validating(&ca, [&first, &second], named("one").await));
    // The same client configuration, and so the same store of sessions.
    let config = Arc::new(ca.client(&[], Some(&first.certificate(&["c"]))));
    let kind = async |name: &str| {
        let mut h1 = Raw::new(connect_with(&edge, 443, name, config.clone()).await.unwrap());
        h1.send(get(name)).await;
        assert!(h1.head().await.starts_with("HTTP/1.1 200"));
        h1.io.get_ref().1.handshake_kind().unwrap()
    };
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(kind("four.test").await, Full);
    assert_eq!(kind("four.test").await, Resumed);
    assert_eq!(kind("one.test").await, Full);
    assert_eq!(kind("one.test").await, Full, "its certificate is looked at each time");
}

#[tokio::test]
async fn t52_a_connection_that_was_let_in_under_other_roots_asks_for_nothing_more() {
    let (ca, first, second) = (Ca::new(), Ca::new(), Ca::new());
    let app = named("one").await;
    let mut edge = Edge::new();
    edge.serve(validating(&ca, [&first, &second], app));
    let config = ca.client(&["h2"], Some(&first.certificate(&["c"])));
    let mut open = h2_on(connect(&edge, 443, "one.test", config).await.unwrap()).await;
    assert_eq!(status(&mut open, "one.test").await.0, 200);
    edge.serve(validating(&ca, [&second, &second], app));
    assert_eq!(status(&mut open, "one.test").await, (421, "misdirected".into()));
}

#[tokio::test]
async fn passed_on_and_ended_tls_share_a_port_by_name() {
    let ca = Ca::new();
    let own = Ca::new();
    let passed_on = own.certificate(&["pass.test"]);
    let behind = tls_app(&passed_on).await;
    let greeting = app(|_, mut peer| async move {
        peer.send("welcome\r\n").await;
        let said = peer.exactly(4).await;
        peer.send(said).await;
    })
    .await;
    let web = named("web").await;
    let mut edge = Edge::new();
    let pass = vec![bytes_rule(RouteKind::TlsRoute, &["pass.test"], 0)];
    let end = vec![bytes_rule(RouteKind::TlsRoute, &["end.test"], 1)];
    let listeners = vec![
        of(ListenerProtocol::ListenerPassthrough, "pass", "*.test", &[], pass),
        of(ListenerProtocol::ListenerTls, "end", "end.test", &[0], end),
        https("web", "web.test", &[0], vec![rule(&[], 2)]),
    ];
    let mut content = content(listeners, &[behind, greeting, web]);
    content.certificates = vec![ca.certificate(&["end.test", "web.test", "pass.test"])];
    edge.serve(content);

    let tls = connect(&edge, 443, "pass.test", own.client(&[], None)).await.unwrap();
    assert_eq!(shown(&tls), der(&passed_on));
    Raw::new(tls).expect("from behind").await;

    let mut ended = Raw::new(
        connect(&edge, 443, "end.test", ca.client(&["smtp"], None))
            .await
            .unwrap(),
    );
    ended.expect("welcome\r\n").await;
    ended.send("EHLO").await;
    ended.expect("EHLO").await;

    let mut h2 = h2_on(connect(&edge, 443, "web.test", ca.client(&["h2"], None)).await.unwrap()).await;
    assert_eq!(status(&mut h2, "web.test").await, (200, "web".into()));
    // A browser that finds both names in the certificate tries this, and must come back with a connection of its own.
    assert_eq!(status(&mut h2, "pass.test").await, (421, "misdirected".into()));

    // The listener for it is there, and no route.
    let refused = connect(&edge, 443, "other.test", own.client(&[], None))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset, "{refused}");
}

/// An application with TLS of its own.
async fn tls_app(certificate: &rpc::Certificate) -> SocketAddr {
    weft_service::tls::install_provider();
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    app(move |_, peer| {
        let acceptor = acceptor.clone();
        async move {
            let mut peer = Raw::new(acceptor.accept(peer.io).await.unwrap());
            peer.send("from behind").await;
            peer.rest().await;
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn t58_half_a_clienthello_and_a_handshake_that_stops_end_in_time() {
    let ca = Ca::new();
    let mut edge = Edge::new();
    let mut content = content(vec![https("one", "", &[0], vec![])], &[]);
    content.certificates = vec![ca.certificate(&["one.test"])];
    edge.serve(content);
    let began = tokio::time::Instant::now();
    let mut half = Raw::new(edge.client(443));
    half.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await;
    half.rest_paused().await;
    let mut silent = Raw::new(edge.client(443));
    assert_eq!(silent.rest_paused().await.0, "");
    assert!(began.elapsed() <= 3 * weft_proto::limits::HANDSHAKE_TIME);
}

/// What `curl` says of a request: its version of HTTP, the status, and the application.
async fn curl(port: u16, host: &str, ca: &std::path::Path, more: &[&str]) -> String {
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--output", "/dev/null"])
        .args(["--write-out", "%{http_version} %{http_code} %header{x-app}"])
        .args([
            "--noproxy",
            "*",
            "--resolve",
            &format!("*:{port}:127.0.0.1"),
            "--cacert",
        ])
        .arg(ca)
        .args(more)
        .arg(format!("https://{host}:{port}/path"))
        .output()
        .await
        .expect("curl is needed for this test");
    eprintln!("{host} {more:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn curl_speaks_both_versions_of_tls_and_of_http_and_shows_its_certificate() {
    use super::ports::{bound, free_port, until};
    let (ca, first, second) = (Ca::new(), Ca::new(), Ca::new());
    let mut edge = Edge::new();
    bound(&edge);
    let port = free_port();
    let mut content = validating(&ca, [&first, &second], named("one").await);
    content
        .listeners
        .iter_mut()
        .for_each(|listener| listener.port = port.into());
    edge.serve(content);
    until("ready", async || edge.front().ready().is_ok()).await;
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let root = file("ca.pem", &ca.pem);
    let own = first.certificate(&["c"]);
    let own = file("own.pem", &format!("{}{}", own.chain, own.key));
    let own = own.to_str().unwrap();
    for (host, more, expected) in [
        ("four.test", &["--http2"][..], "2 200 one"),
        ("four.test", &["--http1.1"], "1.1 200 one"),
        ("four.test", &["--http2", "--tls-max", "1.2"], "2 200 one"),
        ("four.test", &["--http1.1", "--header", "host: two.test"], "1.1 421 "),
        ("one.test", &["--cert", own], "2 200 one"),
        ("one.test", &["--cert", own, "--tls-max", "1.2"], "2 200 one"),
        ("one.test", &[], "0 000 "),
        ("two.test", &["--cert", own], "0 000 "),
        ("three.test", &["--cert", own], "2 200 one"),
        ("five.test", &["--insecure"], "0 000 "),
    ] {
        let said = curl(port, host, &root, more).await;
        // Where the handshake had been over for the client, it had begun to ask.
        let said = said.replace("2 000", "0 000").replace("1.1 000", "0 000");
        assert_eq!(said, expected, "{host} {more:?}");
    }
}
