//! A proxy's parts in this process: destinations as the controller would tell them, clients over memory or sockets,
//! scripted applications on loopback. Over [`Way::Mesh`] a request crosses both sides: outbound, `weft/1`, inbound.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use weft_proto::{names::env, rpc::discovery as rpc};
use weft_proxy::{
    app::Shared,
    config::Config,
    connection::Connection,
    exchange,
    io::Io,
    record::{Direction, Facts},
    role::LooksUp,
};

/// Longer than anything here takes, unless it never comes.
pub const SOON: Duration = Duration::from_secs(10);
pub const SERVICE: &str = "10.96.0.1:80";

/// What stands between the client and the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The outbound side, to a server without weft.
    Plain,
    /// The inbound side, from a client without weft.
    Inbound,
    /// Both sides, and `weft/1` between them.
    Mesh,
}

pub const WAYS: [Way; 3] = [Way::Plain, Way::Inbound, Way::Mesh];

pub struct World {
    pub shared: Arc<Shared>,
    asks: mpsc::UnboundedReceiver<weft_proxy::tables::Ask>,
}

impl World {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same, with more in the environment.
    pub fn with(more: &[(&str, &str)]) -> Self {
        weft_service::tls::install_provider();
        weft_proxy::metrics::install();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let mut variables: HashMap<String, String> = [
            (env::POD_NAME, "web-0"),
            (env::POD_NAMESPACE, "shop"),
            (env::POD_UID, "u-1"),
            (env::POD_IPS, "127.0.0.1"),
            (env::SERVICE_ACCOUNT, "web"),
            (env::TRUST_BUNDLE, &root),
            (env::DISCOVERY_ADDRESS, "127.0.0.1:1"),
            (env::IDENTITY_ADDRESS, "127.0.0.1:1"),
            (env::CLUSTER_CIDRS, "10.0.0.0/8"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        variables.extend(more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let (asked, asks) = mpsc::unbounded_channel();
        Self {
            shared: Shared::new(Config::from(&variables).unwrap(), asked),
            asks,
        }
    }

    /// What a client's connection to these applications is, for the proxy.
    pub async fn connection(&mut self, way: Way, apps: &[SocketAddr]) -> Arc<Connection> {
        self.connection_with(way, apps, |_| {}).await
    }

    /// The same, with rules and whatever else the controller says.
    pub async fn connection_with(
        &mut self,
        way: Way,
        apps: &[SocketAddr],
        more: impl FnOnce(&mut rpc::Destination),
    ) -> Arc<Connection> {
        let client: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let shared = self.shared.clone();
        if way == Way::Inbound {
            let facts = Facts::new(Direction::Inbound, client, apps[0], None, false);
            let followed = shared.tables.follow(LooksUp::Itself, apps[0]).await;
            return Arc::new(Connection {
                facts,
                peer: None,
                toward: followed.into(),
                shared,
            });
        }
        let address: SocketAddr = SERVICE.parse().unwrap();
        let identity = if way == Way::Mesh {
            "spiffe://cluster.local/ns/shop/sa/web"
        } else {
            ""
        };
        let mut content = rpc::Destination {
            kind: rpc::DestinationKind::Service.into(),
            backends: vec![backend("shop/cart:80", apps, identity)],
            default_backend: Some(0),
            ..Default::default()
        };
        more(&mut content);
        let mut following = {
            let shared = shared.clone();
            tokio::spawn(async move { shared.tables.follow(LooksUp::Controller, address).await })
        };
        // A destination that is followed already is not asked for again.
        let followed = tokio::select! {
            followed = &mut following => followed.unwrap(),
            _ = self.asks.recv() => {
                shared.tables.answer(address, "1", content);
                following.await.unwrap()
            }
        };
        let facts = Facts::new(Direction::Outbound, client, address, None, false);
        Arc::new(Connection {
            facts,
            peer: None,
            toward: followed.into(),
            shared,
        })
    }

    /// An HTTP/1 client's connection, in memory.
    pub async fn h1(&mut self, way: Way, app: SocketAddr) -> Raw<Io> {
        let connection = self.connection(way, &[app]).await;
        h1_on(connection)
    }

    /// An HTTP/2 client's connection, in memory.
    pub async fn h2(&mut self, way: Way, apps: &[SocketAddr]) -> h2::client::SendRequest<bytes::Bytes> {
        let connection = self.connection(way, apps).await;
        h2_on(connection).await
    }
}

pub fn backend(id: &str, apps: &[SocketAddr], identity: &str) -> rpc::Backend {
    let endpoint = |(number, app): (usize, &SocketAddr)| rpc::Endpoint {
        address: Some(rpc::Address {
            ip: vec![127, 0, 0, 1],
            port: app.port().into(),
        }),
        pod: Some(rpc::ObjectName {
            namespace: "shop".into(),
            name: format!("cart-{number}"),
        }),
        pod_uid: format!("uid-{number}"),
        identity: identity.into(),
        terminating: false,
    };
    rpc::Backend {
        id: id.into(),
        endpoints: apps.iter().enumerate().map(endpoint).collect(),
        ..Default::default()
    }
}

pub fn h1_on(connection: Arc<Connection>) -> Raw<Io> {
    let (near, far) = Io::pair(256 << 10);
    tokio::spawn(exchange::serve_h1(far, connection));
    Raw::new(near)
}

pub async fn h2_on(connection: Arc<Connection>) -> h2::client::SendRequest<bytes::Bytes> {
    let (near, far) = Io::pair(256 << 10);
    tokio::spawn(exchange::serve_h2(far, connection));
    let (mut send, driver) = weft_proxy::hop::h2::client_builder()
        .handshake::<_, bytes::Bytes>(near)
        .await
        .unwrap();
    tokio::spawn(async move { drop(driver.await) });
    // The server's SETTINGS must be here before an extended CONNECT.
    while !send.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    send = send.ready().await.unwrap();
    send
}

/// A peer that speaks bytes.
pub struct Raw<S> {
    pub io: S,
    got: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn new(io: S) -> Self {
        Self { io, got: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Puts bytes in front of what is to come.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.got.splice(..0, bytes.iter().copied());
    }

    async fn more(&mut self) -> usize {
        let mut part = vec![0; 64 << 10];
        let count = tokio::time::timeout(SOON, self.io.read(&mut part))
            .await
            .unwrap_or_else(|_| panic!("nothing more came after {:?}", String::from_utf8_lossy(&self.got)))
            .unwrap_or(0);
        self.got.extend_from_slice(&part[..count]);
        count
    }

    /// Exactly these bytes come next.
    #[track_caller]
    pub fn expect(&mut self, text: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let text = text.as_ref().to_vec();
        let place = std::panic::Location::caller();
        async move {
            while self.got.len() < text.len() && text.starts_with(&self.got) {
                if self.more().await == 0 {
                    break;
                }
            }
            let length = text.len().min(self.got.len());
            assert_eq!(
                String::from_utf8_lossy(&self.got[..length]),
                String::from_utf8_lossy(&text),
                "at {place}; all of it: {:?}",
                String::from_utf8_lossy(&self.got)
            );
            self.got.drain(..length);
        }
    }

    /// Everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let at = self.got.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = at {
                let taken: Vec<u8> = self.got.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            if self.more().await == 0 {
                panic!("it ended before {end:?}: {:?}", String::from_utf8_lossy(&self.got));
            }
        }
    }

    /// A head.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// A head, unless the peer ends before.
    pub async fn next_head(&mut self) -> Option<String> {
        while !self.got.windows(4).any(|window| window == b"\r\n\r\n") {
            if self.more().await == 0 {
                return None;
            }
        }
        Some(self.head().await)
    }

    /// So many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.got.len() < count {
            assert!(self.more().await > 0, "it ended after {} bytes", self.got.len());
        }
        self.got.drain(..count).collect()
    }

