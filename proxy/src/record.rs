//! One record for each connection and each exchange: what the access log says and what the metrics count come from the
//! same values, so that they agree.
//!
//! A record is opened with what is known of the connection ([`Facts`]), told what happens as it happens, and closed once.
//! One that is dropped without being closed was abandoned, and says so. How values become series and lines is
//! `metrics.rs`' and `access_log.rs`' matter.

use crate::{
    access_log::{self, Line},
    app::Shared,
    fault::{Fault, Reason, Stage},
    metrics::{self, Dimensions},
    trace,
};
use std::{
    cell::RefCell,
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

pub use crate::role::Direction;

/// What the client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Not known yet, or never.
    Unknown,
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// WebSocket, over HTTP/1 or HTTP/2.
    WebSocket,
    /// Another protocol after an Upgrade.
    Upgrade,
    /// CONNECT.
    Connect,
    /// The application's own TLS.
    Tls,
    /// Bytes.
    Opaque,
}

impl Protocol {
    /// The name, as in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Upgrade => "upgrade",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
        }
    }
}

/// How weft spoke to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Not at all.
    None,
    /// Plain TCP: HTTP/1, or bytes.
    Plain,
    /// HTTP/2 without TLS.
    H2c,
    /// mTLS and HTTP/2, to another weft.
    Mesh,
    /// To the pod itself, inside the process.
    Itself,
    /// TLS to the application's own server: HTTP/1, or bytes.
    Tls,
    /// The same with HTTP/2.
    TlsH2,
}

impl Hop {
    /// The name, as in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Plain => "plain",
            Self::H2c => "h2c",
            Self::Mesh => "mesh",
            Self::Itself => "itself",
            Self::Tls => "tls",
            Self::TlsH2 => "tls_h2",
        }
    }
}

/// What is known of a connection when its record is opened.
#[derive(Debug)]
pub struct Facts {
    /// Number of the connection in this process.
    pub connection: u64,
    /// Which way.
    pub direction: Direction,
    /// The client's address.
    pub client: SocketAddr,
    /// Where it meant to go.
    pub destination: SocketAddr,
    /// The client's verified identity.
    pub peer: Option<Arc<str>>,
    /// Whether it came over the mesh hop.
    pub mesh: bool,
    /// Whether weft ended TLS that was no mesh's.
    pub tls: bool,
    /// The part of each log line that is the same for the whole connection.
    pub(crate) line: Box<str>,
}

impl Facts {
    /// Gathers the facts of a connection, and numbers it.
    pub fn new(
        direction: Direction,
        client: SocketAddr,
        destination: SocketAddr,
        peer: Option<&str>,
        mesh: bool,
    ) -> Arc<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let connection = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self::numbered(connection, direction, client, destination, peer, (mesh, false))
    }

    /// The same connection, after more of it became known.
    pub fn known_better(&self, destination: SocketAddr, peer: Option<&str>, mesh: bool) -> Arc<Self> {
        Self::numbered(
            self.connection,
            self.direction,
            self.client,
            destination,
            peer,
            (mesh, false),
        )
    }

    /// The same connection, whose TLS has been ended, as a gateway does.
    pub fn without_tls(&self) -> Arc<Self> {
        Self::numbered(
            self.connection,
            self.direction,
            self.client,
            self.destination,
            None,
            (false, true),
        )
    }

    /// The scheme of what is asked for on the connection.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// What protects it, as in metrics and logs.
    pub fn security(&self) -> &'static str {
        security(self.mesh, self.tls)
    }

    fn numbered(
        connection: u64,
        direction: Direction,
        client: SocketAddr,
        destination: SocketAddr,
        peer: Option<&str>,
        (mesh, tls): (bool, bool),
    ) -> Arc<Self> {
        let peer = peer.map(intern);
        let security = security(mesh, tls);
        let line = access_log::connection_part(connection, direction, client, destination, peer.as_deref(), security);
        Arc::new(Self {
            tls,
            connection,
            direction,
            client,
            destination,
            peer,
            mesh,
            line,
        })
    }
}

fn security(mesh: bool, tls: bool) -> &'static str {
    match (mesh, tls) {
        (true, _) => "mesh",
        (false, true) => "tls",
        (false, false) => "plaintext",
    }
}

/// One shared copy of a label for each thread, so that metric handles can be found by its address.
///
/// The labels are identities and names from configuration; the table is emptied when it is larger than the metrics may be.
pub fn intern(text: &str) -> Arc<str> {
    thread_local! {
        static INTERNED: RefCell<HashSet<Arc<str>, foldhash::fast::RandomState>> = RefCell::default();
    }
    INTERNED.with_borrow_mut(|interned| {
        if let Some(found) = interned.get(text) {
            return found.clone();
        }
        if interned.len() >= weft_proto::limits::METRIC_SERIES {
            interned.clear();
        }
        let new: Arc<str> = text.into();
        interned.insert(new.clone());
        new
    })
}

