//! Writes what is to be said of each object into its `.status`: the leader to an API server, a sandbox's controller to files.
//!
//! Level-triggered: all statuses are compared with what is there, and only what differs is written, with the version that is known, so that
//! nothing newer is overwritten. A flood of changes becomes a few rounds, and each object's last state counts.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use weft_proto::{limits, names::gateway_api::GROUP};

use super::{
    Desired,
    merge::{self, merge},
};
use crate::{
    answers::Answers,
    api::{Complaint, Failure, bounded, follow::pause},
    cluster::{
        ObjectKey,
        types::{Key, Observed},
    },
    infrastructure::files::{Files, file_name},
    watch::kubernetes::plural,
};

/// What is to be said of an object, and what is there.
#[derive(Clone, Debug)]
pub struct Said {
    /// The object.
    pub key: Key,
    /// What is to be said.
    pub desired: Desired,
    /// What is there.
    pub observed: Observed,
}

/// The time now, as the API writes it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Rounds one after another: the next comes when something has changed, [`limits::STATUS_PAUSE`] after the one before, and so much later
/// after a long one that looking takes no more than a tenth of the time.
struct Rounds {
    batches: watch::Receiver<u64>,
    next: Instant,
    /// What was said in the log of each object.
    told: HashMap<Key, Vec<String>>,
}

impl Rounds {
    fn new(answers: &Answers) -> Self {
        Self {
            batches: answers.batches(),
            next: Instant::now(),
            told: HashMap::new(),
        }
    }

    /// Looks, and says how long the look took.
    fn look(&mut self, answers: &Answers) -> Vec<Said> {
        self.batches.mark_unchanged();
        let began = std::time::Instant::now();
        let said = answers.said();
        let rest = limits::STATUS_PAUSE.max(began.elapsed() * 9);
        self.next = Instant::now() + rest;
        self.log(&said);
        said
    }

    /// Says what is new: who reads logs sees what does not act as written.
    fn log(&mut self, said: &[Said]) {
        let mut told = HashMap::new();
        for Said { key, desired, .. } in said {
            let (old, new) = (self.told.remove(key).unwrap_or_default(), desired.problems());
            for problem in new.iter().filter(|problem| !old.contains(problem)) {
                tracing::warn!(object = %key, "{problem}");
            }
            if new.is_empty() && !old.is_empty() {
                tracing::info!(object = %key, "acts as written now");
            }
            if !new.is_empty() {
                told.insert(key.clone(), new);
            }
        }
        self.told = told;
    }

    /// Waits until there is something to look at. `again`: at this time there is in any case.
    async fn wait(&mut self, again: Option<Instant>) {
        let retry = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cannot fail: the sender lives as long as the program.
            _ = self.batches.changed() => {}
            () = retry => {}
        }
        sleep_until(self.next).await;
    }
}

/// What was written, until the watch tells of it.
struct Written {
    /// The version that the watch told of last.
    told: Arc<str>,
    after: Observed,
}

/// One write.
struct Write {
    key: Key,
    /// The version that the watch told of last.
    told: Arc<str>,
    observed: Observed,
    status: Value,
}

