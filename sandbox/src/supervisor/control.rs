//! The commands that other `weft sandbox` processes send: one JSON line each, over a socket that only root can reach.

use super::{Supervisor, lock, system::last_word};
use crate::{
    endpoints::is_ready,
    enter::Enter,
    manifest::Source,
    object::{self, Key, Kind, Object},
};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};
use weft_proto::names::gateway_api;

/// Longest request: all files of one `apply`.
const LONGEST: u64 = 4 * weft_proto::limits::OBJECT_FILE as u64;

/// The name under which [`Progress`] tells of weft's own programs.
pub const MESH: &str = "weft";

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make objects be as these files say. Answer: lines.
    Apply(Vec<Source>),
    /// Remove what these files name. Answer: lines.
    Delete(Vec<Source>),
    /// Remove one object. Answer: lines.
    DeleteOne {
        /// As on the command line.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Objects of a kind, of one namespace or of all. Answer: objects.
    Get {
        /// As on the command line.
        kind: String,
        /// One namespace only.
        namespace: Option<String>,
        /// One name only.
        name: Option<String>,
    },
    /// How to join a container. Answer: [`Enter`] without words.
    Join(Target),
    /// Where the log of a container is. Answer: paths.
    Log(Target),
    /// Number of pods of a workload.
    Scale {
        /// As on the command line.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// How many.
        replicas: u32,
    },
    /// How far everything is. Answer: [`Progress`].
    Progress,
    /// End everything. Answered at once; the supervisor's end is the sign.
    Down,
}

/// One container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Name of a pod, or of a workload, whose first running pod is meant.
    pub pod: String,
    /// Its namespace; without one any where the name is unique.
    pub namespace: Option<String>,
    /// The container; without one the first application.
    pub container: Option<String>,
}

/// How far everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Pods that are ready, or jobs' pods that succeeded.
    pub ready: usize,
    /// Pods that are not there yet, not ready, or not what they should be: name, status, and what they say.
    pub waiting: Vec<(String, String, String)>,
    /// Pods that will not become ready by themselves.
    pub failed: Vec<(String, String, String)>,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was asked for.
    Ok(Value),
    /// Why not.
    Error(String),
}

/// Binds the socket; only root can reach it.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the process ends.
pub async fn serve(listener: UnixListener, supervisor: Arc<Supervisor>) {
    loop {
        // An error concerns the one connection that was not accepted.
        if let Ok((stream, _)) = listener.accept().await {
            let supervisor = supervisor.clone();
            tokio::spawn(async move {
                if let Err(error) = connection(stream, &supervisor).await {
                    tracing::debug!(%error, "a command was not answered");
                }
            });
        }
    }
}

async fn connection(stream: UnixStream, supervisor: &Arc<Supervisor>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Down) => {
            let supervisor = supervisor.clone();
            tokio::spawn(async move {
                supervisor.go_down().await;
                supervisor.empty.notify_one();
            });
            Ok(Value::Null)
        }
        Ok(request) => {
            let supervisor = supervisor.clone();
            let answer = tokio::task::spawn_blocking(move || supervisor.answer(request)).await;
            answer.unwrap_or_else(|e| Err(anyhow::anyhow!("the command panicked: {e}")))
        }
        Err(error) => Err(anyhow::anyhow!(
            "not a command: {error}; use the same version of weft as for `up`"
        )),
    };
    let answer = answer.map_or_else(|e| Answer::Error(format!("{e:#}")), Answer::Ok);
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

fn kind(text: &str) -> anyhow::Result<Kind> {
    let all = || Kind::ALL.iter().map(|k| k.plural()).collect::<Vec<_>>().join(", ");
    Kind::from_argument(text).with_context(|| format!("'{text}' is not a kind of the sandbox; choose one of {}", all()))
}

/// Why a Gateway of weft's is not what it will be yet. One that is refused will not be more than that.
fn waits(gateway: &Object) -> Option<String> {
    if gateway["spec"]["gatewayClassName"] != gateway_api::CLASS {
        return None;
    }
    let conditions = gateway["status"]["conditions"].as_array();
    let find = |kind: &str| conditions.and_then(|all| all.iter().find(|c| c["type"] == kind));
    match (find("Accepted"), find("Programmed")) {
        (None, _) => Some("not looked at yet".into()),
        (Some(accepted), Some(programmed)) if accepted["status"] == "True" && programmed["status"] != "True" => {
            let reason = programmed["reason"].as_str().unwrap_or_default();
            // Nothing here will give it another address than the one it asks for.
            (reason != "AddressNotUsable").then(|| reason.to_string())
        }
        _ => None,
    }
}

impl Supervisor {
    fn answer(&self, request: Request) -> anyhow::Result<Value> {
        Ok(match request {
            Request::Apply(sources) => serde_json::to_value(self.apply(&sources)?)?,
            Request::Delete(sources) => serde_json::to_value(self.delete(&sources)?)?,
            Request::DeleteOne {
                kind: text,
                namespace,
                name,
            } => {
                let key = Key::new(kind(&text)?, &namespace, &name);
                if !self.delete_one(&key)? {
                    bail!("{key} not found; see `weft sandbox get {}`", key.kind.plural());
                }
                serde_json::to_value([format!("{key} deleted")])?
            }
            Request::Get {
                kind: text,
                namespace,
                name,
            } => {
                let store = self.cluster.store();
                let objects = store
                    .list(kind(&text)?)
                    .filter(|(k, _)| namespace.as_ref().is_none_or(|n| *n == k.namespace));
                objects
                    .filter(|(k, _)| name.as_ref().is_none_or(|n| *n == k.name))
                    .map(|(_, o)| o.clone())
                    .collect()
            }
            Request::Join(target) => serde_json::to_value(self.join(&target)?)?,
            Request::Log(target) => serde_json::to_value(self.log(&target)?)?,
            Request::Scale {
                kind: text,
                namespace,
                name,
                replicas,
            } => {
                self.scale(&Key::new(kind(&text)?, &namespace, &name), replicas)?;
                Value::Null
            }
            Request::Progress => serde_json::to_value(self.progress()?)?,
            Request::Down => Value::Null,
        })
    }

