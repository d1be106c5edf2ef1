//! One neutral rule for every kind of route object. What a controller translates into, and what a proxy compiles.

use std::{fmt, sync::Arc, time::Duration};

/// Which kind of object a rule comes from. The order is the precedence between kinds on one parent: GRPCRoute, HTTPRoute,
/// TLSRoute, TCPRoute (GEP-1426 and the GRPCRoute specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `gateway.networking.k8s.io` GRPCRoute.
    GrpcRoute,
    /// `gateway.networking.k8s.io` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io` TLSRoute: connections, by the server name of their ClientHello. Its `hosts` are SNI names; it has no
    /// matches and no filters.
    TlsRoute,
    /// `gateway.networking.k8s.io` TCPRoute: every connection. It has no hosts, no matches and no filters.
    TcpRoute,
}

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Kind of the route object.
    pub kind: Kind,
    /// Namespace of the route object.
    pub namespace: Arc<str>,
    /// Name of the route object.
    pub name: Arc<str>,
    /// Position of the rule in its route, from 0.
    pub rule: u32,
    /// The rule's own name; empty where it has none.
    pub rule_name: Arc<str>,
    /// Creation of the route object, in seconds since 1970.
    pub created: i64,
}

/// One rule: if a request matches, this is what happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// Exact hosts or `*.suffix`, lower case, without port. Empty: every host.
    pub hosts: Vec<Arc<str>>,
    /// Any of them. Empty: every request.
    pub matches: Vec<Match>,
    /// In the order in which they were written.
    pub filters: Vec<Filter>,
    /// Where matching requests go, by weight. Empty: 500, unless a filter answers.
    pub backends: Vec<WeightedBackend>,
    /// How long.
    pub timeouts: Timeouts,
    /// When and how often a request is tried again. `None`: never, beside what weft does of itself.
    pub retry: Option<Retry>,
    /// How the requests of one session stay at one endpoint. `None`: they do not.
    pub session: Option<Session>,
}

/// Limits of one request. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's head to the end of the response.
    pub request: Option<Duration>,
    /// The same, for one attempt at one backend.
    pub backend_request: Option<Duration>,
}

/// When a request is tried again (GEP-1731). A request whose body is longer than what is kept of it is not, nor one whose
/// response has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Statuses of a response, 400 to 599, after which another attempt is made, beside failures to connect and attempts that
    /// took too long.
    pub codes: Vec<u16>,
    /// Attempts after the first one. At most [`crate::limits::RETRIES`] are made.
    pub attempts: u32,
    /// Least pause before another attempt, at most [`crate::limits::RETRY_PAUSE`]. `None`: a short one of weft's own.
    pub backoff: Option<Duration>,
}

/// How the requests of one session stay at one endpoint (GEP-1619).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name of the cookie or header field.
    pub name: Arc<str>,
    /// Where the session is told.
    pub carrier: SessionCarrier,
    /// The session ends so long after it began. `None`: never.
    pub absolute_timeout: Option<Duration>,
    /// The session ends when it was not used for so long. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Keys of the route: the first one signs, all of them are accepted. Without one there are no sessions: a controller
    /// adds the keys when it answers a proxy.
    pub keys: Vec<SessionKey>,
}

/// Where a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCarrier {
    /// A cookie that ends with the browser's session.
    SessionCookie,
    /// A cookie with `Max-Age`, as long as `absolute_timeout`.
    PermanentCookie,
    /// A header field of request and response.
    Header,
}

/// A key of one route's sessions.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey {
    /// Named in what it signs.
    pub id: u32,
    /// At least 16 bytes.
    pub secret: Arc<[u8]>,
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret never reaches a log.
        write!(f, "SessionKey({})", self.id)
    }
}

/// All conditions of one match must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Condition on the path.
    pub path: Option<PathMatch>,
    /// Conditions on header fields; names in lower case.
    pub headers: Vec<ValueMatch>,
    /// Conditions on query parameters; names as written.
    pub query: Vec<ValueMatch>,
    /// Exact method; `None`: every one.
    pub method: Option<Arc<str>>,
    /// Condition on a gRPC call.
    pub grpc: Option<GrpcMatch>,
}

/// A condition on the path, query excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Equal, or longer by whole segments: `/a` takes `/a/b`, not `/ab`.
    Prefix(Arc<str>),
    /// The whole path matches this regular expression (linear time, at most 1 KiB).
    Regex(Arc<str>),
}

/// A condition on a named value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueMatch {
    /// The header field's or parameter's name.
    pub name: Arc<str>,
    /// What its value must be.
    pub value: Text,
}

/// Text, exactly or by regular expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Text {
    /// Equal.
    Exact(Arc<str>),
    /// The whole text matches.
    Regex(Arc<str>),
}

/// A condition on `/package.Service/Method`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrpcMatch {
    /// `package.Service`; `None`: every one.
    pub service: Option<Text>,
    /// `Method`; `None`: every one.
    pub method: Option<Text>,
}

/// What is done to a request, or instead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Change the request's header fields.
    RequestHeaders(HeaderChange),
    /// Change the response's header fields.
    ResponseHeaders(HeaderChange),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Change host or path on the way to the backend.
    Rewrite(Rewrite),
    /// Send a copy of the request to another backend, whose answer is thrown away.
    Mirror(Mirror),
    /// Cross-origin resource sharing: answer preflights, and mark responses (Fetch standard).
    Cors(Cors),
}

