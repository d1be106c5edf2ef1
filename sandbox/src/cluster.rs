//! What every part of the supervisor shares: the objects, where things are, and a bell that rings when something has changed.

use crate::{
    address::Ranges,
    images::Images,
    kubelet::token::Signer,
    netns::Netns,
    object::{Key, Kind, Object},
    paths::Paths,
    store::Store,
};
use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Files.
    pub paths: Paths,
    /// Addresses.
    pub ranges: Ranges,
    /// What stands for which image.
    pub images: Images,
    /// Signs the tokens of pods.
    pub signer: Signer,
    /// The network namespace that this process runs in, and every pod is wired to.
    pub node: Netns,
    /// `PATH` of every container.
    pub path: String,
    /// Rings when objects have changed.
    pub changed: Notify,
    store: Mutex<Store>,
}

impl Cluster {
    /// A cluster over a store.
    pub fn new(paths: Paths, ranges: Ranges, images: Images, signer: Signer, node: Netns, path: String) -> Cluster {
        let store = Mutex::new(Store::new(&paths.objects()));
        Cluster {
            paths,
            ranges,
            images,
            signer,
            node,
            path,
            changed: Notify::new(),
            store,
        }
    }

    /// The objects, for as long as the guard lives. The innermost of all locks: nothing else is locked or awaited under it.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of one object.
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        self.store().get(&Key::new(kind, namespace, name)).cloned()
    }

    /// Changes one object and rings. What cannot be written is logged: nothing else can be done about a full disk here.
    pub fn change(&self, key: &Key, edit: impl FnOnce(&mut Object)) {
        match self.store().change(key, edit) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::error!(object = %key, error = format!("{error:#}"), "an object was not stored"),
        }
        self.changed.notify_one();
    }

    /// Name of the only node.
    pub fn node_name(&self) -> String {
        format!("weft-{}", self.paths.name())
    }

    /// Files and directories of one pod.
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.paths.pods().join(uid)
    }

    /// The log of one container.
    pub fn log(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_directory(uid).join("logs").join(format!("{container}.log"))
    }
}
