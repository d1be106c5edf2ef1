//! The objects of the Gateway API in the snapshot, with the Secrets and ConfigMaps that they refer to.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Cluster, ConfigMap, Dependency, Key, Kind, Object, ObjectKey, Observed, Secret, Touched, index, unindex, values,
};
use crate::{
    gateway::{
        object_name,
        objects::{BackendTlsPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant},
    },
    objects::policy::{GrantFrom, GrantTo},
    translate::{Route, Target},
};

impl Cluster {
    pub(super) fn apply_gateway_api(&mut self, object: Object, touched: &mut Touched) {
        let key = object.key();
        match object {
            Object::Route(observed, route) => {
                self.observed.insert(key.clone(), observed);
                self.route(key, Some(Arc::new(route)), touched);
            }
            Object::GatewayClass(observed, class) => {
                self.observed.insert(key, observed);
                if self.classes.get(&class.name) != Some(&class) {
                    touched.dependencies.insert(Dependency::Routing);
                    self.classes.insert(class.name.clone(), class);
                }
            }
            Object::Gateway(observed, gateway) => {
                self.observed.insert(key, observed);
                if self.gateways.get(&gateway.key) != Some(&gateway) {
                    touched.dependencies.insert(Dependency::Routing);
                    self.gateways.insert(gateway.key.clone(), gateway);
                }
            }
            Object::ListenerSet(observed, set) => {
                self.observed.insert(key, observed);
                self.listener_set(set.key.clone(), Some(Arc::new(set)), touched);
            }
            Object::BackendTlsPolicy(observed, policy) => {
                self.observed.insert(key, observed);
                self.policy(policy.key.clone(), Some(Arc::new(policy)), touched);
            }
            Object::ReferenceGrant(grant) if self.grants.get(&grant.key) != Some(&grant) => {
                self.touch_grants(&grant.key.namespace, touched);
                self.grants.insert(grant.key.clone(), grant);
            }
            Object::Secret(secret) if self.secrets.get(&secret.key) != Some(&secret) => {
                self.touch_references(&secret.key.namespace, touched);
                self.secrets.insert(secret.key.clone(), secret);
            }
            Object::ConfigMap(map) if self.config_maps.get(&map.key) != Some(&map) => {
                self.touch_references(&map.key.namespace, touched);
                self.config_maps.insert(map.key.clone(), map);
            }
            // The others are no business of this, or as they were.
            _ => {}
        }
    }

    pub(super) fn delete_gateway_api(&mut self, key: Key, touched: &mut Touched) {
        self.observed.remove(&key);
        let object = key.object.clone();
        match key.kind {
            kind if kind.is_route() => self.route(key, None, touched),
            Kind::ListenerSet => self.listener_set(object, None, touched),
            Kind::BackendTlsPolicy => self.policy(object, None, touched),
            Kind::GatewayClass if self.classes.remove(&object.name).is_some() => {
                touched.dependencies.insert(Dependency::Routing);
            }
            Kind::Gateway if self.gateways.remove(&object).is_some() => {
                touched.dependencies.insert(Dependency::Routing);
            }
            Kind::ReferenceGrant if self.grants.remove(&object).is_some() => {
                self.touch_grants(&object.namespace, touched);
            }
            Kind::Secret if self.secrets.remove(&object).is_some() => {
                self.touch_references(&object.namespace, touched);
            }
            Kind::ConfigMap if self.config_maps.remove(&object).is_some() => {
                self.touch_references(&object.namespace, touched);
            }
            _ => {}
        }
    }

    fn route(&mut self, key: Key, new: Option<Arc<Route>>, touched: &mut Touched) {
        if self.routes.get(&key) == new.as_ref() {
            return;
        }
        if let Some(old) = self.routes.remove(&key) {
            for parent in &old.parents {
                touched.parent(&parent.target);
                unindex(&mut self.routes_by_parent, &parent.target, &key);
            }
            for service in foreign(&old) {
                unindex(&mut self.routes_by_foreign, &service.namespace, &key);
            }
        }
        if let Some(route) = new {
            for parent in &route.parents {
                touched.parent(&parent.target);
                index(&mut self.routes_by_parent, parent.target.clone(), key.clone());
            }
            for service in foreign(&route) {
                index(&mut self.routes_by_foreign, service.namespace.clone(), key.clone());
            }
            self.routes.insert(key, route);
        }
    }

