//! Every metric of the proxy: names, labels, descriptions, and the handles that the hot path uses.
//!
//! Labels come from configuration and from closed enums, never from a request (T59), and the number of series is capped:
//! what is beyond the cap is counted under `other`. Handles are looked up once for each combination of labels and kept by
//! the thread, so that a request costs one look into a small map. Histograms are arrays of atomic buckets (the exporter
//! keeps each sample until it is asked); they are rendered beside the exporter's text.

use crate::{
    fault::{Blame, Reason, Stage},
    record::{Direction, Facts, Hop, Protocol, RuleName},
};
use ::metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use weft_proto::limits;

/// What requests and tunnels are counted by.
#[derive(Clone, Debug)]
pub struct Dimensions {
    /// Which way.
    pub direction: Direction,
    /// What the client speaks.
    pub protocol: Protocol,
    /// How weft spoke to the endpoint.
    pub hop: Hop,
    /// The rule that took the request.
    pub rule: Option<RuleName>,
    /// The backend.
    pub backend: Option<Arc<str>>,
    /// The other side's identity: the client's inbound, the server's outbound.
    pub peer: Option<Arc<str>>,
}

/// Upper bounds of latency, in seconds.
const LATENCY: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Upper bounds of the time that tunnels are open, in seconds.
const TUNNEL: &[f64] = &[0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
/// Upper bounds of the time that detection takes, in seconds.
const DETECTION: &[f64] = &[0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0, 10.0];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Counter,
    Gauge,
    Histogram(u8),
}

/// Every family: name, sort, help.
const FAMILIES: &[(&str, Sort, &str)] = &[
    (
        "weft_connections_total",
        Sort::Counter,
        "Connections accepted, by direction and security (mesh or plaintext).",
    ),
    (
        "weft_connections_open",
        Sort::Gauge,
        "Connections open now, by direction and security (mesh or plaintext).",
    ),
    (
        "weft_connection_faults_total",
        Sort::Counter,
        "Connections that failed, by stage, blame and reason.",
    ),
    (
        "weft_requests_total",
        Sort::Counter,
        "HTTP requests that ended, by status class and reason of failure.",
    ),
    (
        "weft_request_duration_seconds",
        Sort::Histogram(0),
        "Time from a request's head to the end of its response, or until it became a tunnel.",
    ),
    (
        "weft_request_body_bytes_total",
        Sort::Counter,
        "Bytes of request bodies.",
    ),
    (
        "weft_response_body_bytes_total",
        Sort::Counter,
        "Bytes of response bodies.",
    ),
    (
        "weft_grpc_responses_total",
        Sort::Counter,
        "gRPC calls that ended, by grpc-status.",
    ),
    (
        "weft_retries_total",
        Sort::Counter,
        "Attempts given up for another one, by reason.",
    ),
    (
        "weft_tunnels_open",
        Sort::Gauge,
        "Upgraded and opaque connections open now.",
    ),
    (
        "weft_tunnels_total",
        Sort::Counter,
        "Upgraded and opaque connections that ended, by reason of failure.",
    ),
    (
        "weft_tunnel_duration_seconds",
        Sort::Histogram(1),
        "Time that upgraded and opaque connections were open.",
    ),
    (
        "weft_tunnel_received_bytes_total",
        Sort::Counter,
        "Bytes from clients through upgraded and opaque connections.",
    ),
    (
        "weft_tunnel_sent_bytes_total",
        Sort::Counter,
        "Bytes to clients through upgraded and opaque connections.",
    ),
    (
        "weft_detections_total",
        Sort::Counter,
        "Connections whose protocol was looked for, by what was found.",
    ),
    (
        "weft_detection_duration_seconds",
        Sort::Histogram(2),
        "Time until the protocol was certain.",
    ),
    (
        "weft_hop_connections_total",
        Sort::Counter,
        "Connections opened to endpoints, by hop and outcome.",
    ),
    (
        "weft_certificate_expiry_timestamp_seconds",
        Sort::Gauge,
        "When the workload certificate expires, in seconds since 1970.",
    ),
    (
        "weft_limit_reached_total",
        Sort::Counter,
        "How often a limit was reached, by its name in `weft limits`.",
    ),
    (
        "weft_access_log_dropped_total",
        Sort::Counter,
        "Lines of the access log that were dropped because its queue was full.",
    ),
    (
        "weft_discovery_connected",
        Sort::Gauge,
        "1 while the stream to the controller is up.",
    ),
    ("weft_destinations", Sort::Gauge, "Destinations that the proxy follows."),
    (
        "weft_metric_series",
        Sort::Gauge,
        "Series that the metrics have; beyond METRIC_SERIES they are counted as other.",
    ),
];

