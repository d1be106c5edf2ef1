//! The one total order of matches. Each match has a [`Rank`], a plain value; the smaller rank is asked first, and the
//! comparison that decides between two can be named.

use std::{cmp::Ordering, fmt, sync::Arc};

use crate::{
    matcher::{Conditions, grpc::GrpcTest, path::PathTest, text::TextTest},
    rule::{Kind, Origin},
};

/// Where a match stands among all. Fields in the order in which they decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    host: HostRank,
    kind: Kind,
    service: Length,
    call: Length,
    path: PathRank,
    method: bool,
    headers: usize,
    query: usize,
    created: i64,
    route: Arc<str>,
    rule: u32,
    matched: u32,
    id: u32,
}

/// "Precedence must be given to rules from the HTTPRoute with the largest number of: characters in a matching
/// non-wildcard hostname; characters in a matching hostname" (HTTPRouteSpec.hostnames).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostRank {
    exact: usize,
    any: usize,
}

/// Characters of a text that must be equal, then of a pattern. The specification counts "characters in a matching
/// service" and leaves regular expressions to implementations: here they come after every exact text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Length {
    exact: usize,
    pattern: usize,
}

/// "'Exact' path match. 'Prefix' path match with largest number of characters. [...] The precedence of
/// RegularExpression path matches are implementation-specific" (HTTPRouteRule.matches). A regular expression comes
/// after every prefix but `/`, which is no condition: otherwise a route's last, catch-all rule would hide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Any,
    Regex,
    Prefix(usize),
    Exact,
}

/// What decided between two matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Its host is more specific.
    Host,
    /// Its kind comes first. "If multiple routes with different types both bind to the same Service and Port pair, only
    /// a single route type should be applied": GRPCRoute before HTTPRoute (GEP-1294, Route types).
    Kind,
    /// It names more characters of the gRPC service (GRPCRouteRule.matches).
    Service,
    /// It names more characters of the gRPC method.
    Call,
    /// Its path is exact, or a longer prefix.
    Path,
    /// It names a method: "Method match" (HTTPRouteRule.matches).
    Method,
    /// "Largest number of header matches".
    Headers,
    /// "Largest number of query param matches".
    Query,
    /// "The oldest Route based on creation timestamp".
    Created,
    /// "The Route appearing first in alphabetical order by '{namespace}/{name}'".
    Name,
    /// "Matching precedence MUST be granted to the FIRST matching rule (in list order)".
    Order,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Host => "has the more specific host",
            Comparison::Kind => "is of the kind that is applied when a Service has several",
            Comparison::Service => "names more of the gRPC service",
            Comparison::Call => "names more of the gRPC method",
            Comparison::Path => "has the more specific path",
            Comparison::Method => "names a method",
            Comparison::Headers => "has more header conditions",
            Comparison::Query => "has more query conditions",
            Comparison::Created => "is older",
            Comparison::Name => "comes first by namespace and name",
            Comparison::Order => "comes first in the route",
        })
    }
}

impl HostRank {
    pub(crate) fn of(pattern: Option<&str>) -> Self {
        match pattern {
            None => HostRank::default(),
            Some(pattern) if pattern.starts_with("*.") => HostRank {
                exact: 0,
                any: pattern.len(),
            },
            Some(pattern) => HostRank {
                exact: pattern.len(),
                any: pattern.len(),
            },
        }
    }
}

impl Length {
    fn of(text: Option<&TextTest>) -> Self {
        match text {
            None => Length::default(),
            Some(TextTest::Exact(text)) => Length {
                exact: text.chars().count(),
                pattern: 0,
            },
            Some(TextTest::Regex(pattern)) => Length {
                exact: 0,
                pattern: pattern.as_str().chars().count(),
            },
        }
    }
}

impl Rank {
    /// `route`: `namespace/name` of the origin.
    pub(crate) fn new(
        host: Option<&str>,
        conditions: &Conditions,
        origin: &Origin,
        route: Arc<str>,
        matched: u32,
        id: u32,
    ) -> Self {
        let grpc = |part: fn(&GrpcTest) -> Option<&TextTest>| Length::of(conditions.grpc.as_ref().and_then(part));
        Rank {
            host: HostRank::of(host),
            kind: origin.kind,
            service: grpc(|grpc| grpc.service.as_ref()),
            call: grpc(|grpc| grpc.method.as_ref()),
            path: match &conditions.path {
                PathTest::Any => PathRank::Any,
                PathTest::Regex(_) => PathRank::Regex,
                PathTest::Prefix(prefix) => PathRank::Prefix(prefix.len()),
                PathTest::Exact(_) => PathRank::Exact,
            },
            method: conditions.method.is_some(),
            headers: conditions.headers.len(),
            query: conditions.query.len(),
            created: origin.created,
            route,
            rule: origin.rule,
            matched,
            id,
        }
    }

    /// Which of the two comes first, and why.
    pub(crate) fn compare(&self, other: &Self) -> (Ordering, Comparison) {
        use Comparison::*;
        let more = Ordering::reverse;
        let steps = [
            (more(self.host.cmp(&other.host)), Host),
            (self.kind.cmp(&other.kind), Kind),
            (more(self.service.cmp(&other.service)), Service),
            (more(self.call.cmp(&other.call)), Call),
            (more(self.path.cmp(&other.path)), Path),
            (more(self.method.cmp(&other.method)), Method),
            (more(self.headers.cmp(&other.headers)), Headers),
            (more(self.query.cmp(&other.query)), Query),
            (self.created.cmp(&other.created), Created),
            (self.route.cmp(&other.route), Name),
        ];
        let order = (self.rule, self.matched, self.id).cmp(&(other.rule, other.matched, other.id));
        steps
            .into_iter()
            .find(|(ordering, _)| ordering.is_ne())
            .unwrap_or((order, Order))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(other).0
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
