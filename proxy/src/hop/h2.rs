//! HTTP/2 connections to endpoints: the settings of every HTTP/2 connection of weft, and the pool of those it opened.
//!
//! One connection for each endpoint, identity and worker, another only when it carries about as many streams as it should:
//! what leaves together shares one write. Tunnels have connections of their own, so that bulk cannot starve requests.
//! A connection is ready when the peer's SETTINGS are known, since whether extended CONNECT is offered stands in them.

mod link;
pub mod settings;

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use ::h2::client::SendRequest;
use bytes::Bytes;
use tokio::sync::watch;
use weft_proto::limits;
use weft_service::{spiffe::Id, tls::Credentials};

use super::Transport;
use crate::{
    app::Shared,
    endpoint::Endpoint,
    fault::{Fault, Reason},
    metrics,
};

pub use settings::{client_builder, server_builder};

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Requests,
    Tunnels,
}

#[derive(Clone, PartialEq, Eq)]
struct Key {
    address: SocketAddr,
    identity: Option<Id>,
    transport: Transport,
    purpose: Purpose,
    /// Tells programs apart that share a thread, as in tests.
    shared: usize,
}

impl Hash for Key {
    /// The address alone tells almost all apart, and this is done for every request.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.address, self.purpose).hash(state);
    }
}

thread_local! {
    static POOL: RefCell<HashMap<Key, Vec<Arc<Link>>, foldhash::fast::RandomState>> = RefCell::default();
}

/// One pooled connection.
struct Link {
    /// Set once it is usable.
    ready: OnceLock<Ready>,
    /// What became of making it.
    told: watch::Receiver<State>,
    counts: Arc<Counts>,
    /// What it was made with; newer ones retire it.
    credentials: Option<Arc<Credentials>>,
}

/// What a link's task and its users both look at.
#[derive(Default)]
struct Counts {
    /// Streams that use it or wait for it.
    streams: AtomicUsize,
    /// It takes no new streams.
    closed: AtomicBool,
}

struct Ready {
    send: SendRequest<Bytes>,
    extended_connect: bool,
    /// Streams that the peer lets us open, as far as we want to.
    most: usize,
}

#[derive(Clone)]
enum State {
    Connecting,
    Ready,
    Failed { reason: Reason, why: Arc<str> },
}

/// A place on a connection to an endpoint, for one stream. Held for as long as the stream lives.
pub struct H2Hop {
    /// Ready for one request.
    pub send: SendRequest<Bytes>,
    /// Whether the peer takes extended CONNECT (RFC 8441).
    pub extended_connect: bool,
    /// Counts the stream until it is dropped; may be kept apart from the rest.
    pub place: Place,
}

/// One stream's place on a pooled connection.
pub struct Place(Arc<Link>);

impl Place {
    fn take(link: &Arc<Link>) -> Self {
        link.counts.streams.fetch_add(1, Relaxed);
        Self(link.clone())
    }

    /// No new stream goes over this connection: what it answered says that it is ending.
    pub fn retire(&self) {
        self.0.counts.closed.store(true, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counts.streams.fetch_sub(1, Relaxed);
    }
}

impl Link {
    /// Whether one more stream should go here.
    fn has_room(&self, credentials: &Option<Arc<Credentials>>) -> bool {
        let most = self.ready.get().map_or(limits::H2_STREAMS_USED, |ready| ready.most);
        self.counts.streams.load(Relaxed) < most && self.is_current(credentials)
    }

    /// Whether it takes new streams at all.
    fn is_current(&self, credentials: &Option<Arc<Credentials>>) -> bool {
        !self.counts.closed.load(Relaxed)
            && match (&self.credentials, credentials) {
                (None, None) => true,
                (Some(own), Some(current)) => Arc::ptr_eq(own, current) && !own.expired(SystemTime::now()),
                _ => false,
            }
    }

    /// Waits until it is usable, or known not to be.
    async fn ready(&self) -> Result<&Ready, Fault> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let mut told = self.told.clone();
        match told
            .wait_for(|state| !matches!(state, State::Connecting))
            .await
            .as_deref()
        {
            Ok(State::Failed { reason, why }) if why.is_empty() => Err(Fault::new(*reason).replayable()),
            Ok(State::Failed { reason, why }) => Err(Fault::because(*reason, &**why).replayable()),
            Ok(_) => self.ready.get().ok_or_else(|| Fault::new(Reason::Internal)),
            Err(_) => Err(Fault::because(
                Reason::Internal,
                "the connection's task ended without a word",
            )),
        }
    }
}

