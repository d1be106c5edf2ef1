//! A plain snapshot of what weft needs to know of a cluster: compact, indexed, without I/O.
//!
//! Sources feed it with [`Change`]s; [`Cluster::apply`] says what each of them touched, so that only the answers that
//! depend on it are made anew. Objects arrive here already read and checked ([`read`], [`crate::translate`]).

mod gateway_api;
pub mod read;
pub mod types;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

pub use types::{
    Certificate, ConfigMap, Key, Kind, Namespace, Object, ObjectKey, Observed, Pod, Ranges, Secret, Service,
    ServiceKind, ServicePort, Slice, SliceEndpoint, SlicePort,
};

use weft_proto::skip::Cidrs;

use crate::{
    gateway::objects::{BackendTlsPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant},
    translate::{Route, Target},
};

/// A change of one object.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is so now.
    Apply(Box<Object>),
    /// It is no more.
    Delete(Key),
}

/// Something that an answer can depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// What an address belongs to, and what is known of it.
    Address(IpAddr),
    /// A Service, its endpoints and the rules attached to it.
    Service(ObjectKey),
    /// A namespace's labels.
    Namespace(Arc<str>),
    /// The cluster's ranges of addresses.
    Ranges,
    /// Anything that a gateway's answer is made of, beside its backends: objects of the Gateway API, namespaces' labels, Secrets and
    /// ConfigMaps. One for all gateways: their answers are made anew together, once for each batch of changes.
    Routing,
}

/// What some changes touched.
#[derive(Debug, Default)]
pub struct Touched {
    /// What answers may depend on.
    pub dependencies: HashSet<Dependency>,
}

impl Touched {
    fn address(&mut self, address: IpAddr) {
        self.dependencies.insert(Dependency::Address(address));
    }

    fn service(&mut self, service: &ObjectKey) {
        self.dependencies.insert(Dependency::Service(service.clone()));
    }
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct Cluster {
    namespaces: HashMap<Arc<str>, Namespace>,
    pods: HashMap<ObjectKey, Pod>,
    services: HashMap<ObjectKey, Service>,
    slices: HashMap<ObjectKey, Slice>,
    routes: BTreeMap<Key, Arc<Route>>,
    classes: BTreeMap<Arc<str>, GatewayClass>,
    gateways: BTreeMap<ObjectKey, Arc<Gateway>>,
    listener_sets: BTreeMap<ObjectKey, Arc<ListenerSet>>,
    policies: BTreeMap<ObjectKey, Arc<BackendTlsPolicy>>,
    grants: BTreeMap<ObjectKey, ReferenceGrant>,
    secrets: BTreeMap<ObjectKey, Secret>,
    config_maps: BTreeMap<ObjectKey, ConfigMap>,
    /// Of the objects of the Gateway API.
    observed: HashMap<Key, Observed>,
    ranges: BTreeMap<Key, Cidrs>,
    /// All of them together.
    all_ranges: Cidrs,
    /// Pods that should be in the mesh and are not.
    unmeshed: BTreeSet<ObjectKey>,
    // Indexes. Sets are ordered, so that equal clusters give equal answers.
    service_by_address: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    pods_by_address: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    slices_by_service: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    slices_by_endpoint: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    slices_by_pod: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    routes_by_parent: HashMap<Target, BTreeSet<Key>>,
    /// Routes with a backend in another namespace, by that namespace.
    routes_by_foreign: HashMap<Arc<str>, BTreeSet<Key>>,
    sets_by_gateway: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    policies_by_service: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Policies by the namespace that they and what they refer to are in.
    policies_by_namespace: HashMap<Arc<str>, BTreeSet<ObjectKey>>,
}

fn index<K: std::hash::Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

fn unindex<K: std::hash::Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

fn values<'a, K: std::hash::Hash + Eq, V>(
    map: &'a HashMap<K, BTreeSet<V>>,
    key: &K,
) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
    map.get(key).into_iter().flatten()
}

