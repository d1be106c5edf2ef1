//! Readiness, and a few figures of the controller itself in Prometheus' text format.

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use weft_service::tls::Holder;

use crate::{
    answers::Answers,
    cluster::Kind,
    issue::{Counts, ca::Authority},
    watch::Health,
};

/// Every family: name, type, what it says.
pub const FAMILIES: &[(&str, &str, &str)] = &[
    ("weft_discovery_streams", "gauge", "Proxies that follow now."),
    ("weft_discovery_names", "gauge", "Names that are followed now."),
    ("weft_discovery_answers_total", "counter", "Answers given to proxies."),
    (
        "weft_status_writes_total",
        "counter",
        "Statuses of objects of the Gateway API that the leader wrote, and writes that failed.",
    ),
    (
        "weft_routes_with_problems",
        "gauge",
        "Routes that do not act as written. Counted by the replica that leads.",
    ),
    (
        "weft_unmeshed_pods",
        "gauge",
        "Pods that run without weft in a namespace labelled for it. Every replica counts all of them.",
    ),
    (
        "weft_watch_synced",
        "gauge",
        "1 when all objects of a kind are known and followed.",
    ),
    (
        "weft_watch_failures_total",
        "counter",
        "Lists and watches that the API server refused, broke or did not answer.",
    ),
    (
        "weft_leader",
        "gauge",
        "1 in the replica that writes: Events and the ConfigMap of the cluster's ranges. One that has no others leads.",
    ),
    ("weft_certificates_total", "counter", "Requests for certificates."),
    (
        "weft_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the controller's own certificates end, in seconds since 1970.",
    ),
    (
        "weft_ca_expiry_timestamp_seconds",
        "gauge",
        "When the CA's certificate ends, in seconds since 1970.",
    ),
];

/// What the figures are read from; absent parts are of another role.
#[derive(Default)]
pub struct Parts {
    /// Credentials of each listener.
    pub holders: Vec<Arc<Holder>>,
    /// Role routes.
    pub answers: Option<Arc<Answers>>,
    /// Role identity.
    pub ca: Option<Arc<Authority>>,
    /// Role identity.
    pub counts: Option<Arc<Counts>>,
    /// The watches of an API server.
    pub health: Option<Arc<Health>>,
    /// Where replicas elect a leader.
    pub leading: Option<watch::Receiver<bool>>,
}

impl Parts {
    /// Ready: every listener has a certificate that holds, and all objects were read once.
    pub fn ready(&self) -> Result<(), String> {
        let now = SystemTime::now();
        let mut missing = Vec::new();
        if self.ca.as_ref().is_some_and(|ca| ca.current().is_none()) {
            missing.push("there is no CA yet".to_owned());
        }
        for holder in &self.holders {
            match holder.current() {
                None => missing.push("no certificate yet".to_owned()),
                Some(credentials) if credentials.expired(now) => {
                    missing.push(format!("the certificate of {} has expired", credentials.id()));
                }
                Some(_) => {}
            }
        }
        if self.answers.as_ref().is_some_and(|answers| !answers.is_synced()) {
            missing.push("the objects are not all read yet".to_owned());
            missing.extend(self.health.iter().flat_map(|health| health.problems()));
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join("; "))
        }
    }

    /// The figures.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, series: Vec<(String, u64)>| {
            let told = FAMILIES.iter().find(|(family, ..)| *family == name);
            let (_, kind, help) = told.copied().unwrap_or((name, "untyped", ""));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(answers) = &self.answers {
            let streams = vec![(String::new(), answers.followers() as u64)];
            family("weft_discovery_streams", streams);
            let names = vec![(String::new(), answers.followed() as u64)];
            family("weft_discovery_names", names);
            let routes = vec![(String::new(), answers.problems())];
            family("weft_routes_with_problems", routes);
        }
        if let Some(answers) = &self.answers {
            let told = vec![(String::new(), answers.told())];
            family("weft_discovery_answers_total", told);
            let (written, failed) = answers.status_writes();
            let outcome = |name: &str, count: u64| (format!("{{outcome=\"{name}\"}}"), count);
            family(
                "weft_status_writes_total",
                vec![outcome("written", written), outcome("failed", failed)],
            );
            let counts = answers.unmeshed().into_iter();
            let counts = counts.map(|(name, count)| (format!("{{namespace=\"{name}\"}}"), count));
            family("weft_unmeshed_pods", counts.collect());
        }
        if let Some(health) = &self.health {
            let label = |kind: Kind| format!("{{kind=\"{}\"}}", kind.name());
            let synced = health
                .figures()
                .map(|(kind, synced, _)| (label(kind), u64::from(synced)));
            family("weft_watch_synced", synced.collect());
            let failures = health.figures().map(|(kind, _, failures)| (label(kind), failures));
            family("weft_watch_failures_total", failures.collect());
        }
        if self.answers.is_some() {
            let leads = self.leading.as_ref().is_none_or(|leading| *leading.borrow());
            family("weft_leader", vec![(String::new(), u64::from(leads))]);
        }
        if let Some(counts) = &self.counts {
            let outcome = |name: &str, count: u64| (format!("{{outcome=\"{name}\"}}"), count);
            let series = vec![
                outcome("issued", counts.issued.load(Ordering::Relaxed)),
                outcome("refused", counts.refused.load(Ordering::Relaxed)),
            ];
            family("weft_certificates_total", series);
        }
        let current = self.holders.iter().filter_map(|holder| holder.current());
        let mut ends: Vec<(String, u64)> = current
            .map(|one| (format!("{{id=\"{}\"}}", one.id()), seconds(one.not_after())))
            .collect();
        ends.sort();
        ends.dedup_by(|one, other| one.0 == other.0);
        family("weft_certificate_expiry_timestamp_seconds", ends);
        if let Some(ca) = self.ca.as_ref().and_then(|ca| ca.current()) {
            let end = vec![(String::new(), seconds(ca.not_after()))];
            family("weft_ca_expiry_timestamp_seconds", end);
        }
        text
    }
}
