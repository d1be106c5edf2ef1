//! What a span says: OpenTelemetry's semantic conventions for HTTP and RPC, and weft's own words under `weft.`.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>. As in the access log, there is no query and no field of
//! the request but what it is routed by.

use std::{
    borrow::Cow,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{
        Span, Status,
        span::{Event, SpanKind},
        status::StatusCode,
    },
};
use weft_proto::limits;
use weft_route::HttpView;

use super::context::{self, Context};
use crate::{
    fault::Reason,
    metrics::Dimensions,
    record::{Direction, Facts, Protocol},
};

/// The span of a request that is still on its way.
pub struct Open {
    context: Context,
    parent: Option<u64>,
    state: String,
    began: SystemTime,
    method: String,
    path: String,
    host: Option<String>,
    version: &'static str,
}

/// What became of the request.
pub struct Ended<'a> {
    /// The connection's facts.
    pub facts: &'a Facts,
    /// What it was counted by.
    pub dimensions: &'a Dimensions,
    /// The endpoint that was chosen last.
    pub endpoint: Option<SocketAddr>,
    /// Endpoints that were tried.
    pub attempts: u8,
    /// The answer's status; 0 where there was none.
    pub status: u16,
    /// `grpc-status`.
    pub grpc_status: Option<u32>,
    /// Why it failed, and what is said of that.
    pub fault: Option<(Reason, &'a str)>,
    /// From its head to its end.
    pub took: Duration,
    /// From its head until it was a tunnel.
    pub tunnel: Option<Duration>,
}

impl Open {
    pub(super) fn new(context: Context, parent: Option<u64>, request: &impl HttpView, version: &'static str) -> Self {
        let path = request.target().split(|byte| *byte == b'?').next().unwrap_or_default();
        Self {
            context,
            parent,
            state: parent.map(|_| context::state(request)).unwrap_or_default(),
            began: SystemTime::now(),
            method: request.method().to_owned(),
            path: text(path),
            host: request.host().map(text),
            version,
        }
    }

    /// The span's place, which the request is sent on with.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Whether the trace began here, so that a `tracestate` that the request may have belongs to another one.
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    pub(super) fn end(self, ended: &Ended<'_>) -> Span {
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: Duration| time.as_nanos() as u64;
        let kind = match ended.facts.direction {
            Direction::Outbound => SpanKind::Client,
            Direction::Inbound | Direction::Gateway => SpanKind::Server,
        };
        let error = error(ended, kind);
        let status = error.as_ref().map(|_| Status {
            message: ended.fault.map(|(_, text)| text.to_owned()).unwrap_or_default(),
            code: StatusCode::Error.into(),
        });
        let opened = ended.tunnel.map(|after| Event {
            time_unix_nano: nanos(began + after),
            name: "tunnel opened".into(),
            ..Event::default()
        });
        Span {
            trace_id: self.context.trace.to_be_bytes().to_vec(),
            span_id: self.context.span.to_be_bytes().to_vec(),
            parent_span_id: self.parent.map(|span| span.to_be_bytes().to_vec()).unwrap_or_default(),
            flags: u32::from(self.context.sampled),
            name: self.name(ended),
            kind: kind.into(),
            start_time_unix_nano: nanos(began),
            end_time_unix_nano: nanos(began + ended.took),
            attributes: self.attributes(ended, error),
            events: opened.into_iter().collect(),
            status,
            trace_state: self.state,
            ..Span::default()
        }
    }

    /// The method alone, since a path can be anything; a gRPC call's path is its method.
    fn name(&self, ended: &Ended<'_>) -> String {
        if ended.dimensions.protocol == Protocol::Grpc {
            return self.path.trim_start_matches('/').to_owned();
        }
        match known(&self.method) {
            Some(method) => method.to_owned(),
            None => "HTTP".to_owned(),
        }
    }

    fn attributes(&self, ended: &Ended<'_>, error: Option<Cow<'static, str>>) -> Vec<KeyValue> {
        let Ended { facts, dimensions, .. } = ended;
        let mut all = Attributes(Vec::with_capacity(24));
        match known(&self.method) {
            Some(method) => all.text("http.request.method", method),
            None => {
                all.text("http.request.method", "_OTHER");
                all.text("http.request.method_original", &self.method);
            }
        }
        all.text("url.path", &self.path);
        all.text("url.scheme", facts.scheme());
        let (host, port) = match &self.host {
            Some(host) => split(host),
            None => (Cow::Owned(facts.destination.ip().to_string()), None),
        };
        all.text("server.address", host);
        all.number("server.port", port.unwrap_or(facts.destination.port()).into());
        all.text("network.protocol.name", "http");
        all.text("network.protocol.version", self.version);
        let peer = match facts.direction {
            Direction::Outbound => ended.endpoint,
            Direction::Inbound | Direction::Gateway => Some(facts.client),
        };
        if let Some(peer) = peer {
            all.text("network.peer.address", peer.ip().to_string());
            all.number("network.peer.port", peer.port().into());
        }
        if ended.status != 0 {
            all.number("http.response.status_code", ended.status.into());
        }
        if ended.attempts > 1 {
            all.number("http.request.resend_count", i64::from(ended.attempts) - 1);
        }
        if dimensions.protocol == Protocol::Grpc {
            let (service, method) = self.path.trim_start_matches('/').split_once('/').unwrap_or_default();
            all.text("rpc.system", "grpc");
            all.text("rpc.service", service);
            all.text("rpc.method", method);
            if let Some(status) = ended.grpc_status {
                all.number("rpc.grpc.status_code", status.into());
            }
        }
        if let Some(error) = error {
            all.text("error.type", error);
        }
        all.text("weft.protocol", dimensions.protocol.name());
        all.text("weft.hop", dimensions.hop.name());
        if let Some(rule) = &dimensions.rule {
            all.text("weft.route", &*rule.route);
            all.text("weft.rule", &*rule.rule);
        }
        if let Some(backend) = &dimensions.backend {
            all.text("weft.backend", &**backend);
        }
        if let Some(peer) = &dimensions.peer {
            all.text("weft.peer", &**peer);
        }
        all.0
    }
}

/// `error.type`, where the span is one that failed.
fn error(ended: &Ended<'_>, kind: SpanKind) -> Option<Cow<'static, str>> {
    if let Some((reason, _)) = ended.fault {
        return Some(reason.label().into());
    }
    match ended.grpc_status {
        // The codes by which a server fails; a client's span has failed by any.
        Some(code @ (2 | 4 | 12 | 13 | 14 | 15)) => return Some(code.to_string().into()),
        Some(code) if code != 0 && kind == SpanKind::Client => return Some(code.to_string().into()),
        _ => {}
    }
    (ended.status >= 500).then(|| ended.status.to_string().into())
}

/// The methods of RFC 9110 and PATCH: another one could be anything.
fn known(method: &str) -> Option<&str> {
    let known = [
        "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE",
    ];
    known.contains(&method).then_some(method)
}

/// Host and port of an authority.
fn split(authority: &str) -> (Cow<'_, str>, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    (host.trim_matches(['[', ']']).into(), port)
}

/// Text of a request, of bounded length.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(limits::SPAN_TEXT)]).into_owned()
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text<'a>(&mut self, key: &str, value: impl Into<Cow<'a, str>>) {
        self.0
            .push(attribute(key, Value::StringValue(value.into().into_owned())));
    }

    fn number(&mut self, key: &str, value: i64) {
        self.0.push(attribute(key, Value::IntValue(value)));
    }
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
