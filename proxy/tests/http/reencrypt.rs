//! TLS towards the application's own server: what is offered, what rides on what the server chose, and that nothing is ever
//! sent to a server that does not prove itself.

use crate::world::{Raw, SOON, Seen, Way, World, h1_on, h2_on};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Method, Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivatePkcs8KeyDer, server::WebPkiClientVerifier};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use weft_proto::rpc::discovery as rpc;
use weft_proxy::connection::Connection;
use weft_route::Ask;

const NAME: &str = "cart.example.com";
const REACHED: [Way; 2] = [Way::Plain, Way::Mesh];

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        weft_service::tls::install_provider();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn leaf(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server with a certificate for [`NAME`].
    fn server(&self, alpn: &[&str]) -> ServerConfig {
        self.server_with(alpn, NAME, |_| {})
    }

    fn server_with(&self, alpn: &[&str], name: &str, change: impl Fn(&mut CertificateParams)) -> ServerConfig {
        let (leaf, key) = self.leaf(name, change);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        config
    }

    /// What a policy says of such a server.
    fn policy(&self) -> rpc::BackendTls {
        rpc::BackendTls {
            server_name: NAME.into(),
            roots: self.pem.clone(),
            ..Default::default()
        }
    }
}

/// A server over TLS that writes down what it saw: `hello SNI ALPN` of each connection, then each request. HTTP/2 where
/// that was chosen, with RFC 8441 or without; else HTTP/1.1. It answers with the protocol that it spoke; a WebSocket echoes.
async fn server(config: ServerConfig, extended: bool, seen: &Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let seen = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(stream).await else {
                    return seen.add("no handshake");
                };
                let session = tls.get_ref().1;
                let alpn = String::from_utf8_lossy(session.alpn_protocol().unwrap_or(b"-")).into_owned();
                let shown = if session.peer_certificates().is_some() {
                    " shown"
                } else {
                    ""
                };
                seen.add(format!("hello {} {alpn}{shown}", session.server_name().unwrap_or("-")));
                if alpn == "h2" {
                    over_h2(tls, extended, seen).await;
                } else {
                    over_h1(Raw::new(tls), seen).await;
                }
            });
        }
    });
    address
}

async fn over_h2(tls: TlsStream<TcpStream>, extended: bool, seen: Seen) {
    let mut builder = h2::server::Builder::new();
    if extended {
        builder.enable_connect_protocol();
    }
    let mut h2 = builder.handshake(tls).await.unwrap();
    while let Some(Ok((request, respond))) = h2.accept().await {
        let seen = seen.clone();
        tokio::spawn(async move {
            let scheme = request.uri().scheme_str().unwrap_or("-");
            let key = request.headers().contains_key("sec-websocket-key");
            seen.add(format!("{} {} {scheme} {key}", request.method(), request.uri().path()));
            answer_h2(request, respond).await;
        });
    }
}

async fn answer_h2(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let is_tunnel = request.extensions().get::<h2::ext::Protocol>().is_some();
    let mut body = request.into_body();
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    if !is_tunnel {
        return send.send_data(Bytes::from_static(b"h2"), true).unwrap();
    }
    while let Some(Ok(part)) = body.data().await {
        send.send_data(part, false).unwrap();
    }
    send.send_data(Bytes::new(), true).unwrap();
}

async fn over_h1(mut peer: Raw<TlsStream<TcpStream>>, seen: Seen) {
    loop {
        let mut first = [0; 1];
        if !matches!(peer.io.read(&mut first).await, Ok(1)) {
            return;
        }
        peer.unread(&first);
        let head = peer.head().await;
        seen.add(head.lines().next().unwrap_or_default().to_owned());
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then(|| value.trim().to_owned())
        });
        if let Some(key) = key {
            let accept = weft_proxy::relay::upgrade::handshake::accept(&key);
            peer.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")).await;
            let (mut read, mut write) = tokio::io::split(peer.io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            // Without close_notify an end would be a cut.
            let _ = write.shutdown().await;
            return;
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1").await;
    }
}

