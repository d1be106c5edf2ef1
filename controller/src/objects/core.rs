//! Kubernetes' own objects, as far as weft reads them. What is not read is skipped while it is parsed, so that of a list of
//! pods a hundredth part is in memory at no time; `managedFields` and most labels and annotations are of that.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;
use weft_proto::names::label;

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Labels and annotations that weft reads.
const READ: [&str; 3] = [label::INJECT, label::MTLS, SERVICE_NAME];

/// `metadata`; `L` is what is kept of labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta<L = Texts> {
    /// The object's name.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its UID.
    pub uid: Option<String>,
    /// When it was made.
    pub creation_timestamp: Option<Time>,
    /// It is being deleted.
    #[serde(deserialize_with = "is_there")]
    pub deletion_timestamp: bool,
    /// Counts the changes of what was asked for.
    pub generation: Option<i64>,
    /// Counts all changes.
    pub resource_version: Option<String>,
    /// Of its labels those that weft reads.
    pub labels: Option<L>,
    /// Of its annotations those that weft reads.
    pub annotations: Option<Texts>,
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(value).map(|value| value.is_some())
}

/// Those labels or annotations that weft reads.
#[derive(Clone, Debug, Default)]
pub struct Texts(Vec<(&'static str, String)>);

impl Texts {
    /// The value of one of them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value.as_str())
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Texts::default();
                while let Some(key) = map.next_key::<String>()? {
                    match READ.iter().find(|name| **name == key) {
                        Some(name) => texts.0.push((name, map.next_value()?)),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(texts)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// v1 Namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its name and all of its labels: selectors look at them.
    pub metadata: Meta<BTreeMap<String, String>>,
}

/// v1 Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its name and annotations.
    pub metadata: Meta,
    /// What was asked for.
    pub spec: Option<PodSpec>,
    /// What there is.
    pub status: Option<PodStatus>,
}

/// Of a pod what was asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// In its node's network.
    pub host_network: Option<bool>,
    /// Its ServiceAccount.
    pub service_account_name: Option<String>,
    /// Where weft's containers stand.
    pub init_containers: Option<Vec<Container>>,
    /// Conditions that others than the kubelet must set before the pod is ready.
    pub readiness_gates: Option<Vec<ReadinessGate>>,
}

/// A condition that must hold before a pod is ready.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    /// Its type.
    pub condition_type: String,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// `Always` for a sidecar.
    pub restart_policy: Option<String>,
    /// Its arguments.
    pub args: Option<Vec<String>>,
}

/// Of a pod what there is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `Succeeded` and `Failed` have ended.
    pub phase: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All of its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
    /// What holds of it.
    pub conditions: Option<Vec<Condition>>,
}

/// Something that holds of a pod, or does not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// What.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// An address of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// v1 Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub metadata: Meta,
    /// What was asked for.
    pub spec: Option<ServiceSpec>,
    /// What there is.
    pub status: Option<ServiceStatus>,
}

/// Of a Service what there is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// For type LoadBalancer.
    pub load_balancer: Option<LoadBalancer>,
}

/// Where a Service is reached from outside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// The addresses.
    pub ingress: Option<Vec<Ingress>>,
}

/// An address for traffic from outside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// An address.
    pub ip: Option<String>,
    /// Or a name.
    pub hostname: Option<String>,
}

/// Of a Service what was asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    /// `ExternalName` has no addresses.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Its first address, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All of its addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// Addresses outside of the cluster that lead to it.
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    /// Its ports.
    pub ports: Option<Vec<ServicePort>>,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name.
    pub name: Option<String>,
    /// Its number.
    pub port: i32,
    /// `TCP` where it is absent.
    pub protocol: Option<String>,
    /// What is spoken there.
    pub app_protocol: Option<String>,
}

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Its name, and the label with its Service's.
    pub metadata: Meta,
    /// `FQDN` lists names.
    pub address_type: String,
    /// The endpoints.
    pub endpoints: Option<Vec<Endpoint>>,
    /// The ports of every endpoint.
    pub ports: Option<Vec<EndpointPort>>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its state.
    pub conditions: Option<Conditions>,
    /// The pod behind it.
    pub target_ref: Option<TargetRef>,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Takes traffic.
    pub ready: Option<bool>,
    /// Can take traffic, though it may be on its way out.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

/// What is behind an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `Pod`, mostly.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name of the Service's port.
    pub name: Option<String>,
    /// The endpoints' port.
    pub port: Option<i32>,
    /// `TCP` where it is absent.
    pub protocol: Option<String>,
}

/// v1 Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub metadata: Meta,
    /// What was asked for.
    pub spec: Option<NodeSpec>,
}

/// Of a Node the ranges of its pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The first range.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// All ranges.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
}

/// networking.k8s.io/v1 ServiceCIDR.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidr {
    /// Its name.
    pub metadata: Meta,
    /// The ranges.
    pub spec: Option<ServiceCidrSpec>,
}

/// Ranges of Services' addresses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// The ranges.
    pub cidrs: Option<Vec<String>>,
}

/// An object of the Gateway API, whose specification is read by itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Custom {
    /// Its name.
    pub metadata: Meta,
    /// What was asked for.
    pub spec: Value,
    /// What was said of it.
    pub status: Value,
}

/// v1 Secret.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// Its name.
    pub metadata: Meta,
    /// Its data, each in base64.
    pub data: Option<BTreeMap<String, String>>,
    /// The same as text, in files.
    pub string_data: Option<BTreeMap<String, String>>,
}

/// v1 ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    /// Its name.
    pub metadata: Meta,
    /// Its data.
    pub data: Option<BTreeMap<String, String>>,
}