    fn pod(&self, target: &Target) -> anyhow::Result<Object> {
        let store = self.cluster.store();
        let here = |k: &Key| target.namespace.as_ref().is_none_or(|n| *n == k.namespace);
        let exact: Vec<&Object> = store
            .list(Kind::Pod)
            .filter(|(k, _)| here(k) && k.name == target.pod)
            .map(|(_, o)| o)
            .collect();
        let owned = |o: &Object| {
            let owners = o["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|r| r["name"] == target.pod.as_str()))
                && !object::is_terminating(o)
        };
        let workload = || {
            store
                .list(Kind::Pod)
                .filter(|(k, o)| here(k) && owned(o))
                .map(|(_, o)| o)
        };
        let found = if exact.is_empty() {
            workload().max_by_key(|p| is_ready(p)).into_iter().collect()
        } else {
            exact
        };
        match found.as_slice() {
            [pod] => Ok((*pod).clone()),
            [] => bail!(
                "no pod and no workload is called '{}'; see `weft sandbox get pods`",
                target.pod
            ),
            _ => bail!("'{}' is in several namespaces; write POD.NAMESPACE", target.pod),
        }
    }

    fn join(&self, target: &Target) -> anyhow::Result<Enter> {
        let pod = self.pod(target)?;
        let running = lock(&self.running);
        let worker = running
            .workers
            .get(object::uid(&pod))
            .context("the pod does not run; see `weft sandbox get pods`")?;
        let unit = worker.pod.unit(target.container.as_deref()).with_context(|| {
            format!(
                "pod '{}' has no container '{}'",
                object::name(&pod),
                target.container.as_deref().unwrap_or_default()
            )
        })?;
        let (process, launch) = unit.running().with_context(|| {
            format!(
                "container '{}' of pod '{}' does not run now",
                unit.container.name,
                object::name(&pod)
            )
        })?;
        Ok(Enter {
            pid: process.pid(),
            shim: self.cluster.paths.shim(),
            launch,
        })
    }

    fn log(&self, target: &Target) -> anyhow::Result<PathBuf> {
        let pod = self.pod(target)?;
        let name = match &target.container {
            Some(name) => name.clone(),
            None => pod["spec"]["containers"][0]["name"]
                .as_str()
                .unwrap_or_default()
                .to_string(),
        };
        if !crate::pod_check::all(&pod["spec"]).any(|(_, _, c)| c["name"] == name.as_str()) {
            let names: Vec<&str> = crate::pod_check::all(&pod["spec"])
                .filter_map(|(_, _, c)| c["name"].as_str())
                .collect();
            bail!(
                "pod '{}' has no container '{name}'; choose one of {}",
                object::name(&pod),
                names.join(", ")
            );
        }
        Ok(self.cluster.log(object::uid(&pod), &name))
    }

    fn progress(&self) -> anyhow::Result<Progress> {
        let mut progress = Progress::default();
        if let Err(why) = &*self.system.borrow() {
            let failed = !why.ends_with("are starting");
            let list = if failed {
                &mut progress.failed
            } else {
                &mut progress.waiting
            };
            list.push((MESH.into(), "NotReady".into(), why.clone()));
        }
        let store = self.cluster.store();
        for (key, pod) in store.list(Kind::Pod) {
            let (_, word, _) = crate::kubelet::status::columns(pod);
            let entry = || (format!("{}/{}", key.namespace, key.name), word.clone(), last_word(pod));
            match pod["status"]["phase"].as_str() {
                Some("Succeeded") => progress.ready += 1,
                Some("Failed") => progress.failed.push(entry()),
                _ if is_ready(pod) && !object::is_terminating(pod) => progress.ready += 1,
                _ => progress.waiting.push(entry()),
            }
        }
        for kind in [Kind::Deployment, Kind::StatefulSet] {
            for (key, workload) in store.list(kind) {
                let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(1);
                let ready = workload["status"]["readyReplicas"].as_u64().unwrap_or(0);
                if ready < wanted && workload["status"]["replicas"].as_u64().unwrap_or(0) < wanted {
                    let what = format!("{}/{}", key.namespace, key.name);
                    progress
                        .waiting
                        .push((what, format!("{ready}/{wanted} pods"), String::new()));
                }
            }
        }
        for (key, gateway) in store.list(Kind::Gateway).filter(|_| self.settings.mesh) {
            if let Some(why) = waits(gateway) {
                progress
                    .waiting
                    .push((format!("gateway {}/{}", key.namespace, key.name), why, String::new()));
            }
        }
        for (key, job) in store.list(Kind::Job).filter(|(_, j)| j["status"].is_null()) {
            progress.waiting.push((
                format!("{}/{}", key.namespace, object::name(job)),
                "no pod yet".into(),
                String::new(),
            ));
        }
        Ok(progress)
    }
}