/// A client's connection to a backend with this policy.
async fn to(world: &mut World, way: Way, address: SocketAddr, policy: rpc::BackendTls) -> Arc<Connection> {
    world
        .connection_with(way, &[address], |destination| {
            destination.backends[0].tls = Some(policy)
        })
        .await
}

async fn ask(connection: &Arc<Connection>) -> String {
    let mut client = h1_on(connection.clone());
    client
        .send("GET /x HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        .await;
    client.rest().await.0
}

async fn ask_h2(connection: &Arc<Connection>) -> (u16, String) {
    let mut send = h2_on(connection.clone()).await;
    let request = Request::builder().uri("http://shop/y").body(()).unwrap();
    let answer = send.send_request(request, true).unwrap().0.await.unwrap();
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(part) = body.data().await {
        text.extend_from_slice(&part.unwrap());
    }
    (status, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn requests_of_both_versions_ride_one_connection_of_a_server_that_speaks_http_2() {
    for way in REACHED {
        let (ca, seen) = (Ca::new(), Seen::default());
        let address = server(ca.server(&["h2", "http/1.1"]), false, &seen).await;
        let mut world = World::new();
        let connection = to(&mut world, way, address, ca.policy()).await;
        for _ in 0..3 {
            let answer = ask(&connection).await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("h2"),
                "{way:?} {answer}"
            );
        }
        assert_eq!(ask_h2(&connection).await, (200, "h2".into()));
        let all = seen.all();
        assert_eq!(all[0], "hello cart.example.com h2", "{way:?}");
        assert_eq!(
            all[1..4],
            ["GET /x https false", "GET /x https false", "GET /x https false"]
        );
        assert_eq!(all[4..], ["GET /y https false"], "{way:?}");
    }
}

#[tokio::test]
async fn a_server_without_http_2_gets_http_1_on_the_connection_that_found_it_out() {
    for way in REACHED {
        for alpn in [&["http/1.1"][..], &[]] {
            let (ca, seen) = (Ca::new(), Seen::default());
            let address = server(ca.server(alpn), false, &seen).await;
            let mut world = World::new();
            let connection = to(&mut world, way, address, ca.policy()).await;
            for _ in 0..3 {
                let answer = ask(&connection).await;
                assert!(
                    answer.starts_with("HTTP/1.1 200") && answer.ends_with("h1"),
                    "{way:?} {answer}"
                );
            }
            assert_eq!(ask_h2(&connection).await, (200, "h1".into()));
            let hello = format!("hello {NAME} {}", alpn.first().unwrap_or(&"-"));
            let gets = "GET /x HTTP/1.1";
            assert_eq!(seen.all(), [&*hello, gets, gets, gets, "GET /y HTTP/1.1"], "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_websocket_rides_on_http_2_with_rfc_8441_and_else_takes_a_connection_of_its_own() {
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    for way in REACHED {
        for (alpn, extended, hellos) in [
            (&["h2", "http/1.1"][..], true, &["h2"][..]),
            (&["h2", "http/1.1"], false, &["h2", "http/1.1"]),
            (&["http/1.1"], false, &["http/1.1"]),
        ] {
            let (ca, seen) = (Ca::new(), Seen::default());
            let address = server(ca.server(alpn), extended, &seen).await;
            let mut world = World::new();
            let connection = to(&mut world, way, address, ca.policy()).await;
            let mut client = h1_on(connection.clone());
            client.send(format!("GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\nearly ")).await;
            let head = client.head().await.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 101 "), "{way:?} {alpn:?} {head}");
            assert!(head.contains("upgrade: websocket"), "{head}");
            assert!(
                head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
                "{way:?} {head}"
            );
            client.send("late").await;
            client.expect("early late").await;
            let chosen = || {
                let all = seen.all();
                let hellos = all
                    .iter()
                    .filter_map(|line| line.strip_prefix("hello cart.example.com "));
                hellos.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(chosen(), hellos, "{way:?} {alpn:?} {extended}");
            if extended {
                assert!(
                    seen.all().contains(&"CONNECT /ws https false".to_owned()),
                    "{:?}",
                    seen.all()
                );
            }
            // The same from a client that speaks HTTP/2, which has no key.
            let mut send = h2_on(connection.clone()).await;
            let mut request = Request::builder()
                .method(Method::CONNECT)
                .uri("http://shop/ws")
                .body(())
                .unwrap();
            request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
            let (answer, mut up) = send.send_request(request, false).unwrap();
            let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
            assert_eq!(answer.status(), 200, "{way:?} {alpn:?}");
            assert!(!answer.headers().contains_key("sec-websocket-accept"));
            up.send_data(Bytes::from_static(b"frame"), true).unwrap();
            assert_eq!(&answer.into_body().data().await.unwrap().unwrap()[..], b"frame");
            // What does not need HTTP/1 goes on over HTTP/2.
            let expected = if alpn.contains(&"h2") { "h2" } else { "h1" };
            assert!(ask(&connection).await.contains(expected), "{way:?} {alpn:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_gets_nothing_and_the_client_the_reason() {
    for way in REACHED {
        let (ca, other) = (Ca::new(), Ca::new());
        let hour = Duration::from_secs(3600);
        let ended = |params: &mut CertificateParams| {
            params.not_before = (std::time::SystemTime::now() - 2 * hour).into();
            params.not_after = (std::time::SystemTime::now() - hour).into();
        };
        let alpn = &["h2", "http/1.1"];
        for (config, why) in [
            (other.server(alpn), "server_certificate"),
            (ca.server_with(alpn, "other.example.com", |_| {}), "server_certificate"),
            (ca.server_with(alpn, NAME, ended), "server_certificate"),
            (ca.server(&["hotrod"]), "server_alpn"),
        ] {
            let seen = Seen::default();
            let address = server(config, false, &seen).await;
            let mut world = World::new();
            let connection = to(&mut world, way, address, ca.policy()).await;
            let began = std::time::Instant::now();
            let answer = ask(&connection).await;
            assert!(
                answer.starts_with("HTTP/1.1 502 ") && answer.contains(why),
                "{way:?} {why} {answer}"
            );
            let (status, text) = ask_h2(&connection).await;
            assert!(status == 502 && text.contains(why), "{way:?} {why} {text}");
            assert!(began.elapsed() < Duration::from_secs(4), "{why}: {:?}", began.elapsed());
            assert!(seen.all().iter().all(|line| line == "no handshake"), "{:?}", seen.all());
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_never_sent_plaintext() {
    let ca = Ca::new();
    let seen = Seen::default();
    let saw = seen.clone();
    let address = crate::world::app(move |_, mut peer| {
        let saw = saw.clone();
        async move {
            let mut first = [0; 5];
            let count = peer.io.read(&mut first).await.unwrap();
            saw.add(format!("{:?}", &first[..count.min(1)]));
            peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let mut world = World::new();
    let connection = to(&mut world, Way::Plain, address, ca.policy()).await;
    let answer = ask(&connection).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("server_tls"),
        "{answer}"
    );
    // A handshake record, and nothing else.
    assert!(seen.all().iter().all(|first| first == "[22]"), "{:?}", seen.all());
}

#[tokio::test]
async fn a_policy_decides_what_is_offered_and_what_is_shown() {
    let ca = Ca::new();
    let offered = |alpn: &[&str]| rpc::BackendTls {
        alpn: alpn.iter().map(|id| (*id).to_owned()).collect(),
        ..ca.policy()
    };
    for (alpn, hello, answered) in [
        (&["http/1.1"][..], "hello cart.example.com http/1.1", "h1"),
        (&["h2"], "hello cart.example.com h2", "h2"),
    ] {
        let seen = Seen::default();
        let address = server(ca.server(&["h2", "http/1.1"]), false, &seen).await;
        let mut world = World::new();
        let connection = to(&mut world, Way::Plain, address, offered(alpn)).await;
        assert!(ask(&connection).await.contains(answered), "{alpn:?}");
        assert_eq!(seen.all()[0], hello);
    }
    // What cannot ride on HTTP/2 has nowhere to go then.
    let seen = Seen::default();
    let address = server(ca.server(&["h2", "http/1.1"]), false, &seen).await;
    let mut world = World::new();
    let connection = to(&mut world, Way::Plain, address, offered(&["h2"])).await;
    let mut client = h1_on(connection);
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert!(client.head().await.contains("no_extended_connect"));

    let (own, key) = ca.leaf("gateway.example.com", |_| {});
    let mut roots = RootCertStore::empty();
    roots
        .add(weft_service::tls::certificates(ca.pem.as_bytes()).unwrap().remove(0))
        .unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let (leaf, server_key) = ca.leaf(NAME, |_| {});
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
        )
        .unwrap();
    let address = server(config, false, &seen).await;
    let policy = rpc::BackendTls {
        client_certificate: Some(rpc::Certificate {
            chain: own.pem(),
            key: key.serialize_pem(),
        }),
        ..ca.policy()
    };
    let connection = to(&mut World::new(), Way::Plain, address, policy).await;
    assert!(ask(&connection).await.ends_with("h1"));
    assert!(
        seen.all().contains(&"hello cart.example.com - shown".to_owned()),
        "{:?}",
        seen.all()
    );
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_refuses_everything() {
    let ca = Ca::new();
    let seen = Seen::default();
    let address = server(ca.server(&["h2"]), false, &seen).await;
    let mut world = World::new();
    let connection = world
        .connection_with(Way::Plain, &[address], |destination| {
            destination.backends[0].refused = "its ConfigMap is not there".into();
        })
        .await;
    let answer = ask(&connection).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("backend_refused"),
        "{answer}"
    );
    let broken = rpc::BackendTls {
        roots: "no PEM".into(),
        ..ca.policy()
    };
    let connection = to(&mut World::new(), Way::Plain, address, broken).await;
    let answer = ask(&connection).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("backend_refused"),
        "{answer}"
    );
    assert!(weft_proxy::hop::open_any(&connection, &Ask::Tcp).await.is_err());
    assert!(seen.all().is_empty(), "{:?}", seen.all());
}

#[tokio::test]
async fn bytes_go_into_the_policys_tls_and_tls_of_the_clients_own_goes_as_it_is() {
    for way in REACHED {
        let (ca, seen) = (Ca::new(), Seen::default());
        let address = server(ca.server(&["h2", "http/1.1"]), false, &seen).await;
        let mut world = World::new();
        let connection = to(&mut world, way, address, ca.policy()).await;
        let mut opened = weft_proxy::hop::open_any(&connection, &Ask::Tcp).await.unwrap();
        opened
            .io
            .write_all(b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        Raw::new(opened.io).expect("HTTP/1.1 200 OK\r\n").await;
        assert_eq!(seen.all(), ["hello cart.example.com -", "GET /b HTTP/1.1"], "{way:?}");

        let opened = weft_proxy::hop::open_any(&connection, &Ask::Tls { sni: Some(NAME) })
            .await
            .unwrap();
        let policy = weft_service::tls::BackendTls {
            server_name: NAME.try_into().unwrap(),
            dns_names: vec![],
            uris: vec![],
            roots: weft_service::tls::Roots::Own(weft_service::tls::Bundle::from_pem(ca.pem.as_bytes()).unwrap()),
            client_certificate: None,
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(policy.client().unwrap()));
        let own = connector.connect(NAME.try_into().unwrap(), opened.io).await.unwrap();
        let mut own = Raw::new(own);
        own.send("GET /own HTTP/1.1\r\nhost: a\r\n\r\n").await;
        own.expect("HTTP/1.1 200 OK\r\n").await;
        assert_eq!(seen.all().last().unwrap(), "GET /own HTTP/1.1", "{way:?}");
    }
}
