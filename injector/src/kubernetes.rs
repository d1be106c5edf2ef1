//! What `--kubernetes` adds: the webhook's CA in a Secret that the replicas share, the webhook's configuration kept in
//! step with it ([`keeper`]), and the cluster's version looked at ([`version`]).
//!
//! Here is what both need: a client, calls that end in time, and errors that say what to do.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use anyhow::Context as _;
use kube::{Client, Config};
use weft_proto::{limits, names};

pub mod keeper;
pub mod version;

pub use keeper::Keeper;

/// A client for the cluster that this program runs in, or that KUBECONFIG names.
pub async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("--kubernetes: there is neither a ServiceAccount's token nor a kubeconfig")?;
    config.connect_timeout = Some(limits::CONNECT_TIME);
    Client::try_from(config).context("--kubernetes: the configuration cannot be used")
}

/// A call that did not do what it was to do.
#[derive(Debug)]
pub enum Failure {
    /// Somebody else was faster; the same again, with what is there now.
    Conflict,
    /// For people.
    Problem(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("another replica was faster"),
            Self::Problem(text) => f.write_str(text),
        }
    }
}

/// What is asked of the API server, for messages.
#[derive(Clone, Copy, Debug)]
pub struct What<'a> {
    /// As in a rule of RBAC.
    pub verb: &'static str,
    /// As in a rule of RBAC.
    pub resource: &'static str,
    /// The object.
    pub name: &'a str,
    /// Its namespace, where it has one.
    pub namespace: Option<&'a str>,
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb, resource, name, ..
        } = self;
        write!(f, "{verb} {resource} {name}")?;
        self.namespace
            .map_or(Ok(()), |namespace| write!(f, " in namespace {namespace}"))
    }
}

impl What<'_> {
    /// One call, no longer than [`limits::API_TIME`].
    pub async fn call<T>(self, asked: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        match tokio::time::timeout(limits::API_TIME, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(Failure::Problem(format!(
                "cannot {self}: the API server gave no answer in {:?}; it is asked again",
                limits::API_TIME
            ))),
        }
    }

    /// What an error means.
    pub fn failure(self, error: &kube::Error) -> Failure {
        let kube::Error::Api(status) = error else {
            // Only the innermost reason says more than that there is one.
            let mut reason: &dyn std::error::Error = error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            return Failure::Problem(format!("cannot {self}: the API server cannot be reached ({reason})"));
        };
        match status.code {
            // 422 is what a test in a JSON patch gives that does not hold.
            409 | 422 => Failure::Conflict,
            403 if !status.message.contains("being terminated") => Failure::Problem(format!(
                "not allowed to {self}; give ServiceAccount {} what it needs: \
                 weft install | kubectl apply --server-side -f - (the API server says: {})",
                names::INJECTOR_SERVICE_ACCOUNT,
                status.message
            )),
            401 => Failure::Problem(format!(
                "cannot {self}: the API server does not accept this program's token"
            )),
            code => Failure::Problem(format!("cannot {self}: {} ({code})", status.message)),
        }
    }
}

/// Pauses between attempts: growing, bounded, and never the same for two replicas.
#[derive(Debug)]
pub struct BackOff(Duration);

impl BackOff {
    const FIRST: Duration = Duration::from_millis(100);

    /// Starts short.
    pub const fn new() -> Self {
        Self(Self::FIRST)
    }

    /// How long to wait now.
    pub fn step(&mut self) -> Duration {
        let step = self.0;
        self.0 = (step * 2).min(limits::WATCH_PAUSE);
        jitter(step)
    }
}

impl Default for BackOff {
    fn default() -> Self {
        Self::new()
    }
}

/// Between half and all of a time, at random.
pub fn jitter(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8) % 1000;
    time / 2 + time * u32::try_from(random).unwrap_or_default() / 2000
}

#[cfg(test)]
mod tests;