impl Cluster {
    /// Takes a change in, and adds to `touched` what it may have changed.
    pub fn apply(&mut self, change: Change, touched: &mut Touched) {
        match change {
            Change::Apply(object) => match *object {
                Object::Namespace(namespace) => self.namespace(namespace.name.clone(), Some(namespace), touched),
                Object::Pod(pod) => self.pod(pod.key.clone(), Some(pod), touched),
                Object::Service(service) => self.service(service.key.clone(), Some(service), touched),
                Object::Slice(slice) => self.slice(slice.key.clone(), Some(slice), touched),
                Object::Ranges(ranges) => self.ranges(ranges.key, Some(ranges.cidrs), touched),
                other => self.apply_gateway_api(other, touched),
            },
            Change::Delete(key) => match key.kind {
                Kind::Namespace => self.namespace(key.object.name, None, touched),
                Kind::Pod => self.pod(key.object, None, touched),
                Kind::Service => self.service(key.object, None, touched),
                Kind::EndpointSlice => self.slice(key.object, None, touched),
                Kind::Node | Kind::ServiceCidr => self.ranges(key, None, touched),
                _ => self.delete_gateway_api(key, touched),
            },
        }
    }

    fn namespace(&mut self, name: Arc<str>, new: Option<Namespace>, touched: &mut Touched) {
        if self.namespaces.get(&name) == new.as_ref() {
            return;
        }
        touched.dependencies.insert(Dependency::Namespace(name.clone()));
        // Selectors look at labels.
        let labels = |namespace: Option<&Namespace>| namespace.map(|namespace| namespace.labels.clone());
        if labels(self.namespaces.get(&name)) != labels(new.as_ref()) {
            touched.dependencies.insert(Dependency::Routing);
        }
        let injected = |namespace: Option<&Namespace>| namespace.is_some_and(|namespace| namespace.injected);
        let (before, after) = (injected(self.namespaces.get(&name)), injected(new.as_ref()));
        if before != after {
            self.unmeshed.retain(|pod| pod.namespace != name);
        }
        if after && !before {
            let bare = self.pods.values().filter(|pod| pod.bare && pod.key.namespace == name);
            self.unmeshed.extend(bare.map(|pod| pod.key.clone()));
        }
        match new {
            Some(namespace) => self.namespaces.insert(name, namespace),
            None => self.namespaces.remove(&name),
        };
    }

    fn ranges(&mut self, key: Key, new: Option<Cidrs>, touched: &mut Touched) {
        match new {
            Some(cidrs) => self.ranges.insert(key, cidrs),
            None => self.ranges.remove(&key),
        };
        let all = self.ranges.values().flat_map(|cidrs| cidrs.ranges().iter().copied());
        let all: Cidrs = all.collect();
        if all != self.all_ranges {
            self.all_ranges = all;
            touched.dependencies.insert(Dependency::Ranges);
        }
    }

    fn pod(&mut self, key: ObjectKey, new: Option<Pod>, touched: &mut Touched) {
        if self.pods.get(&key) == new.as_ref() {
            return;
        }
        if let Some(old) = self.pods.remove(&key) {
            for address in old.addresses() {
                unindex(&mut self.pods_by_address, address, &key);
            }
            self.touch_pod(&old, touched);
            self.unmeshed.remove(&key);
        }
        if let Some(pod) = new {
            if pod.bare
                && self
                    .namespaces
                    .get(&key.namespace)
                    .is_some_and(|namespace| namespace.injected)
            {
                self.unmeshed.insert(key.clone());
            }
            self.touch_pod(&pod, touched);
            for address in pod.addresses() {
                index(&mut self.pods_by_address, *address, key.clone());
            }
            self.pods.insert(key, pod);
        }
    }

