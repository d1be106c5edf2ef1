//! Two wefts in one process, mesh TLS over loopback between them, and an application behind the second.

use super::*;
use crate::{
    app::Shared,
    config::Config,
    exchange,
    record::Facts,
    role::{Direction, LooksUp},
    tables::Ask,
    terminate,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, string::Ia5String};
use std::{collections::HashMap, io::ErrorKind, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};
use weft_proto::{
    names::env,
    rpc::discovery::{self as rpc, DestinationKind},
};
use weft_service::{
    spiffe::Id,
    tls::{self, Bundle, Credentials},
};

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// A root, and what it signs.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            pem: root.pem(),
            der: root.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn credentials(&self, id: &str) -> Credentials {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id).unwrap())];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let bundle = Bundle::new(vec![self.der.clone()]).unwrap();
        Credentials::new(vec![leaf.der().clone()], tls::pkcs8(key.serialize_der()), bundle).unwrap()
    }

    /// A proxy with these credentials.
    fn proxy(&self, id: &str) -> (Arc<Shared>, mpsc::UnboundedReceiver<Ask>) {
        let id: Id = id.parse().unwrap();
        let variables: HashMap<String, String> = [
            (env::POD_NAME, "pod-0"),
            (env::POD_NAMESPACE, id.namespace()),
            (env::POD_UID, "uid-0"),
            (env::POD_IPS, "127.0.0.1"),
            (env::SERVICE_ACCOUNT, id.service_account()),
            (env::TRUST_BUNDLE, &self.pem),
            (env::DISCOVERY_ADDRESS, "127.0.0.1:1"),
            (env::IDENTITY_ADDRESS, "127.0.0.1:1"),
            (env::CLUSTER_CIDRS, "127.0.0.0/8"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let (asks, asked) = mpsc::unbounded_channel();
        let shared = Shared::new(Config::from(&variables).unwrap(), asks);
        shared.credentials.set(self.credentials(id.as_str()));
        (shared, asked)
    }
}

/// A client's weft, a server's weft that listens, and where its application is to listen.
struct World {
    ca: Ca,
    client: Arc<Shared>,
    server: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    app: TcpListener,
    _asked: [mpsc::UnboundedReceiver<Ask>; 2],
}

async fn world() -> World {
    let ca = Ca::new();
    let (client, first) = ca.proxy(CLIENT);
    let (server, second) = ca.proxy(SERVER);
    // What an application does not read soon stands still in weft, and not in the kernel.
    let app = TcpSocket::new_v4().unwrap();
    app.set_recv_buffer_size(4096).unwrap();
    app.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let app = app.listen(1024).unwrap();
    let mesh = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mesh.local_addr().unwrap();
    tokio::spawn(listen(mesh, app.local_addr().unwrap(), server.clone()));
    let endpoint = Arc::new(Endpoint {
        identity: Some(SERVER.parse().unwrap()),
        ..Endpoint::at(address)
    });
    World {
        ca,
        client,
        server,
        endpoint,
        app,
        _asked: [first, second],
    }
}

impl World {
    async fn open(&self) -> Result<Io, Fault> {
        open(&self.endpoint, &Transport::Mesh, &self.client).await
    }

    async fn pair(&self) -> (Io, TcpStream) {
        let (tunnel, app) = tokio::join!(self.open(), self.app.accept());
        (tunnel.unwrap(), app.unwrap().0)
    }
}

/// What the redirect and `connection.rs` do for a connection that arrives: here its original destination is the
/// listener's own address, and the application listens elsewhere.
async fn listen(mesh: TcpListener, app: SocketAddr, shared: Arc<Shared>) {
    let address = mesh.local_addr().unwrap();
    let answer = rpc::Destination {
        kind: DestinationKind::Pod.into(),
        backends: vec![rpc::Backend {
            id: "self".into(),
            endpoints: vec![rpc::Endpoint {
                address: Some(rpc::Address {
                    ip: vec![127, 0, 0, 1],
                    port: app.port().into(),
                }),
                ..Default::default()
            }],
            ..Default::default()
        }],
        default_backend: Some(0),
        ..Default::default()
    };
    let waiting = shared.tables.follow(LooksUp::Controller, address);
    let (followed, ()) = tokio::join!(waiting, async { shared.tables.answer(address, "v", answer) });
    drop(followed);
    loop {
        let (stream, peer) = mesh.accept().await.unwrap();
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok((io, id)) = terminate::mesh(Io::socket(stream), &shared).await else {
                return;
            };
            let facts = Facts::new(Direction::Inbound, peer, address, Some(id.as_str()), true);
            let followed = shared.tables.follow(LooksUp::Controller, address).await;
            let connection = Arc::new(Connection {
                facts,
                peer: Some(id),
                toward: followed.into(),
                shared,
            });
            exchange::serve_h2(io, connection).await;
        });
    }
}

#[tokio::test]
async fn t13_bytes_and_each_end_cross_a_tunnel() {
    let world = world().await;
    let (mut tunnel, mut app) = world.pair().await;
    tunnel.write_all(b"question").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut read = Vec::new();
    app.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"question");
    app.write_all(b"answer").await.unwrap();
    drop(app);
    let mut read = Vec::new();
    tunnel.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"answer");
}

