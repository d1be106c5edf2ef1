//! Secrets and ConfigMaps that Gateways, ListenerSets and policies refer to: read by name, one by one, and again every few seconds.
//!
//! Neither is listed or watched: who may do that with Secrets may read all of them. What a change newly refers to is read before the change
//! is taken in, so that a listener is at no moment without the certificate that it names.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use weft_proto::limits;

use super::parse;
use crate::{
    answers::Answers,
    api::{Complaint, Failure, bounded},
    cluster::{
        Change,
        types::{Key, Kind, ObjectKey},
    },
};

/// Reads them. Dropping a future of its functions loses nothing: what is being read goes on being read.
pub struct Reader {
    client: Client,
    answers: Arc<Answers>,
    batches: watch::Receiver<u64>,
    /// What is referred to, as of the last look.
    wanted: BTreeSet<Key>,
    known: HashMap<Key, Known>,
    reading: FuturesUnordered<BoxFuture<'static, (Key, Result<Found, Failure>)>>,
    in_flight: HashSet<Key>,
    /// What is known is not read again before this.
    pace: Instant,
    complaint: Complaint,
}

/// What is known of one.
struct Known {
    /// Its version; `None`: there is none of this name.
    version: Option<String>,
    /// When it is read again.
    due: Instant,
}

/// What a read has found.
enum Found {
    Object(Value),
    Nothing,
}

impl Reader {
    /// Nothing is read yet.
    pub fn new(client: Client, answers: Arc<Answers>) -> Self {
        let mut batches = answers.batches();
        batches.mark_changed();
        Self {
            client,
            answers,
            batches,
            wanted: BTreeSet::new(),
            known: HashMap::new(),
            reading: FuturesUnordered::new(),
            in_flight: HashSet::new(),
            pace: Instant::now(),
            complaint: Complaint::new("reading Secrets and ConfigMaps that something refers to"),
        }
    }

    /// Reads what these changes would newly refer to, for at most [`limits::REFERENCE_WAIT`].
    pub async fn ahead(&mut self, changes: &[Change]) -> Vec<Change> {
        let wanted = self.answers.references_after(changes);
        self.first(wanted, limits::REFERENCE_WAIT).await
    }

    /// Reads all that is referred to and not read yet, for at most [`limits::API_TIME`].
    pub async fn all(&mut self) -> Vec<Change> {
        let wanted = self.answers.references();
        self.first(wanted, limits::API_TIME).await
    }

    /// Waits until a read has changed something, or nothing refers to something any more.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            if self.batches.has_changed().unwrap_or(false) {
                self.batches.mark_unchanged();
                self.wanted = self.answers.references();
                let gone: Vec<Key> = self
                    .known
                    .keys()
                    .filter(|key| !self.wanted.contains(key))
                    .cloned()
                    .collect();
                if !gone.is_empty() {
                    self.known.retain(|key, _| self.wanted.contains(key));
                    return gone.into_iter().map(Change::Delete).collect();
                }
            }
            let new: Vec<Key> = self
                .wanted
                .iter()
                .filter(|key| !self.known.contains_key(key))
                .cloned()
                .collect();
            new.into_iter().for_each(|key| self.begin(key));
            let free = self.in_flight.len() < limits::REFERENCE_READS;
            let idle = self
                .known
                .iter()
                .filter(|(key, _)| free && !self.in_flight.contains(key));
            let first = idle.min_by_key(|(_, known)| known.due);
            let due = first.map(|(key, known)| (key.clone(), known.due.max(self.pace)));
            let due = async {
                match due {
                    Some((key, at)) => {
                        sleep_until(at).await;
                        key
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((key, found)) = self.reading.next(), if !self.reading.is_empty() => {
                    if let Some(change) = self.done(key, found) {
                        return vec![change];
                    }
                }
                key = due => {
                    self.pace = Instant::now() + limits::REFERENCE_PACE;
                    self.begin(key);
                }
                // Cannot fail: `answers` holds the sender.
                _ = self.batches.changed() => self.batches.mark_changed(),
            }
        }
    }

    /// Reads those of these of which nothing is known, together.
    async fn first(&mut self, mut wanted: BTreeSet<Key>, most: Duration) -> Vec<Change> {
        let until = Instant::now() + most;
        let mut changes = Vec::new();
        loop {
            wanted.retain(|key| !self.known.contains_key(key));
            if wanted.is_empty() {
                return changes;
            }
            wanted.iter().cloned().for_each(|key| self.begin(key));
            match timeout_at(until, self.reading.next()).await {
                Ok(Some((key, found))) => {
                    self.wanted.insert(key.clone());
                    changes.extend(self.done(key, found));
                }
                // What is not answered in time is not waited for: its answer is taken in when it comes.
                Ok(None) | Err(_) => return changes,
            }
        }
    }

    /// Begins to read one, where it is not being read and there are not too many.
    fn begin(&mut self, key: Key) {
        if self.in_flight.len() >= limits::REFERENCE_READS || !self.in_flight.insert(key.clone()) {
            return;
        }
        let client = self.client.clone();
        self.reading.push(Box::pin(async move {
            let found = get(&client, &key).await;
            (key, found)
        }));
    }

    fn done(&mut self, key: Key, found: Result<Found, Failure>) -> Option<Change> {
        self.in_flight.remove(&key);
        self.wanted.contains(&key).then(|| self.take(key, found)).flatten()
    }

    /// What a read changes. After one that failed, what is known stays.
    fn take(&mut self, key: Key, found: Result<Found, Failure>) -> Option<Change> {
        let old = self.known.get(&key).map(|known| known.version.clone());
        let due = Instant::now() + jittered(limits::REFERENCE_LOOK);
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                self.complaint.failed(&format!("{key}: {failure}"));
                // Without an answer it is not known at all, and is asked for again after the same time.
                let version = old.flatten();
                self.known.insert(key, Known { version, due });
                return None;
            }
        };
        self.complaint.works();
        let version = match &found {
            Found::Object(object) => object["metadata"]["resourceVersion"].as_str().map(str::to_owned),
            Found::Nothing => None,
        };
        let is_new = old.as_ref() != Some(&version);
        self.known.insert(key.clone(), Known { version, due });
        if !is_new {
            return None;
        }
        match found {
            Found::Nothing => Some(Change::Delete(key)),
            Found::Object(object) => {
                let parsed = parse::objects(object).pop()?;
                if !parsed.mistakes.is_empty() {
                    tracing::warn!("{key}: {}", parsed.mistakes.join("; "));
                }
                Some(Change::Apply(Box::new(parsed.object?)))
            }
        }
    }
}

/// So that many of them are not read at one moment.
fn jittered(time: Duration) -> Duration {
    let share = (RandomState::new().hash_one(0) % 500) as u32;
    time * (750 + share) / 1000
}

async fn get(client: &Client, key: &Key) -> Result<Found, Failure> {
    match key.kind {
        Kind::Secret => typed::<Secret>(client, &key.object, "Secret").await,
        _ => typed::<ConfigMap>(client, &key.object, "ConfigMap").await,
    }
}

async fn typed<K>(client: &Client, key: &ObjectKey, kind: &str) -> Result<Found, Failure>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    let Some(object) = bounded(api.get_opt(&key.name)).await? else {
        return Ok(Found::Nothing);
    };
    let mut value = serde_json::to_value(&object).map_err(|error| Failure::Other(error.to_string()))?;
    value["apiVersion"] = "v1".into();
    value["kind"] = kind.into();
    Ok(Found::Object(value))
}

#[cfg(test)]
mod tests;
