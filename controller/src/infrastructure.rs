//! What runs for a Gateway in a cluster: a ServiceAccount, a Deployment of proxies, a Service in front of them, and for several proxies
//! a PodDisruptionBudget. Pure; [`keep`] makes the cluster have them, [`files`] writes them for a sandbox.
//!
//! The pod template depends on nothing that listeners say: a listener that comes or goes restarts no proxy.

mod parameters;
pub mod keep;
pub mod files;
pub mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use weft_proto::{
    environment::{self, Mesh, Source},
    names::{
        self, GATEWAY_COMPONENT, container, env,
        gateway_api::{CONTROLLER, GATEWAY_CLASS_NAME, GATEWAY_NAME, GROUP},
        kubernetes::{NAME, PART_OF, PART_OF_WEFT},
        label, path, port,
    },
};

pub use parameters::{Parameters, ServiceType};

use crate::{
    cluster::{
        Cluster, ObjectKey,
        types::{Key, Kind},
    },
    gateway::{object_name, objects::Gateway},
};

/// First argument of a gateway's proxy.
const GATEWAY: &str = "gateway";
/// The most bytes of a label's value.
const LABEL: usize = 63;
/// Seconds from a proxy's start to its first certificate, before the kubelet restarts it.
const STARTUP_SECONDS: u32 = 120;
/// Seconds that a pod has to end: those of the proxy's drain, and some for what stands in front of it to notice.
const GRACE_SECONDS: u32 = 45;

/// What every gateway's pod is told alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Image of the proxy.
    pub image: String,
    /// `imagePullPolicy` of it.
    pub image_pull_policy: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// PEM certificates that identities must lead to.
    pub trust_bundle: String,
    /// `host:port` of the discovery service.
    pub discovery: String,
    /// `host:port` of the identity service.
    pub identity: String,
    /// Where proxies export spans to.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that proxies record, from 0 to 1.
    pub trace_sampling: Option<f64>,
}

/// A Gateway, as far as its infrastructure depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Its name.
    pub gateway: ObjectKey,
    /// The name of its class.
    pub class: String,
    /// UID of the object: what is made goes with it.
    pub uid: String,
    /// Name of what is made.
    pub name: String,
    /// TCP ports of its listeners, and of those that ListenerSets add.
    pub ports: BTreeSet<u16>,
    /// Addresses that it asks for, in its order.
    pub addresses: Vec<IpAddr>,
    /// Labels of what is made.
    pub labels: BTreeMap<String, String>,
    /// Annotations of what is made.
    pub annotations: BTreeMap<String, String>,
}

/// What is to become of a Gateway's infrastructure.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// This.
    Front(Box<Front>, Parameters),
    /// What is there stays: what is wanted cannot be read now.
    AsItIs,
    /// Nothing: it is another's Gateway.
    Nothing,
}

/// What each Gateway of a cluster wants.
pub fn wants(cluster: &Cluster) -> BTreeMap<ObjectKey, Want> {
    let want = |gateway: &Arc<Gateway>| match cluster.gateway_class_named(&gateway.spec.gateway_class_name) {
        Some(class) if class.spec.controller_name == CONTROLLER => match parameters(cluster, gateway) {
            Some(parameters) => Want::Front(Box::new(front(cluster, gateway)), parameters),
            None => Want::AsItIs,
        },
        Some(_) => Want::Nothing,
        // Whoever takes a class away for a moment does not mean its front doors.
        None => Want::AsItIs,
    };
    cluster
        .gateways()
        .map(|gateway| (gateway.key.clone(), want(gateway)))
        .collect()
}

/// What the Gateway's parameters say; `None`: they cannot be read, which the Gateway's status says.
fn parameters(cluster: &Cluster, gateway: &Gateway) -> Option<Parameters> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(reference) = infrastructure.and_then(|one| one.parameters_ref.as_ref()) else {
        return Some(Parameters::default());
    };
    if (reference.group.as_str(), reference.kind.as_str()) != ("", "ConfigMap") {
        return None;
    }
    let key = ObjectKey::new(&gateway.key.namespace, &reference.name);
    Parameters::read(&cluster.config_map_named(&key)?.data).ok()
}

