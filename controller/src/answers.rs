//! The current answers to what is followed: made once for all who follow a name, and anew only when something that they
//! depend on has changed.
//!
//! Holds the one [`Cluster`]. Each stream has a [`Follower`]: a set of names of which there is news, however often they
//! changed, so that a slow reader costs no memory and gets the latest. What goes over the wire is for [`crate::serve`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use weft_proto::{limits, skip::Cidrs};
use weft_service::spiffe::Id;

use crate::{
    cluster::{
        Change, Cluster, Dependency, Touched,
        types::{Key, Object, ObjectKey},
    },
    gateway::references,
    infrastructure::{self, Want},
    plan::{self, Answer, Name, Planned, Settings},
    session_keys::Masters,
    status::{self, Desired, write::Said},
    watch::Batch,
};

/// The cluster and all answers that someone follows.
pub struct Answers {
    settings: ArcSwap<Settings>,
    state: Mutex<State>,
    synced: watch::Sender<bool>,
    batches: watch::Sender<u64>,
    told: AtomicU64,
    problems: AtomicU64,
    statuses_written: AtomicU64,
    statuses_failed: AtomicU64,
}

#[derive(Default)]
struct State {
    cluster: Cluster,
    followed: HashMap<Name, Followed>,
    dependents: HashMap<Dependency, HashSet<Name>>,
    mailboxes: HashMap<u64, Arc<Mailbox>>,
    next_mailbox: u64,
}

struct Followed {
    planned: Planned,
    followers: HashSet<u64>,
}

#[derive(Default)]
struct Mailbox {
    names: Mutex<BTreeSet<Name>>,
    news: Notify,
}

impl Mailbox {
    fn put(&self, name: Name) {
        lock(&self.names).insert(name);
        self.news.notify_one();
    }
}

