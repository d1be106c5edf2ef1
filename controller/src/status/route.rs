//! Statuses of routes: one entry for each parent that is weft's to speak for.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Value, json};
use weft_proto::names::gateway_api::CONTROLLER;

use super::{
    Conditions, Looked, OfGateway,
    conditions::{NOT_SUPPORTED, SHADOWED},
    service,
};
use crate::{
    cluster::{
        Cluster,
        types::{Key, ObjectKey},
    },
    gateway::{attach::Attached, listeners::View},
    plan::backends,
    translate::{Problem, Reason, Route, Target},
};

/// The most rules that a condition names: a status is for reading.
const NAMED: usize = 16;

/// The entries of a route's status.
pub(super) fn parents<'a>(looked: &Looked<'a>, services: &service::Looked<'a>, route: &'a Arc<Route>) -> Vec<Value> {
    let generation = looked.generation(&route.key);
    // At Gateways, and at Services, which need no grants.
    let (mut strict, mut free) = (None, None);
    let parents = route.parents.iter().enumerate().filter_map(|(index, parent)| {
        let (outcome, shadowed) = match &parent.target {
            Target::Service(key) => {
                let outcome = match &route.refused {
                    Some(refused) => Err(refused.clone()),
                    None => services.takes(parent, key),
                };
                (outcome, services.shadowed(&route.key, key))
            }
            Target::Gateway(key) => at_gateway(looked.gateways.get(key)?, route, index)?,
            Target::ListenerSet(key) => {
                let gateway = looked.cluster.listener_set_named(key)?.gateway()?;
                at_gateway(looked.gateways.get(&gateway)?, route, index)?
            }
            Target::Other => return None,
        };
        let at_service = matches!(parent.target, Target::Service(_));
        let references = if at_service { &mut free } else { &mut strict };
        let references = references.get_or_insert_with(|| resolve(looked.cluster, route, !at_service));
        Some(json!({
            "parentRef": parent.reference(),
            "controllerName": CONTROLLER,
            "conditions": conditions(route, outcome, references, shadowed, generation),
        }))
    });
    parents.collect()
}

fn at_gateway<'a>(of: &'a OfGateway<'_>, route: &Route, index: usize) -> Option<(Result<(), Problem>, &'a [String])> {
    let outcome = of.attached.parents.get(&(&route.key, index))?;
    let shadowed = of.shadowed.get(&route.key).map(Vec::as_slice).unwrap_or_default();
    Some((outcome.clone(), shadowed))
}

fn conditions(
    route: &Route,
    outcome: Result<(), Problem>,
    references: &[Problem],
    shadowed: &[String],
    generation: i64,
) -> Value {
    let mut conditions = Conditions::new(generation);
    let refused: Vec<(String, &Problem)> = route
        .rules
        .iter()
        .filter_map(|rule| Some((rule.rule.origin.rule_label(), rule.refused.as_ref()?)))
        .collect();
    let dropped = || {
        let lines = refused
            .iter()
            .map(|(label, problem)| format!("{label}: {}", problem.message));
        lines.collect::<Vec<_>>().join("; ")
    };
    let all_refused = !refused.is_empty() && refused.len() == route.rules.len();
    let accepted = match &outcome {
        Err(problem) => {
            conditions.set("Accepted", false, &problem.reason.to_string(), &problem.message);
            false
        }
        Ok(()) if all_refused => {
            let message = format!(
                "no rule can be carried out, and every request is answered 500: {}",
                dropped()
            );
            conditions.set("Accepted", false, "UnsupportedValue", &message);
            false
        }
        Ok(()) => {
            conditions.set("Accepted", true, "Accepted", "the parent takes this route");
            true
        }
    };
    match references.first() {
        Some(first) => {
            let all: Vec<&str> = references.iter().map(|problem| problem.message.as_str()).collect();
            conditions.set("ResolvedRefs", false, &first.reason.to_string(), &all.join("; "))
        }
        None => conditions.set("ResolvedRefs", true, "ResolvedRefs", "all references are good"),
    };
    if accepted && !refused.is_empty() {
        // "The message for this condition MUST start with the prefix "Dropped Rule"".
        let message = format!("Dropped Rule {}", dropped());
        conditions.set("PartiallyInvalid", true, "UnsupportedValue", &message);
    }
    // A filter of a backend that is not supported is no reference, though it takes the backend's place.
    let filters = route.targets().filter_map(|target| target.as_ref().err());
    let filters = filters.filter(|problem| problem.reason == Reason::UnsupportedValue);
    let problems = route
        .problems
        .iter()
        .chain(route.rules.iter().flat_map(|rule| &rule.problems));
    let problems = problems.chain(filters);
    let problems: Vec<&str> = problems.map(|problem| problem.message.as_str()).collect();
    if accepted && !problems.is_empty() {
        conditions.set(NOT_SUPPORTED, true, "UnsupportedValue", &problems.join("; "));
    }
    if accepted && !shadowed.is_empty() {
        let mut message = shadowed[..shadowed.len().min(NAMED)].join("; ");
        if shadowed.len() > NAMED {
            message.push_str(&format!("; and {} more", shadowed.len() - NAMED));
        }
        conditions.set(SHADOWED, true, "Shadowed", &message);
    }
    conditions.into_value()
}

/// What is wrong with the references of a route, each once, as its rules name them.
fn resolve(cluster: &Cluster, route: &Route, needs_grants: bool) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for rule in &route.rules {
        for target in rule.targets() {
            let found = target.as_ref().map_err(Clone::clone).and_then(|name| {
                if needs_grants {
                    backends::permitted(cluster, &route.key, name)?;
                }
                backends::port(cluster, name).map(drop)
            });
            let Err(problem) = found else { continue };
            // A filter that is not supported is no reference.
            if problem.reason == Reason::UnsupportedValue {
                continue;
            }
            let message = format!("rule {}: {}", rule.rule.origin.rule_label(), problem.message);
            let problem = Problem { message, ..problem };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems
}

/// Rules that never decide anything at the listeners of a Gateway, by their route.
pub(super) fn shadowed_at_gateway<'a>(view: &View<'a>, attached: &Attached<'a>) -> HashMap<&'a Key, Vec<String>> {
    let mut shadowed: HashMap<&'a Key, Vec<String>> = HashMap::new();
    for (listener, here) in view.listeners.iter().zip(&attached.listeners) {
        let rules = here.iter().flat_map(|one| {
            one.route.rules.iter().map(|rule| {
                let mut rule = rule.rule.clone();
                rule.hosts.clone_from(&one.hosts);
                rule
            })
        });
        let routes = here.iter().map(|one| &one.route.key);
        for (route, line) in service::words(rules.collect(), routes) {
            let line = format!("listener '{}': {line}", view.name(listener));
            shadowed.entry(route).or_default().push(line);
        }
    }
    shadowed
}

/// The Services that a route sends requests to, as far as it may.
pub(super) fn services<'a>(cluster: &Cluster, route: &'a Route) -> impl Iterator<Item = &'a ObjectKey> {
    let targets = route.targets().filter_map(|target| target.as_ref().ok());
    let permitted: Vec<_> = targets
        .filter(|name| backends::permitted(cluster, &route.key, name).is_ok())
        .map(|name| &name.service)
        .collect();
    permitted.into_iter()
}
