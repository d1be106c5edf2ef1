//! TLS towards an application's own server, by a policy (BackendTLSPolicy, re-encrypt): verified, or no connection at all.
//!
//! Where weft listens at the endpoint, the application's TLS goes through a CONNECT stream of the mesh: mutual TLS outside,
//! the application's inside. What a server speaks is found out by the first connection, which offers everything, and is
//! remembered for a while.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prost::Message;
use rustls::{AlertDescription, ClientConfig, pki_types::ServerName};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use weft_proto::{limits, rpc::discovery as rpc};
use weft_service::tls::{self, Bundle, H2, HTTP1, Roots};

use super::{dial, reach, tunnel};
use crate::{
    app::Shared,
    endpoint::Endpoint,
    fault::{Fault, Reason},
    io::Io,
};

/// What weft does towards the endpoints of one backend. Made once for each content, whoever uses it.
pub struct Policy {
    /// Tells policies apart; never 0.
    pub id: u64,
    server_name: ServerName<'static>,
    /// Everything that the policy offers.
    all: Arc<ClientConfig>,
    /// HTTP/1.1 alone, where the policy has it.
    http1: Option<Arc<ClientConfig>>,
    /// For bytes: what the policy names, which may be nothing.
    bytes: Arc<ClientConfig>,
    offers_h2: bool,
}

/// What is offered on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Everything that the policy offers.
    All,
    /// HTTP/1.1 and nothing else.
    Http1,
    /// For bytes that nobody looks at.
    Bytes,
}

/// What a server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, or nothing by ALPN.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Policy {
    /// The policy with this content; the same one again for as long as somebody holds it. The error says what of the
    /// content cannot be used.
    pub fn of(content: &rpc::BackendTls) -> Result<Arc<Self>, String> {
        static POLICIES: LazyLock<Mutex<HashMap<Vec<u8>, Weak<Policy>>>> = LazyLock::new(Mutex::default);
        let key = content.encode_to_vec();
        // Nothing in here can leave the map half changed.
        let mut policies = POLICIES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policies.get(&key).and_then(Weak::upgrade) {
            return Ok(policy);
        }
        let policy = Arc::new(Self::new(content)?);
        policies.retain(|_, policy| policy.strong_count() > 0);
        policies.insert(key, Arc::downgrade(&policy));
        Ok(policy)
    }

    fn new(content: &rpc::BackendTls) -> Result<Self, String> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let server_name: ServerName<'static> = content
            .server_name
            .clone()
            .try_into()
            .map_err(|_| format!("{:?} is not a server name", content.server_name))?;
        let roots = match content.roots.as_str() {
            "" => Roots::System,
            pem => Roots::Own(Bundle::from_pem(pem.as_bytes()).map_err(|error| error.to_string())?),
        };
        let client_certificate = content
            .client_certificate
            .as_ref()
            .map(|own| -> Result<_, tls::CredentialsError> {
                Ok((
                    tls::certificates(own.chain.as_bytes())?,
                    tls::private_key(own.key.as_bytes())?,
                ))
            })
            .transpose()
            .map_err(|error| format!("the client certificate: {error}"))?;
        let config = tls::BackendTls {
            server_name: server_name.clone(),
            dns_names: content.dns_names.clone(),
            uris: content.uris.clone(),
            roots,
            client_certificate,
        }
        .client()
        .map_err(|error| error.to_string())?;
        let named: Vec<Vec<u8>> = content.alpn.iter().map(|id| id.clone().into_bytes()).collect();
        if named.iter().any(|id| id.is_empty() || id.len() > 255) {
            return Err("an ALPN id has 1 to 255 bytes".into());
        }
        let offering = |ids: Vec<Vec<u8>>| {
            let mut config = config.clone();
            config.alpn_protocols = ids;
            Arc::new(config)
        };
        let all = match named.is_empty() {
            true => vec![H2.to_vec(), HTTP1.to_vec()],
            false => named.clone(),
        };
        Ok(Self {
            id: IDS.fetch_add(1, Relaxed),
            offers_h2: all.iter().any(|id| id == H2),
            http1: all.iter().any(|id| id == HTTP1).then(|| offering(vec![HTTP1.to_vec()])),
            all: offering(all),
            bytes: offering(named),
            server_name,
        })
    }

    /// Whether HTTP/2 is offered.
    pub fn offers_h2(&self) -> bool {
        self.offers_h2
    }

    /// Whether HTTP/1.1 is offered.
    pub fn offers_http1(&self) -> bool {
        self.http1.is_some()
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Policy {}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({}, {:?})", self.id, self.server_name)
    }
}

