//! The backends of one answer: each Service port once for each way in which it is used, with its endpoints.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use weft_proto::rpc::discovery::{self as wire, Protocol};

use super::{Settings, identity, name_of};
use crate::{
    cluster::{
        Cluster,
        types::{Key, ObjectKey, Service, ServiceKind, ServicePort, Slice, SliceEndpoint},
    },
    gateway::backend_tls,
    objects::GATEWAY_GROUP,
    session_keys::Masters,
    translate::{Problem, Reason, ServicePortName},
};

/// What a rule sends to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Carries {
    /// Requests. Where the backend wants TLS and nobody says how it is checked, a gateway sends nothing.
    Requests,
    /// Bytes, which weft puts into TLS where a policy says so.
    Bytes,
    /// TLS of the client's own, which is passed on as it is.
    Tls,
}

/// Collects backends in the order in which they are first named.
pub(super) struct Backends<'a> {
    cluster: &'a Cluster,
    settings: &'a Settings,
    ipv6: bool,
    /// Of a gateway's answer: what it shows of itself to servers.
    gateway: Option<Option<wire::Certificate>>,
    found: Vec<wire::Backend>,
    indices: HashMap<(ServicePortName, Carries), u32>,
    /// Named, whether they are there or not: when they change, the answer does.
    services: BTreeSet<ObjectKey>,
}

impl<'a> Backends<'a> {
    /// None yet. `ipv6`: the family that the client dialled, which is the one to use where a Service has both.
    pub(super) fn new(cluster: &'a Cluster, settings: &'a Settings, ipv6: bool) -> Self {
        Self {
            cluster,
            settings,
            ipv6,
            gateway: None,
            found: Vec::new(),
            indices: HashMap::new(),
            services: BTreeSet::new(),
        }
    }

    /// Those of a gateway, which shows `certificate` to servers that ask.
    pub(super) fn of_gateway(
        cluster: &'a Cluster,
        settings: &'a Settings,
        certificate: Option<wire::Certificate>,
    ) -> Self {
        Self {
            gateway: Some(certificate),
            ..Self::new(cluster, settings, false)
        }
    }

    /// The index of a backend that a route names, or why there is none.
    pub(super) fn of_route(
        &mut self,
        route: &Key,
        target: &Result<ServicePortName, Problem>,
        carries: Carries,
    ) -> Result<u32, Problem> {
        let name = target.as_ref().map_err(Clone::clone)?;
        if self.gateway.is_some() {
            permitted(self.cluster, route, name)?;
        }
        self.index(name, carries)
    }

    /// The index of a Service's port, or why there is none.
    pub(super) fn index(&mut self, name: &ServicePortName, carries: Carries) -> Result<u32, Problem> {
        if let Some(index) = self.indices.get(&(name.clone(), carries)) {
            return Ok(*index);
        }
        self.services.insert(name.service.clone());
        let (service, port) = port(self.cluster, name)?;
        let backend = self.backend(name, service, port, carries);
        let index = u32::try_from(self.found.len()).expect("an answer has fewer than four billion backends");
        self.found.push(backend);
        self.indices.insert((name.clone(), carries), index);
        Ok(index)
    }

    fn backend(
        &self,
        name: &ServicePortName,
        service: &Service,
        port: &ServicePort,
        carries: Carries,
    ) -> wire::Backend {
        let mut backend = wire::Backend {
            id: name.to_string(),
            protocol: port.protocol.into(),
            endpoints: self.endpoints(&name.service, port),
            ..wire::Backend::default()
        };
        let policy = match carries {
            Carries::Tls => None,
            Carries::Requests | Carries::Bytes => backend_tls::of_port(self.cluster, service, port),
        };
        match policy {
            Some(Ok(tls)) => {
                backend.protocol = port.within_tls.into();
                backend.tls = Some(wire::BackendTls {
                    client_certificate: self.gateway.clone().flatten(),
                    ..tls
                });
            }
            Some(Err(problem)) => backend.refused = problem.to_string(),
            None if self.gateway.is_some() && carries == Carries::Requests && port.protocol == Protocol::Tls => {
                backend.refused = format!(
                    "the port {name} says by its appProtocol that it speaks TLS, and no BackendTLSPolicy says how its \
                     certificate is checked"
                );
            }
            None => {}
        }
        backend
    }

