//! One port of a gateway: its listeners, and which of them takes a name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use weft_proto::rpc::discovery::ListenerProtocol;
use weft_route::{
    Host,
    listener::{Elsewhere, Names},
};
use weft_service::drain::Signal;

use super::content::{Digest, Listener};
use crate::fault::{Fault, Reason};

/// What a port's connections begin with. Listeners of one kind share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// HTTP in the clear.
    Http,
    /// A ClientHello, whose server name says what becomes of the rest.
    Tls,
    /// Bytes.
    Tcp,
}

impl PortKind {
    /// The kind of a listener's port.
    pub fn of(protocol: ListenerProtocol) -> Self {
        match protocol {
            ListenerProtocol::ListenerHttp => Self::Http,
            ListenerProtocol::ListenerHttps | ListenerProtocol::ListenerTls | ListenerProtocol::ListenerPassthrough => {
                Self::Tls
            }
            ListenerProtocol::ListenerTcp => Self::Tcp,
        }
    }
}

/// A port that is open, or was when its connections came. It ends when the last of them has.
pub struct Open {
    /// Its number.
    pub number: u16,
    /// What its connections begin with.
    pub kind: PortKind,
    /// Past its running: the port or the process goes away, and connections end when it suits them.
    pub drain: Signal,
    /// What a port that went away served last, its connections are still served by.
    now: ArcSwap<Names<Arc<Listener>>>,
    /// For each worker that has tried to bind it, what went wrong.
    bound: Mutex<BTreeMap<usize, Vec<String>>>,
}

fn by_name(listeners: Vec<Arc<Listener>>) -> Names<Arc<Listener>> {
    let mut names = Names::default();
    for listener in listeners {
        let name = listener.hostname.clone();
        // No two have the same: `content.rs` leaves the second one out.
        let _ = names.claim(name.as_deref(), listener);
    }
    names
}

impl Open {
    /// A port with its listeners, of which no two have the same name.
    pub fn new(number: u16, kind: PortKind, listeners: Vec<Arc<Listener>>) -> Self {
        Self {
            number,
            kind,
            drain: Signal::new(),
            now: ArcSwap::from_pointee(by_name(listeners)),
            bound: Mutex::default(),
        }
    }

    /// Other listeners from now on.
    pub fn set(&self, listeners: Vec<Arc<Listener>>) {
        self.now.store(Arc::new(by_name(listeners)));
    }

    /// The listener that takes a name, which is in lower case.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<Listener>> {
        self.now.load().find(name).cloned()
    }

    fn bound(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<String>>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has tried to bind it: what went wrong. Whether that is news.
    pub(super) fn tried(&self, worker: usize, troubles: Vec<String>) -> bool {
        let mut bound = self.bound();
        let is_known = bound.get(&worker) == Some(&troubles);
        bound.insert(worker, troubles);
        !is_known
    }

    /// Whether so many workers have tried to bind it.
    pub(super) fn is_settled(&self, workers: usize) -> bool {
        self.bound().len() >= workers
    }

    /// Why it cannot be bound, in full or in part; none: it is, or nobody has tried yet.
    pub fn troubles(&self) -> Vec<String> {
        let mut all: Vec<_> = self.bound().values().flatten().cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    pub(super) fn dump(&self) -> serde_json::Value {
        serde_json::json!({
            "port": self.number,
            "kind": format!("{:?}", self.kind).to_lowercase(),
            "workers": self.bound().len(),
            "troubles": self.troubles(),
        })
    }
}

/// Where a connection came in: what its requests and bytes lead to is asked here, each time anew.
pub struct At {
    /// The port.
    pub open: Arc<Open>,
    hello: Option<Hello>,
}

/// What the connection's TLS began with.
struct Hello {
    sni: Option<Box<str>>,
    /// The client validation that it passed; none where its TLS is not ended here.
    policy: Option<Digest>,
}

impl At {
    /// A connection without TLS.
    pub fn plain(open: Arc<Open>) -> Self {
        Self { open, hello: None }
    }

    /// A connection whose TLS asks for this name. `policy`: of the listener that ended it.
    pub fn tls(open: Arc<Open>, sni: Option<Box<str>>, policy: Option<Digest>) -> Self {
        let hello = Some(Hello { sni, policy });
        Self { open, hello }
    }

    /// The listener that takes the connection itself.
    pub fn listener(&self) -> Result<Arc<Listener>, Fault> {
        let sni = self.hello.as_ref().and_then(|hello| hello.sni.as_deref());
        self.open.find(sni).ok_or_else(|| Fault::new(Reason::NoListener))
    }

    /// The listener that takes a request for this authority.
    ///
    /// A connection with TLS belongs to the listener that its server name led to: a request for a host of another listener is
    /// misdirected (GEP-3567), since certificates and client validation were those of the first. So is one on a connection that was let in
    /// under another client validation than the listener has by now (CVE-2022-21654).
    pub fn listener_for(&self, authority: Option<&[u8]>) -> Result<Arc<Listener>, Fault> {
        let host = match authority.map(Host::parse).transpose() {
            // HTTP/1.1 allows an empty `Host` (RFC 9112 3.2): no host.
            Err(weft_route::host::BadHost::Empty) => None,
            Err(bad) => return Err(Fault::because(Reason::BadRequest, bad)),
            Ok(host) => host,
        };
        let host = host.as_ref().map(Host::as_str);
        let now = self.open.now.load();
        let sni = match &self.hello {
            Some(hello) => hello.sni.as_deref(),
            None => {
                let found = now.find(host).cloned();
                return found.ok_or_else(|| Fault::new(Reason::NoListener));
            }
        };
        let own = now.of_request(sni, host).map_err(|elsewhere| {
            Fault::new(match elsewhere {
                Elsewhere::Nowhere => Reason::NoListener,
                Elsewhere::NoConnection | Elsewhere::Misdirected => Reason::Misdirected,
            })
        })?;
        let policy = self.hello.as_ref().and_then(|hello| hello.policy);
        if own.protocol != ListenerProtocol::ListenerHttps || own.policy() != policy {
            return Err(Fault::new(Reason::Misdirected));
        }
        Ok(own.clone())
    }
}