fn front(cluster: &Cluster, gateway: &Gateway) -> Front {
    let sets = cluster
        .listener_sets_of(&gateway.key)
        .flat_map(|set| &set.spec.listeners);
    let listeners = gateway.spec.listeners.iter().chain(sets);
    let over_tcp = listeners.filter(|listener| listener.protocol != "UDP");
    let ports = over_tcp.map(|listener| listener.port);
    let key = Key {
        kind: Kind::Gateway,
        object: gateway.key.clone(),
    };
    let addresses = gateway.spec.addresses.iter();
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    Front {
        class: gateway.spec.gateway_class_name.clone(),
        uid: cluster
            .observed(&key)
            .map(|observed| observed.uid.to_string())
            .unwrap_or_default(),
        name: object_name(&gateway.key.name),
        ports: ports.filter(|port| *port > 0 && *port != port::METRICS).collect(),
        addresses: addresses.filter_map(|address| address.value.parse().ok()).collect(),
        labels: infrastructure.labels,
        annotations: infrastructure.annotations,
        gateway: gateway.key.clone(),
    }
}

/// The objects of a Gateway, in the order in which they are to come into being.
pub fn objects(front: &Front, parameters: &Parameters, settings: &Settings) -> Vec<Value> {
    let mut objects = vec![service_account(front), deployment(front, parameters, settings)];
    // A Service has at least one port.
    objects.extend((!front.ports.is_empty()).then(|| service(front, parameters)));
    let several = parameters.replicas.is_some_and(|replicas| replicas > 1);
    objects.extend(several.then(|| disruption_budget(front)));
    objects
}

/// A text as the value of a label, which has 63 bytes at most: of a longer one its beginning and a hash.
pub fn label_value(text: &str) -> String {
    if text.len() <= LABEL {
        return text.to_owned();
    }
    let hash: String = Sha256::digest(text)[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Names of objects are ASCII.
    let begin: String = text.chars().take(LABEL - 1 - hash.len()).collect();
    format!("{begin}-{hash}")
}

/// By these a Service and a Deployment know their pods.
fn selector(front: &Front) -> Map<String, Value> {
    [
        (GATEWAY_NAME, label_value(&front.gateway.name)),
        (NAME, GATEWAY_COMPONENT.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.into()))
    .collect()
}

/// The Gateway's own labels, and over them those by which what is made is known.
fn labels(front: &Front) -> Map<String, Value> {
    let own = front
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()));
    let fixed = [
        (GATEWAY_CLASS_NAME, label_value(&front.class)),
        (PART_OF, PART_OF_WEFT.to_owned()),
    ];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.into()));
    own.chain(fixed).chain(selector(front)).collect()
}

fn metadata(front: &Front) -> Value {
    let owner = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "Gateway", "name": &*front.gateway.name, "uid": front.uid, "controller": true,
    });
    json!({
        "name": front.name, "namespace": &*front.gateway.namespace, "labels": labels(front), "annotations": front.annotations,
        "ownerReferences": [owner],
    })
}

fn service_account(front: &Front) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(front),
        // The proxy shows its projected token to weft, and has nothing to ask the API server.
        "automountServiceAccountToken": false,
    })
}

fn service(front: &Front, parameters: &Parameters) -> Value {
    let port =
        |port: &u16| json!({"name": format!("port-{port}"), "port": port, "targetPort": port, "protocol": "TCP"});
    let ports: Vec<Value> = front.ports.iter().map(port).collect();
    let mut spec = json!({
        "type": parameters.service_type.as_str(), "ipFamilyPolicy": "PreferDualStack", "selector": selector(front), "ports": ports,
    });
    if let Some(policy) = &parameters.external_traffic_policy
        && parameters.service_type != ServiceType::ClusterIp
    {
        spec["externalTrafficPolicy"] = policy.as_str().into();
    }
    match (parameters.service_type, front.addresses.first()) {
        (_, None) => {}
        // There is one field for one address, and whoever gives addresses says in the Service's status which it gave.
        (ServiceType::LoadBalancer, Some(first)) => spec["loadBalancerIP"] = first.to_string().into(),
        (ServiceType::NodePort | ServiceType::ClusterIp, Some(_)) => {
            spec["externalIPs"] = front.addresses.iter().map(IpAddr::to_string).collect();
        }
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(front), "spec": spec})
}

fn disruption_budget(front: &Front) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(front),
        // Not minAvailable, which would keep a node from being drained when there is one pod left.
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(front)}},
    })
}

