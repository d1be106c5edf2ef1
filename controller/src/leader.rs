//! Leader election: of all replicas the one that writes, by a Lease.
//!
//! As client-go has it: who holds the Lease renews it every [`limits::LEASE_LOOK`]; another takes it when nothing has been heard
//! for [`limits::LEASE`], measured by its own clock alone; who cannot renew for [`limits::LEASE_RENEWAL`] leads no longer, so
//! that there are never two. Each write names the version of the Lease that it knows, and fails where there is a newer one.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use weft_proto::{limits, names::ROUTES_SERVICE_ACCOUNT};
use weft_service::drain::Signal;

use crate::api::{Complaint, Failure, bounded, config_map::labels};

/// One who would lead.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    holder: String,
    /// The Lease as it was seen last, and when it was first seen so.
    seen: Option<(Lease, Instant)>,
    /// When the last renewal of our own began.
    renewed: Option<Instant>,
}

impl Candidate {
    /// Wants this Lease, as `holder`, which nobody else must be called.
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            seen: None,
            renewed: None,
        }
    }

    /// Runs until the drain begins, when the Lease is given back; `leading` tells all the while.
    pub async fn run(mut self, leading: watch::Sender<bool>, drain: Signal) {
        let mut complaint = Complaint::new(format!("renewing the Lease {}", self.name));
        loop {
            let began = Instant::now();
            // Who leads must know in time that it does not any more; the others have time.
            let until = self
                .renewed
                .map_or(began + limits::API_TIME, |at| at + limits::LEASE_RENEWAL);
            let tried = tokio::select! {
                tried = timeout_at(until, self.attempt()) => tried,
                () = drain.draining() => break,
            };
            match tried {
                Ok(Ok(true)) => {
                    complaint.works();
                    self.renewed = Some(began);
                }
                Ok(Ok(false)) => {
                    complaint.works();
                    self.renewed = None;
                }
                Ok(Err(failure)) => complaint.failed(&failure),
                Err(_) => complaint.failed(&"the API server does not answer"),
            }
            if self.renewed.is_some_and(|at| at.elapsed() >= limits::LEASE_RENEWAL) {
                self.renewed = None;
            }
            let leads = self.renewed.is_some();
            let changed = leading.send_if_modified(|now| std::mem::replace(now, leads) != leads);
            if changed {
                tracing::info!(lease = self.name, leads, "leader election");
            }
            tokio::select! {
                () = sleep(limits::LEASE_LOOK) => {}
                () = drain.draining() => break,
            }
        }
        leading.send_replace(false);
        if self.renewed.is_some() {
            let released = bounded(self.write(None)).await;
            tracing::info!(lease = self.name, released = released.is_ok(), "gave the Lease back");
        }
    }

    /// Whether the Lease is ours now.
    async fn attempt(&mut self) -> Result<bool, Failure> {
        if self.renewed.is_none() || self.seen.is_none() {
            let Some(lease) = bounded(self.api.get_opt(&self.name)).await? else {
                self.seen = None;
                return self.claim().await;
            };
            self.see(lease);
            if !self.is_free() {
                return Ok(false);
            }
        }
        self.claim().await
    }

    fn see(&mut self, lease: Lease) {
        let same = |known: &Lease| known.metadata.uid == lease.metadata.uid && known.spec == lease.spec;
        let since = match &self.seen {
            Some((known, since)) if same(known) => *since,
            _ => Instant::now(),
        };
        self.seen = Some((lease, since));
    }

    /// Ours already, given back, or not renewed for as long as it lasts.
    fn is_free(&self) -> bool {
        let Some((lease, since)) = &self.seen else { return true };
        let spec = lease.spec.as_ref();
        let holder = spec
            .and_then(|spec| spec.holder_identity.as_deref())
            .unwrap_or_default();
        let lasts = spec.and_then(|spec| spec.lease_duration_seconds);
        let lasts = lasts
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(limits::LEASE, Duration::from_secs);
        holder.is_empty() || holder == self.holder || since.elapsed() >= lasts
    }

    async fn claim(&mut self) -> Result<bool, Failure> {
        match bounded(self.write(Some(&self.holder))).await {
            Ok(lease) => {
                self.see(lease);
                Ok(true)
            }
            // Somebody was faster, or has removed it.
            Err(Failure::Conflict(_) | Failure::Absent(_)) => {
                self.seen = None;
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn write(&self, holder: Option<&str>) -> Result<Lease, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let known = self.seen.as_ref().map(|(lease, _)| lease);
        let old = known.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let stays = old.holder_identity.as_deref() == holder;
        let transitions = old.lease_transitions.unwrap_or(0);
        let seconds = if holder.is_some() { limits::LEASE.as_secs() } else { 1 };
        let spec = LeaseSpec {
            holder_identity: Some(holder.unwrap_or_default().to_owned()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            acquire_time: old.acquire_time.filter(|_| stays).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(!stays && known.is_some())),
            ..old
        };
        let metadata = known.map(|lease| lease.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            name: Some(self.name.clone()),
            labels: Some(labels(ROUTES_SERVICE_ACCOUNT)),
            ..ObjectMeta::default()
        });
        let metadata = ObjectMeta {
            managed_fields: None,
            ..metadata
        };
        let lease = Lease {
            metadata,
            spec: Some(spec),
        };
        match known {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        }
    }
}

#[cfg(test)]
mod tests;