/// Writes to an API server, while `leading`, for ever.
pub async fn write(client: Client, answers: Arc<Answers>, mut leading: watch::Receiver<bool>) {
    let mut rounds = Rounds::new(&answers);
    let mut written: HashMap<Key, Written> = HashMap::new();
    let mut failed: HashMap<Key, (u32, Instant)> = HashMap::new();
    let mut complaint = Complaint::new("writing statuses");
    let mut pace = interval(limits::STATUS_PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if !*leading.borrow() {
            // What another leader writes meanwhile is not known here.
            written.clear();
            // Cannot fail: the sender lives as long as the program.
            let _ = leading.wait_for(|leading| *leading).await;
        }
        answers.synced().await;
        let said = rounds.look(&answers);
        let now = now();
        let mut due = Vec::new();
        for Said {
            key,
            desired,
            mut observed,
        } in said
        {
            if failed.get(&key).is_some_and(|(_, at)| *at > Instant::now()) {
                continue;
            }
            let told = observed.resource_version.clone();
            match written.get(&key) {
                Some(own) if own.told == told => observed = own.after.clone(),
                Some(_) => drop(written.remove(&key)),
                None => {}
            }
            if let Some(status) = merge(&desired.0, &observed.status, &now) {
                due.push(Write {
                    key,
                    told,
                    observed,
                    status,
                });
            }
        }
        // What is well now, or gone, is not tried again.
        let tried: HashSet<&Key> = due.iter().map(|write| &write.key).collect();
        failed.retain(|key, (_, at)| *at > Instant::now() || tried.contains(key));
        let mut due = due.into_iter();
        let mut sending = FuturesUnordered::new();
        loop {
            let is_room = due.len() > 0 && sending.len() < limits::STATUS_WRITES;
            let (write, result) = tokio::select! {
                _ = pace.tick(), if is_room => {
                    sending.extend(due.next().map(|write| sent(client.clone(), write)));
                    continue;
                }
                Some(sent) = sending.next() => sent,
                else => break,
            };
            answers.count_status(result.is_ok());
            let Write {
                key,
                told,
                observed,
                status,
            } = write;
            match result {
                Ok(version) => {
                    complaint.works();
                    tracing::debug!(object = %key, "status written");
                    failed.remove(&key);
                    let after = Observed {
                        resource_version: version,
                        status: Arc::new(status),
                        ..observed
                    };
                    written.insert(key, Written { told, after });
                }
                Err(Failure::Absent(_)) => drop(failed.remove(&key)),
                // What is known is old: the watch tells more.
                Err(Failure::Conflict(_)) => {
                    failed.insert(key, (0, Instant::now() + Duration::from_secs(1)));
                }
                Err(failure) => {
                    complaint.failed(&format!("{key}: {failure}"));
                    let failures = failed.get(&key).map_or(0, |(failures, _)| failures + 1);
                    failed.insert(key, (failures, Instant::now() + pause(failures + 1)));
                }
            }
        }
        let again = failed.values().map(|(_, at)| *at).min();
        tokio::select! {
            () = rounds.wait(again) => {}
            _ = leading.changed() => {}
        }
    }
}

async fn sent(client: Client, write: Write) -> (Write, Result<Arc<str>, Failure>) {
    let sent = send(&client, &write).await;
    (write, sent)
}

/// Writes one status; the version that it made.
async fn send(client: &Client, write: &Write) -> Result<Arc<str>, Failure> {
    let kind = write.key.kind;
    let gvk = GroupVersionKind::gvk(GROUP, "v1", kind.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural(kind));
    let ObjectKey { namespace, name } = &write.key.object;
    let api: Api<DynamicObject> = if kind.is_cluster_wide() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let body = json!({
        "metadata": {"resourceVersion": &*write.observed.resource_version},
        "status": merge::patch(&write.observed.status, &write.status),
    });
    let made = bounded(api.patch_status(name, &PatchParams::default(), &Patch::Merge(&body))).await?;
    Ok(made.metadata.resource_version.unwrap_or_default().into())
}

/// Writes files of a directory, one for each object that something is said of, for ever.
pub async fn write_files(directory: &Path, answers: Arc<Answers>) -> anyhow::Result<()> {
    let mut files = Files::new(directory)?;
    let mut rounds = Rounds::new(&answers);
    let mut complaint = Complaint::new("writing files of statuses");
    let mut statuses: HashMap<Key, (Arc<str>, Value)> = HashMap::new();
    answers.synced().await;
    loop {
        let now = now();
        let mut wanted = BTreeMap::new();
        let mut known = HashMap::new();
        for Said { key, desired, observed } in rounds.look(&answers) {
            // What was written and is not taken yet is what times are kept from.
            let own = statuses.remove(&key).filter(|(uid, _)| *uid == observed.uid);
            let before = own.map_or_else(|| Value::clone(&observed.status), |(_, status)| status);
            let status = merge(&desired.0, &before, &now).unwrap_or(before);
            let ObjectKey { namespace, name } = &key.object;
            let object = json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": key.kind.name(), "status": status,
                "metadata": {"namespace": &**namespace, "name": &**name, "uid": &*observed.uid},
            });
            wanted.insert(file_name(key.kind.name(), namespace, name), object);
            known.insert(key, (observed.uid, status));
        }
        statuses = known;
        let mut again = None;
        match files.hold(&wanted) {
            Ok(()) => complaint.works(),
            Err(error) => {
                complaint.failed(&format!("{error:#}"));
                again = Some(Instant::now() + limits::WATCH_PAUSE);
            }
        }
        rounds.wait(again).await;
        // Together what changes together.
        sleep(limits::GATEWAY_SETTLES).await;
    }
}

#[cfg(test)]
mod tests;
