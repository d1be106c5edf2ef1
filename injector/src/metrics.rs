//! Every figure that the injector keeps, and its text for Prometheus.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::SystemTime,
};

/// Every family: name, type, what it says.
pub const FAMILIES: &[(&str, &str, &str)] = &[
    (
        "weft_admissions_total",
        "counter",
        "Calls to the webhook, by what became of the pod.",
    ),
    (
        "weft_webhook_handshake_failures_total",
        "counter",
        "TLS handshakes with the webhook that failed.",
    ),
    (
        "weft_webhook_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the webhook's certificate ends, in seconds since 1970.",
    ),
    (
        "weft_webhook_ca_expiry_timestamp_seconds",
        "gauge",
        "When the CA of the webhook's certificate ends, in seconds since 1970.",
    ),
    (
        "weft_webhook_ca_writes_total",
        "counter",
        "Writes of this replica to the Secret with the webhook's CA.",
    ),
    (
        "weft_webhook_bundle_updates_total",
        "counter",
        "Writes of this replica to the webhook's configuration, by outcome; a conflict means that another replica was faster.",
    ),
];

/// The figures.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Pods that were patched.
    pub injected: AtomicU64,
    /// Pods that were let through as they were.
    pub unchanged: AtomicU64,
    /// Pods that were kept out.
    pub refused: AtomicU64,
    /// Calls that were not AdmissionReviews.
    pub malformed: AtomicU64,
    /// Calls that were not done in time.
    pub late: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed: AtomicU64,
    certificate_expiry: AtomicU64,
    ca_expiry: AtomicU64,
    ca_writes: AtomicU64,
    bundles_updated: AtomicU64,
    bundles_conflicting: AtomicU64,
    bundles_failed: AtomicU64,
}

impl Metrics {
    /// The end of the certificate that is served.
    pub fn certificate_expiry(&self, not_after: SystemTime) {
        self.certificate_expiry.store(seconds(not_after), Relaxed);
    }

    /// The end of the CA that signs.
    pub fn ca_expiry(&self, not_after: SystemTime) {
        self.ca_expiry.store(seconds(not_after), Relaxed);
    }

    /// The Secret was written.
    pub fn ca_written(&self) {
        self.ca_writes.fetch_add(1, Relaxed);
    }

    /// The configuration was written.
    pub fn bundle_updated(&self) {
        self.bundles_updated.fetch_add(1, Relaxed);
    }

    /// The configuration could not be written.
    pub fn bundle_not_updated(&self, is_conflict: bool) {
        let counter = if is_conflict {
            &self.bundles_conflicting
        } else {
            &self.bundles_failed
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        let Self {
            injected,
            unchanged,
            refused,
            malformed,
            late,
            handshakes_failed,
            certificate_expiry,
            ca_expiry,
            ca_writes,
            bundles_updated,
            bundles_conflicting,
            bundles_failed,
        } = self;
        let admissions = [
            ("injected", injected),
            ("unchanged", unchanged),
            ("refused", refused),
            ("malformed", malformed),
            ("late", late),
        ];
        let bundles = [
            ("updated", bundles_updated),
            ("conflict", bundles_conflicting),
            ("failed", bundles_failed),
        ];
        let values: [(&[(&str, &AtomicU64)], bool); 6] = [
            (&admissions, true),
            (&[("", handshakes_failed)], true),
            // A time that is not known yet would read as long ago.
            (&[("", certificate_expiry)], false),
            (&[("", ca_expiry)], false),
            (&[("", ca_writes)], true),
            (&bundles, true),
        ];
        let mut text = String::new();
        for ((name, kind, help), (values, zero_counts)) in FAMILIES.iter().zip(values) {
            let told = |value: &AtomicU64| Some(value.load(Relaxed)).filter(|value| zero_counts || *value > 0);
            let mut head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (outcome, value) in values {
                let Some(value) = told(value) else { continue };
                let labels = if outcome.is_empty() {
                    String::new()
                } else {
                    format!("{{outcome=\"{outcome}\"}}")
                };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}{name}{labels} {value}", std::mem::take(&mut head));
            }
        }
        text
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_family_is_told_once_its_value_is_known() {
        let metrics = Metrics::default();
        assert!(!metrics.render().contains("expiry"));
        metrics.certificate_expiry(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        metrics.ca_expiry(SystemTime::UNIX_EPOCH + Duration::from_secs(8));
        metrics.bundle_not_updated(true);
        let text = metrics.render();
        for (name, kind, _) in FAMILIES {
            assert!(
                text.contains(&format!("# TYPE {name} {kind}\n{name}")),
                "{name}\n{text}"
            );
        }
        assert!(text.contains("weft_webhook_ca_expiry_timestamp_seconds 8\n"));
        assert!(text.contains("weft_webhook_bundle_updates_total{outcome=\"conflict\"} 1\n"));
        assert_eq!(text.matches("# HELP weft_admissions_total").count(), 1);
    }
}
