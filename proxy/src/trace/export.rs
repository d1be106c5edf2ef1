//! Spans on their way out: gathered for a while, sent together by OTLP over gRPC, and given up where nobody takes them.
//!
//! A request never waits for any of this. The connection is made when there is something to send, and again after it broke.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{InstrumentationScope, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tokio::{sync::mpsc, time::timeout};
use tonic::transport::{Channel, Endpoint};
use weft_proto::limits;

use super::{Message, Tracer, span::attribute};
use crate::{
    app::Shared,
    config::{Config, Otlp},
    discovery::channel::BackOff,
    metrics,
};

/// Exports what ends, for ever.
pub async fn run(shared: Arc<Shared>) {
    let (Some(tracer), Some(otlp)) = (&shared.tracer, &shared.config.otlp) else {
        return;
    };
    let Some(queue) = tracer.take_queue() else { return };
    match channel(otlp) {
        Ok(channel) => {
            let exporter = Exporter {
                client: TraceServiceClient::new(channel),
                endpoint: otlp.endpoint.clone(),
                resource: resource(&shared.config),
                back_off: BackOff::new(limits::SPAN_PAUSE),
                told: false,
            };
            exporter.run(tracer, queue).await;
        }
        Err(error) => tracing::error!(%error, endpoint = otlp.endpoint, "no spans are exported"),
    }
}

fn channel(otlp: &Otlp) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(otlp.endpoint.clone())?
        .connect_timeout(limits::CONNECT_TIME)
        .timeout(limits::SPAN_EXPORT_TIME)
        .http2_keep_alive_interval(limits::KEEPALIVE)
        .keep_alive_timeout(limits::H2_PING_ANSWER)
        .user_agent(concat!("weft-proxy/", env!("CARGO_PKG_VERSION")))?
        .connect_lazy())
}

struct Exporter {
    client: TraceServiceClient<Channel>,
    endpoint: String,
    resource: Resource,
    back_off: BackOff,
    /// That nobody is there was said.
    told: bool,
}

impl Exporter {
    async fn run(mut self, tracer: &Tracer, mut queue: mpsc::Receiver<Message>) {
        let mut batch = Vec::new();
        while let Some(first) = queue.recv().await {
            // Woken once for a batch, not once for each span.
            if !matches!(first, Message::Flush(_)) {
                let _ = timeout(limits::SPAN_WAIT, tracer.full.notified()).await;
            }
            let mut next = Some(first);
            let mut flushed = None;
            while let Some(message) = next {
                match message {
                    Message::Span(span) => batch.push(*span),
                    Message::Flush(done) => flushed = Some(done),
                }
                next = if batch.len() < limits::SPAN_BATCH && flushed.is_none() {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            if !batch.is_empty() {
                self.export(std::mem::take(&mut batch), flushed.is_some()).await;
            }
            if let Some(done) = flushed {
                let _ = done.send(());
            }
        }
    }

    /// Sends one batch, again after a pause where nobody took it. `last`: there is no time for pauses.
    async fn export(&mut self, spans: Vec<Span>, last: bool) {
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "weft-proxy".into(),
                        version: env!("CARGO_PKG_VERSION").into(),
                        ..InstrumentationScope::default()
                    }),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let attempts = if last { 1 } else { limits::ATTEMPTS };
        for attempt in 1..=attempts {
            let sent = timeout(limits::SPAN_EXPORT_TIME, self.client.export(request.clone())).await;
            let error = match sent {
                Ok(Ok(answer)) => {
                    self.back_off.reset();
                    if std::mem::take(&mut self.told) {
                        tracing::info!(endpoint = self.endpoint, "spans are exported again");
                    }
                    let refused = answer
                        .into_inner()
                        .partial_success
                        .map_or(0, |part| part.rejected_spans);
                    let refused = u64::try_from(refused).unwrap_or(0).min(count);
                    metrics::spans("exported", count - refused);
                    metrics::spans("failed", refused);
                    return;
                }
                Ok(Err(status)) => status.to_string(),
                Err(_) => format!("no answer within {:?}", limits::SPAN_EXPORT_TIME),
            };
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(
                    endpoint = self.endpoint,
                    error,
                    "spans cannot be exported; requests do not wait for that"
                );
            }
            if !last {
                tokio::time::sleep(self.back_off.step()).await;
            }
            tracing::debug!(attempt, error, "spans were not taken");
        }
        metrics::spans("failed", count);
    }
}

/// Who the spans are of.
fn resource(config: &Config) -> Resource {
    let text = |key, value: &str| attribute(key, Value::StringValue(value.to_owned()));
    Resource {
        attributes: vec![
            text("service.name", service(config)),
            text("service.namespace", &config.pod_namespace),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("k8s.namespace.name", &config.pod_namespace),
            text("k8s.pod.name", &config.pod_name),
            text("k8s.pod.uid", &config.pod_uid),
        ],
        ..Resource::default()
    }
}

/// The ServiceAccount's name; where that is the one of every pod without its own, the name of what made the pod.
fn service(config: &Config) -> &str {
    if config.service_account != "default" {
        return &config.service_account;
    }
    workload(&config.pod_name)
}

/// A pod's name without what its owners append: of a ReplicaSet `-7d4b9c8f6-x2x7k`, of a DaemonSet or Job `-x2x7k`, of a
/// StatefulSet `-0`. Generated parts are of letters that make no words.
fn workload(pod: &str) -> &str {
    let is_generated = |part: &str| part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    let Some((owner, last)) = pod.rsplit_once('-') else {
        return pod;
    };
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return owner;
    }
    if last.len() != 5 || !is_generated(last) {
        return pod;
    }
    match owner.rsplit_once('-') {
        Some((deployment, hash)) if (6..=10).contains(&hash.len()) && is_generated(hash) => deployment,
        _ => owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_an_account_of_its_own_is_called_after_its_owner() {
        for (pod, owner) in [
            ("web-7d4b9c8f6-x2x7k", "web"),
            ("my-web-7d4b9c8f6-x2x7k", "my-web"),
            ("db-0", "db"),
            ("agent-x2x7k", "agent"),
            ("client", "client"),
            ("web-front", "web-front"),
            ("web-", "web-"),
        ] {
            assert_eq!(workload(pod), owner, "{pod}");
        }
    }
}
