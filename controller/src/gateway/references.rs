//! What Gateways, ListenerSets and policies refer to: Secrets with certificates, ConfigMaps and Secrets with authorities.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    cluster::{
        Cluster,
        types::{Certificate, Key, Kind, ObjectKey},
    },
    objects::{GATEWAY_GROUP, LocalReference, Reference},
};

/// Why a reference leads to nothing of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Of a kind that cannot be meant.
    Kind,
    /// Of another namespace, without a grant.
    NotPermitted,
    /// Not there, or without what is needed in it.
    Invalid,
}

/// A reference that leads to nothing of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The kind of mistake.
    pub why: Why,
    /// What, and where.
    pub message: String,
}

/// Who refers: its kind and its namespace.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    /// The kind, of the Gateway API.
    pub kind: Kind,
    /// The namespace.
    pub namespace: &'a str,
}

impl From<'_> {
    /// The object that is meant, if it may be.
    fn object(&self, cluster: &Cluster, kind: &str, reference: &Reference) -> Result<ObjectKey, Bad> {
        let object = ObjectKey::new(
            reference.namespace.as_deref().unwrap_or(self.namespace),
            &reference.name,
        );
        let from = (GATEWAY_GROUP, self.kind.name(), self.namespace);
        if *object.namespace == *self.namespace || cluster.is_granted(from, ("", kind, &object)) {
            return Ok(object);
        }
        Err(Bad {
            why: Why::NotPermitted,
            message: format!(
                "the {kind} {object} is of another namespace, and no ReferenceGrant there allows it to {}s of {}",
                self.kind.name(),
                self.namespace
            ),
        })
    }

    /// A certificate with its key, from a Secret.
    pub fn certificate(&self, cluster: &Cluster, reference: &Reference) -> Result<Arc<Certificate>, Bad> {
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        if (reference.group.as_str(), kind) != ("", "Secret") {
            return Err(wrong_kind(&reference.group, kind, &reference.name, "a Secret"));
        }
        let object = self.object(cluster, kind, reference)?;
        let secret = cluster.secret_named(&object).ok_or_else(|| absent(kind, &object))?;
        let certificate = secret.certificate.as_ref();
        certificate.cloned().map_err(|wrong| unusable(kind, &object, wrong))
    }

    /// PEM certificates of authorities, from a ConfigMap or a Secret.
    pub fn roots(&self, cluster: &Cluster, reference: &Reference) -> Result<Arc<str>, Bad> {
        let kind = reference.kind.as_deref().unwrap_or("ConfigMap");
        if !(reference.group.is_empty() && matches!(kind, "ConfigMap" | "Secret")) {
            return Err(wrong_kind(
                &reference.group,
                kind,
                &reference.name,
                "a ConfigMap or a Secret",
            ));
        }
        let object = self.object(cluster, kind, reference)?;
        let roots = if kind == "Secret" {
            cluster.secret_named(&object).map(|secret| &secret.roots)
        } else {
            cluster.config_map_named(&object).map(|map| &map.roots)
        };
        let roots = roots.ok_or_else(|| absent(kind, &object))?;
        roots.clone().map_err(|wrong| unusable(kind, &object, &wrong))
    }
}

fn wrong_kind(group: &str, kind: &str, name: &str, wanted: &str) -> Bad {
    Bad {
        why: Why::Kind,
        message: format!("{name} is of kind {kind} in group '{group}'; it can be {wanted} of group ''"),
    }
}

fn absent(kind: &str, object: &ObjectKey) -> Bad {
    Bad {
        why: Why::Invalid,
        message: format!("there is no {kind} {object}"),
    }
}

fn unusable(kind: &str, object: &ObjectKey, wrong: &str) -> Bad {
    Bad {
        why: Why::Invalid,
        message: format!("the {kind} {object} cannot be used: {wrong}"),
    }
}

impl std::convert::From<&LocalReference> for Reference {
    fn from(local: &LocalReference) -> Self {
        Reference {
            group: local.group.clone(),
            kind: Some(local.kind.clone()),
            namespace: None,
            name: local.name.clone(),
        }
    }
}

/// Every Secret and ConfigMap that is to be read: those that Gateways of weft's classes, their ListenerSets and BackendTLSPolicies
/// refer to, as far as they may.
pub fn wanted(cluster: &Cluster) -> BTreeSet<Key> {
    let mut wanted = BTreeSet::new();
    let mut want = |from: From<'_>, default: &str, reference: &Reference| {
        let name = reference.kind.as_deref().unwrap_or(default);
        let kind = match (reference.group.as_str(), name) {
            ("", "Secret") => Kind::Secret,
            ("", "ConfigMap") => Kind::ConfigMap,
            _ => return,
        };
        let object = from.object(cluster, name, reference);
        wanted.extend(object.ok().map(|object| Key { kind, object }));
    };
    for gateway in super::ours(cluster) {
        let from = From {
            kind: Kind::Gateway,
            namespace: &gateway.key.namespace,
        };
        let spec = &gateway.spec;
        for tls in spec.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            tls.certificate_refs.iter().for_each(|one| want(from, "Secret", one));
        }
        let parameters = spec.infrastructure.as_ref().and_then(|one| one.parameters_ref.as_ref());
        parameters
            .iter()
            .for_each(|one| want(from, "ConfigMap", &(*one).into()));
        let Some(tls) = &spec.tls else { continue };
        let own = tls
            .backend
            .as_ref()
            .and_then(|backend| backend.client_certificate_ref.as_ref());
        own.iter().for_each(|one| want(from, "Secret", one));
        let frontend = tls.frontend.iter();
        let ports = frontend.flat_map(|frontend| {
            frontend
                .default
                .iter()
                .chain(frontend.per_port.iter().map(|port| &port.tls))
        });
        for validation in ports.filter_map(|port| port.validation.as_ref()) {
            validation
                .ca_certificate_refs
                .iter()
                .for_each(|one| want(from, "ConfigMap", one));
        }
    }
    for set in cluster.listener_sets() {
        let gateway = set.gateway().and_then(|gateway| cluster.gateway_named(&gateway));
        if !gateway.is_some_and(|gateway| super::is_ours(cluster, gateway)) {
            continue;
        }
        let from = From {
            kind: Kind::ListenerSet,
            namespace: &set.key.namespace,
        };
        for tls in set.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            tls.certificate_refs.iter().for_each(|one| want(from, "Secret", one));
        }
    }
    for policy in cluster.policies() {
        let from = From {
            kind: Kind::BackendTlsPolicy,
            namespace: &policy.key.namespace,
        };
        let references = policy.spec.validation.ca_certificate_refs.iter();
        references.for_each(|one| want(from, "ConfigMap", &one.into()));
    }
    wanted
}
