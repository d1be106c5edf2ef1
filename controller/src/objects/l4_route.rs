//! TLSRoute, TCPRoute and UDPRoute, `gateway.networking.k8s.io/v1`: connections, not requests.

use serde::Deserialize;

use super::{BackendRef, ParentRef};

/// `spec` of a TLSRoute, a TCPRoute or a UDPRoute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L4RouteSpec {
    /// What the route attaches to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Not supported: a route names its Gateways.
    pub use_default_gateways: Option<String>,
    /// Server names; of a TLSRoute alone.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules.
    #[serde(default)]
    pub rules: Vec<L4Rule>,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L4Rule {
    /// The rule's own name.
    #[serde(default)]
    pub name: String,
    /// Where connections go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
}
