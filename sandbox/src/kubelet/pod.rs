//! One pod: its network, its volumes, and its containers in their order, until it is over or told to go.

mod furnish;

use super::{
    status,
    status::{Facts, Part, State},
    token::Token,
    unit::{self, Phase, Unit},
    volumes::Files,
};
use crate::{
    address::Pair,
    cluster::Cluster,
    netns::Netns,
    network,
    object::{self, Key, Object, now},
};
use anyhow::Context as _;
use k8s_openapi::api::core::v1 as core;
use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

/// Grace period, unless the pod says so.
const GRACE_SECONDS: i64 = 30;
/// How often volumes are compared with the objects behind them.
const REFRESH: Duration = Duration::from_secs(2);

/// A pod that the kubelet looks after.
#[derive(Debug)]
pub struct Pod {
    /// Everything shared.
    pub cluster: Arc<Cluster>,
    /// Its key.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    spec: core::PodSpec,
    /// The number behind its addresses; nothing for a pod on the node's network.
    number: Option<u16>,
    node: Netns,
    netns: OnceLock<Netns>,
    units: Vec<Unit>,
    facts: Mutex<Facts>,
    /// Held while the status is made and written, so that an older one never replaces a newer one.
    publishing: Mutex<()>,
    written: Mutex<HashMap<String, Files>>,
    tokens: Mutex<HashMap<(String, u64), Token>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pod's containers in the order in which they begin: init containers and sidecars one by one, then all applications.
pub fn order(spec: &core::PodSpec) -> Vec<(core::Container, Part)> {
    let init = spec.init_containers.iter().flatten().cloned().map(|c| {
        let part = if c.restart_policy.as_deref() == Some("Always") {
            Part::Sidecar
        } else {
            Part::Init
        };
        (c, part)
    });
    init.chain(spec.containers.iter().cloned().map(|c| (c, Part::App)))
        .collect()
}

impl Pod {
    /// A pod from its object.
    pub fn new(cluster: Arc<Cluster>, object: &Object, number: Option<u16>) -> anyhow::Result<Pod> {
        let spec: core::PodSpec = serde_json::from_value(object["spec"].clone()).context("the pod's spec")?;
        let key = Key::of(object).context("not a pod")?;
        let units = order(&spec).into_iter().map(|(c, part)| Unit::new(c, part)).collect();
        let texts = |pair: Pair| pair.addresses().map(|a| a.to_string()).to_vec();
        let node = cluster.ranges.node();
        let facts = Facts {
            ips: texts(number.map_or(node, |n| cluster.ranges.pod(n))),
            host_ips: texts(node),
            started_at: now(),
            over: None,
        };
        let node = Netns::open(cluster.node.name())?;
        Ok(Pod {
            key,
            uid: object::uid(object).to_string(),
            spec,
            number,
            node,
            netns: OnceLock::new(),
            units,
            facts: Mutex::new(facts),
            publishing: Mutex::default(),
            written: Mutex::default(),
            tokens: Mutex::default(),
            cluster,
        })
    }

    /// The policy for containers that end.
    pub fn restart_policy(&self) -> &str {
        self.spec.restart_policy.as_deref().unwrap_or("Always")
    }

    /// How long its containers may take to end.
    pub fn grace(&self) -> Duration {
        let seconds = self.spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Where its containers run.
    pub fn netns(&self) -> &Netns {
        self.netns.get().unwrap_or(&self.node)
    }

    /// Where probes go.
    pub fn address(&self) -> IpAddr {
        let ranges = self.cluster.ranges;
        self.number.map_or(ranges.node(), |n| ranges.pod(n)).v4.into()
    }

    /// A container by name; without one the first application.
    pub fn unit(&self, name: Option<&str>) -> Option<&Unit> {
        match name {
            Some(name) => self.units.iter().find(|u| u.container.name == name),
            None => self.units.iter().find(|u| u.part == Part::App),
        }
    }

    /// Writes what is known about the containers into the pod's object.
    pub fn publish(&self) {
        let _one_at_a_time = lock(&self.publishing);
        let states: Vec<State> = self.units.iter().map(Unit::state).collect();
        let status = status::status(&states, &lock(&self.facts));
        self.cluster.change(&self.key, |object| {
            if object::uid(object) == self.uid {
                object["status"] = status;
            }
        });
    }

    /// Lives until `kill` names a grace period and everything has ended. The object is the caller's to remove.
    pub async fn run(self: Arc<Self>, mut kill: watch::Receiver<Option<Duration>>) {
        self.publish();
        let mut told = kill.clone();
        let over = tokio::select! {
            over = self.clone().life() => Some(over),
            _ = told.wait_for(Option::is_some) => None,
        };
        if let Some(over) = over {
            lock(&self.facts).over = Some(over);
            self.publish();
            self.disconnect();
        }
        let grace = kill
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|g| *g)
            .unwrap_or_default();
        self.terminate(grace.min(self.grace())).await;
        self.disconnect();
        if let Err(error) = fs::remove_dir_all(self.cluster.pod_directory(&self.uid)) {
            tracing::warn!(pod = %self.key, %error, "the pod's directory was left behind");
        }
    }

    async fn life(self: Arc<Self>) -> &'static str {
        self.connect().await;
        self.furnish().await;
        let _refresh = AbortOnDrop(tokio::spawn(self.clone().refresh()));
        for (i, unit) in self.units.iter().enumerate().filter(|(_, u)| u.part != Part::App) {
            self.begin(i);
            let mut phase = unit.phase.subscribe();
            let reached =
                phase.wait_for(|p| matches!((unit.part, p), (_, Phase::Ended(_)) | (Part::Sidecar, Phase::Started)));
            if let Ok(Phase::Ended(code)) = reached.await.map(|p| *p)
                && code != 0
            {
                self.end_sidecars(Instant::now() + self.grace()).await;
                return "Failed";
            }
        }
        for (i, _) in self.apps() {
            self.begin(i);
        }
        let mut failed = false;
        for (_, unit) in self.apps() {
            failed |= unit.ended().await != 0;
        }
        self.end_sidecars(Instant::now() + self.grace()).await;
        if failed { "Failed" } else { "Succeeded" }
    }

