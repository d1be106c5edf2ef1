//! Which routes attach to which listeners, with which hosts, and why the others do not.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    hosts::{self, Taken},
    listeners::{Listener, View, namespaces_hold},
};
use crate::{
    cluster::{
        Cluster,
        types::{Key, Kind},
    },
    translate::{Parent, Problem, Reason, Route, Target},
};

/// The routes of a Gateway and of its ListenerSets.
#[derive(Debug, Default)]
pub struct Attached<'a> {
    /// For each listener of the view its routes, in the order of their kinds and names.
    pub listeners: Vec<Vec<Here<'a>>>,
    /// Of each route and each of its parents that is this Gateway or a set of it: whether it is attached.
    pub parents: HashMap<(&'a Key, usize), Result<(), Problem>>,
}

/// A route at a listener.
#[derive(Clone, Debug)]
pub struct Here<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// The hosts that route and listener have in common; empty: every host.
    pub hosts: Vec<Arc<str>>,
}

impl<'a> Attached<'a> {
    /// Finds them.
    pub fn new(cluster: &'a Cluster, view: &View<'_>) -> Self {
        let mut attached = Self {
            listeners: vec![Vec::new(); view.listeners.len()],
            parents: HashMap::new(),
        };
        let mut found: HashMap<(&'a Key, usize), Vec<usize>> = HashMap::new();
        let own = (None, Target::Gateway(view.gateway.key.clone()));
        let sets = view.sets.iter().enumerate();
        let sets = sets.map(|(index, one)| (Some(index), Target::ListenerSet(one.set.key.clone())));
        for (set, target) in std::iter::once(own).chain(sets) {
            for route in cluster.routes_of(&target) {
                let parents = route.parents.iter().enumerate();
                for (index, parent) in parents.filter(|(_, parent)| parent.target == target) {
                    let taken = attached.attach(cluster, view, set, route, parent);
                    let outcome = taken.map(|listeners| drop(found.insert((&route.key, index), listeners)));
                    attached.parents.insert((&route.key, index), outcome);
                }
            }
        }
        attached.settle(&found);
        attached
    }

    /// Attaches a route to the listeners that one of its parents means; which they are, or why there are none.
    fn attach(
        &mut self,
        cluster: &Cluster,
        view: &View<'_>,
        set: Option<usize>,
        route: &'a Arc<Route>,
        parent: &Parent,
    ) -> Result<Vec<usize>, Problem> {
        let problem = |reason, message| Err(Problem { reason, message });
        if set.is_some_and(|index| !view.sets[index].allowed) {
            let message = "the Gateway does not allow this ListenerSet".to_owned();
            return problem(Reason::NotAllowedByListeners, message);
        }
        if let Some(refused) = &route.refused {
            return Err(refused.clone());
        }
        let meant = |listener: &Listener<'_>| {
            parent.port.is_none_or(|port| port == listener.spec.port)
                && parent.section.as_ref().is_none_or(|name| **name == *listener.spec.name)
        };
        let meant: Vec<_> = view.of(set).filter(|(_, listener)| meant(listener)).collect();
        if meant.is_empty() {
            return problem(Reason::NoMatchingParent, no_listener(view, set, parent));
        }
        let kind = route.key.kind;
        let allowed = |listener: &Listener<'_>| {
            listener.takes_routes() && listener.kinds.contains(&kind) && allows(cluster, view, listener, route)
        };
        let allowed: Vec<_> = meant.into_iter().filter(|(_, listener)| allowed(listener)).collect();
        if allowed.is_empty() {
            let message = format!(
                "no listener that is meant takes routes of the kind {} from the namespace {}",
                kind.name(),
                route.key.object.namespace
            );
            return problem(Reason::NotAllowedByListeners, message);
        }
        let mut taken = Vec::new();
        for (index, listener) in allowed {
            // "hostname must not be specified for protocols TCP, UDP", and a TCPRoute has none.
            let hosts = if kind == Kind::TcpRoute {
                Some(Vec::new())
            } else {
                hosts::at_listener(listener.hostname.as_ref(), &route.hosts)
            };
            let Some(hosts) = hosts else { continue };
            taken.push(index);
            let here = &mut self.listeners[index];
            // The parent before this one may have said it already.
            if here.last().is_none_or(|last| last.route.key != route.key) {
                here.push(Here { route, hosts });
            }
        }
        if taken.is_empty() {
            let message = format!(
                "the hostnames {} are those of no listener that is meant",
                route.hosts.join(", ")
            );
            return problem(Reason::NoMatchingListenerHostname, message);
        }
        Ok(taken)
    }

    /// "If a Route (A) of type HTTPRoute or GRPCRoute is attached to a Listener and that listener already has another Route (B) of the
    /// other type attached and the intersection of the hostnames of A and B is non-empty, then the implementation MUST accept exactly
    /// one of these two routes": the older, then the first by name.
    fn settle(&mut self, found: &HashMap<(&'a Key, usize), Vec<usize>>) {
        let mut rejected: HashMap<(&Key, usize), &Key> = HashMap::new();
        for (index, here) in self.listeners.iter_mut().enumerate() {
            let has = |kind| here.iter().any(|one| one.route.key.kind == kind);
            if !(has(Kind::HttpRoute) && has(Kind::GrpcRoute)) {
                continue;
            }
            let mut order: Vec<&Here<'_>> = here.iter().collect();
            order.sort_by_key(|one| (one.route.created, &one.route.key.object, one.route.key.kind));
            let (mut http, mut grpc): (Taken<&Key>, Taken<&Key>) = Default::default();
            let mut lost: HashSet<&Key> = HashSet::new();
            for one in order {
                let (own, others) = match one.route.key.kind {
                    Kind::HttpRoute => (&mut http, &grpc),
                    _ => (&mut grpc, &http),
                };
                match others.meets(&one.hosts) {
                    Some(winner) => {
                        rejected.insert((&one.route.key, index), winner);
                        lost.insert(&one.route.key);
                    }
                    None => own.add(&one.hosts, &one.route.key),
                }
            }
            here.retain(|one| !lost.contains(&one.route.key));
        }
        if rejected.is_empty() {
            return;
        }
        for ((route, parent), listeners) in found {
            let winners: Vec<_> = listeners
                .iter()
                .map(|listener| rejected.get(&(*route, *listener)))
                .collect();
            if let Some(Some(winner)) = winners.first()
                && winners.iter().all(Option::is_some)
            {
                let message = format!("the {winner} has the same listener and host, and came first");
                let problem = Problem {
                    reason: Reason::Conflicted,
                    message,
                };
                self.parents.insert((route, *parent), Err(problem));
            }
        }
    }
}

fn allows(cluster: &Cluster, view: &View<'_>, listener: &Listener<'_>, route: &Route) -> bool {
    let (own, namespace) = (view.namespace(listener), &route.key.object.namespace);
    let allowed = listener.spec.allowed_routes.as_ref();
    match allowed.and_then(|allowed| allowed.namespaces.as_ref()) {
        None => own == namespace,
        Some(namespaces) => namespaces_hold(cluster, namespaces, "Same", own, namespace),
    }
}

fn no_listener(view: &View<'_>, set: Option<usize>, parent: &Parent) -> String {
    let section = parent
        .section
        .as_deref()
        .map(|name| format!(" named '{name}'"))
        .unwrap_or_default();
    let port = parent.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let names: Vec<_> = view
        .of(set)
        .map(|(_, listener)| format!("{} ({})", listener.spec.name, listener.spec.port))
        .collect();
    format!("there is no listener{section}{port}; there are: {}", names.join(", "))
}