/// Connects to the endpoint and ends the handshake; also what the server chose to speak. Never falls back to anything else.
pub async fn connect(
    policy: &Policy,
    offer: Offer,
    endpoint: &Arc<Endpoint>,
    shared: &Arc<Shared>,
) -> Result<(Io, Speaks), Fault> {
    let no_alpn = || Fault::new(Reason::ServerAlpn).replayable();
    let config = match offer {
        Offer::All => &policy.all,
        Offer::Bytes => &policy.bytes,
        Offer::Http1 => policy.http1.as_ref().ok_or_else(no_alpn)?,
    };
    let below = match reach(endpoint) {
        super::Transport::Plain => dial(endpoint).await?,
        mesh => tunnel::open(endpoint, &mesh, shared).await?,
    };
    let handshake = TlsConnector::from(config.clone()).connect(policy.server_name.clone(), below.below_tls());
    let stream = tokio::time::timeout(limits::HANDSHAKE_TIME, handshake)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| Fault::because(reason(&error), error).replayable())?;
    let chosen = stream.get_ref().1.alpn_protocol();
    let speaks = match chosen {
        _ if offer == Offer::Bytes => Speaks::Http1,
        Some(H2) => Speaks::Http2,
        Some(HTTP1) => Speaks::Http1,
        // A server that knows nothing of ALPN.
        None if policy.offers_http1() => Speaks::Http1,
        _ => return Err(no_alpn()),
    };
    Ok((Io::tls(stream), speaks))
}

fn reason(error: &io::Error) -> Reason {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::ServerCertificate,
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Reason::ServerAlpn,
        _ => Reason::ServerTls,
    }
}

/// How long it is remembered what a server speaks: one that learns HTTP/2 is asked again after this.
const REMEMBERED: Duration = Duration::from_secs(60);

/// By address and policy: what was chosen, and when.
type Known = HashMap<(SocketAddr, u64), (Speaks, Instant), foldhash::fast::RandomState>;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What the endpoint chose lately.
pub fn recall(endpoint: SocketAddr, policy: &Policy) -> Option<Speaks> {
    KNOWN.with_borrow(|known| {
        known
            .get(&(endpoint, policy.id))
            .filter(|(_, since)| since.elapsed() < REMEMBERED)
            .map(|(speaks, _)| *speaks)
    })
}

/// Remembers what the endpoint chose.
pub fn remember(endpoint: SocketAddr, policy: &Policy, speaks: Speaks) {
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= limits::DESTINATIONS {
            known.clear();
        }
        known.insert((endpoint, policy.id), (speaks, Instant::now()));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> rpc::BackendTls {
        tls::install_provider();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        rpc::BackendTls {
            server_name: "shop.example.com".into(),
            roots: root.pem(),
            ..Default::default()
        }
    }

    #[test]
    fn the_same_content_is_one_policy_for_as_long_as_it_is_used() {
        let content = content();
        let first = Policy::of(&content).unwrap();
        assert_eq!(Policy::of(&content).unwrap(), first);
        let other = rpc::BackendTls {
            server_name: "other.example.com".into(),
            ..content.clone()
        };
        assert_ne!(Policy::of(&other).unwrap(), first);
        let id = first.id;
        drop(first);
        assert_ne!(Policy::of(&content).unwrap().id, id);
    }

    #[test]
    fn what_is_offered_is_what_the_policy_says() {
        let ids = |config: &Arc<ClientConfig>| config.alpn_protocols.clone();
        let policy = Policy::of(&content()).unwrap();
        assert_eq!(ids(&policy.all), [H2.to_vec(), HTTP1.to_vec()]);
        assert_eq!(ids(policy.http1.as_ref().unwrap()), [HTTP1.to_vec()]);
        assert!(ids(&policy.bytes).is_empty());
        let named = rpc::BackendTls {
            alpn: vec!["h2".into()],
            ..content()
        };
        let policy = Policy::of(&named).unwrap();
        assert!(policy.offers_h2() && !policy.offers_http1());
        assert_eq!(ids(&policy.bytes), [H2.to_vec()]);
    }

    #[test]
    fn content_that_cannot_be_used_says_why() {
        let wrong = |change: fn(&mut rpc::BackendTls)| {
            let mut content = content();
            change(&mut content);
            Policy::of(&content).unwrap_err()
        };
        assert!(wrong(|tls| tls.server_name = "a b".into()).contains("server name"));
        assert!(wrong(|tls| tls.roots = "none".into()).contains("PEM"));
        assert!(wrong(|tls| tls.alpn = vec![String::new()]).contains("ALPN"));
        assert!(wrong(|tls| tls.client_certificate = Some(rpc::Certificate::default())).contains("client certificate"));
    }
}
