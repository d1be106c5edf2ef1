//! References to backends.

use std::fmt;

use weft_route::rule::{self, Kind};

use super::{Backend, Problem, Reason, Rule, filter, port_number};
use crate::{
    cluster::{read::Mistakes, types::ObjectKey},
    objects::BackendRef,
};

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

/// Reads the backends of a rule. Mirrors of their filters go to the rule's.
pub(super) fn backends(kind: Kind, given: &[BackendRef], at: &str, rule: &mut Rule, mistakes: &mut Mistakes) {
    for (index, backend) in given.iter().enumerate() {
        let at = format!("{at}.backendRefs[{index}]");
        let weight = u32::try_from(backend.weight).ok().filter(|weight| *weight <= 1_000_000);
        if weight.is_none() {
            mistakes.push(format!("{at}.weight {} is not from 0 to 1000000", backend.weight));
        }
        let (filters, unsupported) = match filter::filters(kind, &backend.filters, &at, rule, mistakes) {
            Ok(filters) => (filters, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let target = target(backend, &rule.rule.origin.namespace, &at, mistakes);
        rule.backends.push(Backend {
            target: unsupported.map_or(target, Err),
            weight: weight.unwrap_or(1),
            filters,
        });
    }
}

/// What a reference of a route in `namespace` names, or why it can be no backend.
pub(super) fn target(
    backend: &BackendRef,
    namespace: &str,
    at: &str,
    mistakes: &mut Mistakes,
) -> Result<ServicePortName, Problem> {
    if (backend.group.as_str(), backend.kind.as_str()) != ("", "Service") {
        return Err(Problem {
            reason: Reason::InvalidKind,
            message: format!(
                "{at} is of kind {} in group '{}'; only a Service of group '' can be a backend",
                backend.kind, backend.group
            ),
        });
    }
    let port = match backend.port {
        Some(number) => port_number(number, at, mistakes),
        None => {
            mistakes.push(format!("{at}.port is missing; a Service needs one"));
            None
        }
    };
    // Without a port there is a mistake, and the object is refused.
    Ok(ServicePortName {
        service: ObjectKey::new(backend.namespace.as_deref().unwrap_or(namespace), &backend.name),
        port: port.unwrap_or(1),
    })
}

/// A rule that redirects has no backends (the CRD's own rule).
pub(super) fn check_redirect(rule: &Rule, at: &str, mistakes: &mut Mistakes) {
    let redirects = |filter: &rule::Filter| matches!(filter, rule::Filter::Redirect(_));
    if !rule.backends.is_empty() && rule.rule.filters.iter().any(redirects) {
        mistakes.push(format!("{at}: a RequestRedirect filter excludes backendRefs"));
    }
}