#[tokio::test]
async fn t13_a_reset_crosses_a_tunnel_in_either_direction() {
    let world = world().await;
    let (mut tunnel, app) = world.pair().await;
    Io::socket(app).reset();
    assert_eq!(tunnel.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (mut tunnel, mut app) = world.pair().await;
    tunnel.write_u8(1).await.unwrap();
    app.read_u8().await.unwrap();
    tunnel.reset();
    assert_eq!(app.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_dial_that_the_application_refuses_is_told_and_may_be_tried_elsewhere() {
    let mut world = world().await;
    world.app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fault = world.open().await.unwrap_err();
    assert_eq!((fault.reason, fault.may_replay()), (Reason::ConnectRefused, true));
    // While it drains, the caller's weft is told to take another endpoint.
    world.server.inbound_drain.drain();
    let fault = world.open().await.unwrap_err();
    assert_eq!((fault.reason, fault.may_replay()), (Reason::StreamRefused, true));
}

#[tokio::test]
async fn who_comes_during_the_drain_is_served_and_who_was_there_goes_on() {
    let world = world().await;
    let (mut before, mut app_before) = world.pair().await;
    world.server.inbound_drain.drain();
    for _ in 0..3 {
        let (mut tunnel, mut app) = world.pair().await;
        tunnel.write_u8(7).await.unwrap();
        assert_eq!(app.read_u8().await.unwrap(), 7);
    }
    before.write_u8(8).await.unwrap();
    assert_eq!(app_before.read_u8().await.unwrap(), 8);
}

#[tokio::test]
async fn t33_another_identity_or_root_is_refused_and_nothing_else_is_tried() {
    let mut world = world().await;
    let address = world.endpoint.address;
    let named = |identity: &str| {
        Arc::new(Endpoint {
            identity: Some(identity.parse().unwrap()),
            ..Endpoint::at(address)
        })
    };
    world.endpoint = named("spiffe://cluster.local/ns/shop/sa/other");
    assert_eq!(world.open().await.unwrap_err().reason, Reason::ServerIdentity);

    world.endpoint = named(SERVER);
    world.client.credentials.set(Ca::new().credentials(CLIENT));
    assert_eq!(world.open().await.unwrap_err().reason, Reason::ServerTls);

    // The server trusts another root now; with TLS 1.3 the client learns that after its own handshake.
    world.client.credentials.set(world.ca.credentials(CLIENT));
    let stranger = Ca::new();
    world.server.credentials.set(stranger.credentials(SERVER));
    assert!(world.open().await.is_err());

    world
        .client
        .credentials
        .set(world.ca.credentials("spiffe://elsewhere.example/ns/shop/sa/client"));
    world.server.credentials.set(world.ca.credentials(SERVER));
    assert!(world.open().await.is_err());
}

#[tokio::test]
async fn f20_new_credentials_make_a_new_connection_and_streams_of_the_old_one_go_on() {
    let world = world().await;
    let (mut old, mut old_app) = world.pair().await;
    world.client.credentials.set(world.ca.credentials(CLIENT));
    world.server.credentials.set(world.ca.credentials(SERVER));
    let (mut new, mut new_app) = world.pair().await;
    for (tunnel, app) in [(&mut old, &mut old_app), (&mut new, &mut new_app)] {
        tunnel.write_u8(1).await.unwrap();
        assert_eq!(app.read_u8().await.unwrap(), 1);
    }
}

const PIECE: usize = 64 << 10;

/// A tunnel that the application does not read, with as many pieces in it as are wanted, or as go in; and how many did.
async fn stalled(world: &World, most: usize) -> (Io, TcpStream, usize) {
    let (mut tunnel, app) = world.pair().await;
    for pieces in 0..most {
        let written = tokio::time::timeout(Duration::from_millis(500), tunnel.write_all(&[0; PIECE])).await;
        if written.is_err() {
            return (tunnel, app, pieces);
        }
    }
    (tunnel, app, most)
}

#[tokio::test]
async fn t20_a_tunnel_that_nobody_reads_stops_no_other() {
    let world = world().await;
    let _stalled = stalled(&world, 1000).await;
    for _ in 0..20 {
        let (mut tunnel, mut app) = world.pair().await;
        tunnel.write_all(&[1; 100_000]).await.unwrap();
        let mut read = vec![0; 100_000];
        app.read_exact(&mut read).await.unwrap();
    }
}

#[tokio::test]
async fn t18_small_frames_that_nobody_reads_do_not_end_the_connection() {
    const FRAMES: usize = 80_000;
    let world = world().await;
    // What goes in is what the kernel takes, and then the stream's window: half of that is left free.
    let (_tunnel, _app, most) = stalled(&world, 1000).await;
    let pieces = most - limits::H2_STREAM_WINDOW / PIECE / 2;
    let (mut tunnel, mut app, sent) = stalled(&world, pieces).await;
    assert_eq!(sent, pieces);
    // More than h2's budget for small frames would bear if they lay in its queue.
    for frame in 0..FRAMES {
        tunnel.write_u8(1).await.unwrap();
        if frame % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut other, mut other_app) = world.pair().await;
    other.write_u8(1).await.unwrap();
    assert_eq!(other_app.read_u8().await.unwrap(), 1);
    // And all of them arrive.
    tunnel.shutdown().await.unwrap();
    let mut read = Vec::new();
    app.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), pieces * PIECE + FRAMES);
}

#[tokio::test]
async fn many_tunnels_share_few_connections() {
    let world = world().await;
    let mut open = Vec::new();
    for _ in 0..250 {
        open.push(world.pair().await);
    }
    assert_eq!(h2::links_to(world.endpoint.address), 3);
    drop(open);
}