/// A place for a request on a pooled connection to the endpoint.
pub async fn ready(endpoint: &Arc<Endpoint>, transport: &Transport, shared: &Arc<Shared>) -> Result<H2Hop, Fault> {
    acquire(endpoint, transport, Purpose::Requests, shared).await
}

pub(super) async fn acquire(
    endpoint: &Arc<Endpoint>,
    transport: &Transport,
    purpose: Purpose,
    shared: &Arc<Shared>,
) -> Result<H2Hop, Fault> {
    let over_mesh = is_over_mesh(endpoint, transport);
    let identity = over_mesh.then(|| endpoint.identity.clone()).flatten();
    let shared_as_number = Arc::as_ptr(shared) as usize;
    let key = Key {
        address: endpoint.address,
        identity,
        transport: transport.clone(),
        purpose,
        shared: shared_as_number,
    };
    // A connection that turns out to be ending has taken nothing, so another is tried; the second one is new.
    for _ in 0..limits::ATTEMPTS {
        let place = Place::take(&link(&key, endpoint, shared)?);
        let link = &place.0;
        let ready = link.ready().await.inspect_err(|_| forget(&key, link))?;
        let extended_connect = ready.extended_connect;
        match ready.send.clone().ready().await {
            Ok(send) => {
                return Ok(H2Hop {
                    send,
                    extended_connect,
                    place,
                });
            }
            Err(_) => forget(&key, link),
        }
    }
    Err(Fault::new(Reason::HopGone).replayable())
}

/// Whether our credentials are used on the way, and so must be the current ones.
fn is_over_mesh(endpoint: &Endpoint, transport: &Transport) -> bool {
    match transport {
        Transport::Mesh => true,
        Transport::Tls(_) => super::reach(endpoint) == Transport::Mesh,
        Transport::Plain | Transport::Itself => false,
    }
}

/// A connection with room, else a new one that is being made.
fn link(key: &Key, endpoint: &Arc<Endpoint>, shared: &Arc<Shared>) -> Result<Arc<Link>, Fault> {
    let credentials = key.identity.is_some().then(|| shared.credentials.current()).flatten();
    POOL.with_borrow_mut(|pool| {
        if let Some(links) = pool.get(key) {
            if let Some(link) = links.iter().find(|link| link.has_room(&credentials)) {
                return Ok(link.clone());
            }
            let waiting: usize = links.iter().map(|link| link.counts.streams.load(Relaxed)).sum();
            if waiting >= limits::WAITING {
                metrics::limit_reached("WAITING");
                return Err(Fault::new(Reason::TooManyWaiting));
            }
        }
        let links = pool.entry(key.clone()).or_default();
        // Those of older credentials end when their streams have ended.
        links.retain(|link| link.is_current(&credentials));
        let (tell, told) = watch::channel(State::Connecting);
        let link = Arc::new(Link {
            ready: OnceLock::new(),
            told,
            counts: Arc::default(),
            credentials,
        });
        links.push(link.clone());
        link::start(link::Start {
            key: key.clone(),
            endpoint: endpoint.clone(),
            shared: shared.clone(),
            link: link.clone(),
            tell,
        });
        Ok(link)
    })
}

/// Takes a connection out of the pool. Streams that it has go on.
fn forget(key: &Key, link: &Arc<Link>) {
    link.counts.closed.store(true, Relaxed);
    forget_closed(key);
}

fn forget_closed(key: &Key) {
    // Dropped after the pool is let go of: what a connection drops may come back here.
    let _dropped = POOL.with_borrow_mut(|pool| {
        let links = pool.get_mut(key)?;
        let (closed, open) = links.drain(..).partition(|link| link.counts.closed.load(Relaxed));
        *links = open;
        if links.is_empty() {
            pool.remove(key);
        }
        let closed: Vec<Arc<Link>> = closed;
        Some(closed)
    });
}

/// How many connections to an address are open or being made.
#[cfg(test)]
pub(super) fn links_to(address: SocketAddr) -> usize {
    POOL.with_borrow(|pool| {
        pool.iter()
            .filter(|(key, _)| key.address == address)
            .map(|(_, links)| links.len())
            .sum()
    })
}