    fn listener_set(&mut self, key: ObjectKey, new: Option<Arc<ListenerSet>>, touched: &mut Touched) {
        if self.listener_sets.get(&key) == new.as_ref() {
            return;
        }
        touched.dependencies.insert(Dependency::Routing);
        if let Some(gateway) = self.listener_sets.remove(&key).and_then(|old| old.gateway()) {
            unindex(&mut self.sets_by_gateway, &gateway, &key);
        }
        if let Some(set) = new {
            if let Some(gateway) = set.gateway() {
                index(&mut self.sets_by_gateway, gateway, key.clone());
            }
            self.listener_sets.insert(key, set);
        }
    }

    fn policy(&mut self, key: ObjectKey, new: Option<Arc<BackendTlsPolicy>>, touched: &mut Touched) {
        if self.policies.get(&key) == new.as_ref() {
            return;
        }
        touched.dependencies.insert(Dependency::Routing);
        if let Some(old) = self.policies.remove(&key) {
            for service in old.services() {
                touched.service(&service);
                unindex(&mut self.policies_by_service, &service, &key);
            }
            unindex(&mut self.policies_by_namespace, &key.namespace, &key);
        }
        if let Some(policy) = new {
            for service in policy.services() {
                touched.service(&service);
                index(&mut self.policies_by_service, service, key.clone());
            }
            index(&mut self.policies_by_namespace, key.namespace.clone(), key.clone());
            self.policies.insert(key, policy);
        }
    }

    /// A grant decides over references from outside of its namespace.
    fn touch_grants(&self, namespace: &Arc<str>, touched: &mut Touched) {
        touched.dependencies.insert(Dependency::Routing);
        for route in values(&self.routes_by_foreign, namespace).filter_map(|key| self.routes.get(key)) {
            route.parents.iter().for_each(|parent| touched.parent(&parent.target));
        }
    }

    /// A Secret or ConfigMap holds what policies of its namespace check servers by.
    fn touch_references(&self, namespace: &Arc<str>, touched: &mut Touched) {
        touched.dependencies.insert(Dependency::Routing);
        for policy in values(&self.policies_by_namespace, namespace).filter_map(|key| self.policies.get(key)) {
            policy.services().for_each(|service| touched.service(&service));
        }
    }

    /// A snapshot with so much of this one as decides what these objects may refer to: classes, grants, and the Gateways of ListenerSets.
    pub fn of_references(&self, objects: &[&Object]) -> Cluster {
        let sets = objects.iter().filter_map(|object| match object {
            Object::ListenerSet(_, set) => set.gateway(),
            _ => None,
        });
        let gateways = sets.filter_map(|key| Some((key.clone(), self.gateways.get(&key)?.clone())));
        Cluster {
            classes: self.classes.clone(),
            grants: self.grants.clone(),
            gateways: gateways.collect(),
            ..Cluster::default()
        }
    }

    /// What statuses are made of: without pods, and with no more EndpointSlices than those of gateways. It costs a fraction of them, so
    /// that nobody has to wait while they are made.
    pub fn for_statuses(&self) -> Cluster {
        let mut part = Cluster {
            namespaces: self.namespaces.clone(),
            services: self.services.clone(),
            routes: self.routes.clone(),
            classes: self.classes.clone(),
            gateways: self.gateways.clone(),
            listener_sets: self.listener_sets.clone(),
            policies: self.policies.clone(),
            grants: self.grants.clone(),
            secrets: self.secrets.clone(),
            config_maps: self.config_maps.clone(),
            observed: self.observed.clone(),
            routes_by_parent: self.routes_by_parent.clone(),
            sets_by_gateway: self.sets_by_gateway.clone(),
            policies_by_service: self.policies_by_service.clone(),
            ..Cluster::default()
        };
        for gateway in self.gateways.keys() {
            let service = ObjectKey::new(&gateway.namespace, &object_name(&gateway.name));
            for slice in self.slices_of(&service) {
                index(&mut part.slices_by_service, service.clone(), slice.key.clone());
                part.slices.insert(slice.key.clone(), slice.clone());
            }
        }
        part
    }

