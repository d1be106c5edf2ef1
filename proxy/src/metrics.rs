//! Every metric of the proxy: names, labels, descriptions, and the handles that the hot path uses.
//!
//! Labels come from configuration and from closed enums, never from a request (T59), and the number of series is capped:
//! what is beyond the cap is counted under `other`. Handles are looked up once for each combination of labels and kept by
//! the thread, so that a request costs one look into a small map. Histograms are arrays of atomic buckets (the exporter
//! keeps each sample until it is asked); they are rendered beside the exporter's text.

mod registry;

use crate::{
    fault::{Blame, Reason, Stage},
    record::{Direction, Facts, Hop, Protocol, RuleName},
};
use ::metrics::{Counter, Gauge, Histogram, Key, Label, Metadata, SharedString};
use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

pub use registry::{families, install, render};

/// What requests and tunnels are counted by.
#[derive(Clone, Debug)]
pub struct Dimensions {
    /// Which way.
    pub direction: Direction,
    /// What the client speaks.
    pub protocol: Protocol,
    /// How weft spoke to the endpoint.
    pub hop: Hop,
    /// The gateway's listener.
    pub listener: Option<Arc<str>>,
    /// The rule that took the request.
    pub rule: Option<RuleName>,
    /// The backend.
    pub backend: Option<Arc<str>>,
    /// The other side's identity: the client's inbound, the server's outbound.
    pub peer: Option<Arc<str>>,
}

/// The certificate in use expires at this time, in seconds since 1970.
pub fn certificate_expires(timestamp: f64) {
    ::metrics::gauge!("weft_certificate_expiry_timestamp_seconds").set(timestamp);
}

/// A limit was reached; its name is the one in `limits.rs`.
pub fn limit_reached(limit: &'static str) {
    ::metrics::counter!("weft_limit_reached_total", "limit" => limit).increment(1);
}

/// A line of the access log was dropped.
pub fn access_log_dropped() {
    ::metrics::counter!("weft_access_log_dropped_total").increment(1);
}

/// So many spans were exported, dropped since there was no place for them, or not taken by the receiver (failed).
pub fn spans(outcome: &'static str, count: u64) {
    if count > 0 {
        ::metrics::counter!("weft_spans_total", "outcome" => outcome).increment(count);
    }
}

/// A connection to an endpoint was opened, or could not be.
pub fn hop_connection(hop: Hop, failed: Option<Reason>) {
    let outcome = failed.map_or("ok", Reason::label);
    ::metrics::counter!("weft_hop_connections_total", "hop" => hop.name(), "outcome" => outcome).increment(1);
}

/// The stream to the controller went up or down.
pub fn discovery_connected(up: bool) {
    ::metrics::gauge!("weft_discovery_connected").set(f64::from(u8::from(up)));
}

/// So many listeners of the gateway serve, and so many cannot.
pub fn gateway_listeners(serving: usize, refused: usize) {
    for (state, count) in [("serving", serving), ("refused", refused)] {
        ::metrics::gauge!("weft_gateway_listeners", "state" => state).set(count as f64);
    }
}

/// So many of the gateway's ports cannot be bound.
pub fn gateway_ports_unbound(count: usize) {
    ::metrics::gauge!("weft_gateway_ports_unbound").set(count as f64);
}

/// So many destinations are followed.
pub fn destinations(count: usize) {
    ::metrics::gauge!("weft_destinations").set(count as f64);
}

pub(crate) fn detected(direction: Direction, protocol: Protocol, took: Duration) {
    ::metrics::counter!("weft_detections_total", "direction" => direction.name(), "outcome" => protocol.name())
        .increment(1);
    ::metrics::histogram!("weft_detection_duration_seconds", "direction" => direction.name(), "outcome" => protocol.name())
        .record(took.as_secs_f64());
}

pub(crate) fn connection_opened(facts: &Facts) {
    let (direction, security) = (facts.direction.name(), facts.security());
    ::metrics::counter!("weft_connections_total", "direction" => direction, "security" => security).increment(1);
    ::metrics::gauge!("weft_connections_open", "direction" => direction, "security" => security).increment(1.0);
}

pub(crate) fn connection_closed(facts: &Facts, fault: Option<(Stage, Blame, Reason)>) {
    let (direction, security) = (facts.direction.name(), facts.security());
    ::metrics::gauge!("weft_connections_open", "direction" => direction, "security" => security).decrement(1.0);
    if let Some((stage, blame, reason)) = fault {
        ::metrics::counter!("weft_connection_faults_total", "direction" => direction, "stage" => stage.name(),
            "blame" => blame.name(), "reason" => reason.label())
        .increment(1);
    }
}

pub(crate) fn retried(direction: Direction, reason: &'static str) {
    ::metrics::counter!("weft_retries_total", "direction" => direction.name(), "reason" => reason).increment(1);
}

