//! The process's recorder: every family with its help, the exporter for counters and gauges, atomic buckets for
//! histograms, and the cap on series.

use ::metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use weft_proto::limits;

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
        "Connections accepted, by direction and security (mesh, tls or plaintext).",
    ),
    (
        "weft_connections_open",
        Sort::Gauge,
        "Connections open now, by direction and security (mesh, tls or plaintext).",
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
        "weft_mirrors_total",
        Sort::Counter,
        "Copies of requests for mirrors, by backend and outcome: answered, or why not.",
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
        "weft_spans_total",
        Sort::Counter,
        "Spans that ended, by outcome: exported, dropped because the queue was full, or failed to be taken by the receiver.",
    ),
    (
        "weft_discovery_connected",
        Sort::Gauge,
        "1 while the stream to the controller is up.",
    ),
    ("weft_destinations", Sort::Gauge, "Destinations that the proxy follows."),
    (
        "weft_gateway_listeners",
        Sort::Gauge,
        "Listeners of the gateway, by state: serving, or refused because its TLS configuration cannot be used.",
    ),
    (
        "weft_gateway_ports_unbound",
        Sort::Gauge,
        "Ports of the gateway that cannot be bound, in full or in part, and are tried again.",
    ),
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
        // Told as zero from the start: a rate needs a value before the first one that counts.
        ::metrics::counter!("weft_access_log_dropped_total").increment(0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t59_series_stop_at_their_cap() {
        let inner = PrometheusBuilder::new().build_recorder();
        let capped = Capped {
            inner,
            seen: Mutex::default(),
            histograms: Mutex::default(),
        };
        for number in 0..limits::METRIC_SERIES + 1000 {
            capped.admit(&Key::from_parts(
                "weft_requests_total",
                vec![Label::new("backend", number.to_string())],
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