    /// The routes that refer to a parent, in the order of their kinds and names.
    pub fn routes_of<'a>(&'a self, parent: &Target) -> impl Iterator<Item = &'a Arc<Route>> + use<'a> {
        values(&self.routes_by_parent, parent).filter_map(|key| self.routes.get(key))
    }

    /// All routes, in the order of their kinds and names.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// A route by name.
    pub fn route_named(&self, key: &Key) -> Option<&Arc<Route>> {
        self.routes.get(key)
    }

    /// All GatewayClasses, those of others too, in the order of their names.
    pub fn gateway_classes(&self) -> impl Iterator<Item = &GatewayClass> {
        self.classes.values()
    }

    /// A GatewayClass by name.
    pub fn gateway_class_named(&self, name: &str) -> Option<&GatewayClass> {
        self.classes.get(name)
    }

    /// All Gateways, those of other classes too, in the order of their names.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }

    /// A Gateway by name.
    pub fn gateway_named(&self, key: &ObjectKey) -> Option<&Arc<Gateway>> {
        self.gateways.get(key)
    }

    /// All ListenerSets, in the order of their names.
    pub fn listener_sets(&self) -> impl Iterator<Item = &Arc<ListenerSet>> {
        self.listener_sets.values()
    }

    /// A ListenerSet by name.
    pub fn listener_set_named(&self, key: &ObjectKey) -> Option<&Arc<ListenerSet>> {
        self.listener_sets.get(key)
    }

    /// The ListenerSets that name a Gateway as their parent, in the order of their names.
    pub fn listener_sets_of<'a>(&'a self, gateway: &ObjectKey) -> impl Iterator<Item = &'a Arc<ListenerSet>> + use<'a> {
        values(&self.sets_by_gateway, gateway).filter_map(|key| self.listener_sets.get(key))
    }

    /// All BackendTLSPolicies, in the order of their names.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<BackendTlsPolicy>> {
        self.policies.values()
    }

    /// The BackendTLSPolicies that are about a Service, in the order of their names.
    pub fn policies_of<'a>(&'a self, service: &ObjectKey) -> impl Iterator<Item = &'a Arc<BackendTlsPolicy>> + use<'a> {
        values(&self.policies_by_service, service).filter_map(|key| self.policies.get(key))
    }

    /// Whether a ReferenceGrant in `to`'s namespace allows the reference.
    pub fn is_granted(&self, from: (&str, &str, &str), to: (&str, &str, &ObjectKey)) -> bool {
        let first = ObjectKey {
            namespace: to.2.namespace.clone(),
            name: "".into(),
        };
        let there = self
            .grants
            .range(first..)
            .map(|(_, grant)| grant)
            .take_while(|grant| grant.key.namespace == to.2.namespace);
        let is_from = |one: &GrantFrom| (one.group.as_str(), one.kind.as_str(), one.namespace.as_str()) == from;
        let is_to = |one: &GrantTo| {
            let name = one.name.as_deref().filter(|name| !name.is_empty());
            (one.group.as_str(), one.kind.as_str()) == (to.0, to.1) && name.is_none_or(|name| name == &*to.2.name)
        };
        there
            .into_iter()
            .any(|grant: &ReferenceGrant| grant.spec.from.iter().any(is_from) && grant.spec.to.iter().any(is_to))
    }

    /// A Secret that was read since something refers to it.
    pub fn secret_named(&self, key: &ObjectKey) -> Option<&Secret> {
        self.secrets.get(key)
    }

    /// A ConfigMap that was read since something refers to it.
    pub fn config_map_named(&self, key: &ObjectKey) -> Option<&ConfigMap> {
        self.config_maps.get(key)
    }

    /// Of an object of the Gateway API what is said of it beside its specification.
    pub fn observed(&self, key: &Key) -> Option<&Observed> {
        self.observed.get(key)
    }

    /// A namespace's labels fulfil a selector; one that is not known fulfils none.
    pub fn namespace_holds(&self, name: &str, selector: &crate::objects::LabelSelector) -> bool {
        self.namespaces
            .get(name)
            .is_some_and(|namespace| selector.holds(&namespace.labels))
    }
}

impl Touched {
    fn parent(&mut self, parent: &Target) {
        match parent {
            Target::Service(service) => self.service(service),
            Target::Gateway(_) | Target::ListenerSet(_) => drop(self.dependencies.insert(Dependency::Routing)),
            Target::Other => {}
        }
    }
}

/// The backends of a route in other namespaces.
fn foreign(route: &Route) -> BTreeSet<&ObjectKey> {
    let services = route.backend_services();
    services
        .filter(|service| service.namespace != route.key.object.namespace)
        .collect()
}
