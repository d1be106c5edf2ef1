//! Cluster → answers: what a proxy is told of an address, and of its own pod. Pure: value in, value out.
//!
//! An answer comes with the things that it depends on, so that [`crate::answers`] makes it anew only when one of them
//! changed. Equal clusters give equal bytes, in every replica: a version is a hash of them.

pub(crate) mod backends;
mod gateway;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use prost::Message;
use sha2::{Digest, Sha256};
use weft_proto::{
    names::port::RESERVED,
    rpc::discovery::{self as wire, DestinationKind, Protocol, change::Content},
    skip::Cidrs,
};
use weft_route::rule;

use crate::{
    cluster::{
        Cluster, Dependency,
        types::{Key, ObjectKey, Pod, Service, ServicePort},
    },
    session_keys::Masters,
    translate::{Parent, Route, Rule, ServicePortName, Target},
};
use backends::{Backends, Carries};

/// What does not change while the controller runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The SPIFFE trust domain.
    pub trust_domain: Arc<str>,
    /// The cluster's ranges of pods and Services: an address inside of them that nothing has is unknown, not outside. Empty:
    /// those that the cluster says itself.
    pub cluster_cidrs: Cidrs,
    /// What the keys of sessions are made of.
    pub sessions: Masters,
}

impl Settings {
    /// Of this trust domain, and nothing more.
    pub fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            cluster_cidrs: Cidrs::default(),
            sessions: Masters::default(),
        }
    }
}

/// What a proxy can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// Where a connection meant to go.
    Destination(SocketAddr),
    /// The pod with this address.
    Workload(IpAddr),
    /// The Gateway with this name.
    Gateway(ObjectKey),
}

/// The answer to a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The content.
    pub content: Content,
    /// Hash of the content.
    pub version: String,
    /// Namespace and ServiceAccount that alone may have it; `None`: everyone.
    pub only_for: Option<(Arc<str>, Arc<str>)>,
}

/// An answer with what it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// `None`: there is nothing to say yet.
    pub answer: Option<Answer>,
    /// What clients of these namespaces are told instead, because there are routes of theirs for it (consumer routes).
    pub consumers: BTreeMap<Arc<str>, Answer>,
    /// A change of one of these can change the answer.
    pub dependencies: BTreeSet<Dependency>,
}

impl Planned {
    /// The answer to a client of this namespace.
    pub fn answer_for(&self, namespace: &str) -> Option<&Answer> {
        self.consumers.get(namespace).or(self.answer.as_ref())
    }
}

/// Makes the answer to a name.
pub fn answer(cluster: &Cluster, settings: &Settings, name: &Name) -> Planned {
    match name {
        Name::Destination(address) => {
            let told = |destination: wire::Destination| Answer {
                version: version(b"destination", &destination),
                content: Content::Destination(destination),
                only_for: None,
            };
            let (producers, mut dependencies) = destination(cluster, settings, *address, None);
            let mut consumers = BTreeMap::new();
            for namespace in consumers_of(cluster, *address) {
                let (content, more) = destination(cluster, settings, *address, Some(&namespace));
                dependencies.extend(more);
                consumers.insert(namespace, told(content));
            }
            Planned {
                answer: Some(told(producers)),
                consumers,
                dependencies,
            }
        }
        Name::Workload(address) => {
            let address = address.to_canonical();
            let mut dependencies = BTreeSet::from([Dependency::Address(address)]);
            let answer = cluster.pod_at(address).map(|pod| {
                dependencies.insert(Dependency::Namespace(pod.key.namespace.clone()));
                let workload = workload(cluster, pod);
                let version = version(b"workload", &workload);
                let only_for = Some((pod.key.namespace.clone(), pod.service_account.clone()));
                Answer {
                    content: Content::Workload(workload),
                    version,
                    only_for,
                }
            });
            Planned {
                answer,
                consumers: BTreeMap::new(),
                dependencies,
            }
        }
        Name::Gateway(key) => gateway::answer(cluster, settings, key),
    }
}

