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
        let mut family = |name: &str, kind: &str, help: &str, series: Vec<(String, u64)>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(answers) = &self.answers {
            let streams = vec![(String::new(), answers.followers() as u64)];
            family("weft_discovery_streams", "gauge", "Proxies that follow now.", streams);
            let names = vec![(String::new(), answers.followed() as u64)];
            family("weft_discovery_names", "gauge", "Names that are followed now.", names);
            let routes = vec![(String::new(), answers.statuses().len() as u64)];
            family(
                "weft_routes_with_problems",
                "gauge",
                "Routes that do not act as written.",
                routes,
            );
        }
        if let Some(answers) = &self.answers {
            let told = vec![(String::new(), answers.told())];
            family(
                "weft_discovery_answers_total",
                "counter",
                "Answers given to proxies.",
                told,
            );
            let counts = answers.unmeshed().into_iter();
            let counts = counts.map(|(name, count)| (format!("{{namespace=\"{name}\"}}"), count));
            let help = "Pods that run without weft in a namespace labelled for it. Every replica counts all of them.";
            family("weft_unmeshed_pods", "gauge", help, counts.collect());
        }
        if let Some(health) = &self.health {
            let label = |kind: Kind| format!("{{kind=\"{}\"}}", kind.name());
            let synced = health
                .figures()
                .map(|(kind, synced, _)| (label(kind), u64::from(synced)));
            let help = "1 when all objects of a kind are known and followed.";
            family("weft_watch_synced", "gauge", help, synced.collect());
            let failures = health.figures().map(|(kind, _, failures)| (label(kind), failures));
            let help = "Lists and watches that the API server refused, broke or did not answer.";
            family("weft_watch_failures_total", "counter", help, failures.collect());
        }
        if let Some(leading) = &self.leading {
            let leads = vec![(String::new(), u64::from(*leading.borrow()))];
            let help = "1 in the replica that writes: Events and the ConfigMap of the cluster's ranges.";
            family("weft_leader", "gauge", help, leads);
        }
        if let Some(counts) = &self.counts {
            let outcome = |name: &str, count: u64| (format!("{{outcome=\"{name}\"}}"), count);
            let series = vec![
                outcome("issued", counts.issued.load(Ordering::Relaxed)),
                outcome("refused", counts.refused.load(Ordering::Relaxed)),
            ];
            family(
                "weft_certificates_total",
                "counter",
                "Requests for certificates.",
                series,
            );
        }
        let current = self.holders.iter().filter_map(|holder| holder.current());
        let mut ends: Vec<(String, u64)> = current
            .map(|one| (format!("{{id=\"{}\"}}", one.id()), seconds(one.not_after())))
            .collect();
        ends.sort();
        ends.dedup_by(|one, other| one.0 == other.0);
        let help = "When the controller's own certificates end, in seconds since 1970.";
        family("weft_certificate_expiry_timestamp_seconds", "gauge", help, ends);
        if let Some(ca) = self.ca.as_ref().and_then(|ca| ca.current()) {
            let end = vec![(String::new(), seconds(ca.not_after()))];
            let help = "When the CA's certificate ends, in seconds since 1970.";
            family("weft_ca_expiry_timestamp_seconds", "gauge", help, end);
        }
        text
    }
}