/// A copy for another backend. It does not wait, and changes nothing for the request itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Index of the backend in its table; the reason where the reference is not valid (then nothing is sent).
    pub backend: Result<u32, Arc<str>>,
    /// Of so many requests in `denominator` a copy is sent.
    pub numerator: u32,
    /// Not 0.
    pub denominator: u32,
}

/// What other origins may do. `*` stands for everything where the Fetch standard allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `scheme://host[:port]`, the host may begin with `*.`; or `*`.
    pub allow_origins: Vec<Arc<str>>,
    /// Whether requests may carry credentials.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<Arc<str>>,
    /// Header fields of requests, or `*`.
    pub allow_headers: Vec<Arc<str>>,
    /// Header fields of responses that scripts may read, or `*`.
    pub expose_headers: Vec<Arc<str>>,
    /// Seconds for which a preflight's answer may be kept. `None`: 5.
    pub max_age: Option<u32>,
}

/// Changes of header fields: set, then add, then remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Replace every field of the name.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Add one more.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Remove every field of the name.
    pub remove: Vec<Arc<str>>,
}

/// A redirect; what is `None` stays as the request had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// Host of the new location.
    pub host: Option<Arc<str>>,
    /// Port of the new location.
    pub port: Option<u16>,
    /// Path of the new location.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A rewrite; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// New host.
    pub host: Option<Arc<str>>,
    /// New path.
    pub path: Option<PathChange>,
}

/// How a path is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// All of it.
    Full(Arc<str>),
    /// The prefix that matched.
    Prefix(Arc<str>),
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedBackend {
    /// Index of the backend in its table; the reason where the reference is not valid (that share is answered 500).
    pub backend: Result<u32, Arc<str>>,
    /// Its share is this, of the sum of all.
    pub weight: u32,
    /// For requests that go to this backend only.
    pub filters: Vec<Filter>,
}

impl Kind {
    /// The kind's name in Kubernetes.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::GrpcRoute => "GRPCRoute",
            Kind::HttpRoute => "HTTPRoute",
            Kind::TlsRoute => "TLSRoute",
            Kind::TcpRoute => "TCPRoute",
        }
    }

    /// Whether it speaks of requests, not of connections.
    pub fn is_http(self) -> bool {
        matches!(self, Kind::GrpcRoute | Kind::HttpRoute)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Origin {
    /// Rule number `rule` of the route `namespace/name`, which was created at `created` seconds since 1970.
    pub fn new(kind: Kind, namespace: &str, name: &str, rule: u32, created: i64) -> Self {
        Origin {
            kind,
            namespace: namespace.into(),
            name: name.into(),
            rule,
            rule_name: "".into(),
            created,
        }
    }

    /// The rule's name, or else its number.
    pub fn rule_label(&self) -> String {
        if self.rule_name.is_empty() {
            self.rule.to_string()
        } else {
            self.rule_name.to_string()
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} rule {}", self.kind, self.namespace, self.name, self.rule)?;
        if !self.rule_name.is_empty() {
            write!(f, " ({})", self.rule_name)?;
        }
        Ok(())
    }
}

impl Rule {
    /// A rule that takes every request and has neither filters nor backends yet.
    pub fn new(origin: Origin) -> Self {
        Rule {
            origin,
            hosts: Vec::new(),
            matches: Vec::new(),
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        }
    }
}

impl Match {
    /// Every path that begins with `prefix`, by whole segments.
    pub fn prefix(prefix: &str) -> Self {
        Match {
            path: Some(PathMatch::Prefix(prefix.into())),
            ..Match::default()
        }
    }

    /// This path alone.
    pub fn exact(path: &str) -> Self {
        Match {
            path: Some(PathMatch::Exact(path.into())),
            ..Match::default()
        }
    }

    /// A gRPC method, exactly; `None`: every one.
    pub fn grpc(service: Option<&str>, method: Option<&str>) -> Self {
        let text = |text: &str| Text::Exact(text.into());
        Match {
            grpc: Some(GrpcMatch {
                service: service.map(text),
                method: method.map(text),
            }),
            ..Match::default()
        }
    }
}

impl ValueMatch {
    /// `name` has exactly this value.
    pub fn exact(name: &str, value: &str) -> Self {
        ValueMatch {
            name: name.into(),
            value: Text::Exact(value.into()),
        }
    }

    /// The value of `name` matches this regular expression as a whole.
    pub fn regex(name: &str, pattern: &str) -> Self {
        ValueMatch {
            name: name.into(),
            value: Text::Regex(pattern.into()),
        }
    }
}

impl WeightedBackend {
    /// A share of `weight` for the backend with this index in its destination.
    pub fn new(backend: u32, weight: u32) -> Self {
        WeightedBackend {
            backend: Ok(backend),
            weight,
            filters: Vec::new(),
        }
    }

    /// A share of `weight` that is answered 500, since its reference is not valid.
    pub fn invalid(reason: &str, weight: u32) -> Self {
        WeightedBackend {
            backend: Err(reason.into()),
            weight,
            filters: Vec::new(),
        }
    }
}