fn deployment(front: &Front, parameters: &Parameters, settings: &Settings) -> Value {
    // A new pod beside the old one would find the node's ports taken.
    let (surge, unavailable) = if parameters.host_ports.is_empty() {
        (1, 0)
    } else {
        (0, 1)
    };
    let mut annotations = front.annotations.clone();
    // It is no sidecar's pod: nothing is to be redirected in it.
    annotations.insert(label::INJECT.to_owned(), "disabled".to_owned());
    let mut spec = json!({
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        "selector": {"matchLabels": selector(front)},
        "template": {
            "metadata": {"labels": labels(front), "annotations": annotations},
            "spec": pod(front, parameters, settings),
        },
    });
    // Where it is not said, the number of pods is an autoscaler's to set.
    if let Some(replicas) = parameters.replicas {
        spec["replicas"] = replicas.into();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(front), "spec": spec})
}

fn pod(front: &Front, parameters: &Parameters, settings: &Settings) -> Value {
    let spread = |key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(front)},
        })
    };
    let token = json!({
        "audience": names::TOKEN_AUDIENCE, "expirationSeconds": names::TOKEN_LIFE_SECONDS, "path": container::TOKEN_FILE,
    });
    json!({
        "serviceAccountName": front.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "topologySpreadConstraints": [spread("kubernetes.io/hostname"), spread("topology.kubernetes.io/zone")],
        // With the sysctl, which every Pod Security level allows, the proxy binds 80 and 443 without a capability.
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": names::PROXY_UID, "runAsGroup": names::PROXY_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [proxy(front, parameters, settings)],
        "volumes": [
            {"name": container::TOKEN_VOLUME, "projected": {"defaultMode": 0o644, "sources": [{"serviceAccountToken": token}]}},
            {"name": container::RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    })
}

fn proxy(front: &Front, parameters: &Parameters, settings: &Settings) -> Value {
    let ready = |period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path::READY, "port": port::METRICS, "scheme": "HTTP"},
            "periodSeconds": period, "timeoutSeconds": 1, "failureThreshold": failures,
        })
    };
    let mut ports = vec![json!({"name": "weft-metrics", "containerPort": port::METRICS, "protocol": "TCP"})];
    let host_ports = parameters.host_ports.iter();
    ports.extend(host_ports.map(|port| json!({"containerPort": port, "hostPort": port, "protocol": "TCP"})));
    let resources = |own: &[(&'static str, &str)], given: &BTreeMap<&'static str, String>| {
        let own = own.iter().map(|(name, amount)| (*name, (*amount).to_owned()));
        let given = given.iter().map(|(name, amount)| (*name, amount.clone()));
        own.chain(given).collect::<BTreeMap<_, _>>()
    };
    json!({
        "name": container::PROXY,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [GATEWAY],
        "env": environment(front, settings),
        "ports": ports,
        // The first start waits for a certificate.
        "startupProbe": ready(1, STARTUP_SECONDS),
        "readinessProbe": ready(2, 3),
        "lifecycle": {"preStop": {"exec": {"command": ["weft-proxy", "drain"]}}},
        "resources": {
            "requests": resources(&[("cpu", "100m"), ("memory", "128Mi")], &parameters.requests),
            "limits": resources(&[("memory", "1Gi")], &parameters.limits),
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": container::TOKEN_VOLUME, "mountPath": container::TOKEN_MOUNT, "readOnly": true},
            {"name": container::RUN_VOLUME, "mountPath": container::RUN_MOUNT},
        ],
    })
}

fn environment(front: &Front, settings: &Settings) -> Vec<Value> {
    let mesh = Mesh {
        trust_domain: &settings.trust_domain,
        trust_bundle: &settings.trust_bundle,
        discovery: &settings.discovery,
        identity: &settings.identity,
        otlp_endpoint: settings.otlp_endpoint.as_deref(),
        trace_sampling: settings.trace_sampling,
    };
    let variable = |(name, source): (&str, Source)| match source {
        Source::Text(text) => json!({"name": name, "value": text}),
        Source::Field(path) => {
            json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
        }
    };
    let own = [(env::GATEWAY, front.gateway.to_string())];
    environment::variables(&mesh, own).into_iter().map(variable).collect()
}

#[cfg(test)]
mod tests;
