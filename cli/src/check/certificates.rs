//! How long the certificates that can be seen from outside still hold (RELIABILITY F23): the mesh's roots, and the webhook's CA. What workloads
//! and programs hold tells its own end as a metric, with an alert. Pure.

use super::{finding::Finding, gather::Seen};
use std::time::{Duration, SystemTime};
use weft_proto::names::{SYSTEM_NAMESPACE, kubernetes};
use weft_service::tls;

const WHAT: &str = "certificates";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// So long before a root's end somebody has to act: every pod must learn of the next one first.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// The injector renews its CA long before; so near its end it has not.
const WEBHOOK_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// What holds, and what does not for much longer.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let roots = match &seen.roots {
        Ok(Some(pem)) => roots(pem, seen.now),
        Ok(None) => Finding::fail(
            WHAT,
            format!(
                "ConfigMap {} in {SYSTEM_NAMESPACE} has no {}: weft-identity writes it when it starts",
                kubernetes::TRUST_CONFIG_MAP,
                kubernetes::CA_BUNDLE
            ),
        ),
        Err(why) => Finding::warn(WHAT, format!("the mesh's roots cannot be looked at: {why}")),
    };
    [roots].into_iter().chain(webhook(seen)).collect()
}

fn roots(pem: &str, now: SystemTime) -> Finding {
    let ends = ends(pem.as_bytes());
    let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
        return Finding::fail(WHAT, "the mesh's root: there is none that can be read");
    };
    let soon = |end: &SystemTime| end.duration_since(now).map_or(true, |left| left < SOON);
    if soon(last) {
        let fix = format!(
            "put another one into Secret {} in {SYSTEM_NAMESPACE}, with both in its {}, and restart what runs for longer",
            kubernetes::CA_SECRET,
            kubernetes::CA_BUNDLE
        );
        return Finding::fail(WHAT, format!("the mesh's root {}; {fix}", left(*last, now)));
    }
    if soon(first) {
        let expiring = ends.iter().filter(|end| soon(end)).count();
        let text = format!(
            "the mesh's root {}, {expiring} of {}: what was signed under it has to be renewed by then",
            left(*first, now),
            ends.len()
        );
        return Finding::warn(WHAT, text);
    }
    Finding::ok(WHAT, format!("the mesh's root {}", left(*first, now)))
}

/// `caBundle`: what the API server trusts the webhook by.
fn webhook(seen: &Seen) -> Option<Finding> {
    let webhooks = seen.webhook.as_ref().ok()?.as_ref()?.webhooks.as_ref()?;
    let bundles = webhooks
        .iter()
        .filter_map(|webhook| webhook.client_config.ca_bundle.as_ref());
    // While it is changed there are two; the later one counts. That one has none is the webhook's own finding.
    let last = bundles.filter_map(|bundle| ends(&bundle.0).last().copied()).min()?;
    let text = format!("the webhook's CA {}", left(last, seen.now));
    let ends_soon = last.duration_since(seen.now).map_or(true, |left| left < WEBHOOK_SOON);
    Some(if ends_soon {
        let logs = format!("kubectl -n {SYSTEM_NAMESPACE} logs deployment/weft-injector");
        Finding::fail(WHAT, format!("{text}, and the injector has not renewed it: {logs}"))
    } else {
        Finding::ok(WHAT, text)
    })
}

/// When the certificates of a PEM text end, the next one first.
fn ends(pem: &[u8]) -> Vec<SystemTime> {
    let certificates = tls::certificates(pem).unwrap_or_default();
    let mut ends: Vec<_> = certificates
        .iter()
        .filter_map(|one| Some(tls::validity(one)?.1))
        .collect();
    ends.sort();
    ends
}

fn left(end: SystemTime, now: SystemTime) -> String {
    let days = |time: Duration| time.as_secs() / DAY.as_secs();
    match end.duration_since(now) {
        Ok(left) => format!("holds for {} days more", days(left)),
        Err(past) => format!("ended {} days ago", days(past.duration())),
    }
}
