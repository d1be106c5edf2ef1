//! Destination → what is to be done with connections to it: asked for when it is first needed, followed while it is used,
//! swapped whole when it changes, forgotten when it is idle.
//!
//! A worker finds a destination it knows in a map of its own, without a lock; the shared map behind it is for first
//! sights, changes and forgetting. Who answers about a destination is `discovery.rs`' matter.

pub mod destination;

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use weft_proto::{
    limits,
    names::port,
    rpc::discovery::{self as rpc, Protocol},
    skip::Cidrs,
};

pub use destination::{Backend, Destination};

use crate::{fault::Reason, metrics, role::LooksUp};

/// What discovery is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Follow this destination.
    Follow(SocketAddr),
    /// Forget it.
    Forget(SocketAddr),
}

type Key = (LooksUp, SocketAddr);
type Map = HashMap<Key, Arc<Entry>, foldhash::fast::RandomState>;

struct Entry {
    key: Key,
    current: ArcSwapOption<Destination>,
    arrived: Notify,
    users: AtomicUsize,
    /// Seconds since the process started, when it was last used.
    used: AtomicU64,
    forgotten: AtomicBool,
    /// Dials on behalf of silent clients that are open now.
    silent: AtomicUsize,
    /// Until when a client's silence is not waited for, in seconds since the process started: its server spoke first.
    speaks_first: AtomicU64,
}

/// A destination in use. It is followed at least until this is dropped.
pub struct Followed(Arc<Entry>);

impl Followed {
    /// What the destination is now.
    pub fn current(&self) -> Arc<Destination> {
        static NO_ANSWER: LazyLock<Arc<Destination>> =
            LazyLock::new(|| Arc::new(Destination::refused(Reason::DiscoveryTimeout)));
        self.0.current.load_full().unwrap_or_else(|| NO_ANSWER.clone())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.key.1
    }

    /// Whether its server spoke first, lately. Only a reason not to wait; what a connection is, its own bytes decide.
    pub fn speaks_first(&self) -> bool {
        let until = self.0.speaks_first.load(Relaxed);
        until != 0 && until > seconds()
    }

    /// Its server spoke first.
    pub fn spoke_first(&self) {
        self.0
            .speaks_first
            .store(seconds() + limits::OPAQUE_MEMORY_TIME.as_secs(), Relaxed);
    }

    /// A place among the dials for silent clients of this destination; `None`: there are too many.
    pub fn silent_place(&self) -> Option<SilentPlace> {
        let place = SilentPlace(self.0.clone());
        let taken = self.0.silent.fetch_add(1, Relaxed);
        (taken < limits::SILENT_DIALS_EACH).then_some(place)
    }
}

/// One dial on behalf of a silent client.
pub struct SilentPlace(Arc<Entry>);

impl Drop for SilentPlace {
    fn drop(&mut self) {
        self.0.silent.fetch_sub(1, Relaxed);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.used.store(seconds(), Relaxed);
        self.0.users.fetch_sub(1, SeqCst);
    }
}

/// Seconds since the first call.
fn seconds() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Instant::now().saturating_duration_since(*START).as_secs()
}

/// What the controller says of the pod that this proxy stands in.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Plaintext from clients without weft is refused.
    pub strict_mtls: bool,
    /// Protocols that Services declare for the pod's ports.
    pub protocols: Vec<(u16, Protocol)>,
}

/// Every destination that is known.
pub struct Tables {
    /// Number of this value in the process, so that a worker's map is not taken for another's.
    id: u64,
    shared: Mutex<Map>,
    asks: mpsc::UnboundedSender<Ask>,
    cluster: Cidrs,
    own: Vec<IpAddr>,
    workload: ArcSwap<Workload>,
    /// Whether the controller has said anything of the pod, and who waits for that.
    workload_known: AtomicBool,
    workload_arrived: Notify,
    began: Instant,
}

#[derive(Default)]
struct Known {
    of: u64,
    map: Map,
    /// Entries that were forgotten are looked for when the map has grown to this.
    purge_at: usize,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

impl Tables {
    /// No destinations yet; `strict` holds until the controller says otherwise; `asks` is where discovery learns what to follow.
    pub fn new(cluster: Cidrs, own: Vec<IpAddr>, strict: bool, asks: mpsc::UnboundedSender<Ask>) -> Self {
        let workload = Workload {
            strict_mtls: strict,
            ..Workload::default()
        };
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Relaxed);
        Self {
            id,
            shared: Mutex::default(),
            asks,
            cluster,
            own,
            workload: ArcSwap::from_pointee(workload),
            workload_known: AtomicBool::new(false),
            workload_arrived: Notify::new(),
            began: Instant::now(),
        }
    }

