//! References to Services: as parents, and as backends.

use weft_route::rule::{self, Kind};

use super::{Backend, Parent, Problem, Reason, ServicePortName, filter};
use crate::{
    cluster::{read::Mistakes, types::ObjectKey},
    objects::{BackendRef, ParentRef},
};

/// The Services that a route attaches to. Gateways and other kinds are someone else's business.
pub(super) fn parents(
    given: &[ParentRef],
    namespace: &str,
    problems: &mut Vec<Problem>,
    mistakes: &mut Mistakes,
) -> Vec<Parent> {
    let mut parents = Vec::new();
    for (index, parent) in given.iter().enumerate() {
        if (parent.group.as_str(), parent.kind.as_str()) != ("", "Service") {
            if parent.kind == "Service" {
                problems.push(Problem {
                    reason: Reason::NoMatchingParent,
                    message: format!(
                        "parentRefs[{index}] is of group '{}'; a Service needs group: \"\"",
                        parent.group
                    ),
                });
            }
            continue;
        }
        let at = format!("spec.parentRefs[{index}]");
        let port = parent.port.map(|number| port_number(number, &at, mistakes));
        parents.push(Parent {
            service: ObjectKey::new(parent.namespace.as_deref().unwrap_or(namespace), &parent.name),
            port: port.flatten(),
            section: parent.section_name.as_deref().map(Into::into),
        });
    }
    parents
}

fn port_number(number: i64, at: &str, mistakes: &mut Mistakes) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        mistakes.push(format!("{at}.port {number} is not a port from 1 to 65535"));
    }
    port
}

/// The backends of a rule.
pub(super) fn backends(
    kind: Kind,
    given: &[BackendRef],
    namespace: &str,
    at: &str,
    mistakes: &mut Mistakes,
) -> Vec<Backend> {
    let one = |(index, backend): (usize, &BackendRef)| {
        let at = format!("{at}.backendRefs[{index}]");
        let weight = u32::try_from(backend.weight).ok().filter(|weight| *weight <= 1_000_000);
        if weight.is_none() {
            mistakes.push(format!("{at}.weight {} is not from 0 to 1000000", backend.weight));
        }
        let (filters, unsupported) = match filter::filters(kind, &backend.filters, &at, mistakes) {
            Ok(filters) => (filters, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let target = target(backend, namespace, &at, mistakes);
        Backend {
            target: unsupported.map_or(target, Err),
            weight: weight.unwrap_or(1),
            filters,
        }
    };
    given.iter().enumerate().map(one).collect()
}

fn target(
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
    // A Service of another namespace needs no grant in a route whose parent is a Service (GEP-1294, "Namespace boundaries"): who
    // calls the parent can call that Service too.
    // Without a port there is a mistake, and the object is refused.
    Ok(ServicePortName {
        service: ObjectKey::new(backend.namespace.as_deref().unwrap_or(namespace), &backend.name),
        port: port.unwrap_or(1),
    })
}

/// A rule that redirects has no backends (the CRD's own rule).
pub(super) fn check_redirect(filters: &[rule::Filter], backends: &[Backend], at: &str, mistakes: &mut Mistakes) {
    if !backends.is_empty() && filters.iter().any(|filter| matches!(filter, rule::Filter::Redirect(_))) {
        mistakes.push(format!("{at}: a RequestRedirect filter excludes backendRefs"));
    }
}
