//! The process behind a sandbox: it holds the objects and makes the machine follow them.
//!
//! It runs in the node's network namespace, so that what it starts, binds and dials there is the cluster's. Everything is
//! level-triggered: a change rings the bell, and [`reconcile`] compares all objects with what there is.

pub mod apply;
mod balancers;
pub mod control;
mod reconcile;
mod system;
mod written;

use crate::{
    address::{Numbers, Ranges},
    cleanup,
    cluster::Cluster,
    dns,
    images::Images,
    inject::Injector,
    kubelet::{pod::Pod, token::Signer},
    network,
    object::{Key, Object},
    paths::Paths,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Changes within this time are answered together.
const SETTLE: Duration = Duration::from_millis(15);
/// Time that containers have when the whole sandbox goes down.
const DOWN_GRACE: Duration = Duration::from_secs(2);

/// What `up` decides, and the supervisor reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The number behind its address ranges.
    pub index: u8,
    /// What stands for which image, weft's own included.
    pub images: Images,
    /// Whether weft's own programs run.
    pub mesh: bool,
    /// Further arguments of the injector.
    #[serde(default)]
    pub injector: Vec<String>,
    /// `PATH` of the containers.
    pub path: String,
    /// Process id of the supervisor, once it runs.
    pub pid: Option<i32>,
}

impl Settings {
    /// Reads a sandbox's settings.
    pub fn read(paths: &Paths) -> anyhow::Result<Settings> {
        let file = paths.settings();
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    /// Writes them.
    pub fn write(&self, paths: &Paths) -> anyhow::Result<()> {
        let new = paths.directory().join(".settings.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(&new, paths.settings())?)
    }
}

/// A pod that the kubelet looks after.
struct Worker {
    pod: Arc<Pod>,
    kill: watch::Sender<Option<Duration>>,
    number: Option<u16>,
}

/// What changes as the sandbox lives.
#[derive(Default)]
struct Running {
    /// By uid.
    workers: HashMap<String, Worker>,
    /// Pods whose last process has ended.
    finished: Vec<(Key, String)>,
    /// Pods that the injector is being asked about, by uid.
    admitting: HashSet<String>,
    /// Objects that stand here because the controller wrote them.
    written: BTreeSet<Key>,
    /// Objects that wait until the one of the same name is gone.
    replacing: BTreeMap<Key, Object>,
    pod_numbers: Numbers,
    service_numbers: Numbers,
    /// What was last made of Services and slices.
    nat: String,
    down: bool,
}

/// The supervisor.
pub struct Supervisor {
    cluster: Arc<Cluster>,
    settings: Settings,
    zone: dns::Shared,
    injector: Mutex<Option<Injector>>,
    running: Mutex<Running>,
    /// Objects as they were applied, to tell whether an object is new, changed or the same.
    applied: Mutex<HashMap<Key, Object>>,
    /// Rings when the last pod is gone.
    empty: Notify,
    /// Why the mesh's own programs are not up; nothing once they are.
    system: watch::Sender<Result<(), String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `weft sandbox __supervise`: the whole life of a sandbox.
pub fn main(root: &Path, name: &str) -> anyhow::Result<()> {
    // On its own from now on: the terminal that started it may go.
    let _ = nix::unistd::setsid();
    weft_service::tls::install_provider();
    weft_service::log::start()?;
    let paths = Paths::new(root, name)?;
    let mut settings = Settings::read(&paths)?;
    let ranges = Ranges { index: settings.index };
    let node = network::node(&paths.node_netns(), ranges)?.keep();
    // From the machine's own namespace, which this process leaves now.
    if let Err(error) = network::outside(&node, ranges) {
        tracing::warn!(%error, "the addresses of load balancers are reached from pods only, not from the machine");
    }
    node.enter()?;
    settings.pid = Some(nix::unistd::getpid().as_raw());
    settings.write(&paths)?;
    fs::write(paths.resolv_conf(), dns::resolv_conf("default", ranges.dns().v4.into()))?;
    let signer = Signer::create(&paths.system().join("token.pub"))?;
    let cluster = Cluster::new(
        paths.clone(),
        ranges,
        settings.images.clone(),
        signer,
        node,
        settings.path.clone(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let supervisor = Arc::new(Supervisor {
        cluster: Arc::new(cluster),
        settings,
        zone: dns::Shared::default(),
        injector: Mutex::default(),
        running: Mutex::default(),
        applied: Mutex::default(),
        empty: Notify::new(),
        system: watch::Sender::new(Err("weft's own programs are starting".into())),
    });
    runtime.block_on(supervisor.run())?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    cleanup::remove(&paths, Some(std::process::id()))
}

impl Supervisor {
    async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        for address in self.cluster.ranges.dns().addresses() {
            dns::serve(address, self.zone.clone()).await.context("serving DNS")?;
        }
        self.base()?;
        let listener = control::bind(&self.cluster.paths.socket())?;
        tokio::spawn(control::serve(listener, self.clone()));
        if self.settings.mesh {
            tokio::spawn(self.clone().follow_written());
            tokio::spawn(self.clone().start_mesh());
        } else {
            let _ = self.system.send_replace(Ok(()));
        }
        let reconciler = tokio::spawn(self.clone().follow());
        let mut signals = weft_service::drain::Termination::new()?;
        let signal = tokio::select! {
            name = signals.received() => Some(name),
            () = self.empty.notified() => None,
        };
        if let Some(signal) = signal {
            tracing::info!(signal, "going down");
            self.go_down().await;
        }
        reconciler.abort();
        Ok(())
    }

    /// Ends every pod, the mesh's own last. Returns when all are gone.
    pub(crate) async fn go_down(&self) {
        lock(&self.running).down = true;
        for system in [false, true] {
            loop {
                let of = |w: &&Worker| (w.pod.key.namespace == weft_proto::names::SYSTEM_NAMESPACE) == system;
                let left = {
                    let running = lock(&self.running);
                    let workers: Vec<_> = running.workers.values().filter(of).collect();
                    for worker in &workers {
                        worker.kill.send_replace(Some(DOWN_GRACE));
                    }
                    workers.len()
                };
                if left == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.bury();
            }
        }
    }

    async fn follow(self: Arc<Self>) {
        loop {
            self.cluster.changed.notified().await;
            tokio::time::sleep(SETTLE).await;
            let supervisor = self.clone();
            // Rules and namespaces are set by programs that are waited for.
            let done = tokio::task::spawn_blocking(move || supervisor.reconcile()).await;
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the machine does not follow the objects yet; trying again"
                    );
                    let cluster = self.cluster.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        cluster.changed.notify_one();
                    });
                }
                Err(panic) => tracing::error!(%panic, "reconciling panicked"),
            }
        }
    }
}
