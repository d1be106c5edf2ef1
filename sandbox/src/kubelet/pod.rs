//! One pod: its network, its volumes, and its containers in their order, until it is over or told to go.

use super::{
    env, status,
    status::{Facts, Part, State},
    token::Token,
    unit::{self, Phase, Unit},
    volumes::{self, Content, Files},
};
use crate::{
    address::Pair,
    cluster::Cluster,
    dns,
    launch::{Launch, Root, capabilities},
    netns::Netns,
    network,
    object::{self, Key, Kind, Object, now},
    root::Mount,
};
use anyhow::Context as _;
use k8s_openapi::api::core::v1 as core;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

/// Grace period, unless the pod says so.
const GRACE_SECONDS: i64 = 30;
/// User of a container that must not be root and names no user: an image would have one.
const NON_ROOT: i64 = 65_532;
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
        }
    }

    fn waiting(&self, reason: &str, message: &str) {
        for unit in &self.units {
            unit.set(|s| s.stage = status::Stage::Waiting(reason.into(), message.into()));
        }
        self.publish();
    }

    fn object(&self) -> Result<Object, String> {
        let object = self.cluster.store().get(&self.key).cloned();
        object.ok_or_else(|| "the pod's object is gone".to_string())
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Object> {
        self.cluster.find(kind, &self.key.namespace, name)
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.cluster.pod_directory(&self.uid).join("volumes").join(name)
    }

    fn token(&self, pod: &Object, audience: &str, life: u64) -> Result<Token, String> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let mut tokens = lock(&self.tokens);
        if let Some(token) = tokens.get(&(audience.to_string(), life)).filter(|t| t.renew_at > now) {
            return Ok(token.clone());
        }
        let account = self.account()?;
        let token = self
            .cluster
            .signer
            .sign(pod, &account, audience, life)
            .map_err(|e| format!("{e:#}"))?;
        tokens.insert((audience.to_string(), life), token.clone());
        Ok(token)
    }

    fn account(&self) -> Result<Object, String> {
        let name = self.spec.service_account_name.as_deref().unwrap_or("default");
        self.find(Kind::ServiceAccount, name)
            .ok_or_else(|| format!("serviceaccount '{name}' not found"))
    }

    fn volumes(&self) -> Result<(), String> {
        self.account()?;
        let object = self.object()?;
        let group = self.fs_group();
        for volume in self.spec.volumes.iter().flatten() {
            let find = |kind: Kind, name: &str| self.find(kind, name);
            let content = volumes::content(volume, &object, &find, &|a, l| self.token(&object, a, l))?;
            let directory = self.volume(&volume.name);
            let shown = |e: std::io::Error| format!("volume '{}': {e}", volume.name);
            match content {
                Content::Files(files) => {
                    let mut written = lock(&self.written);
                    volumes::write(&directory, &files, written.get(&volume.name), group).map_err(shown)?;
                    written.insert(volume.name.clone(), files);
                }
                Content::Empty => open_directory(&directory, group).map_err(shown)?,
                Content::Claim(claim) => open_directory(&self.claim(&claim), group).map_err(shown)?,
                Content::Host(path, true) => fs::create_dir_all(path).map_err(shown)?,
                Content::Host(path, false) if !path.exists() => {
                    return Err(format!(
                        "hostPath '{}' of volume '{}' does not exist on this machine",
                        path.display(),
                        volume.name
                    ));
                }
                Content::Host(..) => {}
            }
        }
        Ok(())
    }

    fn fs_group(&self) -> Option<u32> {
        self.spec
            .security_context
            .as_ref()?
            .fs_group
            .and_then(|g| u32::try_from(g).ok())
    }

    fn claim(&self, claim: &str) -> PathBuf {
        self.cluster
            .paths
            .claims()
            .join(format!("{}_{claim}", self.key.namespace))
    }

    /// Everything that a container's program gets. An error names what is missing.
    pub fn launch(&self, unit: &Unit) -> Result<Launch, String> {
        let container = &unit.container;
        let image = container.image.as_deref().unwrap_or_default();
        let (command, args) = (
            container.command.as_deref().unwrap_or_default(),
            container.args.as_deref().unwrap_or_default(),
        );
        let resolved = self.cluster.images.resolve(image, command, args);
        let resolved = resolved.ok_or_else(|| format!("image '{image}': neither a command nor a mapping"))?;
        let security = container.security_context.as_ref();
        let pod_security = self.spec.security_context.as_ref();
        let non_root = security
            .and_then(|s| s.run_as_non_root)
            .or_else(|| pod_security.and_then(|s| s.run_as_non_root));
        let fallback = if non_root == Some(true) { NON_ROOT } else { 0 };
        let id = |own: Option<i64>, pods: Option<i64>| {
            u32::try_from(own.or(pods).unwrap_or(fallback))
                .map_err(|_| "runAsUser and runAsGroup are numbers from 0".to_string())
        };
        let uid = id(
            security.and_then(|s| s.run_as_user),
            pod_security.and_then(|s| s.run_as_user),
        )?;
        let gid = id(
            security.and_then(|s| s.run_as_group),
            pod_security.and_then(|s| s.run_as_group),
        )?;
        if uid == 0 && non_root == Some(true) {
            return Err("runAsNonRoot, but runAsUser is 0; correct one".into());
        }
        let object = self.object()?;
        let mut base = BTreeMap::from([
            ("PATH".to_string(), self.cluster.path.clone()),
            ("HOME".to_string(), if uid == 0 { "/root" } else { "/" }.to_string()),
            ("HOSTNAME".to_string(), self.hostname()),
        ]);
        base.extend(resolved.env);
        let env = env::environment(container, &object, base, &|kind, name| self.find(kind, name))?;
        let words = resolved
            .command
            .iter()
            .chain(&resolved.args)
            .map(|w| env::expand(w, &env))
            .collect();
        let caps = security.and_then(|s| s.capabilities.clone()).unwrap_or_default();
        let (add, drop) = (caps.add.unwrap_or_default(), caps.drop.unwrap_or_default());
        let root = Root {
            scratch: self.scratch()?,
            hostname: self.hostname(),
            files: self.files(),
            mounts: self.mounts(container)?,
            read_only: security.and_then(|s| s.read_only_root_filesystem) == Some(true),
        };
        Ok(Launch {
            root: Some(root),
            words,
            env,
            working_dir: container
                .working_dir
                .clone()
                .map(PathBuf::from)
                .or(resolved.working_dir)
                .unwrap_or_default(),
            uid,
            gid,
            groups: self.fs_group().into_iter().collect(),
            capabilities: capabilities(&add, &drop, security.and_then(|s| s.privileged) == Some(true)),
            with_parent: false,
        })
    }

    fn scratch(&self) -> Result<PathBuf, String> {
        let path = self.cluster.pod_directory(&self.uid).join("root");
        fs::create_dir_all(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
        Ok(path)
    }

    fn hostname(&self) -> String {
        let name = if self.number.is_some() {
            self.spec.hostname.clone().unwrap_or(self.key.name.clone())
        } else {
            self.cluster.node_name()
        };
        name.chars().take(63).collect()
    }

    fn files(&self) -> BTreeMap<PathBuf, String> {
        let (hostname, ips) = (self.hostname(), lock(&self.facts).ips.clone());
        let subdomain = self
            .spec
            .subdomain
            .as_deref()
            .map(|s| format!("{hostname}.{s}.{}.svc.{}\t", self.key.namespace, dns::DOMAIN));
        let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for ip in ips {
            hosts.push_str(&format!(
                "{ip}\t{}{hostname}\n",
                subdomain.as_deref().unwrap_or_default()
            ));
        }
        for alias in self.spec.host_aliases.iter().flatten() {
            hosts.push_str(&format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.clone().unwrap_or_default().join(" ")
            ));
        }
        let resolver = dns::resolv_conf(&self.key.namespace, self.cluster.ranges.dns().v4.into());
        // The machine's may ask a local resolver that knows nothing of the cluster.
        let switch = "passwd: files\ngroup: files\nhosts: files dns\n".to_string();
        [
            ("hosts", hosts),
            ("resolv.conf", resolver),
            ("hostname", hostname + "\n"),
            ("nsswitch.conf", switch),
        ]
        .into_iter()
        .map(|(name, text)| (PathBuf::from("/etc").join(name), text))
        .collect()
    }

    fn mounts(&self, container: &core::Container) -> Result<Vec<Mount>, String> {
        let mount = |m: &core::VolumeMount| {
            let volume = self.spec.volumes.iter().flatten().find(|v| v.name == m.name);
            let volume = volume.ok_or_else(|| format!("no volume '{}'", m.name))?;
            let mut source = match (&volume.host_path, &volume.persistent_volume_claim) {
                (Some(host), _) => PathBuf::from(&host.path),
                (_, Some(claim)) => self.claim(&claim.claim_name),
                _ => self.volume(&m.name),
            };
            let files =
                volume.empty_dir.is_none() && volume.host_path.is_none() && volume.persistent_volume_claim.is_none();
            if let Some(below) = m.sub_path.as_deref().filter(|p| !p.is_empty()) {
                source.push(below);
                if !source.exists() && !files {
                    open_directory(&source, self.fs_group()).map_err(|e| format!("subPath '{below}': {e}"))?;
                }
            }
            let source =
                fs::canonicalize(&source).map_err(|e| format!("volume '{}': {}: {e}", m.name, source.display()))?;
            Ok(Mount {
                source,
                target: m.mount_path.clone().into(),
                read_only: files || m.read_only == Some(true),
            })
        };
        container.volume_mounts.iter().flatten().map(mount).collect()
    }
}

/// A directory that every user of the pod may write to.
fn open_directory(path: &std::path::Path, group: Option<u32>) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
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