/// A copy of a request was answered, or why it was not: what failed, or what it would have had to wait for.
pub(crate) fn mirrored(direction: Direction, backend: &Arc<str>, outcome: &'static str) {
    let labels = [
        Label::from_static_parts("direction", direction.name()),
        Label::new("backend", SharedString::from_shared(backend.clone())),
        Label::from_static_parts("outcome", outcome),
    ];
    counter("weft_mirrors_total", &labels, &[]).increment(1);
}

/// Class of the status, and reason of the failure.
type Outcome = (u8, Option<Reason>);

/// The handles for one combination of labels, each made at its first use.
struct Handles {
    /// Holds the names whose addresses are the key, so that no other name can come to lie there.
    dimensions: Dimensions,
    labels: Vec<Label>,
    requests: RefCell<Vec<(Outcome, Counter)>>,
    grpc: RefCell<Vec<(u32, Counter)>>,
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
}

type Address = (Direction, Protocol, Hop, [usize; 5]);

fn address(dimensions: &Dimensions) -> Address {
    let at = |name: &Arc<str>| Arc::as_ptr(name).cast::<u8>() as usize;
    let rule = dimensions.rule.as_ref();
    let names = [
        rule.map_or(0, |rule| at(&rule.route)),
        rule.map_or(0, |rule| at(&rule.rule)),
        dimensions.backend.as_ref().map_or(0, at),
        dimensions.peer.as_ref().map_or(0, at),
        dimensions.listener.as_ref().map_or(0, at),
    ];
    (dimensions.direction, dimensions.protocol, dimensions.hop, names)
}

fn labels(dimensions: &Dimensions) -> Vec<Label> {
    let name = |name: Option<&Arc<str>>| {
        name.map_or(SharedString::const_str("none"), |name| {
            SharedString::from_shared(name.clone())
        })
    };
    let mut labels = vec![
        Label::from_static_parts("direction", dimensions.direction.name()),
        Label::new("route", name(dimensions.rule.as_ref().map(|rule| &rule.route))),
        Label::new("rule", name(dimensions.rule.as_ref().map(|rule| &rule.rule))),
        Label::new("backend", name(dimensions.backend.as_ref())),
        Label::new("peer", name(dimensions.peer.as_ref())),
        Label::from_static_parts("protocol", dimensions.protocol.name()),
        Label::from_static_parts("hop", dimensions.hop.name()),
    ];
    if let Some(listener) = &dimensions.listener {
        labels.push(Label::new("listener", SharedString::from_shared(listener.clone())));
    }
    labels
}

static METADATA: Metadata<'static> = Metadata::new("weft_proxy", ::metrics::Level::INFO, None);

fn counter(name: &'static str, labels: &[Label], more: &[(&'static str, SharedString)]) -> Counter {
    ::metrics::with_recorder(|recorder| recorder.register_counter(&key(name, labels, more), &METADATA))
}

fn histogram(name: &'static str, labels: &[Label]) -> Histogram {
    ::metrics::with_recorder(|recorder| recorder.register_histogram(&key(name, labels, &[]), &METADATA))
}

fn key(name: &'static str, labels: &[Label], more: &[(&'static str, SharedString)]) -> Key {
    let mut labels = labels.to_vec();
    labels.extend(more.iter().map(|(name, value)| Label::new(*name, value.clone())));
    Key::from_parts(name, labels)
}

fn with_handles(dimensions: &Dimensions, use_them: impl FnOnce(&Handles)) {
    thread_local! {
        static HANDLES: RefCell<HashMap<Address, Rc<Handles>, foldhash::fast::RandomState>> = RefCell::default();
    }
    let address = address(dimensions);
    // A thread that is ending counts no more.
    let handles = HANDLES.try_with(|handles| {
        let mut handles = handles.borrow_mut();
        if let Some(found) = handles.get(&address) {
            return found.clone();
        }
        if handles.len() >= 1024 {
            // Names of configuration that is gone; what is still used comes back at its next use.
            handles.clear();
        }
        let labels = labels(dimensions);
        let new = Rc::new(Handles {
            dimensions: dimensions.clone(),
            duration: histogram("weft_request_duration_seconds", &labels),
            request_bytes: counter("weft_request_body_bytes_total", &labels, &[]),
            response_bytes: counter("weft_response_body_bytes_total", &labels, &[]),
            requests: RefCell::default(),
            grpc: RefCell::default(),
            labels,
        });
        handles.insert(address, new.clone());
        new
    });
    if let Ok(handles) = handles {
        debug_assert_eq!(handles.dimensions.backend, dimensions.backend);
        use_them(&handles);
    }
}

