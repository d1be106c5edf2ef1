//! Where a Gateway is reached, and whether its proxies are there.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{object_name, objects::Gateway};
use crate::cluster::{
    Cluster,
    types::{ObjectKey, ServiceKind},
};

/// What is known of a Gateway's Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Addresses or names that lead to it. Where some are asked for, those of them that it has.
    pub addresses: Vec<Arc<str>>,
    /// Addresses that are asked for and not there.
    pub missing: Vec<String>,
    /// A proxy is ready.
    pub ready: bool,
}

/// A type of address in `spec.addresses` that weft cannot give; `None`: all are good.
pub fn unsupported(gateway: &Gateway) -> Option<&str> {
    let kinds = gateway
        .spec
        .addresses
        .iter()
        .filter_map(|address| address.kind.as_deref());
    kinds.into_iter().find(|kind| !matches!(*kind, "" | "IPAddress"))
}

/// Looks at the Service of a Gateway.
pub fn reached(cluster: &Cluster, gateway: &Gateway) -> Reached {
    let key = ObjectKey::new(&gateway.key.namespace, &object_name(&gateway.key.name));
    let mut there: BTreeSet<Arc<str>> = BTreeSet::new();
    if let Some(service) = cluster.service_named(&key) {
        let text = |address: &IpAddr| address.to_string().into();
        there.extend(service.external_ips.iter().map(text));
        match service.kind {
            ServiceKind::LoadBalancer => there.extend(service.ingress.iter().cloned()),
            // Nobody gives it an address for traffic from outside: parameters asked for it.
            _ => there.extend(service.cluster_ips.iter().map(text)),
        }
    }
    let asked = gateway.spec.addresses.iter().map(|address| address.value.as_str());
    let asked: Vec<&str> = asked.filter(|value| !value.is_empty()).collect();
    let has = |value: &str| {
        // One address can be written in several ways.
        let address: Option<IpAddr> = value.parse().ok();
        there
            .iter()
            .find(|one| ***one == *value || (address.is_some() && one.parse().ok() == address))
    };
    let (addresses, missing) = if asked.is_empty() {
        (there.iter().cloned().collect(), Vec::new())
    } else {
        let found: BTreeSet<Arc<str>> = asked.iter().filter_map(|value| has(value).cloned()).collect();
        let missing = asked.iter().filter(|value| has(value).is_none());
        (
            found.into_iter().collect(),
            missing.map(|value| (*value).to_owned()).collect(),
        )
    };
    let mut endpoints = cluster.slices_of(&key).flat_map(|slice| &slice.endpoints);
    Reached {
        addresses,
        missing,
        ready: endpoints.any(|endpoint| endpoint.ready),
    }
}