/// A panic elsewhere leaves the maps whole: every change of them is made in one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    /// Of an empty cluster that is not complete yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            state: Mutex::default(),
            synced: watch::Sender::new(false),
            batches: watch::Sender::new(0),
            told: AtomicU64::new(0),
            problems: AtomicU64::new(0),
            statuses_written: AtomicU64::new(0),
            statuses_failed: AtomicU64::new(0),
        })
    }

    /// Takes a batch in, and tells everyone whose answers it changed.
    pub fn apply(&self, batch: Batch) {
        let mut state = lock(&self.state);
        let mut touched = Touched::default();
        for change in batch.changes {
            state.cluster.apply(change, &mut touched);
        }
        state.answer_anew(&self.settings.load(), &touched.dependencies);
        if batch.synced {
            self.synced.send_replace(true);
        }
        drop(state);
        self.batches.send_modify(|count| *count += 1);
    }

    /// What the keys of sessions are made of from now on; every answer is looked at anew.
    pub fn set_sessions(&self, sessions: Masters) {
        let mut state = lock(&self.state);
        let mut settings = Settings::clone(&self.settings.load());
        settings.sessions = sessions;
        // Under the lock: whoever begins to follow meanwhile sees either all of the old ones or all of the new.
        self.settings.store(Arc::new(settings));
        state.all_anew(&self.settings.load());
    }

    /// What the keys of sessions are made of.
    pub fn sessions(&self) -> Masters {
        self.settings.load().sessions.clone()
    }

    /// What the cluster's Gateways want to run for them, by their names.
    pub fn wants(&self) -> BTreeMap<ObjectKey, Want> {
        infrastructure::wants(&lock(&self.state).cluster)
    }

    /// UID of a pod that is there; empty where the object has none.
    pub fn pod_uid(&self, pod: &ObjectKey) -> Option<Arc<str>> {
        lock(&self.state).cluster.pod_named(pod).map(|pod| pod.uid.clone())
    }

    /// Tells of every batch that was taken in; the value counts them.
    pub fn batches(&self) -> watch::Receiver<u64> {
        self.batches.subscribe()
    }

    /// Whether everything that there is has been told.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until it has: before, "unknown" would be a lie.
    pub async fn synced(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Someone new who follows names.
    pub fn follower(self: &Arc<Self>, caller: Id) -> Follower {
        let mut state = lock(&self.state);
        let id = state.next_mailbox;
        state.next_mailbox += 1;
        let mailbox = Arc::new(Mailbox::default());
        state.mailboxes.insert(id, mailbox.clone());
        Follower {
            answers: self.clone(),
            id,
            mailbox,
            caller,
            told: HashMap::new(),
            asked: HashSet::new(),
        }
    }

    /// Names that someone follows now.
    pub fn followed(&self) -> usize {
        lock(&self.state).followed.len()
    }

    /// Streams that follow now.
    pub fn followers(&self) -> usize {
        lock(&self.state).mailboxes.len()
    }

    /// Answers that were given, unchanged ones left out.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// What is to be said of every object of the Gateway API now.
    pub fn statuses(&self) -> BTreeMap<Key, Desired> {
        let cluster = lock(&self.state).cluster.for_statuses();
        let statuses = status::statuses(&cluster, &self.settings.load());
        let routes = statuses.iter().filter(|(key, _)| key.kind.is_route());
        let problems = routes.filter(|(_, desired)| !desired.problems().is_empty()).count();
        self.problems.store(problems as u64, Ordering::Relaxed);
        statuses
    }

    /// Routes that did not act as written when the statuses were made the last time.
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// What is to be said of every object of the Gateway API now, with what is there.
    pub fn said(&self) -> Vec<Said> {
        let statuses = self.statuses();
        let state = lock(&self.state);
        let said = statuses.into_iter().filter_map(|(key, desired)| {
            // Gone meanwhile, or new: then the next look tells of it.
            let observed = state.cluster.observed(&key)?.clone();
            Some(Said { key, desired, observed })
        });
        said.collect()
    }

    /// Every Secret and ConfigMap that something refers to.
    pub fn references(&self) -> BTreeSet<Key> {
        references::wanted(&lock(&self.state).cluster)
    }

    /// The Secrets and ConfigMaps that changed objects would refer to.
    pub fn references_after(&self, changes: &[Change]) -> BTreeSet<Key> {
        let refers = |object: &&Object| {
            matches!(
                object,
                Object::Gateway(..)
                    | Object::ListenerSet(..)
                    | Object::BackendTlsPolicy(..)
                    | Object::ReferenceGrant(_)
            )
        };
        let changed = changes.iter().filter_map(|change| match change {
            Change::Apply(object) => Some(&**object),
            Change::Delete(_) => None,
        });
        let changed: Vec<_> = changed.filter(refers).collect();
        if changed.is_empty() {
            return BTreeSet::new();
        }
        let mut after = lock(&self.state).cluster.of_references(&changed);
        let mut touched = Touched::default();
        for object in changed {
            after.apply(Change::Apply(Box::new(object.clone())), &mut touched);
        }
        references::wanted(&after)
    }

    /// Counts a write of a status.
    pub fn count_status(&self, works: bool) {
        let count = if works {
            &self.statuses_written
        } else {
            &self.statuses_failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Statuses that were written, and writes that failed.
    pub fn status_writes(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.statuses_written), load(&self.statuses_failed))
    }

    /// Looks at the cluster, which stands still meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Cluster) -> T) -> T {
        look(&lock(&self.state).cluster)
    }

    /// The cluster's ranges of addresses, as far as it says them itself.
    pub fn detected_ranges(&self) -> Cidrs {
        lock(&self.state).cluster.all_ranges().clone()
    }

    /// Of each namespace whose pods are to be in the mesh: how many are not.
    pub fn unmeshed(&self) -> BTreeMap<Arc<str>, u64> {
        let state = lock(&self.state);
        let mut counts: BTreeMap<Arc<str>, u64> = state
            .cluster
            .injected_namespaces()
            .map(|name| (name.clone(), 0))
            .collect();
        for pod in state.cluster.unmeshed() {
            *counts.entry(pod.namespace.clone()).or_default() += 1;
        }
        counts
    }

    /// Pods that should be in the mesh and are not, each with its UID.
    pub fn unmeshed_pods(&self) -> Vec<(ObjectKey, Arc<str>)> {
        let state = lock(&self.state);
        let pods = state.cluster.unmeshed().iter();
        let pods = pods.filter_map(|key| Some((key.clone(), state.cluster.pod_named(key)?.uid.clone())));
        pods.collect()
    }
}

impl State {
    fn answer_anew(&mut self, settings: &Settings, touched: &HashSet<Dependency>) {
        let names: BTreeSet<Name> = touched
            .iter()
            .filter_map(|dependency| self.dependents.get(dependency))
            .flatten()
            .cloned()
            .collect();
        self.make(settings, names);
    }

    fn all_anew(&mut self, settings: &Settings) {
        let names = self.followed.keys().cloned().collect();
        self.make(settings, names);
    }

    fn make(&mut self, settings: &Settings, names: BTreeSet<Name>) {
        for name in names {
            let planned = plan::answer(&self.cluster, settings, &name);
            let Some(followed) = self.followed.get_mut(&name) else {
                continue;
            };
            let old = std::mem::replace(&mut followed.planned, planned);
            if (&old.answer, &old.consumers) != (&followed.planned.answer, &followed.planned.consumers) {
                for mailbox in followed.followers.iter().filter_map(|id| self.mailboxes.get(id)) {
                    mailbox.put(name.clone());
                }
            }
            let new = followed.planned.dependencies.clone();
            self.depend(&name, &old.dependencies, &new);
        }
    }

