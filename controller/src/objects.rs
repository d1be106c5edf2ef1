//! Gateway API objects, as far as weft uses them: written from the CRDs of v1.6.3. Kubernetes' own are in [`core`].
//!
//! Unknown fields are tolerated. Fields that are known and not supported are kept, so that [`crate::translate`] can say
//! so: nothing is dropped in silence. Defaults of the CRDs are applied here, since files never met an API server.

pub mod core;
mod grpc_route;
mod http_route;

use serde::Deserialize;

pub use grpc_route::{GrpcMatch, GrpcMethodMatch, GrpcRouteSpec, GrpcRule};
pub use http_route::{HttpMatch, HttpRouteSpec, HttpRule, PathMatch, Timeouts};

/// API group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// What a route attaches to.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// `""` for a Service.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// `Service`, or a kind of someone else.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// The parent's namespace; the route's own where it is absent.
    pub namespace: Option<String>,
    /// The parent's name.
    pub name: String,
    /// A Service's port by name.
    pub section_name: Option<String>,
    /// A Service's port by number.
    pub port: Option<i64>,
}

fn gateway_group() -> String {
    GATEWAY_GROUP.into()
}

fn gateway_kind() -> String {
    "Gateway".into()
}

/// Where a rule sends requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// `""` for a Service.
    #[serde(default)]
    pub group: String,
    /// `Service`, or a kind of someone else.
    #[serde(default = "service_kind")]
    pub kind: String,
    /// The Service's namespace; the route's own where it is absent.
    pub namespace: Option<String>,
    /// The Service's name.
    pub name: String,
    /// The Service's port.
    pub port: Option<i64>,
    /// Its share of the sum of all.
    #[serde(default = "one")]
    pub weight: i64,
    /// Filters for this backend only.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

fn service_kind() -> String {
    "Service".into()
}

fn one() -> i64 {
    1
}

/// A filter of any type; the types that weft does not support keep their name only.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// `RequestHeaderModifier` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// For type RequestHeaderModifier.
    pub request_header_modifier: Option<HeaderModifier>,
    /// For type ResponseHeaderModifier.
    pub response_header_modifier: Option<HeaderModifier>,
    /// For type RequestRedirect.
    pub request_redirect: Option<Redirect>,
    /// For type URLRewrite.
    pub url_rewrite: Option<Rewrite>,
}

/// Changes of header fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderModifier {
    /// Replace.
    #[serde(default)]
    pub set: Vec<NameValue>,
    /// Add one more.
    #[serde(default)]
    pub add: Vec<NameValue>,
    /// Remove all.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A name with its value.
#[derive(Clone, Debug, Deserialize)]
pub struct NameValue {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A redirect.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host of the new location.
    pub hostname: Option<String>,
    /// Path of the new location.
    pub path: Option<PathModifier>,
    /// Port of the new location.
    pub port: Option<i64>,
    /// 301, 302, 303, 307 or 308.
    pub status_code: Option<i64>,
}

/// A rewrite on the way to the backend.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// New host.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathModifier>,
}

/// How a path is replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For type ReplaceFullPath.
    pub replace_full_path: Option<String>,
    /// For type ReplacePrefixMatch.
    pub replace_prefix_match: Option<String>,
}

/// A condition on a named value.
#[derive(Clone, Debug, Deserialize)]
pub struct ValueMatch {
    /// `Exact` or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The header field's or parameter's name.
    pub name: String,
    /// What its value must be.
    pub value: String,
}