/// Every family, as `docs/metrics.md` lists them: name, type, what it says.
pub fn families() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    FAMILIES.iter().map(|(name, sort, help)| {
        let sort = match sort {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
            Sort::Histogram(_) => "histogram",
        };
        (*name, sort, *help)
    })
}

const BOUNDS: [&[f64]; 3] = [LATENCY, TUNNEL, DETECTION];

/// One histogram: a counter for each bucket, and the sum in nanoseconds.
struct Buckets {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add((value * 1e9) as u64, Ordering::Relaxed);
    }
}

/// The process's recorder: the exporter's for counters and gauges, ours for histograms, and the cap on series.
struct Capped {
    inner: PrometheusRecorder,
    seen: Mutex<HashSet<Key>>,
    histograms: Mutex<BTreeMap<&'static str, HashMap<Key, Arc<Buckets>>>>,
}

impl Capped {
    /// The key itself while there is room, else the same name with every label's value `other`.
    fn admit(&self, key: &Key) -> Key {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(key) {
            return key.clone();
        }
        let full = seen.len() >= limits::METRIC_SERIES;
        let key = if full {
            let labels: Vec<Label> = key
                .labels()
                .map(|label| Label::new(label.key().to_owned(), "other"))
                .collect();
            Key::from_parts(key.name().to_owned(), labels)
        } else {
            key.clone()
        };
        seen.insert(key.clone());
        key
    }

    fn series(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn render_histograms(&self, out: &mut String) {
        let histograms = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, series) in histograms.iter() {
            let help = FAMILIES
                .iter()
                .find(|(family, ..)| family == name)
                .map_or("", |(_, _, help)| help);
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
            for (key, buckets) in series {
                let mut labels = String::new();
                for label in key.labels() {
                    let value = label
                        .value()
                        .replace('\\', "\\\\")
                        .replace('"', "\\\"")
                        .replace('\n', "\\n");
                    let _ = write!(labels, "{}=\"{value}\",", label.key());
                }
                let mut count = 0;
                for (bound, bucket) in buckets.bounds.iter().zip(&buckets.counts) {
                    count += bucket.load(Ordering::Relaxed);
                    let _ = writeln!(out, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
                }
                count += buckets.counts[buckets.bounds.len()].load(Ordering::Relaxed);
                let labels_only = labels.trim_end_matches(',');
                let sum = buckets.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
                let _ = writeln!(out, "{name}_bucket{{{labels}le=\"+Inf\"}} {count}");
                let _ = writeln!(
                    out,
                    "{name}_sum{{{labels_only}}} {sum}\n{name}_count{{{labels_only}}} {count}"
                );
            }
        }
    }
}

impl Recorder for &'static Capped {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.inner.register_counter(&self.admit(key), metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.inner.register_gauge(&self.admit(key), metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let Some((name, Sort::Histogram(bounds), _)) = FAMILIES.iter().find(|(name, ..)| *name == key.name()) else {
            return Histogram::noop();
        };
        let key = self.admit(key);
        let mut histograms = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = histograms
            .entry(name)
            .or_default()
            .entry(key)
            .or_insert_with(|| Arc::new(Buckets::new(BOUNDS[usize::from(*bounds)])));
        Histogram::from_arc(buckets.clone())
    }
}

static RECORDER: OnceLock<(&'static Capped, PrometheusHandle)> = OnceLock::new();

/// Makes the metrics of this process work. Before, and without it, they count nothing. Calling it again changes nothing.
pub fn install() {
    RECORDER.get_or_init(|| {
        let inner = PrometheusBuilder::new().build_recorder();
        let handle = inner.handle();
        let recorder: &'static Capped = Box::leak(Box::new(Capped {
            inner,
            seen: Mutex::default(),
            histograms: Mutex::default(),
        }));
        // The only other recorder could be one that a library's user set before; ours is then rendered empty.
        let _ = ::metrics::set_global_recorder(recorder);
        for (name, sort, help) in FAMILIES {
            match sort {
                Sort::Counter => ::metrics::describe_counter!(*name, *help),
                Sort::Gauge => ::metrics::describe_gauge!(*name, *help),
                Sort::Histogram(_) => {}
            }
        }
        (recorder, handle)
    });
}

/// All metrics, in Prometheus' text format.
pub fn render() -> String {
    let Some((recorder, handle)) = RECORDER.get() else {
        return String::new();
    };
    ::metrics::gauge!("weft_metric_series").set(recorder.series() as f64);
    let mut text = handle.render();
    recorder.render_histograms(&mut text);
    text
}