pub(crate) fn request(
    dimensions: &Dimensions,
    status: u16,
    reason: Option<Reason>,
    took: Duration,
    grpc_status: Option<u32>,
) {
    with_handles(dimensions, |handles| {
        let class = u8::try_from(status / 100).unwrap_or(0);
        let mut requests = handles.requests.borrow_mut();
        let found = requests
            .iter()
            .position(|(key, _)| *key == (class, reason))
            .unwrap_or_else(|| {
                let status = match class {
                    1 => "1xx",
                    2 => "2xx",
                    3 => "3xx",
                    4 => "4xx",
                    5 => "5xx",
                    _ => "none",
                };
                let more = [
                    ("status", SharedString::const_str(status)),
                    ("reason", SharedString::const_str(reason.map_or("none", Reason::label))),
                ];
                requests.push(((class, reason), counter("weft_requests_total", &handles.labels, &more)));
                requests.len() - 1
            });
        requests[found].1.increment(1);
        handles.duration.record(took.as_secs_f64());
        if let Some(status) = grpc_status {
            // Codes above 16 are not gRPC's, and a server could make up any number of them.
            let status = status.min(17);
            let mut grpc = handles.grpc.borrow_mut();
            let found = grpc.iter().position(|(known, _)| *known == status).unwrap_or_else(|| {
                let label = if status > 16 {
                    SharedString::const_str("other")
                } else {
                    status.to_string().into()
                };
                grpc.push((
                    status,
                    counter("weft_grpc_responses_total", &handles.labels, &[("grpc_status", label)]),
                ));
                grpc.len() - 1
            });
            grpc[found].1.increment(1);
        }
    });
}

pub(crate) fn bodies(dimensions: &Dimensions, received: u64, sent: u64) {
    if received > 0 || sent > 0 {
        with_handles(dimensions, |handles| {
            handles.request_bytes.increment(received);
            handles.response_bytes.increment(sent);
        });
    }
}

fn tunnels_open(dimensions: &Dimensions) -> Gauge {
    ::metrics::gauge!("weft_tunnels_open", "direction" => dimensions.direction.name(),
        "protocol" => dimensions.protocol.name(), "hop" => dimensions.hop.name())
}

pub(crate) fn tunnel_opened(dimensions: &Dimensions) {
    tunnels_open(dimensions).increment(1.0);
}

pub(crate) fn tunnel_closed(
    dimensions: &Dimensions,
    reason: Option<Reason>,
    open_for: Duration,
    received: u64,
    sent: u64,
) {
    tunnels_open(dimensions).decrement(1.0);
    let labels = labels(dimensions);
    let reason = SharedString::const_str(reason.map_or("none", Reason::label));
    counter("weft_tunnels_total", &labels, &[("reason", reason)]).increment(1);
    histogram("weft_tunnel_duration_seconds", &labels).record(open_for.as_secs_f64());
    counter("weft_tunnel_received_bytes_total", &labels, &[]).increment(received);
    counter("weft_tunnel_sent_bytes_total", &labels, &[]).increment(sent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, process::Stdio};

    fn dimensions(backend: &str) -> Dimensions {
        Dimensions {
            direction: Direction::Outbound,
            protocol: Protocol::Grpc,
            hop: Hop::Mesh,
            listener: None,
            rule: Some(RuleName {
                route: "HTTPRoute/a/b".into(),
                rule: "0".into(),
            }),
            backend: Some(backend.into()),
            peer: Some("spiffe://cluster.local/ns/a/sa/b".into()),
        }
    }

    #[test]
    fn promtool_has_nothing_to_say() {
        install();
        let dimensions = dimensions("metrics/promtool:80");
        request(&dimensions, 200, None, Duration::from_millis(3), Some(0));
        request(
            &dimensions,
            503,
            Some(Reason::NoEndpoint),
            Duration::from_millis(3),
            Some(14),
        );
        bodies(&dimensions, 1, 2);
        tunnel_opened(&dimensions);
        tunnel_closed(&dimensions, None, Duration::from_secs(5), 3, 4);
        let facts = Facts::new(
            Direction::Inbound,
            ([127, 0, 0, 1], 1).into(),
            ([127, 0, 0, 1], 2).into(),
            None,
            false,
        );
        connection_opened(&facts);
        connection_closed(&facts, Some((Stage::Detect, Blame::Client, Reason::BadHello)));
        detected(Direction::Inbound, Protocol::Http1, Duration::from_millis(1));
        retried(Direction::Outbound, Reason::ConnectRefused.label());
        mirrored(Direction::Outbound, &"metrics/promtool:80".into(), "answered");
        limit_reached("HEAD");
        access_log_dropped();
        spans("exported", 1);
        hop_connection(Hop::Mesh, None);
        certificate_expires(1.0);
        discovery_connected(true);
        destinations(1);
        gateway_listeners(1, 0);
        gateway_ports_unbound(0);
        let text = render();
        for (name, ..) in families() {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
        }
        assert!(text.contains("weft_request_duration_seconds_count{"), "{text}");

        let mut promtool = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed for this test: install Prometheus' package (Debian: prometheus)");
        promtool
            .stdin
            .take()
            .expect("piped")
            .write_all(text.as_bytes())
            .unwrap();
        let said = promtool.wait_with_output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
        assert!(said.trim().is_empty(), "{said}\n{text}");
    }
}
