//! Backend → endpoint: which pod. Power of two choices over what the endpoints' answers have cost lately.

pub mod balance;
pub mod sticky;

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::time::Instant;
use weft_service::spiffe::Id;

pub use balance::Load;

use crate::{
    fault::{Fault, Reason},
    tables::Backend,
};

/// One address of one pod.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is dialled.
    pub address: SocketAddr,
    /// `namespace/name` of the pod; empty for an address outside of the cluster.
    pub pod: Arc<str>,
    /// UID of the pod; empty for an address outside of the cluster.
    pub pod_uid: Arc<str>,
    /// Whom to expect, where weft listens on this address.
    pub identity: Option<Id>,
    /// The same as text, for metrics and logs.
    pub identity_label: Option<Arc<str>>,
    /// On its way out: used only when nothing else is left.
    pub terminating: bool,
    /// The pod that this proxy stands in.
    pub is_self: bool,
    /// What its answers have cost; outlives changes of the table.
    pub load: Arc<Load>,
}

/// An endpoint in use. Counts as one in flight until it is dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    since: Instant,
    answered: AtomicBool,
}

impl Lease {
    /// Takes a place at an endpoint.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.load.begin();
        Self {
            endpoint,
            since: Instant::now(),
            answered: AtomicBool::new(false),
        }
    }

    /// The endpoint has answered: what it took counts for the next choice.
    pub fn answered(&self) {
        if !self.answered.swap(true, Relaxed) {
            self.endpoint.load.answered(self.since.elapsed());
        }
    }

    /// The endpoint could not be reached: avoided for a while.
    pub fn failed(&self) {
        self.endpoint.load.failed();
    }
}

impl Deref for Lease {
    type Target = Arc<Endpoint>;
    fn deref(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.answered.load(Relaxed) {
            self.endpoint.load.gave_no_answer(self.since.elapsed());
        }
        self.endpoint.load.end();
    }
}

/// Chooses one of a backend's endpoints, and none of those that were tried before.
pub fn choose(backend: &Arc<Backend>, avoid: &[SocketAddr]) -> Result<Lease, Fault> {
    balance::pick(backend, avoid)
        .map(|endpoint| Lease::new(endpoint.clone()))
        .ok_or_else(|| Fault::new(Reason::NoEndpoint))
}
