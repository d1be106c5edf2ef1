//! Statuses of BackendTLSPolicies: one entry for each Gateway that reaches a Service of the policy through a route, and one for each
//! such Service that meshed pods reach by themselves.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};
use weft_proto::names::gateway_api::CONTROLLER;

use super::{Conditions, Looked, route};
use crate::{
    cluster::{Cluster, types::ObjectKey},
    gateway::{
        backend_tls::{self, Judged},
        objects::BackendTlsPolicy,
        references::Why,
    },
    objects::GATEWAY_GROUP,
};

/// The most entries (the CRD's limit).
const ENTRIES: usize = 16;

/// Which Gateways reach which Services.
pub(super) struct Ancestors {
    gateways: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Ancestors {
    pub(super) fn new(looked: &Looked<'_>) -> Self {
        let mut gateways: HashMap<ObjectKey, BTreeSet<ObjectKey>> = HashMap::new();
        // Without policies nobody asks.
        if looked.cluster.policies().next().is_none() {
            return Self { gateways };
        }
        for (name, of) in &looked.gateways {
            for here in of.attached.listeners.iter().flatten() {
                for service in route::services(looked.cluster, here.route) {
                    gateways.entry(service.clone()).or_default().insert((*name).clone());
                }
            }
        }
        Self { gateways }
    }

    /// The entries of a policy's status.
    pub(super) fn of(&self, cluster: &Cluster, policy: &BackendTlsPolicy, generation: i64) -> Vec<Value> {
        let judged = backend_tls::judge(cluster, policy);
        let conditions = || conditions(&judged, generation);
        let services: Vec<ObjectKey> = policy.services().collect();
        let gateways = services
            .iter()
            .filter_map(|service| self.gateways.get(service))
            .flatten();
        let gateways: BTreeSet<&ObjectKey> = gateways.collect();
        let of_gateways = gateways.into_iter().map(|gateway| {
            json!({
                "group": GATEWAY_GROUP,
                "kind": "Gateway",
                "namespace": &*gateway.namespace,
                "name": &*gateway.name,
            })
        });
        let there: BTreeSet<&ObjectKey> = services
            .iter()
            .filter(|key| cluster.service_named(key).is_some())
            .collect();
        let of_services = there.into_iter().map(|service| {
            json!({
                "group": "",
                "kind": "Service",
                "namespace": &*service.namespace,
                "name": &*service.name,
            })
        });
        let entry = |reference: Value| {
            json!({
                "ancestorRef": reference,
                "controllerName": CONTROLLER,
                "conditions": conditions(),
            })
        };
        of_gateways.chain(of_services).take(ENTRIES).map(entry).collect()
    }
}

fn conditions(judged: &Judged, generation: i64) -> Value {
    let mut conditions = Conditions::new(generation);
    let references: Vec<&str> = judged.references.iter().map(|bad| bad.message.as_str()).collect();
    if !references.is_empty() {
        conditions.set("Accepted", false, "NoValidCACertificate", &references.join("; "));
    } else if !judged.mistakes.is_empty() {
        conditions.set("Accepted", false, "Invalid", &judged.mistakes.join("; "));
    } else if let Some(winner) = &judged.conflict {
        let message = format!("the BackendTLSPolicy {winner} has the same target, and came first");
        conditions.set("Accepted", false, "Conflicted", &message);
    } else {
        conditions.set("Accepted", true, "Accepted", "weft originates TLS as this policy says");
    }
    match judged.references.first() {
        Some(first) => {
            let reason = match first.why {
                Why::Kind => "InvalidKind",
                Why::NotPermitted | Why::Invalid => "InvalidCACertificateRef",
            };
            conditions.set("ResolvedRefs", false, reason, &references.join("; "))
        }
        None => conditions.set("ResolvedRefs", true, "ResolvedRefs", "all references are good"),
    };
    conditions.into_value()
}
