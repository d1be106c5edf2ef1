//! Route objects → neutral rules. Pure, and about one object alone: whether the Services that it names exist is for
//! [`crate::plan`].
//!
//! What an API server would refuse is refused here too, all mistakes together. What is valid but not supported is kept as
//! a [`Problem`]: the rule then answers 500, as the Gateway API demands, and the status says why.

mod backends;
mod filter;
mod grpc_route;
mod http_route;
mod l4_route;
mod matching;
mod parents;
mod session;

use std::{fmt, sync::Arc};

use weft_route::rule::{self, Origin};

pub use backends::ServicePortName;
pub use grpc_route::translate as grpc_route;
pub use http_route::translate as http_route;
pub use l4_route::translate as l4_route;
pub use parents::{Parent, Target};
pub use weft_proto::duration::parse as parse_duration;

use crate::{
    cluster::{
        read::{self, Mistakes},
        types::{Key, Kind, ObjectKey},
    },
    objects::{ParentRef, core::Meta},
};

/// A route, translated.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which object it is.
    pub key: Key,
    /// Seconds since 1970.
    pub created: i64,
    /// What it attaches to: one for each reference, in their order.
    pub parents: Vec<Parent>,
    /// Exact hosts or `*.suffix`, lower case; empty: every host. Without meaning where the parent is a Service.
    pub hosts: Vec<Arc<str>>,
    /// Its rules, in the order of the object.
    pub rules: Vec<Rule>,
    /// Why no parent takes it.
    pub refused: Option<Problem>,
    /// What is valid and not supported, of the whole route; it acts without that.
    pub problems: Vec<Problem>,
}

/// A rule whose backends are still names.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Everything but hosts and backends. The index of a mirror's backend is one in `mirrors`.
    pub rule: rule::Rule,
    /// Where it sends requests.
    pub backends: Vec<Backend>,
    /// Where copies of requests go.
    pub mirrors: Vec<Result<ServicePortName, Problem>>,
    /// The rule needs something that weft cannot do: every request that it takes is answered 500.
    pub refused: Option<Problem>,
    /// What is valid and not supported; the rule acts without it.
    pub problems: Vec<Problem>,
}

/// A reference to a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// The Service's port, or why this cannot be one.
    pub target: Result<ServicePortName, Problem>,
    /// Its share of the sum of all.
    pub weight: u32,
    /// Filters for this backend only.
    pub filters: Vec<rule::Filter>,
}

/// Why a route, or a part of it, does not act as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The reason as the Gateway API words it in a condition.
    pub reason: Reason,
    /// What, where, and how to fix it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// Reasons of conditions, as far as weft gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Something of the specification is not supported.
    UnsupportedValue,
    /// A filter of this type is not supported.
    IncompatibleFilters,
    /// A backend of another kind than Service.
    InvalidKind,
    /// A backend in another namespace, without a grant.
    RefNotPermitted,
    /// A Service, or its port, that is not there.
    BackendNotFound,
    /// A parent that has no such port or listener.
    NoMatchingParent,
    /// No listener of a Gateway takes routes of this kind or namespace.
    NotAllowedByListeners,
    /// No listener of a Gateway has a host of the route's.
    NoMatchingListenerHostname,
    /// A route of another kind has the same parent and host.
    Conflicted,
    /// A BackendTLSPolicy that cannot be carried out.
    InvalidPolicy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Route {
    /// The Services that it attaches to.
    pub fn parent_services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.parents.iter().filter_map(|parent| match &parent.target {
            Target::Service(service) => Some(service),
            _ => None,
        })
    }

    /// Where its rules send requests and their copies.
    pub fn targets(&self) -> impl Iterator<Item = &Result<ServicePortName, Problem>> {
        self.rules.iter().flat_map(Rule::targets)
    }

    /// The Services that its rules send requests and copies to.
    pub fn backend_services(&self) -> impl Iterator<Item = &ObjectKey> {
        let targets = self.targets().filter_map(|target| target.as_ref().ok());
        targets.map(|target| &target.service)
    }
}

impl Rule {
    fn new(origin: Origin) -> Self {
        Self {
            rule: rule::Rule::new(origin),
            backends: Vec::new(),
            mirrors: Vec::new(),
            refused: None,
            problems: Vec::new(),
        }
    }

