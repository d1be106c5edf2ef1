//! The whole controller on real sockets, with a client that does what a proxy does: token, certificate, stream.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use weft_controller::{
    app::{self, Running},
    config::{Config, Raw},
    issue::{ca, client},
};
use weft_proto::rpc::{
    discovery::{
        Change, DestinationKind, FollowRequest, FollowResponse, Name, Wanted, change::Content,
        discovery_client::DiscoveryClient, name,
    },
    identity::{CertifyRequest, CertifyResponse, identity_client::IdentityClient},
};
use weft_service::{
    drain::Signal,
    spiffe::Id,
    tls::{self, Bundle, Credentials},
};

const CLUSTER: &str = "
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart-1, namespace: shop, uid: uid-cart}, spec: {serviceAccountName: cart}, status: {podIP: 10.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, uid: uid-web}, spec: {serviceAccountName: web}, status: {podIP: 10.1.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: weft-routes-1, namespace: weft-system, uid: uid-weft-routes}, spec: {serviceAccountName: weft-routes}}
";

struct World {
    directory: tempfile::TempDir,
    token_key: KeyPair,
    running: Running,
    drain: Signal,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(flags: &[&str]) -> Self {
        tls::install_provider();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let token_key = KeyPair::generate().unwrap();
        fs::write(path("token.pub"), token_key.public_key_pem()).unwrap();
        fs::create_dir(path("objects")).unwrap();
        fs::write(path("objects/cluster.yaml"), CLUSTER).unwrap();
        let (objects, ca, key) = (path("objects"), path("ca"), path("token.pub"));
        let mut arguments = vec![
            "weft-controller",
            "--from-dir",
            &objects,
            "--ca-dir",
            &ca,
            "--create-ca",
            "--sandbox-token-key",
            &key,
            "--discovery-listen",
            "127.0.0.1:0",
            "--identity-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--cluster-cidrs",
            "10.0.0.0/8",
        ];
        arguments.extend(flags);
        let config = Config::new(Raw::try_parse_from(arguments).unwrap()).unwrap();
        let drain = Signal::new();
        let running = app::start(config, drain.clone()).await.unwrap();
        Self {
            directory,
            token_key,
            running,
            drain,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(".new"), text).unwrap();
        fs::rename(self.path(".new"), self.path(&format!("objects/{name}"))).unwrap();
    }

    fn bundle(&self) -> Bundle {
        Bundle::from_pem(&fs::read(self.path("ca/ca.crt")).unwrap()).unwrap()
    }

    fn token(&self, account: &str, change: impl FnOnce(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": "weft-sandbox", "aud": ["weft-ca"], "sub": format!("system:serviceaccount:shop:{account}"), "exp": now + 600,
            "kubernetes.io": {
                "namespace": "shop",
                "pod": {"name": format!("{account}-1"), "uid": format!("uid-{account}")},
                "serviceaccount": {"name": account, "uid": "s"},
            },
        });
        change(&mut claims);
        let key = EncodingKey::from_ec_pem(self.token_key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    }

    async fn certify(&self, token: String, csr: Vec<u8>) -> Result<CertifyResponse, Status> {
        let address = self.running.addresses.identity.unwrap().to_string();
        let config = tls::identity_client(&self.bundle(), &own("weft-identity"));
        let channel = client::connect(&address, config).await.unwrap();
        let answer = IdentityClient::new(channel)
            .certify(CertifyRequest { token, csr })
            .await;
        answer.map(tonic::Response::into_inner)
    }

    async fn credentials(&self, account: &str) -> Credentials {
        let (pair, csr) = request(|_| {});
        let answer = self.certify(self.token(account, |_| {}), csr).await.unwrap();
        let ders = |list: Vec<Vec<u8>>| list.into_iter().map(Into::into).collect::<Vec<_>>();
        let bundle = Bundle::new(ders(answer.trust_bundle)).unwrap();
        Credentials::new(ders(answer.chain), tls::pkcs8(pair.serialize_der()), bundle).unwrap()
    }

