//! What routes come to at Services: which of them act on a port, and which of their rules never decide anything.

use std::collections::{BTreeMap, HashMap};

use weft_route::{Conflict, Lost, Table, rule};

use crate::{
    cluster::{
        Cluster,
        types::{Key, ObjectKey, Service, ServiceKind},
    },
    plan::parent_takes,
    translate::{Parent, Problem, Reason, Route, Target},
};

/// All Services that are parents of routes, looked at once.
pub(super) struct Looked<'a> {
    cluster: &'a Cluster,
    shadowed: HashMap<(&'a Key, ObjectKey), Vec<String>>,
}

impl<'a> Looked<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut services: BTreeMap<&ObjectKey, Vec<&'a Route>> = BTreeMap::new();
        for route in cluster.routes().filter(|route| route.refused.is_none()) {
            for service in route.parent_services() {
                let routes = services.entry(service).or_default();
                if routes.last().is_none_or(|last| last.key != route.key) {
                    routes.push(route);
                }
            }
        }
        let mut shadowed: HashMap<_, Vec<String>> = HashMap::new();
        // A route that is alone with one rule has nobody in its way.
        let alone = |routes: &[&Route]| matches!(routes, [only] if only.rules.len() < 2);
        for (key, routes) in services.into_iter().filter(|(_, routes)| !alone(routes)) {
            let Some(service) = cluster.service_named(key) else {
                continue;
            };
            for (route, line) in lost_at(service, &routes) {
                let lines = shadowed.entry((route, key.clone())).or_default();
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        Self { cluster, shadowed }
    }

    /// Rules of a route that never decide anything at a Service, in words.
    pub(super) fn shadowed(&self, route: &'a Key, service: &ObjectKey) -> &[String] {
        let lines = self.shadowed.get(&(route, service.clone()));
        lines.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a parent that is a Service takes a route.
    pub(super) fn takes(&self, parent: &Parent, key: &ObjectKey) -> Result<(), Problem> {
        let problem = |message| {
            Err(Problem {
                reason: Reason::NoMatchingParent,
                message,
            })
        };
        let Some(service) = self.cluster.service_named(key) else {
            return problem(format!("there is no Service {key}"));
        };
        if service.kind == ServiceKind::ExternalName {
            return problem(format!(
                "the Service {key} is of type ExternalName, through which no traffic goes"
            ));
        }
        if service.ports.iter().any(|port| parent_takes(parent, port)) {
            return Ok(());
        }
        let section = parent
            .section
            .as_deref()
            .map(|name| format!(" named '{name}'"))
            .unwrap_or_default();
        let number = parent.port.map(|port| format!(" {port}")).unwrap_or_default();
        problem(format!("the Service {key} has no TCP port{number}{section}"))
    }
}

/// Rules that lose at a Service, as the table of each of its ports finds it.
fn lost_at<'a>(service: &Service, routes: &[&'a Route]) -> Vec<(&'a Key, String)> {
    let mut lost = Vec::new();
    for port in &service.ports {
        let takes = |route: &Route| {
            route.parents.iter().any(|parent| {
                matches!(&parent.target, Target::Service(key) if *key == service.key) && parent_takes(parent, port)
            })
        };
        // Consumer routes act in place of the Service's own, for the clients of their namespace.
        let mut by_namespace: BTreeMap<&str, Vec<&'a Route>> = BTreeMap::new();
        for route in routes.iter().filter(|route| takes(route)) {
            by_namespace.entry(&route.key.object.namespace).or_default().push(route);
        }
        for routes in by_namespace.values() {
            let all = routes
                .iter()
                .flat_map(|route| route.rules.iter().map(|rule| rule.rule.clone()));
            lost.extend(words(all.collect(), routes.iter().map(|route| &route.key)));
        }
    }
    lost
}

/// The conflicts of one table in words, each with the route that loses.
pub(super) fn words<'a>(rules: Vec<rule::Rule>, routes: impl Iterator<Item = &'a Key>) -> Vec<(&'a Key, String)> {
    let (_, conflicts) = Table::compile(rules);
    if conflicts.is_empty() {
        return Vec::new();
    }
    let by_name: HashMap<(&str, &str, &str), &'a Key> = routes
        .map(|key| ((key.kind.name(), &*key.object.namespace, &*key.object.name), key))
        .collect();
    let named = |conflict: &Conflict| {
        let loser = &conflict.loser;
        let key = by_name.get(&(loser.kind.as_str(), &*loser.namespace, &*loser.name))?;
        // What is not valid was said when the route was translated.
        matches!(conflict.lost, Lost::Shadowed { .. }).then(|| (*key, conflict.to_string()))
    };
    conflicts.iter().filter_map(named).collect()
}