/// The reference of all metrics, as `docs/metrics.md` has it.
pub fn reference() -> String {
    let mut text = String::from("| metric | type | meaning |\n|---|---|---|\n");
    for (name, sort, help) in FAMILIES {
        let sort = match sort {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
            Sort::Histogram(_) => "histogram",
        };
        let _ = writeln!(text, "| `{name}` | {sort} | {help} |");
    }
    text
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

/// A connection to an endpoint was opened, or could not be.
pub fn hop_connection(hop: Hop, failed: Option<Reason>) {
    let outcome = failed.map_or("ok", Reason::label);
    ::metrics::counter!("weft_hop_connections_total", "hop" => hop.name(), "outcome" => outcome).increment(1);
}

/// The stream to the controller went up or down.
pub fn discovery_connected(up: bool) {
    ::metrics::gauge!("weft_discovery_connected").set(f64::from(u8::from(up)));
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

fn security(facts: &Facts) -> &'static str {
    if facts.mesh { "mesh" } else { "plaintext" }
}

pub(crate) fn connection_opened(facts: &Facts) {
    let (direction, security) = (facts.direction.name(), security(facts));
    ::metrics::counter!("weft_connections_total", "direction" => direction, "security" => security).increment(1);
    ::metrics::gauge!("weft_connections_open", "direction" => direction, "security" => security).increment(1.0);
}

pub(crate) fn connection_closed(facts: &Facts, fault: Option<(Stage, Blame, Reason)>) {
    let (direction, security) = (facts.direction.name(), security(facts));
    ::metrics::gauge!("weft_connections_open", "direction" => direction, "security" => security).decrement(1.0);
    if let Some((stage, blame, reason)) = fault {
        ::metrics::counter!("weft_connection_faults_total", "direction" => direction, "stage" => stage.name(),
            "blame" => blame.name(), "reason" => reason.label())
        .increment(1);
    }
}

pub(crate) fn retried(direction: Direction, reason: Reason) {
    ::metrics::counter!("weft_retries_total", "direction" => direction.name(), "reason" => reason.label()).increment(1);
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

type Address = (Direction, Protocol, Hop, [usize; 4]);

fn address(dimensions: &Dimensions) -> Address {
    let at = |name: &Arc<str>| Arc::as_ptr(name).cast::<u8>() as usize;
    let rule = dimensions.rule.as_ref();
    let names = [
        rule.map_or(0, |rule| at(&rule.route)),
        rule.map_or(0, |rule| at(&rule.rule)),
        dimensions.backend.as_ref().map_or(0, at),
        dimensions.peer.as_ref().map_or(0, at),
    ];
    (dimensions.direction, dimensions.protocol, dimensions.hop, names)
}

fn labels(dimensions: &Dimensions) -> Vec<Label> {
    let name = |name: Option<&Arc<str>>| {
        name.map_or(SharedString::const_str("none"), |name| {
            SharedString::from_shared(name.clone())
        })
    };
    vec![
        Label::from_static_parts("direction", dimensions.direction.name()),
        Label::new("route", name(dimensions.rule.as_ref().map(|rule| &rule.route))),
        Label::new("rule", name(dimensions.rule.as_ref().map(|rule| &rule.rule))),
        Label::new("backend", name(dimensions.backend.as_ref())),
        Label::new("peer", name(dimensions.peer.as_ref())),
        Label::from_static_parts("protocol", dimensions.protocol.name()),
        Label::from_static_parts("hop", dimensions.hop.name()),
    ]
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
        retried(Direction::Outbound, Reason::ConnectRefused);
        limit_reached("HEAD");
        access_log_dropped();
        hop_connection(Hop::Mesh, None);
        certificate_expires(1.0);
        discovery_connected(true);
        destinations(1);
        let text = render();
        for (name, ..) in FAMILIES {
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

    #[test]
    fn t59_series_stop_at_their_cap() {
        let inner = PrometheusBuilder::new().build_recorder();
        let capped = Capped {
            inner,
            seen: Mutex::default(),
            histograms: Mutex::default(),
        };
        for number in 0..limits::METRIC_SERIES + 1000 {
            capped.admit(&key(
                "weft_requests_total",
                &labels(&dimensions(&number.to_string())),
                &[],
            ));
        }
        assert_eq!(capped.series(), limits::METRIC_SERIES + 1);
    }

    #[test]
    fn a_histogram_counts_each_sample_once() {
        let buckets = Buckets::new(LATENCY);
        buckets.record(0.0005);
        buckets.record(0.0006);
        buckets.record(1e9);
        assert_eq!(
            buckets
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect::<Vec<_>>()[..2],
            [1, 1]
        );
        assert_eq!(buckets.counts[LATENCY.len()].load(Ordering::Relaxed), 1);
    }
}
