//! The compact objects of gateways: their specifications, as they were read.

use std::sync::Arc;

use crate::{
    cluster::types::ObjectKey,
    objects::{
        gateway::{GatewayClassSpec, GatewaySpec, ListenerSetSpec},
        policy::{BackendTlsPolicySpec, ReferenceGrantSpec},
    },
};

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayClass {
    /// Its name.
    pub name: Arc<str>,
    /// What is asked for.
    pub spec: GatewayClassSpec,
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Its name.
    pub key: ObjectKey,
    /// What is asked for.
    pub spec: GatewaySpec,
}

/// A ListenerSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSet {
    /// Its name.
    pub key: ObjectKey,
    /// Seconds since 1970: of two sets with one listener the older has it.
    pub created: i64,
    /// What is asked for.
    pub spec: ListenerSetSpec,
}

impl ListenerSet {
    /// The Gateway that gets the listeners; `None`: its parent is something else.
    pub fn gateway(&self) -> Option<ObjectKey> {
        let parent = &self.spec.parent_ref;
        let is_gateway = parent.group == crate::objects::GATEWAY_GROUP
            && parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
        let namespace = parent.namespace.as_deref().unwrap_or(&self.key.namespace);
        is_gateway.then(|| ObjectKey::new(namespace, &parent.name))
    }
}

/// A BackendTLSPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendTlsPolicy {
    /// Its name.
    pub key: ObjectKey,
    /// Seconds since 1970: of two policies for one port the older counts.
    pub created: i64,
    /// What is asked for.
    pub spec: BackendTlsPolicySpec,
}

impl BackendTlsPolicy {
    /// The Services that it is about.
    pub fn services(&self) -> impl Iterator<Item = ObjectKey> + '_ {
        let services = self.spec.target_refs.iter();
        let services = services.filter(|target| (target.group.as_str(), target.kind.as_str()) == ("", "Service"));
        services.map(|target| ObjectKey::new(&self.key.namespace, &target.name))
    }
}

/// A ReferenceGrant.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGrant {
    /// Its name.
    pub key: ObjectKey,
    /// What is granted.
    pub spec: ReferenceGrantSpec,
}