    fn apps(&self) -> impl Iterator<Item = (usize, &Unit)> {
        self.units.iter().enumerate().filter(|(_, u)| u.part == Part::App)
    }

    fn begin(self: &Arc<Self>, index: usize) {
        let pod = self.clone();
        pod.units[index].set(|s| s.begun = true);
        tokio::spawn(async move { unit::keep(&pod, &pod.units[index]).await });
    }

    /// Ends everything: every hook begins now; applications end first, then the sidecars, last one first.
    async fn terminate(self: &Arc<Self>, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut apps = JoinSet::new();
        for (i, unit) in self
            .units
            .iter()
            .enumerate()
            .filter(|(_, u)| u.part != Part::Sidecar && u.state().begun)
        {
            let pod = self.clone();
            let hook = unit.running().is_some();
            apps.spawn(async move {
                let unit = &pod.units[i];
                if hook {
                    tokio::select! { () = unit::pre_stop(&pod, unit, deadline) => {}, _ = unit.ended() => {} }
                }
                unit.stop.send_replace(Some(deadline));
                unit.ended().await;
            });
        }
        let hooks = self.sidecar_hooks(deadline);
        while apps.join_next().await.is_some() {}
        self.stop_sidecars(hooks, deadline).await;
    }

    /// Ends the sidecars of a pod whose applications have ended.
    async fn end_sidecars(self: &Arc<Self>, deadline: Instant) {
        let hooks = self.sidecar_hooks(deadline);
        self.stop_sidecars(hooks, deadline).await;
    }

    /// Kubernetes runs a sidecar's preStop hook together with the applications' TERM, though its own TERM comes last.
    fn sidecar_hooks(self: &Arc<Self>, deadline: Instant) -> HashMap<usize, tokio::task::JoinHandle<()>> {
        let sidecars = self
            .units
            .iter()
            .enumerate()
            .filter(|(_, u)| u.part == Part::Sidecar && u.state().begun && !u.stopping());
        let hook = |(i, _): (usize, &Unit)| {
            let pod = self.clone();
            (
                i,
                tokio::spawn(async move { unit::pre_stop(&pod, &pod.units[i], deadline).await }),
            )
        };
        sidecars.map(hook).collect()
    }

    async fn stop_sidecars(&self, mut hooks: HashMap<usize, tokio::task::JoinHandle<()>>, deadline: Instant) {
        for (i, unit) in self
            .units
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, u)| u.part == Part::Sidecar && u.state().begun)
        {
            if let Some(hook) = hooks.remove(&i) {
                let _ = hook.await;
            }
            unit.stop.send_replace(Some(deadline));
            unit.ended().await;
        }
    }

    /// Makes the pod's network; tries again until the machine lets it.
    async fn connect(&self) {
        let Some(number) = self.number else { return };
        let name = self
            .cluster
            .paths
            .pod_netns(&self.key.namespace, &self.key.name, number);
        loop {
            let made =
                tokio::task::block_in_place(|| network::pod(&self.cluster.node, &name, number, self.cluster.ranges));
            match made {
                Ok(netns) => {
                    // Set once; its end is `disconnect`.
                    let _ = self.netns.set(netns.keep());
                    return;
                }
                Err(error) => {
                    self.waiting("NetworkNotReady", &error.to_string());
                    sleep(REFRESH).await;
                }
            }
        }
    }

    fn disconnect(&self) {
        let (Some(netns), Some(number)) = (self.netns.get(), self.number) else {
            return;
        };
        network::unplug(&self.node, number);
        // Gone already when the pod was over before it was told to go.
        let _ = Netns::open(netns.name()).and_then(Netns::delete);
    }

    /// Makes the volumes; waits for the objects that they need.
    async fn furnish(&self) {
        while let Err(missing) = tokio::task::block_in_place(|| self.volumes()) {
            self.waiting("ContainerCreating", &missing);
            sleep(Duration::from_millis(500)).await;
        }
        let _ = fs::create_dir_all(self.cluster.pod_directory(&self.uid).join("logs"));
    }

    async fn refresh(self: Arc<Self>) {
        loop {
            sleep(REFRESH).await;
            // What is missing now was there before: the files stay as they are.
            let _ = tokio::task::block_in_place(|| self.volumes());
            for unit in &self.units {
                furnish::bound(&self.cluster.log(&self.uid, &unit.container.name));
            }
        }
    }

    fn waiting(&self, reason: &str, message: &str) {
        for unit in &self.units {
            unit.set(|s| s.stage = status::Stage::Waiting(reason.into(), message.into()));
        }
        self.publish();
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_and_sidecars_come_first_in_the_order_of_the_spec() {
        let spec = json!({
            "containers": [{"name": "app"}, {"name": "helper"}],
            "initContainers": [{"name": "weft-proxy", "restartPolicy": "Always"}, {"name": "weft-init"}, {"name": "migrate"}],
        });
        let order: Vec<(String, Part)> = order(&serde_json::from_value(spec).unwrap())
            .into_iter()
            .map(|(c, part)| (c.name, part))
            .collect();
        let expected = [
            ("weft-proxy", Part::Sidecar),
            ("weft-init", Part::Init),
            ("migrate", Part::Init),
            ("app", Part::App),
            ("helper", Part::App),
        ];
        assert_eq!(order, expected.map(|(name, part)| (name.to_string(), part)));
    }
}