    fn touch_pod(&self, pod: &Pod, touched: &mut Touched) {
        let at = pod
            .addresses()
            .flat_map(|address| values(&self.slices_by_endpoint, address));
        for slice in at
            .chain(values(&self.slices_by_pod, &pod.key))
            .filter_map(|key| self.slices.get(key))
        {
            touched.service(&slice.service);
        }
        pod.addresses().for_each(|address| touched.address(*address));
    }

    fn service(&mut self, key: ObjectKey, new: Option<Service>, touched: &mut Touched) {
        if self.services.get(&key) == new.as_ref() {
            return;
        }
        touched.service(&key);
        // What a port speaks is also said of the pods behind it.
        for slice in values(&self.slices_by_service, &key).filter_map(|key| self.slices.get(key)) {
            slice.addresses().for_each(|address| touched.address(address));
        }
        if let Some(old) = self.services.remove(&key) {
            for address in &old.cluster_ips {
                unindex(&mut self.service_by_address, address, &key);
                touched.address(*address);
            }
        }
        if let Some(service) = new {
            for address in &service.cluster_ips {
                index(&mut self.service_by_address, *address, key.clone());
                touched.address(*address);
            }
            self.services.insert(key, service);
        }
    }

    fn slice(&mut self, key: ObjectKey, new: Option<Slice>, touched: &mut Touched) {
        if self.slices.get(&key) == new.as_ref() {
            return;
        }
        if let Some(old) = self.slices.remove(&key) {
            touched.service(&old.service);
            unindex(&mut self.slices_by_service, &old.service, &key);
            for address in old.addresses() {
                touched.address(address);
                unindex(&mut self.slices_by_endpoint, &address, &key);
            }
            old.pods().for_each(|pod| unindex(&mut self.slices_by_pod, pod, &key));
        }
        if let Some(slice) = new {
            touched.service(&slice.service);
            index(&mut self.slices_by_service, slice.service.clone(), key.clone());
            for address in slice.addresses() {
                touched.address(address);
                index(&mut self.slices_by_endpoint, address, key.clone());
            }
            slice
                .pods()
                .for_each(|pod| index(&mut self.slices_by_pod, pod.clone(), key.clone()));
            self.slices.insert(key, slice);
        }
    }

    /// Whether a namespace refuses plaintext.
    pub fn namespace_is_strict(&self, name: &str) -> bool {
        self.namespaces.get(name).is_some_and(|namespace| namespace.strict)
    }

    /// The ranges of the cluster's pods and Services, as far as Nodes and ServiceCIDRs say them.
    pub fn all_ranges(&self) -> &Cidrs {
        &self.all_ranges
    }

    /// Pods that should be in the mesh by their namespace's label, and are not; ordered by namespace.
    pub fn unmeshed(&self) -> &BTreeSet<ObjectKey> {
        &self.unmeshed
    }

    /// Namespaces whose pods are to be in the mesh.
    pub fn injected_namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces
            .values()
            .filter(|namespace| namespace.injected)
            .map(|namespace| &namespace.name)
    }

    /// A Service by name.
    pub fn service_named(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// The Service whose cluster address this is.
    pub fn service_at(&self, address: IpAddr) -> Option<&Service> {
        values(&self.service_by_address, &address).find_map(|key| self.services.get(key))
    }

    /// The pod that has this address. Of several (an address is given out anew before the old pod is forgotten) one that is
    /// not on its way out.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let pods = values(&self.pods_by_address, &address).filter_map(|key| self.pods.get(key));
        pods.min_by_key(|pod| (pod.terminating, std::cmp::Reverse(pod.created)))
    }

    /// A pod by name.
    pub fn pod_named(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of<'a>(&'a self, service: &ObjectKey) -> impl Iterator<Item = &'a Slice> + use<'a> {
        values(&self.slices_by_service, service).filter_map(|key| self.slices.get(key))
    }

    /// The EndpointSlices that list an address.
    pub fn slices_at(&self, address: IpAddr) -> impl Iterator<Item = &Slice> {
        values(&self.slices_by_endpoint, &address).filter_map(|key| self.slices.get(key))
    }
}
