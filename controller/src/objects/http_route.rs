//! HTTPRoute, `gateway.networking.k8s.io/v1`.

use serde::Deserialize;

use super::{BackendRef, Filter, ParentRef, SessionPersistence, ValueMatch};

/// `spec` of an HTTPRoute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// What the route attaches to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Not supported: a route names its Gateways.
    pub use_default_gateways: Option<String>,
    /// Hosts; without meaning where the parent is a Service (GEP-1294).
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Absent: one rule that takes everything.
    pub rules: Option<Vec<HttpRule>>,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// The rule's own name.
    #[serde(default)]
    pub name: String,
    /// Any of them; empty: every request.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// Filters of every matching request.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where requests go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    /// How long a request may take.
    pub timeouts: Option<Timeouts>,
    /// When and how often a request is tried again.
    pub retry: Option<Retry>,
    /// How the requests of a session stay together.
    pub session_persistence: Option<SessionPersistence>,
}

/// All conditions must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// Condition on the path.
    pub path: Option<PathMatch>,
    /// Conditions on header fields.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Conditions on query parameters.
    #[serde(default)]
    pub query_params: Vec<ValueMatch>,
    /// The method.
    pub method: Option<String>,
}

/// A condition on the path.
#[derive(Clone, Debug, Deserialize)]
pub struct PathMatch {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The path, the prefix or the expression.
    pub value: Option<String>,
}

/// Durations in the format of GEP-2257.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For the whole request.
    pub request: Option<String>,
    /// For one attempt.
    pub backend_request: Option<String>,
}

/// When and how often a request is tried again (GEP-1731).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// Statuses of a response.
    pub codes: Vec<i64>,
    /// Attempts after the first; absent: one of weft's own choice.
    pub attempts: Option<i64>,
    /// Least pause between attempts.
    pub backoff: Option<String>,
}