/// Whether a record is about a connection or about one HTTP exchange on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connection,
    Exchange,
}

/// The rule that took a request, as configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleName {
    /// `HTTPRoute/namespace/name`.
    pub route: Arc<str>,
    /// The rule's own name, or its position from 0.
    pub rule: Arc<str>,
}

/// What is known so far about a connection or an exchange.
pub struct Record {
    kind: Kind,
    facts: Arc<Facts>,
    started: Instant,
    dimensions: Dimensions,
    text: Line,
    endpoint: Option<SocketAddr>,
    status: u16,
    grpc_status: Option<u32>,
    received: u64,
    sent: u64,
    attempts: u8,
    fault: Option<(Stage, crate::fault::Blame, Reason, Box<str>)>,
    tunnel: Option<Instant>,
    span: Option<Span>,
    closed: bool,
}

/// The span of an exchange that is sampled, and who takes it.
type Span = (Box<trace::Open>, Arc<Shared>);

impl Record {
    /// Opens the record of a connection, which counts as open until the record is closed.
    pub fn connection(facts: Arc<Facts>) -> Self {
        metrics::connection_opened(&facts);
        Self::open(Kind::Connection, facts)
    }

    /// Opens the record of one exchange.
    pub fn exchange(facts: Arc<Facts>) -> Self {
        Self::open(Kind::Exchange, facts)
    }

    fn open(kind: Kind, facts: Arc<Facts>) -> Self {
        let peer = match facts.direction {
            Direction::Inbound => facts.peer.clone(),
            Direction::Outbound | Direction::Gateway => None,
        };
        let dimensions = Dimensions {
            direction: facts.direction,
            protocol: Protocol::Unknown,
            hop: Hop::None,
            listener: None,
            rule: None,
            backend: None,
            peer,
        };
        Self {
            kind,
            facts,
            started: Instant::now(),
            dimensions,
            text: Line::new(),
            endpoint: None,
            status: 0,
            grpc_status: None,
            received: 0,
            sent: 0,
            attempts: 0,
            fault: None,
            tunnel: None,
            span: None,
            closed: false,
        }
    }

    /// The connection's facts.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// When the record was opened.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What the client speaks.
    pub fn protocol(&mut self, protocol: Protocol) {
        self.dimensions.protocol = protocol;
    }

    /// What detection found, and how long it took.
    pub fn detected(&mut self, protocol: Protocol, took: Duration) {
        self.dimensions.protocol = protocol;
        metrics::detected(self.facts.direction, protocol, took);
    }

    /// The name that a ClientHello asks for; for the log only.
    pub fn server_name(&mut self, name: &str) {
        self.text.field("sni", name.as_bytes());
    }

    /// What was asked for; for the log only. The query is left out: it often holds secrets.
    pub fn request(&mut self, method: &[u8], host: &[u8], path: &[u8]) {
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        self.text.field("method", method);
        self.text.field("host", host);
        self.text.field("path", path);
    }

    /// The request is sampled: this is its span until the record is closed.
    pub fn trace(&mut self, span: Box<trace::Open>, shared: &Arc<Shared>) {
        self.span = Some((span, shared.clone()));
    }

    /// The span, where the request is sampled.
    pub fn span(&self) -> Option<&trace::Open> {
        self.span.as_ref().map(|(span, _)| &**span)
    }

    /// What the client speaks, as far as it is known.
    pub fn spoken(&self) -> Protocol {
        self.dimensions.protocol
    }

    /// The gateway's listener that took the request or the connection.
    pub fn listener(&mut self, name: &Arc<str>) {
        self.dimensions.listener = Some(name.clone());
    }

    /// The rule that took the request.
    pub fn rule(&mut self, rule: RuleName) {
        self.dimensions.rule = Some(rule);
    }

    /// It is one of the pod's own probes: counted apart, so that the kubelet is not taken for a client without weft.
    pub fn probe(&mut self) {
        // Names are told apart by where they lie: it has to be the same one each time.
        static PROBE: LazyLock<RuleName> = LazyLock::new(|| RuleName {
            route: "none".into(),
            rule: "probe".into(),
        });
        self.rule(PROBE.clone());
    }

    /// The backend that was chosen.
    pub fn backend(&mut self, id: &Arc<str>) {
        self.dimensions.backend = Some(id.clone());
    }

    /// The endpoint that was chosen, its identity where it has one, and how it is spoken to. Once for each attempt.
    pub fn endpoint(&mut self, address: SocketAddr, identity: Option<&Arc<str>>, hop: Hop) {
        self.endpoint = Some(address);
        self.dimensions.hop = hop;
        self.attempts = self.attempts.saturating_add(1);
        if self.facts.direction != Direction::Inbound {
            self.dimensions.peer = identity.cloned();
        }
    }

    /// How the endpoint is really spoken to, where that is known later only.
    pub fn hop(&mut self, hop: Hop) {
        self.dimensions.hop = hop;
    }

