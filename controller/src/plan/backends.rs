//! The backends of one destination: each Service port once, with its endpoints.

use std::net::SocketAddr;

use weft_proto::rpc::discovery as wire;

use super::{Settings, identity, name_of};
use crate::{
    cluster::{
        Cluster,
        types::{ObjectKey, ServicePort, Slice, SliceEndpoint},
    },
    translate::{Problem, Reason, ServicePortName},
};

/// Collects backends in the order in which they are first named.
pub(super) struct Backends<'a> {
    cluster: &'a Cluster,
    settings: &'a Settings,
    ipv6: bool,
    found: Vec<(ServicePortName, wire::Backend)>,
    /// Named and not found: when they appear, the answer changes.
    missing: Vec<ObjectKey>,
}

impl<'a> Backends<'a> {
    /// None yet. `ipv6`: the family that the client dialled, which is the one to use where a Service has both.
    pub(super) fn new(cluster: &'a Cluster, settings: &'a Settings, ipv6: bool) -> Self {
        Self {
            cluster,
            settings,
            ipv6,
            found: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The index of a Service's port, or why there is none.
    pub(super) fn index(&mut self, name: &ServicePortName) -> Result<u32, Problem> {
        let index = match self.found.iter().position(|(known, _)| known == name) {
            Some(index) => index,
            None => {
                let port = port(self.cluster, name).inspect_err(|_| self.missing.push(name.service.clone()))?;
                let endpoints = self.endpoints(&name.service, port);
                let backend = wire::Backend {
                    id: name.to_string(),
                    protocol: port.protocol.into(),
                    endpoints,
                    ..Default::default()
                };
                self.found.push((name.clone(), backend));
                self.found.len() - 1
            }
        };
        Ok(u32::try_from(index).expect("a destination has fewer than four billion backends"))
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
        if !(endpoint.ready || (terminating && endpoint.serving)) {
            return None;
        }
        Some(wire::Endpoint {
            address: Some(SocketAddr::new(endpoint.address, port).into()),
            pod: pod.map(|pod| name_of(&pod.key)),
            pod_uid: pod.map(|pod| pod.uid.to_string()).unwrap_or_default(),
            identity: owner.map(|pod| identity(self.settings, pod, port)).unwrap_or_default(),
            terminating,
        })
    }

    /// Every Service that was named, whether it is there or not.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.found.iter().map(|(name, _)| &name.service).chain(&self.missing)
    }

    pub(super) fn into_wire(self) -> Vec<wire::Backend> {
        self.found.into_iter().map(|(_, backend)| backend).collect()
    }
}

/// The port of a Service that a backend names, or why there is none.
pub(super) fn port<'a>(cluster: &'a Cluster, name: &ServicePortName) -> Result<&'a ServicePort, Problem> {
    let not_found = |message| Problem {
        reason: Reason::BackendNotFound,
        message,
    };
    let service = cluster
        .service_named(&name.service)
        .ok_or_else(|| not_found(format!("there is no Service {}", name.service)))?;
    service.port(name.port).ok_or_else(|| {
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
    })
}
