//! GRPCRoute, `gateway.networking.k8s.io/v1`.

use serde::Deserialize;

use super::{BackendRef, Filter, ParentRef, SessionPersistence, ValueMatch};

/// `spec` of a GRPCRoute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// What the route attaches to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Not supported: a route names its Gateways.
    pub use_default_gateways: Option<String>,
    /// Hosts; without meaning where the parent is a Service (GEP-1294).
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules.
    #[serde(default)]
    pub rules: Vec<GrpcRule>,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRule {
    /// The rule's own name.
    #[serde(default)]
    pub name: String,
    /// Any of them; empty: every call.
    #[serde(default)]
    pub matches: Vec<GrpcMatch>,
    /// Filters of every matching call.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where calls go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    /// How the calls of a session stay together.
    pub session_persistence: Option<SessionPersistence>,
}

/// All conditions must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcMatch {
    /// Condition on service and method.
    pub method: Option<GrpcMethodMatch>,
    /// Conditions on header fields.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
}

/// A condition on service and method.
#[derive(Clone, Debug, Deserialize)]
pub struct GrpcMethodMatch {
    /// `Exact` or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `package.Service`.
    pub service: Option<String>,
    /// `Method`.
    pub method: Option<String>,
}
