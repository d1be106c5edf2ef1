//! GatewayClass, Gateway and ListenerSet, `gateway.networking.k8s.io/v1`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{GATEWAY_GROUP, LabelSelector};

/// `spec` of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Whose class it is.
    pub controller_name: String,
    /// Not supported: parameters stand in each Gateway's `infrastructure`.
    pub parameters_ref: Option<Value>,
    /// For readers.
    pub description: Option<String>,
}

/// `spec` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Its listeners.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Addresses that are asked for.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// What its pods and its Service are to be.
    pub infrastructure: Option<Infrastructure>,
    /// Which ListenerSets may add listeners.
    pub allowed_listeners: Option<AllowedListeners>,
    /// TLS of all listeners and backends.
    pub tls: Option<GatewayTls>,
    /// Not supported: routes name their Gateways.
    pub default_scope: Option<String>,
}

/// A listener, of a Gateway or of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Absent: every host.
    pub hostname: Option<String>,
    /// Its port.
    #[serde(default)]
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP`, or of someone else.
    #[serde(default)]
    pub protocol: String,
    /// For HTTPS and TLS.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    pub allowed_routes: Option<AllowedRoutes>,
}

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// `Terminate` or `Passthrough`.
    pub mode: Option<String>,
    /// Certificates.
    #[serde(default)]
    pub certificate_refs: Vec<Reference>,
    /// Of implementations.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A reference to a Secret or a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// `""` for a Secret and a ConfigMap.
    #[serde(default)]
    pub group: String,
    /// Absent: Secret.
    pub kind: Option<String>,
    /// The object's namespace; where it is absent, that of who refers.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// Absent: of the listener's own namespace.
    pub namespaces: Option<Namespaces>,
    /// Empty: every kind that its protocol has.
    #[serde(default)]
    pub kinds: Vec<RouteKind>,
}

/// Namespaces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespaces {
    /// `Same`, `All`, `Selector` or `None`.
    pub from: Option<String>,
    /// For `Selector`.
    pub selector: Option<LabelSelector>,
}

/// A kind of routes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteKind {
    /// The API group.
    #[serde(default = "group")]
    pub group: String,
    /// The kind.
    pub kind: String,
}

fn group() -> String {
    GATEWAY_GROUP.into()
}

/// An address that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// `IPAddress`, `Hostname`, or of someone else; absent: `IPAddress`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Empty: any of that type.
    #[serde(default)]
    pub value: String,
}

/// What a Gateway's pods and its Service are to be.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    /// Labels of all of them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of all of them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// A ConfigMap of the Gateway's namespace.
    pub parameters_ref: Option<LocalReference>,
}

/// A reference to an object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Its API group.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Which ListenerSets may add listeners.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedListeners {
    /// Absent: none.
    pub namespaces: Option<Namespaces>,
}

/// TLS of all listeners and backends of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTls {
    /// Towards backends.
    pub backend: Option<BackendTls>,
    /// Towards clients.
    pub frontend: Option<FrontendTls>,
}

/// What a Gateway shows of itself to backends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// The Secret with the certificate and its key.
    pub client_certificate_ref: Option<Reference>,
}

/// What a Gateway wants of clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTls {
    /// On every port of protocol HTTPS that `per_port` does not name.
    pub default: Option<PortTls>,
    /// On these ports.
    #[serde(default)]
    pub per_port: Vec<PerPort>,
}

/// What is wanted of clients on one port.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PerPort {
    /// The port.
    pub port: u16,
    /// What is wanted.
    pub tls: PortTls,
}

/// What is wanted of clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortTls {
    /// Absent: nothing.
    pub validation: Option<ClientValidation>,
}

/// How certificates of clients are checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// ConfigMaps or Secrets with CAs.
    #[serde(default)]
    pub ca_certificate_refs: Vec<Reference>,
    /// `AllowValidOnly` or `AllowInsecureFallback`.
    pub mode: Option<String>,
}

/// `spec` of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// The Gateway that gets the listeners.
    pub parent_ref: ParentGateway,
    /// The listeners.
    #[serde(default)]
    pub listeners: Vec<Listener>,
}

/// The Gateway of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentGateway {
    /// The Gateway API's where it is absent.
    #[serde(default = "group")]
    pub group: String,
    /// `Gateway` where it is absent.
    pub kind: Option<String>,
    /// The ListenerSet's own where it is absent.
    pub namespace: Option<String>,
    /// The Gateway's name.
    pub name: String,
}