    fn discovery(&self) -> SocketAddr {
        self.running.addresses.discovery.unwrap()
    }

    async fn proxy(&self, account: &str) -> Proxy {
        let credentials = self.credentials(account).await;
        let config = credentials.discovery_client(&own("weft-routes"));
        let channel = client::connect(&self.discovery().to_string(), config).await.unwrap();
        let (sender, receiver) = mpsc::channel(8);
        let answers = DiscoveryClient::new(channel)
            .follow(ReceiverStream::new(receiver))
            .await
            .unwrap();
        Proxy {
            sender,
            answers: answers.into_inner(),
            seen: Vec::new(),
        }
    }
}

fn own(account: &str) -> Id {
    Id::workload("cluster.local", "weft-system", account).unwrap()
}

fn request(change: impl FnOnce(&mut CertificateParams)) -> (KeyPair, Vec<u8>) {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    let csr = params.serialize_request(&pair).unwrap().der().to_vec();
    (pair, csr)
}

struct Proxy {
    sender: mpsc::Sender<FollowRequest>,
    answers: Streaming<FollowResponse>,
    seen: Vec<Change>,
}

fn destination(address: &str) -> Name {
    Name {
        kind: Some(name::Kind::Destination(address.parse::<SocketAddr>().unwrap().into())),
    }
}

fn workload(address: &str) -> Name {
    Name {
        kind: Some(name::Kind::Workload(
            address.parse::<std::net::IpAddr>().unwrap().into(),
        )),
    }
}

impl Proxy {
    async fn follow(&self, wanted: impl IntoIterator<Item = (Name, String)>) {
        let follow = wanted
            .into_iter()
            .map(|(name, version)| Wanted {
                name: Some(name),
                version,
            })
            .collect();
        self.sender
            .send(FollowRequest {
                follow,
                forget: Vec::new(),
            })
            .await
            .unwrap();
    }

    async fn ask(&self, name: Name) {
        self.follow([(name, String::new())]).await;
    }

    async fn next(&mut self) -> Result<Change, Status> {
        if self.seen.is_empty() {
            let answer = tokio::time::timeout(Duration::from_secs(10), self.answers.message()).await;
            let answer = answer.expect("an answer in time")?;
            self.seen = answer.ok_or_else(|| Status::unknown("the stream has ended"))?.changes;
            assert!(!self.seen.is_empty(), "an answer says something");
        }
        Ok(self.seen.remove(0))
    }

