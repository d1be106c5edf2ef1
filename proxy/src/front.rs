//! What a gateway serves: the controller's content, built off the workers' threads, and the ports that are open because of it.
//!
//! Content replaces content as a whole; what did not change in it is kept: compiled tables, TLS configurations (and so the sessions
//! that clients hold tickets of), endpoints' loads, sockets. A connection knows its port and asks it at each request, so that new
//! content acts at once on connections that are open. A part that cannot be used is told and left out; the rest serves.

pub mod bind;
pub mod content;
pub mod port;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use weft_proto::rpc::discovery as rpc;

use crate::{app::Shared, metrics};

pub use content::{Content, Listener};
pub use port::{At, Open, PortKind};

/// A gateway's content and its ports.
pub struct Front {
    gateway: rpc::ObjectName,
    workers: usize,
    /// The newest content that was not looked at yet.
    arriving: Mutex<Option<(String, rpc::Gateway)>>,
    arrived: Notify,
    current: ArcSwapOption<Content>,
    opens: watch::Sender<Arc<[Arc<Open>]>>,
    is_draining: AtomicBool,
    was_ready: AtomicBool,
}

impl Front {
    /// Nothing is served yet. `workers`: how many of them bind each port.
    pub fn new(namespace: &str, name: &str, workers: usize) -> Self {
        Self {
            gateway: rpc::ObjectName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            workers,
            arriving: Mutex::default(),
            arrived: Notify::new(),
            current: ArcSwapOption::empty(),
            opens: watch::Sender::new(Arc::default()),
            is_draining: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
        }
    }

    /// The Gateway that is served.
    pub fn gateway(&self) -> &rpc::ObjectName {
        &self.gateway
    }

    /// The version of the content that is served; empty for none.
    pub fn version(&self) -> String {
        let current = self.current.load();
        current
            .as_ref()
            .map_or_else(String::new, |content| content.version.clone())
    }

    /// What is served now.
    pub fn current(&self) -> Option<Arc<Content>> {
        self.current.load_full()
    }

    /// The ports that are open, followed as they come and go.
    pub fn opens(&self) -> watch::Receiver<Arc<[Arc<Open>]>> {
        self.opens.subscribe()
    }

    fn arriving(&self) -> MutexGuard<'_, Option<(String, rpc::Gateway)>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes content from the controller. What came before and was not looked at yet is forgotten.
    pub fn arrive(&self, version: String, content: rpc::Gateway) {
        *self.arriving() = Some((version, content));
        self.arrived.notify_one();
    }

    /// Serves this content from now on.
    pub fn apply(&self, version: &str, content: rpc::Gateway, is_own: &dyn Fn(IpAddr) -> bool) {
        let before = self.current();
        let content = Content::build(version, content, before.as_deref(), is_own);
        let was_told = before.map(|before| before.mistakes.clone()).unwrap_or_default();
        for mistake in content.mistakes.iter().filter(|mistake| !was_told.contains(mistake)) {
            tracing::warn!(mistake, "a part of the Gateway cannot be used; the rest serves");
        }
        let mut ports: BTreeMap<(u16, PortKind), Vec<Arc<Listener>>> = BTreeMap::new();
        for listener in &content.listeners {
            let kind = PortKind::of(listener.protocol);
            ports.entry((listener.port, kind)).or_default().push(listener.clone());
        }
        let open_before = self.opens.borrow().clone();
        let opens: Arc<[Arc<Open>]> = ports
            .into_iter()
            .map(|((number, kind), listeners)| {
                let known = open_before
                    .iter()
                    .find(|open| open.number == number && open.kind == kind);
                match known {
                    Some(open) => {
                        open.set(listeners);
                        open.clone()
                    }
                    None => {
                        let open = Arc::new(Open::new(number, kind, listeners));
                        if self.is_draining.load(Ordering::Acquire) {
                            open.drain.drain();
                        }
                        open
                    }
                }
            })
            .collect();
        let (serving, refused) = content.counts();
        metrics::gateway_listeners(serving, refused);
        self.current.store(Some(Arc::new(content)));
        let is_same = |one: &Arc<Open>| opens.iter().any(|other| Arc::ptr_eq(one, other));
        for gone in open_before.iter().filter(|open| !is_same(open)) {
            tracing::info!(
                port = gone.number,
                "the port is closed; connections that are open finish"
            );
            gone.drain.drain();
        }
        if opens.len() != open_before.len() || !open_before.iter().all(is_same) {
            self.opens.send_replace(opens);
        }
        self.count_unbound();
    }

    /// Starts the drain of every port, also of those that come later.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        for open in self.opens.borrow().iter() {
            open.drain.drain();
        }
    }

    /// Whether traffic may be sent here: content is there, and every worker has bound what it can of it. A port that cannot be
    /// bound keeps nobody from the others.
    pub fn ready(&self) -> Result<(), String> {
        if self.was_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.current.load().is_none() {
            let rpc::ObjectName { namespace, name } = &self.gateway;
            return Err(format!("the controller has not told of Gateway {namespace}/{name} yet"));
        }
        if !self.opens.borrow().iter().all(|open| open.is_settled(self.workers)) {
            return Err("the listeners are not bound yet".into());
        }
        self.was_ready.store(true, Ordering::Release);
        Ok(())
    }

    fn count_unbound(&self) {
        let unbound = self
            .opens
            .borrow()
            .iter()
            .filter(|open| !open.troubles().is_empty())
            .count();
        metrics::gateway_ports_unbound(unbound);
    }

    /// What is served, for people.
    pub fn dump(&self) -> serde_json::Value {
        let rpc::ObjectName { namespace, name } = &self.gateway;
        let ports: Vec<_> = self.opens.borrow().iter().map(|open| open.dump()).collect();
        let current = self.current();
        let listeners: Vec<_> = current
            .iter()
            .flat_map(|content| &content.listeners)
            .map(|listener| listener.dump())
            .collect();
        serde_json::json!({
            "gateway": format!("{namespace}/{name}"),
            "version": self.version(),
            "ports": ports,
            "listeners": listeners,
            "mistakes": current.map(|content| content.mistakes.clone()).unwrap_or_default(),
        })
    }
}

/// Builds what arrives, one after the other and not on this thread, for ever.
pub async fn run(shared: Arc<Shared>) {
    let Some(front) = shared.front.clone() else { return };
    loop {
        front.arrived.notified().await;
        let Some((version, content)) = front.arriving().take() else {
            continue;
        };
        let (front, shared) = (front.clone(), shared.clone());
        let built = tokio::task::spawn_blocking(move || {
            front.apply(&version, content, &|ip| shared.tables.is_own(ip));
        });
        if let Err(error) = built.await {
            tracing::error!(%error, "the Gateway's content could not be built; what was there before serves");
        }
    }
}
