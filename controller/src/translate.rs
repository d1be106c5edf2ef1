//! Route objects → neutral rules. Pure, and about one object alone: whether the Services that it names exist is for
//! [`crate::plan`].
//!
//! What an API server would refuse is refused here too, all mistakes together. What is valid but not supported is kept as
//! a [`Problem`]: the rule then answers 500, as the Gateway API demands, and the status says why.

mod filter;
mod grpc_route;
mod http_route;
mod matching;
mod service;

use std::{fmt, sync::Arc};

use weft_route::rule::{self, Origin};

pub use grpc_route::translate as grpc_route;
pub use http_route::translate as http_route;
pub use weft_proto::duration::parse as parse_duration;

use crate::{
    cluster::{
        read::{self, Mistakes},
        types::{Key, Kind, ObjectKey, Service},
    },
    objects::{ParentRef, core::Meta},
};

/// A route, translated.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which object it is.
    pub key: Key,
    /// The Services that it attaches to. One of another namespace makes it a consumer route, which acts on clients of its own
    /// namespace alone.
    pub parents: Vec<Parent>,
    /// Its rules, in the order of the object.
    pub rules: Vec<Rule>,
    /// What is valid and not supported, of the whole route.
    pub problems: Vec<Problem>,
}

/// A Service that the route attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The Service.
    pub service: ObjectKey,
    /// Only the port with this number.
    pub port: Option<u16>,
    /// Only the port with this name.
    pub section: Option<Arc<str>>,
}

/// A rule whose backends are still names.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Everything but the backends.
    pub rule: rule::Rule,
    /// Where it sends requests.
    pub backends: Vec<Backend>,
    /// The rule needs something that weft cannot do: every request that it takes is answered 500.
    pub refused: Option<Problem>,
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

/// A port of a Service, by name and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// The Service.
    pub service: ObjectKey,
    /// The port's number.
    pub port: u16,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
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
    /// A parent that is not there, or has no such port.
    NoMatchingParent,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Route {
    /// The Services that it attaches to.
    pub fn parent_services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.parents.iter().map(|parent| &parent.service)
    }

    /// Whether it stands in another namespace than a Service, and so acts on its own namespace's clients of it.
    pub fn is_of_consumer(&self, service: &Service) -> bool {
        self.key.object.namespace != service.key.namespace
    }

    /// The Services that its rules send requests to.
    pub fn backend_services(&self) -> impl Iterator<Item = &ObjectKey> {
        let backends = self.rules.iter().flat_map(|rule| &rule.backends);
        backends
            .filter_map(|backend| backend.target.as_ref().ok())
            .map(|target| &target.service)
    }
}

/// What both kinds of routes have in common: a name, parents and rules. `name_of` is a rule's own name, and `one` translates it;
/// it is told where the rule stands.
fn route<R>(
    kind: (Kind, rule::Kind),
    metadata: &Meta,
    parents: &[ParentRef],
    rules: &[R],
    name_of: impl Fn(&R) -> &str,
    one: impl Fn(&R, Origin, &str, &mut Vec<Problem>, &mut Mistakes) -> Rule,
) -> Result<Route, Mistakes> {
    let object = read::key(metadata)?;
    let (mut mistakes, mut problems) = (Mistakes::new(), Vec::new());
    let parents = service::parents(parents, &object.namespace, &mut problems, &mut mistakes);
    let rules = rules.iter().enumerate().map(|(index, given)| {
        let created = read::created(metadata);
        let mut origin = Origin::new(kind.1, &object.namespace, &object.name, index as u32, created);
        origin.rule_name = name_of(given).into();
        one(
            given,
            origin,
            &format!("spec.rules[{index}]"),
            &mut problems,
            &mut mistakes,
        )
    });
    let rules = rules.collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let key = Key { kind: kind.0, object };
    Ok(Route {
        key,
        parents,
        rules,
        problems,
    })
}

/// Asks the `route` crate, too, which knows what it can compile. Not where the object's own mistakes say it already.
fn checked(rule: Rule, at: &str, mistakes_before: usize, mistakes: &mut Mistakes) -> Rule {
    if mistakes.len() == mistakes_before {
        let mut whole = rule.rule.clone();
        whole.backends = rule.backends.iter().map(|backend| backend.share(Ok(0))).collect();
        mistakes.extend(whole.mistakes().into_iter().map(|mistake| format!("{at}.{mistake}")));
    }
    rule
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
