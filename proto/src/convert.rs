//! Wire ↔ types of the `route` crate and of the standard library. The only file that knows both sides.
//!
//! Towards the wire nothing can fail. From the wire everything is checked: a rule of which a proxy does not understand
//! a part is a mistake, never a rule without that part.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weft_route::rule::{self, Kind, PathChange, PathMatch, Text};

use crate::rpc::discovery as wire;

/// Something on the wire that cannot be understood: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// As `rules[2] (HTTPRoute shop/cart rule 0): filters[1]`.
    pub at: String,
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A part that must be there is not; it may be of a kind that only a newer version knows.
    #[error("it is absent, or of a kind that this version does not know")]
    Absent,
    /// An enum has a number without a name here.
    #[error("{0} is not a kind of route that this version knows")]
    Kind(i32),
    /// A backend's index has no backend.
    #[error("there is no backend {0}: the destination has {1}")]
    Backend(u32, usize),
    /// A number is too large for what it is.
    #[error("{0} is not a {1}")]
    Number(u32, &'static str),
    /// An IP address has neither 4 nor 16 bytes.
    #[error("an address has 4 or 16 bytes, not {0}")]
    Address(usize),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

impl std::error::Error for Mistake {}

/// The rules of a destination, or every mistake in them.
pub fn rules(destination: &wire::Destination) -> Result<Vec<rule::Rule>, Vec<Mistake>> {
    rules_of(&destination.rules, destination.backends.len())
}

/// Rules that name one of so many backends, or every mistake in them.
pub fn rules_of(rules: &[wire::Rule], backends: usize) -> Result<Vec<rule::Rule>, Vec<Mistake>> {
    let mut reader = Reader {
        backends,
        at: Vec::new(),
        mistakes: Vec::new(),
    };
    let rules = reader.each("rules", rules, Reader::rule);
    if reader.mistakes.is_empty() {
        Ok(rules)
    } else {
        Err(reader.mistakes)
    }
}

impl From<SocketAddr> for wire::Address {
    fn from(address: SocketAddr) -> Self {
        let mut named = wire::Address::from(address.ip());
        named.port = u32::from(address.port());
        named
    }
}

/// An address without a port, as in `Name.workload`.
impl From<IpAddr> for wire::Address {
    fn from(ip: IpAddr) -> Self {
        // One name for one address: an IPv4 address is never sent as a mapped one.
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        wire::Address { ip, port: 0 }
    }
}

impl wire::Address {
    /// The IP address.
    pub fn ip_addr(&self) -> Result<IpAddr, Wrong> {
        let four: Result<[u8; 4], _> = self.ip.as_slice().try_into();
        let sixteen: Result<[u8; 16], _> = self.ip.as_slice().try_into();
        match (four, sixteen) {
            (Ok(four), _) => Ok(Ipv4Addr::from(four).into()),
            (_, Ok(sixteen)) => Ok(IpAddr::from(Ipv6Addr::from(sixteen)).to_canonical()),
            _ => Err(Wrong::Address(self.ip.len())),
        }
    }

    /// IP address and port.
    pub fn socket_addr(&self) -> Result<SocketAddr, Wrong> {
        let port = u16::try_from(self.port).ok().filter(|port| *port > 0);
        Ok(SocketAddr::new(
            self.ip_addr()?,
            port.ok_or(Wrong::Number(self.port, "port"))?,
        ))
    }
}

impl From<&rule::Rule> for wire::Rule {
    fn from(rule: &rule::Rule) -> Self {
        wire::Rule {
            origin: Some((&rule.origin).into()),
            hosts: rule.hosts.iter().map(|host| host.to_string()).collect(),
            matches: rule.matches.iter().map(Into::into).collect(),
            filters: rule.filters.iter().map(Into::into).collect(),
            backends: rule.backends.iter().map(Into::into).collect(),
            request_timeout_ms: rule.timeouts.request.map(milliseconds),
            backend_request_timeout_ms: rule.timeouts.backend_request.map(milliseconds),
            retry: rule.retry.as_ref().map(|retry| wire::Retry {
                codes: retry.codes.iter().copied().map(u32::from).collect(),
                attempts: retry.attempts,
                backoff_ms: retry.backoff.map(milliseconds),
            }),
            session: rule.session.as_ref().map(Into::into),
        }
    }
}

impl From<&rule::Session> for wire::Session {
    fn from(session: &rule::Session) -> Self {
        let carrier = match session.carrier {
            rule::SessionCarrier::SessionCookie => wire::SessionCarrier::SessionCookie,
            rule::SessionCarrier::PermanentCookie => wire::SessionCarrier::PermanentCookie,
            rule::SessionCarrier::Header => wire::SessionCarrier::Header,
        };
        let key = |key: &rule::SessionKey| wire::SessionKey {
            id: key.id,
            secret: key.secret.to_vec(),
        };
        wire::Session {
            name: session.name.to_string(),
            carrier: carrier.into(),
            absolute_timeout_ms: session.absolute_timeout.map(milliseconds),
            idle_timeout_ms: session.idle_timeout.map(milliseconds),
            keys: session.keys.iter().map(key).collect(),
        }
    }
}

/// Rounded up: a limit shorter than a millisecond must not become none, nor an immediate one.
fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl From<&rule::Origin> for wire::Origin {
    fn from(origin: &rule::Origin) -> Self {
        let kind = match origin.kind {
            Kind::GrpcRoute => wire::RouteKind::GrpcRoute,
            Kind::HttpRoute => wire::RouteKind::HttpRoute,
            Kind::TlsRoute => wire::RouteKind::TlsRoute,
            Kind::TcpRoute => wire::RouteKind::TcpRoute,
        };
        wire::Origin {
            kind: kind.into(),
            route: Some(wire::ObjectName {
                namespace: origin.namespace.to_string(),
                name: origin.name.to_string(),
            }),
            rule: origin.rule,
            rule_name: origin.rule_name.to_string(),
            created: origin.created,
        }
    }
}

impl From<&rule::Match> for wire::Match {
    fn from(matched: &rule::Match) -> Self {
        wire::Match {
            path: matched.path.as_ref().map(|path| match path {
                PathMatch::Exact(path) => wire::r#match::Path::PathExact(path.to_string()),
                PathMatch::Prefix(path) => wire::r#match::Path::PathPrefix(path.to_string()),
                PathMatch::Regex(path) => wire::r#match::Path::PathRegex(path.to_string()),
            }),
            headers: matched.headers.iter().map(Into::into).collect(),
            query: matched.query.iter().map(Into::into).collect(),
            method: matched.method.as_deref().unwrap_or_default().to_owned(),
            grpc: matched.grpc.as_ref().map(|grpc| wire::GrpcMatch {
                service: grpc.service.as_ref().map(Into::into),
                method: grpc.method.as_ref().map(Into::into),
            }),
        }
    }
}

impl From<&rule::ValueMatch> for wire::ValueMatch {
    fn from(condition: &rule::ValueMatch) -> Self {
        let value = match &condition.value {
            Text::Exact(text) => wire::value_match::Value::Exact(text.to_string()),
            Text::Regex(text) => wire::value_match::Value::Regex(text.to_string()),
        };
        wire::ValueMatch {
            name: condition.name.to_string(),
            value: Some(value),
        }
    }
}

impl From<&Text> for wire::Text {
    fn from(text: &Text) -> Self {
        let value = match text {
            Text::Exact(text) => wire::text::Value::Exact(text.to_string()),
            Text::Regex(text) => wire::text::Value::Regex(text.to_string()),
        };
        wire::Text { value: Some(value) }
    }
}

impl From<&rule::Filter> for wire::Filter {
    fn from(filter: &rule::Filter) -> Self {
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let kind = match filter {
            rule::Filter::RequestHeaders(change) => wire::filter::Kind::RequestHeaders(change.into()),
            rule::Filter::ResponseHeaders(change) => wire::filter::Kind::ResponseHeaders(change.into()),
            rule::Filter::Redirect(redirect) => wire::filter::Kind::Redirect(wire::Redirect {
                scheme: text(&redirect.scheme),
                host: text(&redirect.host),
                port: redirect.port.map(u32::from),
                path: redirect.path.as_ref().map(Into::into),
                status: u32::from(redirect.status),
            }),
            rule::Filter::Rewrite(rewrite) => wire::filter::Kind::Rewrite(wire::Rewrite {
                host: text(&rewrite.host),
                path: rewrite.path.as_ref().map(Into::into),
            }),
            rule::Filter::Mirror(mirror) => wire::filter::Kind::Mirror(wire::Mirror {
                backend: mirror.backend.as_ref().ok().copied(),
                invalid: reason(&mirror.backend),
                numerator: mirror.numerator,
                denominator: mirror.denominator,
            }),
            rule::Filter::Cors(cors) => wire::filter::Kind::Cors(cors.into()),
        };
        wire::Filter { kind: Some(kind) }
    }
}

/// Why a reference is not valid; empty where it is.
fn reason(backend: &Result<u32, Arc<str>>) -> String {
    backend
        .as_ref()
        .err()
        .map(|reason| reason.to_string())
        .unwrap_or_default()
}

impl From<&rule::Cors> for wire::Cors {
    fn from(cors: &rule::Cors) -> Self {
        let texts = |texts: &[Arc<str>]| texts.iter().map(|text| text.to_string()).collect();
        wire::Cors {
            allow_origins: texts(&cors.allow_origins),
            allow_credentials: cors.allow_credentials,
            allow_methods: texts(&cors.allow_methods),
            allow_headers: texts(&cors.allow_headers),
            expose_headers: texts(&cors.expose_headers),
            max_age_seconds: cors.max_age,
        }
    }
}

impl From<&rule::HeaderChange> for wire::HeaderChange {
    fn from(change: &rule::HeaderChange) -> Self {
        let pair = |(name, value): &(Arc<str>, Arc<str>)| wire::HeaderValue {
            name: name.to_string(),
            value: value.to_string(),
        };
        wire::HeaderChange {
            set: change.set.iter().map(pair).collect(),
            add: change.add.iter().map(pair).collect(),
            remove: change.remove.iter().map(|name| name.to_string()).collect(),
        }
    }
}

impl From<&PathChange> for wire::PathChange {
    fn from(change: &PathChange) -> Self {
        let kind = match change {
            PathChange::Full(path) => wire::path_change::Kind::Full(path.to_string()),
            PathChange::Prefix(path) => wire::path_change::Kind::Prefix(path.to_string()),
        };
        wire::PathChange { kind: Some(kind) }
    }
}

impl From<&rule::WeightedBackend> for wire::WeightedBackend {
    fn from(backend: &rule::WeightedBackend) -> Self {
        wire::WeightedBackend {
            backend: backend.backend.as_ref().ok().copied(),
            weight: backend.weight,
            filters: backend.filters.iter().map(Into::into).collect(),
            invalid: reason(&backend.backend),
        }
    }
}

/// Reads messages, remembers where it is, and goes on after a mistake, so that all of them are told together.
struct Reader {
    backends: usize,
    at: Vec<String>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Notes a mistake. What stands in for the value is never seen: one mistake, and no rule is returned.
    fn wrong<T>(&mut self, what: Wrong) -> Option<T> {
        self.mistakes.push(Mistake {
            at: self.at.join(": "),
            what,
        });
        None
    }

    fn each<W, T>(&mut self, place: &str, list: &[W], read: fn(&mut Self, &W) -> Option<T>) -> Vec<T> {
        let mut all = Vec::with_capacity(list.len());
        for (index, message) in list.iter().enumerate() {
            self.at.push(format!("{place}[{index}]"));
            all.extend(read(self, message));
            self.at.pop();
        }
        all
    }

    fn rule(&mut self, rule: &wire::Rule) -> Option<rule::Rule> {
        let origin = self.origin(rule.origin.as_ref());
        if let (Some(origin), Some(place)) = (&origin, self.at.last_mut()) {
            place.push_str(&format!(" ({origin})"));
        }
        let matches = self.each("matches", &rule.matches, Reader::matched);
        let filters = self.each("filters", &rule.filters, Reader::filter);
        let backends = self.each("backends", &rule.backends, Reader::backend);
        Some(rule::Rule {
            origin: origin?,
            hosts: rule.hosts.iter().map(|host| host.as_str().into()).collect(),
            matches,
            filters,
            backends,
            timeouts: rule::Timeouts {
                request: rule.request_timeout_ms.map(Duration::from_millis),
                backend_request: rule.backend_request_timeout_ms.map(Duration::from_millis),
            },
            retry: match &rule.retry {
                None => None,
                Some(retry) => Some(self.retry(retry)?),
            },
            session: match &rule.session {
                None => None,
                Some(session) => Some(self.session(session)?),
            },
        })
    }

    fn retry(&mut self, retry: &wire::Retry) -> Option<rule::Retry> {
        let codes: Option<_> = retry.codes.iter().map(|code| self.number(*code, "status")).collect();
        Some(rule::Retry {
            codes: codes?,
            attempts: retry.attempts,
            backoff: retry.backoff_ms.map(Duration::from_millis),
        })
    }

    fn session(&mut self, session: &wire::Session) -> Option<rule::Session> {
        let carrier = match wire::SessionCarrier::try_from(session.carrier) {
            Ok(wire::SessionCarrier::SessionCookie) => rule::SessionCarrier::SessionCookie,
            Ok(wire::SessionCarrier::PermanentCookie) => rule::SessionCarrier::PermanentCookie,
            Ok(wire::SessionCarrier::Header) => rule::SessionCarrier::Header,
            Err(_) => return self.wrong(Wrong::Absent),
        };
        let key = |key: &wire::SessionKey| rule::SessionKey {
            id: key.id,
            secret: key.secret.as_slice().into(),
        };
        Some(rule::Session {
            name: session.name.as_str().into(),
            carrier,
            absolute_timeout: session.absolute_timeout_ms.map(Duration::from_millis),
            idle_timeout: session.idle_timeout_ms.map(Duration::from_millis),
            keys: session.keys.iter().map(key).collect(),
        })
    }

    fn origin(&mut self, origin: Option<&wire::Origin>) -> Option<rule::Origin> {
        let Some((origin, route)) = origin.and_then(|origin| Some((origin, origin.route.as_ref()?))) else {
            return self.wrong(Wrong::Absent);
        };
        let kind = match wire::RouteKind::try_from(origin.kind) {
            Ok(wire::RouteKind::HttpRoute) => Kind::HttpRoute,
            Ok(wire::RouteKind::GrpcRoute) => Kind::GrpcRoute,
            Ok(wire::RouteKind::TlsRoute) => Kind::TlsRoute,
            Ok(wire::RouteKind::TcpRoute) => Kind::TcpRoute,
            Err(_) => return self.wrong(Wrong::Kind(origin.kind)),
        };
        Some(rule::Origin {
            kind,
            namespace: route.namespace.as_str().into(),
            name: route.name.as_str().into(),
            rule: origin.rule,
            rule_name: origin.rule_name.as_str().into(),
            created: origin.created,
        })
    }

    fn matched(&mut self, matched: &wire::Match) -> Option<rule::Match> {
        let path = matched.path.as_ref().map(|path| match path {
            wire::r#match::Path::PathExact(path) => PathMatch::Exact(path.as_str().into()),
            wire::r#match::Path::PathPrefix(path) => PathMatch::Prefix(path.as_str().into()),
            wire::r#match::Path::PathRegex(path) => PathMatch::Regex(path.as_str().into()),
        });
        let grpc = matched.grpc.as_ref().map(|grpc| rule::GrpcMatch {
            service: self.optional_text(grpc.service.as_ref()),
            method: self.optional_text(grpc.method.as_ref()),
        });
        Some(rule::Match {
            path,
            headers: self.each("headers", &matched.headers, Reader::value),
            query: self.each("query", &matched.query, Reader::value),
            method: present(&matched.method),
            grpc,
        })
    }

    fn optional_text(&mut self, text: Option<&wire::Text>) -> Option<Text> {
        match &text?.value {
            Some(wire::text::Value::Exact(text)) => Some(Text::Exact(text.as_str().into())),
            Some(wire::text::Value::Regex(text)) => Some(Text::Regex(text.as_str().into())),
            None => self.wrong(Wrong::Absent),
        }
    }

    fn value(&mut self, condition: &wire::ValueMatch) -> Option<rule::ValueMatch> {
        let value = match &condition.value {
            Some(wire::value_match::Value::Exact(text)) => Text::Exact(text.as_str().into()),
            Some(wire::value_match::Value::Regex(text)) => Text::Regex(text.as_str().into()),
            None => return self.wrong(Wrong::Absent),
        };
        Some(rule::ValueMatch {
            name: condition.name.as_str().into(),
            value,
        })
    }

    fn filter(&mut self, filter: &wire::Filter) -> Option<rule::Filter> {
        Some(match &filter.kind {
            Some(wire::filter::Kind::RequestHeaders(change)) => rule::Filter::RequestHeaders(header_change(change)),
            Some(wire::filter::Kind::ResponseHeaders(change)) => rule::Filter::ResponseHeaders(header_change(change)),
            Some(wire::filter::Kind::Redirect(redirect)) => rule::Filter::Redirect(rule::Redirect {
                scheme: present(&redirect.scheme),
                host: present(&redirect.host),
                port: match redirect.port {
                    None => None,
                    Some(port) => Some(self.number(port, "port")?),
                },
                path: self.path_change(redirect.path.as_ref())?,
                status: self.number(redirect.status, "status")?,
            }),
            Some(wire::filter::Kind::Rewrite(rewrite)) => rule::Filter::Rewrite(rule::Rewrite {
                host: present(&rewrite.host),
                path: self.path_change(rewrite.path.as_ref())?,
            }),
            Some(wire::filter::Kind::Mirror(mirror)) => rule::Filter::Mirror(rule::Mirror {
                backend: self.reference(mirror.backend, &mirror.invalid)?,
                numerator: mirror.numerator,
                denominator: mirror.denominator,
            }),
            Some(wire::filter::Kind::Cors(cors)) => rule::Filter::Cors(cors_of(cors)),
            None => return self.wrong(Wrong::Absent),
        })
    }

    /// The outer `None` is a mistake.
    fn path_change(&mut self, change: Option<&wire::PathChange>) -> Option<Option<PathChange>> {
        let Some(change) = change else { return Some(None) };
        match &change.kind {
            Some(wire::path_change::Kind::Full(path)) => Some(Some(PathChange::Full(path.as_str().into()))),
            Some(wire::path_change::Kind::Prefix(path)) => Some(Some(PathChange::Prefix(path.as_str().into()))),
            None => self.wrong(Wrong::Absent),
        }
    }

    fn number(&mut self, number: u32, what: &'static str) -> Option<u16> {
        match u16::try_from(number) {
            Ok(number) => Some(number),
            Err(_) => self.wrong(Wrong::Number(number, what)),
        }
    }

    /// The outer `None` is a mistake.
    fn reference(&mut self, index: Option<u32>, invalid: &str) -> Option<Result<u32, Arc<str>>> {
        match index {
            Some(index) if (index as usize) < self.backends => Some(Ok(index)),
            Some(index) => self.wrong(Wrong::Backend(index, self.backends)),
            None => Some(Err(invalid.into())),
        }
    }

    fn backend(&mut self, backend: &wire::WeightedBackend) -> Option<rule::WeightedBackend> {
        let filters = self.each("filters", &backend.filters, Reader::filter);
        let reference = self.reference(backend.backend, &backend.invalid)?;
        Some(rule::WeightedBackend {
            backend: reference,
            weight: backend.weight,
            filters,
        })
    }
}

fn cors_of(cors: &wire::Cors) -> rule::Cors {
    let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    rule::Cors {
        allow_origins: texts(&cors.allow_origins),
        allow_credentials: cors.allow_credentials,
        allow_methods: texts(&cors.allow_methods),
        allow_headers: texts(&cors.allow_headers),
        expose_headers: texts(&cors.expose_headers),
        max_age: cors.max_age_seconds,
    }
}

fn present(text: &str) -> Option<Arc<str>> {
    if text.is_empty() { None } else { Some(text.into()) }
}

fn header_change(change: &wire::HeaderChange) -> rule::HeaderChange {
    let pair = |pair: &wire::HeaderValue| (pair.name.as_str().into(), pair.value.as_str().into());
    rule::HeaderChange {
        set: change.set.iter().map(pair).collect(),
        add: change.add.iter().map(pair).collect(),
        remove: change.remove.iter().map(|name| name.as_str().into()).collect(),
    }
}