    /// What is known of the pod itself.
    pub fn workload(&self) -> Arc<Workload> {
        self.workload.load_full()
    }

    /// Waits for the controller's first word of the pod itself: until then it is not known what its ports speak, nor whether the pod was
    /// made strict after it was admitted. Bounded from the proxy's start on, so that a pod that starts while the controller is away
    /// serves, and answers its probes; what it then knows is what it was admitted with, or the controller's last word.
    pub async fn workload_known(&self) {
        // Every connection comes by here: once it is known, no timer is made.
        if self.workload_known.load(SeqCst) {
            return;
        }
        let known = async {
            while !self.workload_known.load(SeqCst) {
                let arrived = self.workload_arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                if self.workload_known.load(SeqCst) {
                    return;
                }
                arrived.await;
            }
        };
        let _ = tokio::time::timeout_at(self.began + limits::DESTINATION_TIME, known).await;
    }

    /// Whether plaintext from clients without weft is refused.
    pub fn is_strict(&self) -> bool {
        self.workload.load().strict_mtls
    }

    /// Whether this is one of the pod's own addresses.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Follows a destination. Waits for the controller's first word of it, for a bounded time; what holds without an
    /// answer is decided here: unknown inside of the cluster's ranges, passed outside of them.
    pub async fn follow(&self, looks_up: LooksUp, address: SocketAddr) -> Followed {
        let followed = self
            .known((looks_up, address))
            .unwrap_or_else(|| self.meet((looks_up, address)));
        if followed.0.current.load().is_some() {
            return followed;
        }
        let answer = async {
            loop {
                let arrived = followed.0.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                if followed.0.current.load().is_some() {
                    return;
                }
                arrived.await;
            }
        };
        // Without an answer `current` says so, and says better as soon as there is one.
        let _ = tokio::time::timeout(limits::DESTINATION_TIME, answer).await;
        followed
    }

    /// From the worker's own map.
    fn known(&self, key: Key) -> Option<Followed> {
        KNOWN.with_borrow(|known| {
            let entry = (known.of == self.id).then(|| known.map.get(&key)).flatten()?;
            take(entry)
        })
    }

    fn shared(&self) -> MutexGuard<'_, Map> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first sight of a destination by this worker.
    fn meet(&self, key: Key) -> Followed {
        let followed = {
            let mut shared = self.shared();
            match shared.get(&key).and_then(take) {
                Some(followed) => followed,
                None => {
                    if shared.len() >= limits::DESTINATIONS {
                        metrics::limit_reached("DESTINATIONS");
                        self.forget_idle(&mut shared, 0);
                    }
                    let entry = Arc::new(self.entry(key));
                    let followed = Followed(entry.clone());
                    shared.insert(key, entry);
                    metrics::destinations(shared.len());
                    followed
                }
            }
        };
        KNOWN.with_borrow_mut(|known| {
            if known.of != self.id {
                *known = Known {
                    of: self.id,
                    ..Known::default()
                };
            }
            if known.map.len() >= known.purge_at {
                known.map.retain(|_, entry| !entry.forgotten.load(SeqCst));
                known.purge_at = 2 * known.map.len().max(64);
            }
            known.map.insert(key, followed.0.clone());
        });
        followed
    }

    /// A new entry with one user; what is known without asking is there at once.
    fn entry(&self, key: Key) -> Entry {
        let (looks_up, address) = key;
        let current = match looks_up {
            LooksUp::Itself => Some(self.own_port(address, None)),
            LooksUp::Controller if self.is_cluster(address.ip()) => {
                // Fails only when discovery has ended, and with it the process.
                let _ = self.asks.send(Ask::Follow(address));
                None
            }
            LooksUp::Controller => Some(Destination::outside(address)),
        };
        Entry {
            key,
            current: ArcSwapOption::new(current.map(Arc::new)),
            arrived: Notify::new(),
            users: AtomicUsize::new(1),
            used: AtomicU64::new(seconds()),
            forgotten: AtomicBool::new(false),
            silent: AtomicUsize::new(0),
            speaks_first: AtomicU64::new(0),
        }
    }

