//! What keeps the program from its work, for `/ready` and for the log: each problem is logged when it comes, when it
//! changes and when it is gone, however often it is met in between.
//!
//! Readiness is separate: once there was a certificate to serve with, no problem takes it back, since what is known goes
//! on working (RELIABILITY F14).

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// What is in the way, and whether the program has ever been ready.
#[derive(Debug, Default)]
pub struct Health {
    problems: Mutex<BTreeMap<&'static str, String>>,
    ready: AtomicBool,
}

impl Health {
    /// There is a certificate to serve with.
    pub fn ready(&self) {
        self.ready.store(true, Relaxed);
    }

    /// Something is wrong with `subject`.
    pub fn problem(&self, subject: &'static str, text: impl Into<String>) {
        let text = text.into();
        if self.lock().insert(subject, text.clone()).as_ref() != Some(&text) {
            tracing::warn!(subject, "{text}");
        }
    }

    /// Nothing is wrong with `subject`.
    pub fn solved(&self, subject: &'static str) {
        if self.lock().remove(subject).is_some() {
            tracing::info!(subject, "what was wrong is over");
        }
    }

    /// What `/ready` answers: whether, and with which words.
    pub fn answer(&self) -> Result<String, String> {
        let problems = self.lock();
        let lines = problems.iter().map(|(subject, text)| format!("\n{subject}: {text}"));
        let lines: String = lines.collect();
        if self.ready.load(Relaxed) {
            Ok(format!("ready{lines}"))
        } else {
            Err(format!("no certificate to serve with yet{lines}"))
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_a_problem_is_told_and_takes_readiness_from_nobody() {
        let health = Health::default();
        health.problem("webhook CA", "the API server does not answer");
        let text = health.answer().unwrap_err();
        assert_eq!(
            text,
            "no certificate to serve with yet\nwebhook CA: the API server does not answer"
        );
        health.ready();
        assert_eq!(
            health.answer().unwrap(),
            "ready\nwebhook CA: the API server does not answer"
        );
        health.solved("webhook CA");
        assert_eq!(health.answer().unwrap(), "ready");
    }
}
