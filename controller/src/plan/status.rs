//! What is to be said of a route: does each parent take it, are all references found, what is not supported.

use super::{backends, parent_takes};
use crate::{
    cluster::Cluster,
    translate::{Problem, Reason, Route},
};

/// What is wrong with a route, in the order in which it stands in the object. Empty: it acts as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Every problem once.
    pub problems: Vec<Problem>,
}

/// Looks a route up in its cluster.
pub fn status(cluster: &Cluster, route: &Route) -> Status {
    let mut problems = route.problems.clone();
    for parent in &route.parents {
        let key = &parent.service;
        let no_parent = |message| Problem {
            reason: Reason::NoMatchingParent,
            message,
        };
        match cluster.service_named(key) {
            None => problems.push(no_parent(format!("the parent Service {key} is not there"))),
            Some(service) if !service.ports.iter().any(|port| parent_takes(parent, port)) => {
                let section = parent
                    .section
                    .as_deref()
                    .map(|name| format!(" named '{name}'"))
                    .unwrap_or_default();
                let number = parent.port.map(|port| format!(" {port}")).unwrap_or_default();
                problems.push(no_parent(format!(
                    "the parent Service {key} has no TCP port{number}{section}"
                )));
            }
            Some(_) => {}
        }
    }
    for rule in &route.rules {
        problems.extend(rule.refused.clone());
        for backend in &rule.backends {
            match &backend.target {
                Err(problem) => problems.push(problem.clone()),
                Ok(target) => problems.extend(backends::port(cluster, target).err().map(|problem| Problem {
                    message: format!("rule {}: {}", rule.rule.origin.rule_label(), problem.message),
                    ..problem
                })),
            }
        }
    }
    let mut unique = Vec::new();
    problems.retain(|problem| {
        !unique.contains(problem) && {
            unique.push(problem.clone());
            true
        }
    });
    Status { problems }
}