    fn endpoints(&self, service: &ObjectKey, port: &ServicePort) -> Vec<wire::Endpoint> {
        let slices = || self.cluster.slices_of(service);
        // A Service of both families lists the same pods in each; a Service of one family has no choice.
        let wanted = slices()
            .flat_map(Slice::addresses)
            .any(|address| address.is_ipv6() == self.ipv6);
        let mut endpoints: Vec<(SocketAddr, wire::Endpoint)> = Vec::new();
        for slice in slices() {
            let Some(number) = slice
                .ports
                .iter()
                .find(|own| own.name == port.name)
                .map(|own| own.number)
            else {
                continue;
            };
            for endpoint in slice
                .endpoints
                .iter()
                .filter(|one| !wanted || one.address.is_ipv6() == self.ipv6)
            {
                let address = (endpoint.address, number).into();
                endpoints.extend(self.endpoint(endpoint, number).map(|endpoint| (address, endpoint)));
            }
        }
        // An endpoint can be in two slices for a moment, while it is moved.
        endpoints.sort_by_key(|(address, endpoint)| (*address, endpoint.terminating));
        endpoints.dedup_by_key(|(address, _)| *address);
        endpoints.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    fn endpoint(&self, endpoint: &SliceEndpoint, port: u16) -> Option<wire::Endpoint> {
        // The identity comes from the pod that has the address, whatever a slice says of it.
        let owner = self.cluster.pod_at(endpoint.address);
        let pod = match &endpoint.pod {
            None => owner,
            Some(name) => {
                // Whether weft listens there stands in the pod. A slice that comes sooner than its pod, or goes later, must
                // not turn into plaintext.
                let pod = self.cluster.pod_named(name)?;
                if !pod.host_network && !pod.ips.contains(&endpoint.address) {
                    return None;
                }
                Some(pod)
            }
        };
        let terminating = endpoint.terminating || pod.is_some_and(|pod| pod.terminating);
        // A node that does not report for a while makes every pod on it unready at once, and all of a Service's may stand there. None of
        // them has said so itself, and most serve on: they are left for when there is nothing else (RELIABILITY F13, F14). Kubernetes
        // deletes them when the node stays silent.
        let doubted = !endpoint.ready && !terminating && pod.is_some_and(|pod| pod.containers_ready);
        if !(endpoint.ready || doubted || (terminating && endpoint.serving)) {
            return None;
        }
        Some(wire::Endpoint {
            address: Some(SocketAddr::new(endpoint.address, port).into()),
            pod: pod.map(|pod| name_of(&pod.key)),
            pod_uid: pod.map(|pod| pod.uid.to_string()).unwrap_or_default(),
            identity: owner.map(|pod| identity(self.settings, pod, port)).unwrap_or_default(),
            terminating: terminating || doubted,
        })
    }

    /// What the keys of sessions are made of.
    pub(super) fn sessions(&self) -> &Masters {
        &self.settings.sessions
    }

    /// Every Service that was named, whether it is there or not.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.iter()
    }

    pub(super) fn into_wire(self) -> Vec<wire::Backend> {
        self.found
    }
}

/// Whether a route at a Gateway may send requests to a Service: to those of its own namespace, and to others where a ReferenceGrant
/// says so. A route whose parent is a Service needs no grant (GEP-1294, "Namespace boundaries"): who calls the parent can call that
/// Service too.
pub(crate) fn permitted(cluster: &Cluster, route: &Key, name: &ServicePortName) -> Result<(), Problem> {
    let (kind, namespace) = (route.kind.name(), &*route.object.namespace);
    if *name.service.namespace == *namespace
        || cluster.is_granted((GATEWAY_GROUP, kind, namespace), ("", "Service", &name.service))
    {
        return Ok(());
    }
    Err(Problem {
        reason: Reason::RefNotPermitted,
        message: format!(
            "the Service {} is of another namespace, and no ReferenceGrant there allows it to {kind}s of {namespace}",
            name.service
        ),
    })
}

/// The port of a Service that a backend names, or why there is none.
pub(crate) fn port<'a>(
    cluster: &'a Cluster,
    name: &ServicePortName,
) -> Result<(&'a Service, &'a ServicePort), Problem> {
    let not_found = |message| Problem {
        reason: Reason::BackendNotFound,
        message,
    };
    let service = cluster
        .service_named(&name.service)
        .ok_or_else(|| not_found(format!("there is no Service {}", name.service)))?;
    if service.kind == ServiceKind::ExternalName {
        return Err(Problem {
            reason: Reason::InvalidKind,
            message: format!(
                "the Service {} is of type ExternalName, which is a name in the DNS and no backend",
                name.service
            ),
        });
    }
    let port = service.port(name.port).ok_or_else(|| {
        let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
        let ports = if ports.is_empty() {
            "no TCP port".to_owned()
        } else {
            ports.join(", ")
        };
        not_found(format!(
            "the Service {} has no TCP port {}; it has {ports}",
            name.service, name.port
        ))
    })?;
    Ok((service, port))
}