    fn depend(&mut self, name: &Name, old: &BTreeSet<Dependency>, new: &BTreeSet<Dependency>) {
        for gone in old.difference(new) {
            if let Some(names) = self.dependents.get_mut(gone) {
                names.remove(name);
                if names.is_empty() {
                    self.dependents.remove(gone);
                }
            }
        }
        for added in new.difference(old) {
            self.dependents.entry(added.clone()).or_default().insert(name.clone());
        }
    }

    fn follow(&mut self, settings: &Settings, name: Name, follower: u64) {
        if let Some(followed) = self.followed.get_mut(&name) {
            followed.followers.insert(follower);
            return;
        }
        let planned = plan::answer(&self.cluster, settings, &name);
        self.depend(&name, &BTreeSet::new(), &planned.dependencies);
        self.followed.insert(
            name,
            Followed {
                planned,
                followers: HashSet::from([follower]),
            },
        );
    }

    fn forget(&mut self, name: Name, follower: u64) {
        let Some(followed) = self.followed.get_mut(&name) else {
            return;
        };
        followed.followers.remove(&follower);
        if followed.followers.is_empty() {
            let dependencies = std::mem::take(&mut followed.planned.dependencies);
            self.followed.remove(&name);
            self.depend(&name, &dependencies, &BTreeSet::new());
        }
    }
}

/// Too many names.
#[derive(Debug, thiserror::Error)]
#[error("more than {} names are followed on one stream", limits::FOLLOWED)]
pub struct TooMany;

/// News of a name.
#[derive(Debug, PartialEq)]
pub enum News {
    /// The version that the follower named still holds.
    Unchanged(String),
    /// This is the answer now.
    Answer(Answer),
}

/// One who follows names. Dropping it forgets them all.
pub struct Follower {
    answers: Arc<Answers>,
    id: u64,
    mailbox: Arc<Mailbox>,
    caller: Id,
    /// The version that the follower has of each name; empty for none.
    told: HashMap<Name, String>,
    /// Named, and not answered since.
    asked: HashSet<Name>,
}

impl Follower {
    /// Follows a name of which the follower holds a version; empty: none.
    pub fn follow(&mut self, name: Name, version: String) -> Result<(), TooMany> {
        if !self.told.contains_key(&name) && self.told.len() >= limits::FOLLOWED {
            return Err(TooMany);
        }
        if self.told.insert(name.clone(), version).is_none() {
            let mut state = lock(&self.answers.state);
            state.follow(&self.answers.settings.load(), name.clone(), self.id);
        }
        self.asked.insert(name.clone());
        self.mailbox.put(name);
        Ok(())
    }

    /// Follows a name no longer.
    pub fn forget(&mut self, name: Name) {
        if self.told.remove(&name).is_some() {
            self.asked.remove(&name);
            lock(&self.mailbox.names).remove(&name);
            lock(&self.answers.state).forget(name, self.id);
        }
    }

    /// Waits until there may be news.
    pub async fn news(&self) {
        self.mailbox.news.notified().await;
    }

    /// Takes the news of one name, in no particular order. `None`: there is no more.
    pub fn take(&mut self) -> Option<(Name, News)> {
        loop {
            let name = lock(&self.mailbox.names).pop_first()?;
            if let Some(news) = self.news_of(&name) {
                return Some((name, news));
            }
        }
    }

    fn news_of(&mut self, name: &Name) -> Option<News> {
        let told = self.told.get_mut(name)?;
        let answer = {
            let state = lock(&self.answers.state);
            let planned = &state.followed.get(name)?.planned;
            planned.answer_for(self.caller.namespace())?.clone()
        };
        if let Some((namespace, account)) = &answer.only_for
            && (self.caller.namespace(), self.caller.service_account()) != (&**namespace, &**account)
        {
            // Not an error of the stream: an address may still belong to the pod that had it before, as far as is known
            // here, and is the caller's own a moment later.
            tracing::warn!(caller = %self.caller, ?name, "asked for a pod of someone else, and is told nothing");
            return None;
        }
        let asked = self.asked.remove(name);
        if *told == answer.version {
            return asked.then_some(News::Unchanged(answer.version));
        }
        told.clone_from(&answer.version);
        self.answers.told.fetch_add(1, Ordering::Relaxed);
        Some(News::Answer(answer))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = lock(&self.answers.state);
        state.mailboxes.remove(&self.id);
        for name in std::mem::take(&mut self.told).into_keys() {
            state.forget(name, self.id);
        }
    }
}

#[cfg(test)]
mod tests;
