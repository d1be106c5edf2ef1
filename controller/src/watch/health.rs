//! How the watches of an API server fare: for metrics and for `/ready`.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{api::Failure, cluster::Kind};

/// One for all kinds.
#[derive(Debug, Default)]
pub struct Health {
    kinds: [OfKind; Kind::WATCHED.len()],
}

#[derive(Debug, Default)]
struct OfKind {
    failures: AtomicU64,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    synced: bool,
    problem: Option<String>,
}

impl Health {
    fn of(&self, kind: Kind) -> &OfKind {
        // Watched kinds come first.
        &self.kinds[kind as usize]
    }

    /// All of this kind is known, and followed.
    pub fn works(&self, kind: Kind) {
        let state = State {
            synced: true,
            problem: None,
        };
        *self.of(kind).state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Something failed.
    pub fn failed(&self, kind: Kind, why: &Failure) {
        let of = self.of(kind);
        of.failures.fetch_add(1, Ordering::Relaxed);
        let state = State {
            synced: false,
            problem: Some(why.to_string()),
        };
        *of.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Of each kind: whether all of it is known and followed, and how often something failed.
    pub fn figures(&self) -> impl Iterator<Item = (Kind, bool, u64)> + '_ {
        Kind::WATCHED.into_iter().map(|kind| {
            let of = self.of(kind);
            let synced = of.state.lock().unwrap_or_else(PoisonError::into_inner).synced;
            (kind, synced, of.failures.load(Ordering::Relaxed))
        })
    }

    /// What is wrong now, each with its kind.
    pub fn problems(&self) -> Vec<String> {
        let problem = |kind: Kind| {
            let state = self
                .of(kind)
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            match state {
                State { problem: Some(why), .. } => Some(format!("{}: {why}", kind.name())),
                State { synced: false, .. } => Some(format!("{}: not read yet", kind.name())),
                State { .. } => None,
            }
        };
        Kind::WATCHED.into_iter().filter_map(problem).collect()
    }
}