    /// Ranges that were not configured are taken for the cluster's.
    fn is_cluster(&self, ip: IpAddr) -> bool {
        self.cluster.is_empty() || self.cluster.contains(ip) || self.is_own(ip)
    }

    fn own_port(&self, address: SocketAddr, before: Option<&Destination>) -> Destination {
        let workload = self.workload.load();
        let declared = workload.protocols.iter().find(|(port, _)| *port == address.port());
        Destination::own(
            address,
            declared.map_or(Protocol::Detect, |(_, protocol)| *protocol),
            before,
        )
    }

    /// Takes over what the controller says of a destination. What nobody follows any more is ignored.
    pub fn answer(&self, address: SocketAddr, version: &str, content: rpc::Destination) {
        let Some(entry) = self.shared().get(&(LooksUp::Controller, address)).cloned() else {
            return;
        };
        let before = entry.current.load();
        let inside = self.cluster.is_empty() || self.cluster.contains(address.ip());
        let (destination, mistakes) = Destination::from_rpc(
            address,
            version,
            content,
            before.as_deref(),
            &|ip| self.is_own(ip),
            inside,
        );
        for mistake in mistakes {
            tracing::warn!(destination = %address, mistake, "the controller's answer cannot be used in full");
        }
        entry.current.store(Some(Arc::new(destination)));
        entry.arrived.notify_waiters();
    }

    /// What is followed at the controller, with the versions that are held: what a new stream begins with.
    pub fn held(&self) -> Vec<(SocketAddr, String)> {
        let shared = self.shared();
        let followed = shared
            .values()
            .filter(|entry| entry.key.0 == LooksUp::Controller && self.is_cluster(entry.key.1.ip()));
        followed
            .map(|entry| {
                let version = entry
                    .current
                    .load()
                    .as_ref()
                    .map_or_else(String::new, |current| current.version.clone());
                (entry.key.1, version)
            })
            .collect()
    }

    /// Every destination as text, for people.
    pub fn dump(&self) -> Vec<(SocketAddr, LooksUp, usize, Option<Arc<Destination>>)> {
        let shared = self.shared();
        let mut all: Vec<_> = shared
            .values()
            .map(|entry| {
                (
                    entry.key.1,
                    entry.key.0,
                    entry.users.load(Relaxed),
                    entry.current.load_full(),
                )
            })
            .collect();
        all.sort_by_key(|(address, ..)| *address);
        all
    }

    /// Takes over what the controller says of the pod itself.
    pub fn set_workload(&self, workload: Workload) {
        self.workload.store(Arc::new(workload));
        self.workload_known.store(true, SeqCst);
        self.workload_arrived.notify_waiters();
        let own: Vec<_> = self
            .shared()
            .values()
            .filter(|entry| entry.key.0 == LooksUp::Itself)
            .cloned()
            .collect();
        for entry in own {
            let before = entry.current.load();
            entry
                .current
                .store(Some(Arc::new(self.own_port(entry.key.1, before.as_deref()))));
        }
    }

    /// Forgets what was not used for [`limits::DESTINATION_IDLE`]. Called from time to time.
    pub fn sweep(&self) {
        let mut shared = self.shared();
        self.forget_idle(&mut shared, limits::DESTINATION_IDLE.as_secs());
        metrics::destinations(shared.len());
    }

    fn forget_idle(&self, shared: &mut Map, idle_seconds: u64) {
        let now = seconds();
        shared.retain(|_, entry| {
            if entry.users.load(SeqCst) > 0 || now.saturating_sub(entry.used.load(Relaxed)) < idle_seconds {
                return true;
            }
            // A worker may take it from its own map at this very moment: whoever comes second sees the other.
            entry.forgotten.store(true, SeqCst);
            if entry.users.load(SeqCst) > 0 {
                entry.forgotten.store(false, SeqCst);
                return true;
            }
            if entry.key.0 == LooksUp::Controller && self.is_cluster(entry.key.1.ip()) {
                let _ = self.asks.send(Ask::Forget(entry.key.1));
            }
            false
        });
    }
}

/// One more user, unless it was forgotten meanwhile.
fn take(entry: &Arc<Entry>) -> Option<Followed> {
    entry.users.fetch_add(1, SeqCst);
    let followed = Followed(entry.clone());
    (!entry.forgotten.load(SeqCst)).then_some(followed)
}

/// Whether a port is one of weft's own, which no connection may be carried to.
pub fn is_reserved(port: u16) -> bool {
    port::RESERVED.contains(&port)
}

#[cfg(test)]
mod tests;