fn version(kind: &[u8], message: &impl Message) -> String {
    let hash = Sha256::new()
        .chain_update(kind)
        .chain_update(message.encode_to_vec())
        .finalize();
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The namespaces that have routes of their own for an address and port of another's Service.
fn consumers_of(cluster: &Cluster, asked: SocketAddr) -> BTreeSet<Arc<str>> {
    let found = cluster.service_at(asked.ip().to_canonical());
    let found = found.and_then(|service| Some((service, service.port(asked.port())?)));
    let routes = found.into_iter().flat_map(|(service, port)| {
        let routes = cluster.routes_of(&Target::Service(service.key.clone()));
        routes
            .filter(move |route| route.key.object.namespace != service.key.namespace && attaches(route, service, port))
    });
    routes.map(|route| route.key.object.namespace.clone()).collect()
}

/// What is known of an address and port. `consumer`: to clients of this namespace, which has routes of its own for it; they
/// act in place of those of the Service's namespace, never together with them (GEP-1294, "Multiple routes for a Service").
pub fn destination(
    cluster: &Cluster,
    settings: &Settings,
    asked: SocketAddr,
    consumer: Option<&str>,
) -> (wire::Destination, BTreeSet<Dependency>) {
    let (address, port) = (asked.ip().to_canonical(), asked.port());
    let mut dependencies = BTreeSet::from([Dependency::Address(address)]);
    let destination = if let Some(service) = cluster.service_at(address) {
        dependencies.insert(Dependency::Service(service.key.clone()));
        match service.port(port) {
            Some(port) => {
                let from = consumer.unwrap_or(&service.key.namespace);
                let mut backends = Backends::new(cluster, settings, address.is_ipv6());
                let destination = of_service(cluster, service, port, from, &mut backends);
                dependencies.extend(backends.services().map(|service| Dependency::Service(service.clone())));
                wire::Destination {
                    backends: backends.into_wire(),
                    ..destination
                }
            }
            // A Service's address answers on the Service's ports and on no other.
            None => nothing(DestinationKind::Unknown),
        }
    } else if let Some(pod) = cluster.pod_at(address) {
        of_pod(cluster, settings, pod, SocketAddr::new(address, port))
    } else {
        let detected = settings.cluster_cidrs.is_empty();
        let ranges = if detected {
            cluster.all_ranges()
        } else {
            &settings.cluster_cidrs
        };
        if detected {
            dependencies.insert(Dependency::Ranges);
        }
        nothing(if ranges.contains(address) {
            DestinationKind::Unknown
        } else {
            DestinationKind::Outside
        })
    };
    (destination, dependencies)
}

fn nothing(kind: DestinationKind) -> wire::Destination {
    wire::Destination {
        kind: kind.into(),
        ..wire::Destination::default()
    }
}

/// A Service's port by the routes of one namespace; its backends are in `backends`.
fn of_service(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    from: &str,
    backends: &mut Backends<'_>,
) -> wire::Destination {
    let own = ServicePortName {
        service: service.key.clone(),
        port: port.number,
    };
    let default_backend = backends.index(&own, Carries::Requests).ok();
    let routes = cluster
        .routes_of(&Target::Service(service.key.clone()))
        .filter(|route| *route.key.object.namespace == *from && attaches(route, service, port));
    let rules: Vec<rule::Rule> = routes
        .flat_map(|route| route.rules.iter().map(move |rule| (route, rule)))
        .map(|(route, rule)| resolved(&route.key, rule, Carries::Requests, backends))
        .collect();
    wire::Destination {
        kind: DestinationKind::Service.into(),
        object: Some(name_of(&service.key)),
        protocol: port.protocol.into(),
        rules: rules.iter().map(wire::Rule::from).collect(),
        backends: Vec::new(),
        default_backend,
    }
}

/// Whether a route is attached to this port of a Service.
fn attaches(route: &Route, service: &Service, port: &ServicePort) -> bool {
    let is_parent = |parent: &Parent| matches!(&parent.target, Target::Service(key) if *key == service.key);
    route.refused.is_none()
        && route
            .parents
            .iter()
            .any(|parent| is_parent(parent) && parent_takes(parent, port))
}

/// Whether a parent that is a Service means this port of it.
pub(crate) fn parent_takes(parent: &Parent, port: &ServicePort) -> bool {
    parent.port.is_none_or(|number| number == port.number)
        && parent.section.as_ref().is_none_or(|section| *section == port.name)
}

/// A rule with its backends found, or with the reasons why they are not.
fn resolved(route: &Key, rule: &Rule, carries: Carries, backends: &mut Backends<'_>) -> rule::Rule {
    let mut resolved = rule.rule.clone();
    if let Some(session) = &mut resolved.session {
        session.keys = backends
            .sessions()
            .keys(resolved.origin.kind, &route.object.namespace, &route.object.name);
        // What nothing signs, nobody could trust.
        if session.keys.is_empty() {
            resolved.session = None;
        }
    }
    if let Some(refused) = &rule.refused {
        // "If a reference to a custom filter type cannot be resolved, the filter MUST NOT be skipped. Instead, requests
        // that would have been processed by that filter MUST receive a HTTP error response."
        resolved.filters.clear();
        resolved.backends = vec![rule::WeightedBackend::invalid(&refused.to_string(), 1)];
        return resolved;
    }
    let mut find = |target| {
        let found = backends.of_route(route, target, carries);
        found.map_err(|problem| Arc::<str>::from(problem.to_string()))
    };
    let shares = rule.backends.iter().map(|backend| backend.share(find(&backend.target)));
    resolved.backends = shares.collect();
    if !rule.mirrors.is_empty() {
        let of_shares = resolved.backends.iter_mut().flat_map(|share| &mut share.filters);
        for filter in resolved.filters.iter_mut().chain(of_shares) {
            if let rule::Filter::Mirror(mirror) = filter
                && let Ok(index) = mirror.backend
            {
                mirror.backend = find(&rule.mirrors[index as usize]);
            }
        }
    }
    resolved
}

fn of_pod(cluster: &Cluster, settings: &Settings, pod: &Pod, address: SocketAddr) -> wire::Destination {
    let protocol = port_protocol(cluster, address);
    let endpoint = wire::Endpoint {
        address: Some(address.into()),
        pod: Some(name_of(&pod.key)),
        pod_uid: pod.uid.to_string(),
        identity: identity(settings, pod, address.port()),
        terminating: pod.terminating,
    };
    let backend = wire::Backend {
        id: pod.key.to_string(),
        protocol: protocol.into(),
        endpoints: vec![endpoint],
        ..wire::Backend::default()
    };
    wire::Destination {
        kind: DestinationKind::Pod.into(),
        object: Some(name_of(&pod.key)),
        protocol: protocol.into(),
        rules: Vec::new(),
        backends: vec![backend],
        default_backend: Some(0),
    }
}

/// The id to expect on a port of a pod; empty where weft does not listen: in a pod without weft, on a port that is not
/// redirected, and on weft's own ports.
fn identity(settings: &Settings, pod: &Pod, port: u16) -> String {
    let Some(mesh) = &pod.mesh else { return String::new() };
    if mesh.skip_inbound_ports.contains(port) || RESERVED.contains(&port) {
        return String::new();
    }
    let (namespace, account) = (&pod.key.namespace, &pod.service_account);
    // A name that fits no id fits no certificate either: the hop then fails, instead of going on in plaintext.
    format!("spiffe://{}/ns/{namespace}/sa/{account}", settings.trust_domain)
}

/// What the Services in front of a pod declare for one of its ports. Where they disagree, the bytes decide.
fn port_protocol(cluster: &Cluster, address: SocketAddr) -> Protocol {
    let declared = declared_protocols(cluster, address.ip());
    let mut here = declared
        .into_iter()
        .filter(|(port, _)| *port == address.port())
        .map(|(_, protocol)| protocol);
    match (here.next(), here.next()) {
        (Some(protocol), None) => protocol,
        _ => Protocol::Detect,
    }
}

/// Every (port, protocol) that Services declare for an address, `DETECT` left out.
fn declared_protocols(cluster: &Cluster, address: IpAddr) -> BTreeSet<(u16, Protocol)> {
    let mut declared = BTreeSet::new();
    for slice in cluster.slices_at(address) {
        let Some(service) = cluster.service_named(&slice.service) else {
            continue;
        };
        for port in &slice.ports {
            let protocol = service
                .ports
                .iter()
                .find(|own| own.name == port.name)
                .map(|own| own.protocol);
            declared.extend(
                protocol
                    .filter(|protocol| *protocol != Protocol::Detect)
                    .map(|p| (port.number, p)),
            );
        }
    }
    declared
}

/// What the sidecar of a pod must know of the pod.
pub fn workload(cluster: &Cluster, pod: &Pod) -> wire::Workload {
    let mut ports: BTreeSet<(u16, Protocol)> = BTreeSet::new();
    for address in pod.addresses() {
        ports.extend(declared_protocols(cluster, *address));
    }
    let disputed = |port: u16| ports.iter().filter(|(other, _)| *other == port).count() > 1;
    let protocols = ports.iter().filter(|(port, _)| !disputed(*port));
    wire::Workload {
        pod: Some(name_of(&pod.key)),
        // A pod may tighten what its namespace says, never loosen it.
        strict_mtls: pod.strict || cluster.namespace_is_strict(&pod.key.namespace),
        terminating: pod.terminating,
        protocols: protocols
            .map(|(port, protocol)| wire::PortProtocol {
                port: u32::from(*port),
                protocol: (*protocol).into(),
            })
            .collect(),
    }
}

fn name_of(key: &ObjectKey) -> wire::ObjectName {
    wire::ObjectName {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}