    /// Where it sends requests and their copies.
    pub fn targets(&self) -> impl Iterator<Item = &Result<ServicePortName, Problem>> {
        self.backends.iter().map(|backend| &backend.target).chain(&self.mirrors)
    }

    /// With this in it, every request is answered 500, and the status says why.
    fn refuse(&mut self, problem: Problem) {
        self.refused.get_or_insert(problem);
    }
}

/// What all kinds of routes have in common.
struct Given<'a> {
    kind: Kind,
    metadata: &'a Meta,
    parents: &'a [ParentRef],
    hostnames: &'a [String],
    default_gateways: Option<&'a str>,
}

/// Translates a route. `name_of` is a rule's own name, and `one` translates it; it is told where the rule stands. What is wrong with it
/// refuses the rule, or the route, and is told beside it: files are refused as an API server would, and of what comes from an API
/// server the status says why it does not act.
fn route<R>(
    given: Given<'_>,
    kind: rule::Kind,
    rules: &[R],
    name_of: impl Fn(&R) -> &str,
    one: impl Fn(&R, Rule, &str, &mut Mistakes) -> Rule,
) -> Result<(Route, Mistakes), Mistakes> {
    let object = read::key(given.metadata)?;
    let created = read::created(given.metadata);
    let (mut mistakes, mut problems) = (Mistakes::new(), Vec::new());
    let parents = parents::parents(given.parents, &object.namespace, &mut problems, &mut mistakes);
    for (index, host) in given.hostnames.iter().enumerate() {
        if !matching::is_host(host.strip_prefix("*.").unwrap_or(host)) {
            mistakes.push(format!(
                "spec.hostnames[{index}]: '{host}' is not a host name in lower case, nor '*.' before one"
            ));
        }
    }
    if given.default_gateways.is_some_and(|scope| scope != "None") {
        problems.push(Problem {
            reason: Reason::UnsupportedValue,
            message: "spec.useDefaultGateways is not supported; name the Gateways in parentRefs".into(),
        });
    }
    let refused = refusal(&mistakes);
    let rules = rules.iter().enumerate().map(|(index, given)| {
        let mut origin = Origin::new(kind, &object.namespace, &object.name, index as u32, created);
        origin.rule_name = name_of(given).into();
        let at = format!("spec.rules[{index}]");
        let before = mistakes.len();
        let mut rule = one(given, Rule::new(origin), &at, &mut mistakes);
        match refusal(&mistakes[before..]) {
            None => checked(rule, &at),
            Some(problem) => {
                rule.refuse(problem);
                rule
            }
        }
    });
    let rules = rules.collect();
    let route = Route {
        key: Key {
            kind: given.kind,
            object,
        },
        created,
        parents,
        hosts: given.hostnames.iter().map(|host| host.as_str().into()).collect(),
        rules,
        refused,
        problems,
    };
    Ok((route, mistakes))
}

fn refusal(mistakes: &[String]) -> Option<Problem> {
    (!mistakes.is_empty()).then(|| Problem {
        reason: Reason::UnsupportedValue,
        message: mistakes.join("; "),
    })
}

/// Asks the `route` crate, too, which knows what it can compile: an API server lets pass what that cannot, as an expression that is no
/// regular one.
fn checked(mut rule: Rule, at: &str) -> Rule {
    let mut whole = rule.rule.clone();
    whole.backends = rule.backends.iter().map(|backend| backend.share(Ok(0))).collect();
    let mistakes: Vec<String> = whole
        .mistakes()
        .iter()
        .map(|mistake| format!("{at}.{mistake}"))
        .collect();
    if !mistakes.is_empty() {
        rule.refuse(Problem {
            reason: Reason::UnsupportedValue,
            message: mistakes.join("; "),
        });
    }
    rule
}

/// A port, or a mistake.
fn port_number(number: i64, at: &str, mistakes: &mut Mistakes) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        mistakes.push(format!("{at}.port {number} is not a port from 1 to 65535"));
    }
    port
}

impl Backend {
    /// As the `route` crate has it, with the index that it has in its table, or the reason why it has none.
    pub fn share(&self, backend: Result<u32, Arc<str>>) -> rule::WeightedBackend {
        rule::WeightedBackend {
            backend,
            weight: self.weight,
            filters: self.filters.clone(),
        }
    }
}
