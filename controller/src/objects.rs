//! Gateway API objects, as far as weft uses them: written from the CRDs of v1.6.3. Kubernetes' own are in [`core`].
//!
//! Unknown fields are tolerated. Fields that are known and not supported are kept, so that [`crate::translate`] can say
//! so: nothing is dropped in silence. Defaults of the CRDs are applied here, since files never met an API server.

pub mod core;
pub mod gateway;
mod grpc_route;
mod http_route;
mod l4_route;
pub mod policy;
mod selector;

use serde::Deserialize;
use serde_json::Value;

pub use gateway::{LocalReference, Reference};
pub use grpc_route::{GrpcMatch, GrpcMethodMatch, GrpcRouteSpec, GrpcRule};
pub use http_route::{HttpMatch, HttpRouteSpec, HttpRule, PathMatch, Retry, Timeouts};
pub use l4_route::{L4RouteSpec, L4Rule};
pub use selector::{LabelSelector, Requirement};

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
    /// A Service's port or a Gateway's listener by name.
    pub section_name: Option<String>,
    /// A Service's port or a Gateway's listeners by number.
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
    /// For type RequestMirror.
    pub request_mirror: Option<Mirror>,
    /// For type CORS.
    #[serde(alias = "CORS")]
    pub cors: Option<Cors>,
    /// Not supported.
    pub external_auth: Option<Value>,
    /// Not supported.
    pub extension_ref: Option<Value>,
}

/// A copy of each request, or of some.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Where it goes.
    pub backend_ref: BackendRef,
    /// Of so many in a hundred; absent: of all.
    pub percent: Option<i64>,
    /// Or of such a part.
    pub fraction: Option<Fraction>,
}

/// A part of the whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fraction {
    /// Parts.
    pub numerator: i64,
    /// Parts of the whole.
    #[serde(default = "hundred")]
    pub denominator: i64,
}

fn hundred() -> i64 {
    100
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// Origins that may read responses.
    pub allow_origins: Vec<String>,
    /// Whether requests may carry credentials.
    pub allow_credentials: Option<bool>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Header fields of requests.
    pub allow_headers: Vec<String>,
    /// Header fields of responses.
    pub expose_headers: Vec<String>,
    /// Seconds; absent: 5.
    pub max_age: Option<i64>,
}

/// How the requests of a session stay together.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPersistence {
    /// Name of the cookie or header field; absent: one of weft's.
    pub session_name: Option<String>,
    /// The session ends so long after it began.
    pub absolute_timeout: Option<String>,
    /// The session ends when it was not used for so long.
    pub idle_timeout: Option<String>,
    /// `Cookie` or `Header`; absent: `Cookie`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// For type Cookie.
    #[serde(alias = "cookieConfig")]
    pub cookie: Option<CookieConfig>,
    /// For type Header.
    pub header: Option<HeaderConfig>,
}

/// The cookie of a session.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieConfig {
    /// Its name; absent: one of weft's.
    pub name: Option<String>,
    /// Its path; absent: `/`.
    pub path: Option<String>,
    /// `Session` or `Permanent`; absent: `Session`.
    pub lifetime_type: Option<String>,
}

/// The header field of a session.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderConfig {
    /// Its name; absent: one of weft's.
    pub name: Option<String>,
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