    async fn kind(&mut self) -> (Name, DestinationKind) {
        let change = self.next().await.unwrap();
        match change.content.unwrap() {
            Content::Destination(destination) => (change.name.unwrap(), destination.kind()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_proxy_is_answered_once_and_then_only_what_changed() {
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    let names = [
        "10.96.0.1:80",
        "10.96.0.2:80",
        "10.1.0.2:8080",
        "10.200.0.1:1",
        "192.0.2.1:443",
    ];
    let mut kinds = Vec::new();
    for name in names {
        proxy.ask(destination(name)).await;
        kinds.push(proxy.kind().await);
    }
    use DestinationKind::{Outside, Pod, Service, Unknown};
    let expected = [Service, Service, Pod, Unknown, Outside].into_iter();
    assert_eq!(
        kinds,
        names.map(destination).into_iter().zip(expected).collect::<Vec<_>>()
    );

    world.put("slice.yaml", "
        {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: x, namespace: shop, labels: {kubernetes.io/service-name: cart}},
         addressType: IPv4, ports: [{name: '', port: 8080}], endpoints: [{addresses: [10.1.0.1]}]}");
    let change = proxy.next().await.unwrap();
    assert_eq!(change.name, Some(destination("10.96.0.1:80")));
    let Some(Content::Destination(content)) = change.content else {
        panic!("{change:?}")
    };
    assert_eq!(content.backends[0].endpoints.len(), 1);

    // What nothing had is somebody's now; nothing else is told in between.
    world.put(
        "pod.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: new, namespace: shop}, status: {podIP: 10.200.0.1}}",
    );
    assert_eq!(proxy.kind().await, (destination("10.200.0.1:1"), Pod));

    // A broken file changes nothing; the next good one does, and is the next thing told.
    world.put("pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: new");
    fs::remove_file(world.path("objects/slice.yaml")).unwrap();
    assert_eq!(proxy.kind().await, (destination("10.96.0.1:80"), Service));
    fs::remove_file(world.path("objects/pod.yaml")).unwrap();
    assert_eq!(proxy.kind().await, (destination("10.200.0.1:1"), Unknown));
}

#[tokio::test]
async fn a_stream_is_resumed_by_version() {
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    let names = ["10.96.0.1:80", "10.96.0.2:80"];
    let mut held = Vec::new();
    for name in names {
        proxy.ask(destination(name)).await;
        let change = proxy.next().await.unwrap();
        held.push((change.name.unwrap(), change.version));
    }
    drop(proxy);
    world.put(
        "cluster.yaml",
        &CLUSTER.replace(
            "name: web, namespace: shop}, spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]",
            "name: web, namespace: shop}, spec: {clusterIP: 10.96.0.2, ports: [{port: 80, appProtocol: http}]",
        ),
    );
    let mut probe = world.proxy("web").await;
    // The change is known to the controller once someone else is told of it.
    probe.follow([held[1].clone()]).await;
    while let Some(Content::Unchanged(_)) = probe.next().await.unwrap().content {}
    let mut proxy = world.proxy("cart").await;
    proxy.follow(held.clone()).await;
    let (mut one, mut other) = (proxy.next().await.unwrap(), proxy.next().await.unwrap());
    if one.name != Some(destination(names[0])) {
        std::mem::swap(&mut one, &mut other);
    }
    assert!(matches!(one.content, Some(Content::Unchanged(_))), "{one:?}");
    assert_eq!(one.version, held[0].1);
    assert!(matches!(other.content, Some(Content::Destination(_))), "{other:?}");
    assert_ne!(other.version, held[1].1);
}

#[tokio::test]
async fn t48_a_proxy_is_told_of_its_own_pod_and_of_no_other() {
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    proxy.ask(workload("10.1.0.2")).await;
    proxy.ask(workload("10.1.0.1")).await;
    let change = proxy.next().await.unwrap();
    assert_eq!(change.name, Some(workload("10.1.0.1")));
    let Some(Content::Workload(own)) = change.content else {
        panic!("{change:?}")
    };
    assert!(!own.strict_mtls && !own.terminating);
    world.put(
        "namespace.yaml",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {weft.dev/mtls: strict}}}",
    );
    let change = proxy.next().await.unwrap();
    assert!(matches!(change.content, Some(Content::Workload(own)) if own.strict_mtls));
    proxy.ask(destination("192.0.2.1:1")).await;
    assert_eq!(
        proxy.next().await.unwrap().name,
        Some(destination("192.0.2.1:1")),
        "and nothing of the other"
    );
}

#[tokio::test]
async fn t48_discovery_is_closed_to_who_has_no_certificate_of_the_mesh() {
    let world = World::new().await;
    let nobody = tls::identity_client(&world.bundle(), &own("weft-routes"));
    let follow = |config| async {
        let channel = client::connect(&world.discovery().to_string(), config)
            .await
            .map_err(|error| error.to_string())?;
        let stream = DiscoveryClient::new(channel).follow(tokio_stream::pending()).await;
        stream.map(drop).map_err(|error| error.to_string())
    };
    assert!(follow(nobody).await.is_err());
    // Another CA's certificate for the same name.
    let elsewhere = tempfile::tempdir().unwrap();
    ca::files::create(elsewhere.path(), "cluster.local").unwrap();
    let theirs = ca::files::load(elsewhere.path(), "cluster.local").unwrap();
    let (pair, csr) = request(|_| {});
    let id = Id::workload("cluster.local", "shop", "cart").unwrap();
    let key = ca::public_key(&csr).unwrap();
    let leaf = theirs
        .sign(&id, &key, Duration::from_secs(600), SystemTime::now())
        .unwrap();
    let forged = Credentials::new(leaf.chain, tls::pkcs8(pair.serialize_der()), world.bundle()).unwrap();
    assert!(follow(forged.discovery_client(&own("weft-routes"))).await.is_err());
    // No plaintext either: whatever comes back, it is not HTTP.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut plain = tokio::net::TcpStream::connect(world.discovery()).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        answer.len() < 16 && answer.first() != Some(&0),
        "at most a TLS alert: {answer:?}"
    );
}

#[tokio::test]
async fn t53_a_certificate_is_for_the_pod_of_the_token_whatever_the_request_says() {
    let world = World::new().await;
    let (_, csr) = request(|params| {
        let uri = own("weft-identity").to_string();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    });
    let answer = world.certify(world.token("cart", |_| {}), csr).await.unwrap();
    let leaf = answer.chain[0].clone().into();
    assert_eq!(
        Id::of_certificate(&leaf).unwrap().as_str(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    let end = UNIX_EPOCH + Duration::from_secs(answer.not_after as u64);
    assert_eq!(tls::validity(&leaf).unwrap().1, end);
}

#[tokio::test]
async fn t53_a_token_of_another_audience_or_past_its_end_gets_nothing() {
    let world = World::new().await;
    let csr = || request(|_| {}).1;
    let wrong_audience = world.token("cart", |claims| claims["aud"] = json!(["api"]));
    let expired = world.token("cart", |claims| claims["exp"] = json!(1_000_000_000));
    for token in [wrong_audience, expired, String::new(), "a.b.c".into()] {
        let status = world.certify(token, csr()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().starts_with("the token is refused: "), "{status:?}");
    }
    let mut tampered = csr();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    let status = world.certify(world.token("cart", |_| {}), tampered).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

#[tokio::test]
async fn t53_a_token_of_a_pod_that_is_gone_or_replaced_gets_nothing() {
    let world = World::new().await;
    let csr = || request(|_| {}).1;
    let gone = world.token("gone", |_| {});
    let replaced = world.token("cart", |claims| {
        claims["kubernetes.io"]["pod"]["uid"] = json!("uid-before")
    });
    for (token, why) in [
        (gone, "shop/gone-1 is not there"),
        (replaced, "shop/cart-1 has been replaced"),
    ] {
        let status = world.certify(token, csr()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains(why), "{status:?}");
    }
    // A pod's file may come a moment after its token.
    let coming = world.certify(world.token("late", |_| {}), csr());
    let put = async {
        world.put(
            "late.yaml",
            "{apiVersion: v1, kind: Pod, metadata: {name: late-1, namespace: shop, uid: uid-late}}",
        );
    };
    tokio::join!(coming, put).0.unwrap();
}

#[tokio::test]
async fn a_name_that_is_none_is_an_error_that_says_so() {
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    proxy.ask(Name { kind: None }).await;
    let status = proxy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut proxy = world.proxy("cart").await;
    proxy.ask(destination("10.96.0.1:0")).await;
    assert_eq!(proxy.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn t52_a_stream_ends_when_its_caller_is_trusted_no_longer() {
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    proxy.ask(destination("192.0.2.1:1")).await;
    proxy.next().await.unwrap();
    // Another CA in the place of the old one.
    let next = tempfile::tempdir().unwrap();
    ca::files::create(next.path(), "cluster.local").unwrap();
    for name in ["ca.key", "ca.crt"] {
        fs::copy(next.path().join(name), world.path(&format!("ca/{name}.new"))).unwrap();
    }
    for name in ["ca.key", "ca.crt"] {
        fs::rename(world.path(&format!("ca/{name}.new")), world.path(&format!("ca/{name}"))).unwrap();
    }
    let status = proxy.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    // With a certificate of the new one it goes on.
    let mut proxy = world.proxy("cart").await;
    proxy.ask(destination("192.0.2.1:1")).await;
    proxy.next().await.unwrap();
}

#[tokio::test]
async fn f20_a_stream_lives_no_longer_than_its_caller_s_certificate() {
    let world = World::with(&["--leaf-life", "10s"]).await;
    let credentials = world.credentials("cart").await;
    let left = credentials.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(
        left <= Duration::from_secs(10) && left > Duration::from_secs(7),
        "{left:?}"
    );
    let mut proxy = world.proxy("cart").await;
    let ended = tokio::time::timeout(Duration::from_secs(15), proxy.answers.message())
        .await
        .expect("it ends");
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    // The controller's own certificates were renewed meanwhile.
    let mut proxy = world.proxy("cart").await;
    proxy.ask(destination("192.0.2.1:1")).await;
    proxy.next().await.unwrap();
}

#[tokio::test]
async fn at_the_end_every_stream_is_told_to_go_elsewhere() {
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    proxy.ask(destination("192.0.2.1:1")).await;
    proxy.next().await.unwrap();
    world.drain.drain();
    assert_eq!(proxy.next().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn it_is_ready_and_shows_its_figures() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let mut proxy = world.proxy("cart").await;
    proxy.ask(destination("192.0.2.1:1")).await;
    proxy.next().await.unwrap();
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(world.running.addresses.admin.unwrap())
            .await
            .unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/ready").await.contains(" 200 "));
    let figures = get("/metrics").await;
    for line in [
        "weft_discovery_streams 1",
        "weft_discovery_names 1",
        "weft_certificates_total{outcome=\"issued\"} 1",
    ] {
        assert!(figures.contains(line), "{line} in {figures}");
    }
}

#[tokio::test]
async fn role_routes_gets_its_certificate_from_the_identity_service() {
    let world = World::new().await;
    let token = world.token("weft-routes", |claims| {
        claims["sub"] = json!("system:serviceaccount:weft-system:weft-routes");
        claims["kubernetes.io"]["namespace"] = json!("weft-system");
    });
    fs::write(world.path("token"), token).unwrap();
    let path = |name: &str| world.path(name).display().to_string();
    let (objects, token, bundle) = (path("objects"), path("token"), path("ca/ca.crt"));
    let identity = world.running.addresses.identity.unwrap().to_string();
    let arguments = [
        "weft-controller",
        "--role",
        "routes",
        "--from-dir",
        &objects,
        "--identity-address",
        &identity,
        "--token-file",
        &token,
        "--trust-bundle",
        &bundle,
        "--discovery-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let config = Config::new(Raw::try_parse_from(arguments).unwrap()).unwrap();
    let replica = app::start(config, Signal::new()).await.unwrap();
    let config = world.credentials("cart").await.discovery_client(&own("weft-routes"));
    let address = replica.addresses.discovery.unwrap().to_string();
    // Closed until the certificate is there.
    let channel = loop {
        match client::connect(&address, config.clone()).await {
            Ok(channel) => break channel,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (sender, receiver) = mpsc::channel(8);
    let answers = DiscoveryClient::new(channel)
        .follow(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let mut proxy = Proxy {
        sender,
        answers,
        seen: Vec::new(),
    };
    proxy.ask(destination("10.96.0.1:80")).await;
    let there = proxy.next().await.unwrap();
    // Any replica can resume a stream of another.
    let mut first = world.proxy("web").await;
    first
        .follow([(destination("10.96.0.1:80"), there.version.clone())])
        .await;
    assert!(matches!(
        first.next().await.unwrap().content,
        Some(Content::Unchanged(_))
    ));
}