    /// Everything until the end; whether that was clean.
    pub async fn rest(&mut self) -> (String, bool) {
        let mut all = std::mem::take(&mut self.got);
        let read = tokio::time::timeout(SOON, self.io.read_to_end(&mut all)).await;
        let clean = read
            .unwrap_or_else(|_| panic!("no end came after {:?}", String::from_utf8_lossy(&all)))
            .is_ok();
        (String::from_utf8_lossy(&all).into_owned(), clean)
    }

    /// The same under a paused clock, where no time is too long.
    pub async fn rest_paused(&mut self) -> (String, bool) {
        let mut all = std::mem::take(&mut self.got);
        let clean = self.io.read_to_end(&mut all).await.is_ok();
        (String::from_utf8_lossy(&all).into_owned(), clean)
    }

    /// Nothing comes for a while.
    pub async fn silent(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.got), "");
        let mut part = [0; 1024];
        let read = tokio::time::timeout(Duration::from_millis(100), self.io.read(&mut part)).await;
        if let Ok(read) = read {
            panic!(
                "something came: {:?}",
                read.map(|count| String::from_utf8_lossy(&part[..count]).into_owned())
            );
        }
    }
}

type Script = Box<dyn Fn(usize, Raw<TcpStream>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An application that runs a script for each connection, which is told its number from 0. The script's end closes it.
pub async fn app<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(usize, Raw<TcpStream>) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let script: Script = Box::new(move |number, peer| Box::pin(script(number, peer)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            stream.set_nodelay(true).unwrap();
            tokio::spawn(script(number, Raw::new(stream)));
        }
    });
    address
}

/// An application that answers each head by what `answer` makes of it.
pub async fn answering(answer: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> SocketAddr {
    app(move |_, mut peer| {
        let answer = answer.clone();
        async move {
            while let Some(head) = peer.next_head().await {
                peer.send(answer(&head)).await;
            }
        }
    })
    .await
}

/// What an application saw, for later.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