    /// The status that the client is answered with.
    pub fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// `grpc-status`, from the trailers or the head.
    pub fn grpc_status(&mut self, status: u32) {
        self.grpc_status = Some(status);
    }

    /// Bytes of body, or of the connection, that came from the client.
    pub fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Bytes of body, or of the connection, that went to the client.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// What went wrong. The first one stands.
    pub fn fault(&mut self, fault: &Fault) {
        if self.fault.is_none() {
            self.fault = Some((
                fault.stage,
                fault.blame,
                fault.reason,
                fault.to_string().into_boxed_str(),
            ));
        }
    }

    /// An attempt failed for this reason, and another one is made.
    pub fn retried(&mut self, reason: &'static str) {
        metrics::retried(self.facts.direction, reason);
    }

    /// The head was answered with 101 or 2xx, and from now on this is a tunnel: its time is not the request's.
    pub fn tunnel_opened(&mut self) {
        if self.tunnel.is_none() {
            metrics::tunnel_opened(&self.dimensions);
            self.tunnel = Some(Instant::now());
        }
    }

    /// Closes the record: counts it and writes it to the log.
    pub fn close(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let now = Instant::now();
        let reason = self.fault.as_ref().map(|(_, _, reason, _)| *reason);
        let open_for = now - self.started;
        if let Some((span, shared)) = self.span.take() {
            self.end_span(*span, &shared, open_for);
        }
        let logged = match self.kind {
            Kind::Exchange => {
                let until = self.tunnel.unwrap_or(now);
                metrics::request(
                    &self.dimensions,
                    self.status,
                    reason,
                    until - self.started,
                    self.grpc_status,
                );
                match self.tunnel {
                    Some(since) => {
                        metrics::tunnel_closed(&self.dimensions, reason, now - since, self.received, self.sent)
                    }
                    None => metrics::bodies(&self.dimensions, self.received, self.sent),
                }
                true
            }
            Kind::Connection => {
                metrics::connection_closed(
                    &self.facts,
                    self.fault
                        .as_ref()
                        .map(|(stage, blame, reason, _)| (*stage, *blame, *reason)),
                );
                if let Some(since) = self.tunnel {
                    metrics::tunnel_closed(&self.dimensions, reason, now - since, self.received, self.sent);
                }
                self.tunnel.is_some() || self.fault.is_some()
            }
        };
        if logged && access_log::is_on() {
            self.log(open_for);
        }
    }

    fn end_span(&self, span: trace::Open, shared: &Shared, took: Duration) {
        let ended = trace::Ended {
            facts: &self.facts,
            dimensions: &self.dimensions,
            endpoint: self.endpoint,
            attempts: self.attempts,
            status: self.status,
            grpc_status: self.grpc_status,
            fault: self.fault.as_ref().map(|(_, _, reason, text)| (*reason, &**text)),
            took,
            tunnel: self.tunnel.map(|since| since - self.started),
        };
        if let Some(tracer) = &shared.tracer {
            tracer.end(span, &ended);
        }
    }

    fn log(&mut self, open_for: Duration) {
        let mut line = std::mem::take(&mut self.text);
        if self.kind == Kind::Exchange {
            line.number("status", self.status.into());
        }
        if let Some(status) = self.grpc_status {
            line.number("grpc_status", status.into());
        }
        line.word("protocol", self.dimensions.protocol.name());
        if let Some(listener) = &self.dimensions.listener {
            line.field("listener", listener.as_bytes());
        }
        if let Some(rule) = &self.dimensions.rule {
            line.field("route", rule.route.as_bytes());
            line.field("rule", rule.rule.as_bytes());
        }
        if let Some(backend) = &self.dimensions.backend {
            line.field("backend", backend.as_bytes());
        }
        if let Some(endpoint) = self.endpoint {
            line.address("endpoint", endpoint);
            line.word("hop", self.dimensions.hop.name());
            if self.facts.direction != Direction::Inbound
                && let Some(identity) = &self.dimensions.peer
            {
                line.field("server_identity", identity.as_bytes());
            }
        }
        if self.attempts > 1 {
            line.number("attempts", self.attempts.into());
        }
        line.number("received_bytes", self.received);
        line.number("sent_bytes", self.sent);
        line.milliseconds("duration_ms", open_for);
        if let Some((stage, blame, reason, error)) = &self.fault {
            line.word("stage", stage.name());
            line.word("blame", blame.name());
            line.word("reason", reason.label());
            line.field("error", error.as_bytes());
        }
        let kind = match self.kind {
            Kind::Connection => "connection",
            Kind::Exchange if self.tunnel.is_some() => "tunnel",
            Kind::Exchange => "request",
        };
        access_log::write(kind, &self.facts.line, line);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.closed {
            if self.fault.is_none() {
                self.fault(&Fault::new(Reason::Abandoned));
            }
            self.finish();
        }
    }
}
