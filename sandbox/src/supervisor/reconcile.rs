//! Comparing all objects with what there is, and making what is missing.

use super::{Supervisor, Worker, lock};
use crate::{
    dns, endpoints,
    inject::Verdict,
    kubelet::pod::Pod,
    nat::{self, Family},
    object::{self, Key, Kind, Object, is_terminating, name, namespace, now, owner, uid},
    workloads::{self, REFUSED},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use weft_proto::names::label;

/// `status.reason` of a pod that the injector has not judged yet.
pub const ADMISSION: &str = "WaitingForInjector";
/// Pause before the injector is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Supervisor {
    /// One pass over everything. Each step leaves behind what the next one needs.
    pub(crate) fn reconcile(self: &Arc<Self>) -> anyhow::Result<()> {
        if lock(&self.running).down {
            self.bury();
            return Ok(());
        }
        self.bury();
        self.replace()?;
        self.collect_garbage()?;
        self.default_accounts()?;
        self.run_workloads()?;
        self.look_after_pods()?;
        self.balancers()?;
        self.slices()?;
        self.publish_services()
    }

    fn objects(&self, kind: Kind) -> Vec<Object> {
        self.cluster.store().list(kind).map(|(_, o)| o.clone()).collect()
    }

    /// Forgets pods whose last process has ended.
    pub(crate) fn bury(&self) {
        let finished = std::mem::take(&mut lock(&self.running).finished);
        for (key, uid) in finished {
            let mut running = lock(&self.running);
            if let Some(worker) = running.workers.remove(&uid)
                && let Some(number) = worker.number
            {
                running.pod_numbers.free(number);
            }
            drop(running);
            let mut store = self.cluster.store();
            if store.get(&key).is_some_and(|o| object::uid(o) == uid)
                && let Err(error) = store.remove(&key)
            {
                tracing::error!(object = %key, error = format!("{error:#}"), "an object was not removed");
            }
            drop(store);
            self.cluster.changed.notify_one();
        }
    }

    /// Objects that waited for one of the same name to go.
    fn replace(&self) -> anyhow::Result<()> {
        let waiting: Vec<Key> = lock(&self.running).replacing.keys().cloned().collect();
        for key in waiting {
            if self.cluster.store().get(&key).is_some() {
                continue;
            }
            let object = lock(&self.running).replacing.remove(&key);
            if let Some(object) = object {
                self.cluster.store().put(object)?;
            }
        }
        Ok(())
    }

    /// Objects of namespaces that are gone, and pods and slices whose owner is gone.
    fn collect_garbage(&self) -> anyhow::Result<()> {
        let store = self.cluster.store();
        let namespaces: BTreeSet<String> = store.list(Kind::Namespace).map(|(k, _)| k.name.clone()).collect();
        let uids: BTreeSet<String> = store.all().map(|(_, o)| uid(o).to_string()).collect();
        let lost = |key: &Key, object: &Object| {
            let homeless = key.kind.namespaced() && !namespaces.contains(&key.namespace);
            homeless || owner(object).is_some_and(|owner| !uids.contains(owner))
        };
        let keys: Vec<Key> = store
            .all()
            .filter(|(k, o)| lost(k, o))
            .map(|(k, _)| k.clone())
            .collect();
        drop(store);
        for key in keys {
            if key.kind == Kind::Pod {
                self.cluster.store().change(&key, mark_terminating)?;
            } else {
                self.cluster.store().remove(&key)?;
                lock(&self.applied).remove(&key);
            }
        }
        Ok(())
    }

    fn default_accounts(&self) -> anyhow::Result<()> {
        let mut store = self.cluster.store();
        let namespaces: Vec<String> = store.list(Kind::Namespace).map(|(k, _)| k.name.clone()).collect();
        for namespace in namespaces {
            if store
                .get(&Key::new(Kind::ServiceAccount, &namespace, "default"))
                .is_none()
            {
                store.put(json!({
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace},
                }))?;
            }
        }
        Ok(())
    }

    fn run_workloads(&self) -> anyhow::Result<()> {
        let pods = self.objects(Kind::Pod);
        for kind in [Kind::Deployment, Kind::StatefulSet, Kind::Job] {
            for workload in self.objects(kind) {
                let wanted = workloads::wanted(&workload, &pods.iter().collect::<Vec<_>>());
                let create: Vec<Object> = wanted.create.into_iter().map(|p| self.with_pod_defaults(p)).collect();
                let mut store = self.cluster.store();
                for pod in create {
                    store.put(pod)?;
                }
                for key in wanted.delete {
                    store.change(&key, mark_terminating)?;
                }
                if let Some(key) = Key::of(&workload)
                    && store.change(&key, |o| o["status"] = wanted.status)?
                {
                    self.cluster.changed.notify_one();
                }
            }
        }
        Ok(())
    }

    fn look_after_pods(self: &Arc<Self>) -> anyhow::Result<()> {
        for pod in self.objects(Kind::Pod) {
            let Some(key) = Key::of(&pod) else { continue };
            let known = lock(&self.running).workers.contains_key(uid(&pod));
            let reason = pod["status"]["reason"].as_str();
            match (is_terminating(&pod), known) {
                (true, true) => {
                    if let Some(worker) = lock(&self.running).workers.get(uid(&pod))
                        && worker.kill.borrow().is_none()
                    {
                        worker.kill.send_replace(Some(Duration::MAX));
                    }
                }
                (true, false) => {
                    self.cluster.store().remove(&key)?;
                    self.cluster.changed.notify_one();
                }
                (false, false) if reason == Some(ADMISSION) => self.ask(pod),
                (false, false) if reason.is_none() => self.start(key, &pod)?,
                (false, _) => {}
            }
        }
        Ok(())
    }

    fn start(self: &Arc<Self>, key: Key, pod: &Object) -> anyhow::Result<()> {
        let host = pod["spec"]["hostNetwork"] == true;
        let number = if host {
            None
        } else {
            lock(&self.running).pod_numbers.take()
        };
        if !host && number.is_none() {
            anyhow::bail!("no address is left for {key}");
        }
        let (kill, killed) = watch(None);
        let worker = Arc::new(Pod::new(self.cluster.clone(), pod, number)?);
        let uid = uid(pod).to_string();
        lock(&self.running).workers.insert(
            uid.clone(),
            Worker {
                pod: worker.clone(),
                kill,
                number,
            },
        );
        let supervisor = self.clone();
        self.spawn(async move {
            worker.run(killed).await;
            lock(&supervisor.running).finished.push((key, uid));
            supervisor.cluster.changed.notify_one();
        });
        Ok(())
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        tokio::runtime::Handle::current().spawn(future);
    }

    /// Has the injector judge a pod that is about to come into being.
    fn ask(self: &Arc<Self>, pod: Object) {
        let (Some(key), uid) = (Key::of(&pod), uid(&pod).to_string()) else {
            return;
        };
        if !lock(&self.running).admitting.insert(uid.clone()) {
            return;
        }
        let supervisor = self.clone();
        self.spawn(async move {
            let mut plain = pod.clone();
            plain["status"] = json!(null);
            let injector = lock(&supervisor.injector).clone();
            let of = supervisor.cluster.find(Kind::Namespace, "", namespace(&pod));
            let strict = of.is_some_and(|of| object::label(&of, label::MTLS) == Some("strict"));
            let verdict = match injector {
                Some(injector) => injector.admit(&plain, strict).await,
                None if supervisor.settings.mesh => Err(anyhow::anyhow!("the injector is not up yet")),
                None => Err(anyhow::anyhow!(
                    "this sandbox was started with --no-mesh, so nobody can inject"
                )),
            };
            lock(&supervisor.running).admitting.remove(&uid);
            match verdict {
                Ok(Verdict::Admitted(mut admitted)) => {
                    admitted["status"] = json!({"phase": "Pending"});
                    supervisor.cluster.change(&key, |o| {
                        if object::uid(o) == uid && !is_terminating(o) {
                            *o = *admitted;
                        }
                    });
                }
                Ok(Verdict::Refused(message)) => supervisor.cluster.change(&key, |o| {
                    o["status"] = json!({"phase": "Failed", "reason": REFUSED, "message": message});
                }),
                Err(error) => {
                    let message = format!("{error:#}");
                    supervisor
                        .cluster
                        .change(&key, |o| o["status"]["message"] = message.into());
                    tokio::time::sleep(ASK_AGAIN).await;
                    supervisor.cluster.changed.notify_one();
                }
            }
        });
    }

    /// A pod as the API server would complete it.
    pub(crate) fn with_pod_defaults(&self, mut pod: Object) -> Object {
        fn default(value: &mut serde_json::Value, field: &str, to: serde_json::Value) {
            if value[field].is_null() {
                value[field] = to;
            }
        }
        let spec = &mut pod["spec"];
        default(spec, "restartPolicy", json!("Always"));
        default(spec, "serviceAccountName", json!("default"));
        default(spec, "terminationGracePeriodSeconds", json!(30));
        spec["nodeName"] = self.cluster.node_name().into();
        for list in ["initContainers", "containers"] {
            for container in elements(spec, list) {
                for port in elements(container, "ports") {
                    default(port, "protocol", json!("TCP"));
                }
            }
        }
        let inject = self.cluster.find(Kind::Namespace, "", namespace(&pod));
        let inject = inject.is_some_and(|ns| object::label(&ns, label::INJECT) == Some("enabled"));
        pod["status"] = if inject {
            json!({"phase": "Pending", "reason": ADMISSION})
        } else {
            json!({"phase": "Pending"})
        };
        pod
    }

    fn slices(&self) -> anyhow::Result<()> {
        let (services, pods) = (self.objects(Kind::Service), self.objects(Kind::Pod));
        let pods: Vec<&Object> = pods.iter().collect();
        let node = self.cluster.node_name();
        let wanted = services.iter().flat_map(|s| endpoints::slices(s, &pods, &node));
        let wanted: BTreeMap<Key, Object> = wanted.filter_map(|s| Some((Key::of(&s)?, s))).collect();
        let mut store = self.cluster.store();
        let stale = store
            .list(Kind::EndpointSlice)
            .filter(|(k, o)| endpoints::is_managed(o) && !wanted.contains_key(k));
        let stale: Vec<Key> = stale.map(|(k, _)| k.clone()).collect();
        for key in stale {
            store.remove(&key)?;
        }
        for slice in wanted.into_values() {
            store.put(slice)?;
        }
        Ok(())
    }

    /// ClusterIPs and names follow the Services and their slices.
    fn publish_services(&self) -> anyhow::Result<()> {
        let (services, slices) = (self.objects(Kind::Service), self.objects(Kind::EndpointSlice));
        let (services, slices): (Vec<&Object>, Vec<&Object>) = (services.iter().collect(), slices.iter().collect());
        let ranges = self.cluster.ranges;
        self.zone.set(dns::Zone::of(&services, &slices));
        let text: String = Family::ALL.map(|f| nat::render(f, ranges, &services, &slices)).concat();
        if lock(&self.running).nat != text {
            nat::apply(ranges, &services, &slices)?;
            lock(&self.running).nat = text;
        }
        Ok(())
    }
}

/// The elements of a list that may be absent; indexing alone would make it null.
pub(crate) fn elements<'a>(
    value: &'a mut serde_json::Value,
    list: &str,
) -> impl Iterator<Item = &'a mut serde_json::Value> {
    value
        .get_mut(list)
        .and_then(serde_json::Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn watch(
    value: Option<Duration>,
) -> (
    tokio::sync::watch::Sender<Option<Duration>>,
    tokio::sync::watch::Receiver<Option<Duration>>,
) {
    tokio::sync::watch::channel(value)
}

/// Marks a pod as on its way out.
pub(crate) fn mark_terminating(pod: &mut Object) {
    if !is_terminating(pod) {
        tracing::info!(pod = name(pod), namespace = namespace(pod), "a pod goes");
        pod["metadata"]["deletionTimestamp"] = now().into();
    }
}
