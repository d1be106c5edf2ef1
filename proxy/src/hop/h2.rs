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
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use ::h2::client::SendRequest;
use bytes::Bytes;
use tokio::sync::watch;
use weft_proto::limits;
use weft_service::spiffe::Id;

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

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    identity: Option<Id>,
    transport: Transport,
    purpose: Purpose,
    /// Tells programs apart that share a thread, as in tests.
    shared: usize,
}

thread_local! {
    static POOL: RefCell<HashMap<Key, Vec<Arc<Link>>, foldhash::fast::RandomState>> = RefCell::default();
}

/// One pooled connection.
struct Link {
    state: watch::Receiver<State>,
    counts: Arc<Counts>,
    /// Which credentials it was made with; newer ones retire it.
    credentials: u64,
    /// When those end, and with them the use of the connection.
    not_after: Option<SystemTime>,
}

/// What a link's task and its users both look at.
#[derive(Default)]
struct Counts {
    /// Streams that use it or wait for it.
    streams: AtomicUsize,
    /// It takes no new streams.
    closed: AtomicBool,
}

#[derive(Clone)]
enum State {
    Connecting,
    Ready {
        send: SendRequest<Bytes>,
        extended_connect: bool,
    },
    Failed {
        reason: Reason,
        why: Arc<str>,
    },
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
    fn has_room(&self, credentials: u64) -> bool {
        if self.counts.closed.load(Relaxed) || self.credentials != credentials {
            return false;
        }
        if self.not_after.is_some_and(|not_after| SystemTime::now() >= not_after) {
            return false;
        }
        let most = match &*self.state.borrow() {
            State::Connecting => limits::H2_STREAMS_USED,
            // A peer that allows none at all makes its streams wait, not its connections many.
            State::Ready { send, .. } => send.current_max_send_streams().clamp(1, limits::H2_STREAMS_USED),
            State::Failed { .. } => return false,
        };
        self.counts.streams.load(Relaxed) < most
    }
}

/// A place for a request on a pooled connection to the endpoint.
pub async fn ready(endpoint: &Endpoint, transport: Transport, shared: &Arc<Shared>) -> Result<H2Hop, Fault> {
    acquire(endpoint, transport, Purpose::Requests, shared).await
}

pub(super) async fn acquire(
    endpoint: &Endpoint,
    transport: Transport,
    purpose: Purpose,
    shared: &Arc<Shared>,
) -> Result<H2Hop, Fault> {
    let identity = (transport == Transport::Mesh)
        .then(|| endpoint.identity.clone())
        .flatten();
    let shared_as_number = Arc::as_ptr(shared) as usize;
    let key = Key {
        address: endpoint.address,
        identity,
        transport,
        purpose,
        shared: shared_as_number,
    };
    // A connection that turns out to be ending has taken nothing, so another is tried; the second one is new.
    for _ in 0..limits::ATTEMPTS {
        let place = Place::take(&link(&key, endpoint, shared)?);
        let link = &place.0;
        let mut state = link.state.clone();
        let state = match state.wait_for(|state| !matches!(state, State::Connecting)).await {
            Ok(state) => state.clone(),
            // Its task is gone without a word.
            Err(_) => State::Failed {
                reason: Reason::Internal,
                why: "the connection's task ended".into(),
            },
        };
        match state {
            State::Ready { send, extended_connect } => match send.ready().await {
                Ok(send) => {
                    return Ok(H2Hop {
                        send,
                        extended_connect,
                        place,
                    });
                }
                Err(_) => forget(&key, link),
            },
            State::Failed { reason, why } => {
                forget(&key, link);
                return Err(Fault::because(reason, &*why).replayable());
            }
            State::Connecting => {}
        }
    }
    Err(Fault::new(Reason::HopGone).replayable())
}

/// A connection with room, else a new one that is being made.
fn link(key: &Key, endpoint: &Endpoint, shared: &Arc<Shared>) -> Result<Arc<Link>, Fault> {
    let mesh = key.transport == Transport::Mesh;
    let credentials = if mesh { shared.credentials_number() } else { 0 };
    POOL.with_borrow_mut(|pool| {
        if let Some(links) = pool.get(key) {
            if let Some(link) = links.iter().find(|link| link.has_room(credentials)) {
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
        links.retain(|link| !link.counts.closed.load(Relaxed) && link.credentials == credentials);
        let (told, state) = watch::channel(State::Connecting);
        let counts = Arc::new(Counts::default());
        let link = Arc::new(Link {
            state,
            counts: counts.clone(),
            credentials,
            not_after: mesh.then(|| Some(shared.credentials.current()?.not_after())).flatten(),
        });
        links.push(link.clone());
        link::start(link::Start {
            key: key.clone(),
            load: endpoint.load.clone(),
            shared: shared.clone(),
            counts,
            told,
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
