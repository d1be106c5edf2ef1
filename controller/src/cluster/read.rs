//! Kubernetes objects → compact objects. All that is wrong with one object is said together: what makes it unusable as
//! [`Mistakes`], what weft reads in its own way as notes.

mod secret;

use std::{net::IpAddr, str::FromStr, sync::Arc};

use weft_proto::{
    meshed,
    names::{container, kubernetes::EXCLUDED_NAMESPACES, label},
    rpc::discovery::Protocol,
    skip::{Cidrs, Ports},
};

pub use secret::{config_map, secret};

use super::types::{
    Key, Kind, Mesh, Namespace, ObjectKey, Observed, Pod, Ranges, Service, ServiceKind, ServicePort, Slice,
    SliceEndpoint, SlicePort,
};
use crate::objects::core::{self, EndpointSlice, Meta, SERVICE_NAME};

/// The label of every namespace with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What is wrong with an object; each entry is one mistake.
pub type Mistakes = Vec<String>;

/// Namespace and name of an object, of which the name must be there.
pub fn key<L>(metadata: &Meta<L>) -> Result<ObjectKey, Mistakes> {
    match metadata.name.as_deref() {
        Some(name) if !name.is_empty() => {
            let namespace = metadata
                .namespace
                .as_deref()
                .filter(|text| !text.is_empty())
                .unwrap_or("default");
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err(vec!["metadata.name is missing".into()]),
    }
}

/// Creation in seconds since 1970; 0 where it is not said.
pub fn created(metadata: &Meta) -> i64 {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(0, |time| time.0.as_second())
}

/// What is observed of an object of the Gateway API.
pub fn observed(object: &mut core::Custom) -> Observed {
    let metadata = &object.metadata;
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    Observed {
        generation: metadata.generation.unwrap_or_default(),
        resource_version: text(&metadata.resource_version),
        uid: text(&metadata.uid),
        created: created(metadata),
        status: Arc::new(object.status.take()),
    }
}

/// Reads a Namespace.
pub fn namespace(object: core::Namespace, notes: &mut Vec<String>) -> Result<Namespace, Mistakes> {
    let key = key(&object.metadata)?;
    let mut labels = object.metadata.labels.unwrap_or_default();
    let label = |name| labels.get(name).map(String::as_str);
    let strict = label(label::MTLS).is_some_and(|text| strict(text, "label", notes));
    let injected = label(label::INJECT) == Some("enabled") && !EXCLUDED_NAMESPACES.contains(&&*key.name);
    // An API server sets it of itself, and selectors rely on it.
    labels
        .entry(NAMESPACE_NAME.to_owned())
        .or_insert_with(|| key.name.to_string());
    Ok(Namespace {
        name: key.name,
        labels: Arc::new(labels),
        strict,
        injected,
    })
}

/// Deny on doubt: someone who wrote `Strict` must not get plaintext.
fn strict(text: &str, what: &str, notes: &mut Vec<String>) -> bool {
    if !matches!(text, "strict" | "permissive") {
        let name = label::MTLS;
        notes.push(format!(
            "the {what} {name} is '{text}' and is taken for 'strict'; write 'permissive' or 'strict'"
        ));
    }
    text != "permissive"
}

/// Reads a Pod.
pub fn pod(object: core::Pod, notes: &mut Vec<String>) -> Result<Pod, Mistakes> {
    let key = key(&object.metadata)?;
    let mut mistakes = Mistakes::new();
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    // The addresses of a pod that has ended are given to others.
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ips = if ended || spec.host_network == Some(true) {
        Vec::new()
    } else {
        let listed = status.pod_ips.unwrap_or_default().into_iter().map(|ip| ip.ip);
        let mut ips = addresses(listed.chain(status.pod_ip), "status.podIPs", &mut mistakes);
        ips.sort();
        ips.dedup();
        ips
    };
    let annotation = |name| object.metadata.annotations.as_ref().and_then(|all| all.get(name));
    let strict = annotation(label::MTLS).is_some_and(|text| strict(text, "annotation", notes));
    let out = annotation(label::INJECT) == Some("disabled");
    let mesh = mesh(spec.init_containers.as_deref().unwrap_or_default()).unwrap_or_else(|wrong| {
        mistakes.push(wrong);
        None
    });
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let host_network = spec.host_network == Some(true);
    let terminating = object.metadata.deletion_timestamp;
    let conditions = status.conditions.unwrap_or_default();
    let holds = |name: &str| {
        let mut all = conditions.iter();
        all.any(|condition| condition.r#type == name && condition.status == "True")
    };
    let gates = spec.readiness_gates.unwrap_or_default();
    Ok(Pod {
        key,
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        created: created(&object.metadata),
        ips,
        host_network,
        bare: mesh.is_none() && !(out || host_network || ended || terminating),
        service_account: spec.service_account_name.as_deref().unwrap_or("default").into(),
        mesh: mesh.filter(|_| !host_network),
        terminating,
        strict,
        containers_ready: !ended && holds("ContainersReady") && gates.iter().all(|gate| holds(&gate.condition_type)),
    })
}

/// Whether weft runs in a pod is read from its specification alone, which cannot change after admission; annotations and
/// labels can.
fn mesh(init_containers: &[core::Container]) -> Result<Option<Mesh>, String> {
    let has_proxy = init_containers.iter().any(|container| {
        let first = container.args.as_ref().and_then(|args| args.first());
        meshed::is_proxy(
            &container.name,
            container.restart_policy.as_deref(),
            first.map(String::as_str),
        )
    });
    if !has_proxy {
        return Ok(None);
    }
    let Some(init) = init_containers
        .iter()
        .find(|container| container.name == container::INIT)
    else {
        return Ok(Some(Mesh::default()));
    };
    let args = init.args.as_deref().unwrap_or_default();
    let text = argument(args, "--skip-inbound-ports").unwrap_or_default();
    let ports = Ports::from_str(text)
        .map_err(|bad| format!("--skip-inbound-ports of the container {}: {bad}", container::INIT))?;
    Ok(Some(Mesh {
        skip_inbound_ports: ports,
    }))
}

/// The value of `--flag value` or `--flag=value`.
fn argument<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    args.iter()
        .enumerate()
        .find_map(|(index, arg)| match arg.strip_prefix(flag) {
            Some("") => args.get(index + 1).map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        })
}

/// Reads a Service.
pub fn service(object: core::Service) -> Result<Service, Mistakes> {
    let key = key(&object.metadata)?;
    let mut mistakes = Mistakes::new();
    let spec = object.spec.unwrap_or_default();
    let kind = match spec.type_.as_deref() {
        Some("ExternalName") => ServiceKind::ExternalName,
        Some("LoadBalancer") => ServiceKind::LoadBalancer,
        Some("NodePort") => ServiceKind::NodePort,
        _ => ServiceKind::ClusterIp,
    };
    let external = kind == ServiceKind::ExternalName;
    let listed = spec.cluster_ips.unwrap_or_default().into_iter().chain(spec.cluster_ip);
    let listed = listed.filter(|ip| !external && !ip.is_empty() && ip != "None");
    let mut cluster_ips = addresses(listed, "spec.clusterIPs", &mut mistakes);
    cluster_ips.sort();
    cluster_ips.dedup();
    let external_ips = addresses(spec.external_ips.unwrap_or_default(), "spec.externalIPs", &mut mistakes);
    let ingress = object.status.unwrap_or_default().load_balancer.unwrap_or_default();
    let ingress = ingress.ingress.unwrap_or_default().into_iter();
    let ingress = ingress
        .filter_map(|one| one.ip.or(one.hostname))
        .filter(|one| !one.is_empty());
    let mut ports: Vec<ServicePort> = Vec::new();
    for port in spec
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter(|port| is_tcp(port.protocol.as_deref()))
    {
        let name: Arc<str> = port.name.as_deref().unwrap_or_default().into();
        match port_number(port.port) {
            None => mistakes.push(format!("spec.ports: '{}' is not a port from 1 to 65535", port.port)),
            Some(number) if ports.iter().any(|other| other.number == number) => {
                mistakes.push(format!("spec.ports: the TCP port {number} is there twice"));
            }
            Some(number) => {
                ports.push(ServicePort {
                    name,
                    number,
                    protocol: app_protocol(port.app_protocol.as_deref()),
                    within_tls: within_tls(port.app_protocol.as_deref()),
                });
            }
        }
    }
    if mistakes.is_empty() {
        Ok(Service {
            key,
            kind,
            cluster_ips,
            ingress: ingress.map(Into::into).collect(),
            external_ips,
            ports,
        })
    } else {
        Err(mistakes)
    }
}

/// What a port's `appProtocol` says of its bytes. Names that weft does not know say nothing.
pub fn app_protocol(text: Option<&str>) -> Protocol {
    match text {
        // GEP-1911: kubernetes.io/ws is HTTP/1.1 with an Upgrade.
        Some("http" | "kubernetes.io/ws") => Protocol::Http1,
        Some("kubernetes.io/h2c" | "grpc" | "h2c") => Protocol::H2c,
        Some("https" | "tls" | "kubernetes.io/wss") => Protocol::Tls,
        Some(
            "weft.dev/opaque" | "tcp" | "mysql" | "redis" | "postgresql" | "postgres" | "mongo" | "mongodb" | "smtp"
            | "amqp" | "kafka" | "ldap" | "ssh" | "ftp" | "imap" | "pop3" | "cassandra" | "nats",
        ) => Protocol::Opaque,
        _ => Protocol::Detect,
    }
}

/// What is spoken inside of TLS that weft originates to a port with this `appProtocol`.
fn within_tls(text: Option<&str>) -> Protocol {
    match text {
        Some("kubernetes.io/wss") => Protocol::Http1,
        Some("https" | "tls") => Protocol::Detect,
        other => app_protocol(other),
    }
}

/// Reads an EndpointSlice. `None`: it belongs to no Service, or lists names instead of addresses.
pub fn slice(object: EndpointSlice) -> Result<Option<Slice>, Mistakes> {
    let key = key(&object.metadata)?;
    let service = object
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(SERVICE_NAME));
    let Some(service) = service.filter(|_| object.address_type != "FQDN") else {
        return Ok(None);
    };
    let mut mistakes = Mistakes::new();
    let mut ports = Vec::new();
    for port in object
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter(|port| is_tcp(port.protocol.as_deref()))
    {
        // A slice port without a number stands for every port, which no Service makes.
        let Some(number) = port.port else { continue };
        match port_number(number) {
            Some(number) => ports.push(SlicePort {
                name: port.name.as_deref().unwrap_or_default().into(),
                number,
            }),
            None => mistakes.push(format!("ports: '{number}' is not a port from 1 to 65535")),
        }
    }
    let mut endpoints = Vec::new();
    for endpoint in object.endpoints.unwrap_or_default() {
        let first = endpoint.addresses.into_iter().take(1);
        let Some(&address) = addresses(first, "endpoints.addresses", &mut mistakes).first() else {
            continue;
        };
        let conditions = endpoint.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let pod = endpoint
            .target_ref
            .filter(|target| target.kind.as_deref() == Some("Pod"));
        endpoints.push(SliceEndpoint {
            address,
            pod: pod
                .and_then(|pod| pod.name)
                .map(|name| ObjectKey::new(&key.namespace, &name)),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        });
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let service = ObjectKey {
        namespace: key.namespace.clone(),
        name: service.into(),
    };
    Ok(Some(Slice {
        key,
        service,
        ports,
        endpoints,
    }))
}

/// Reads the ranges of a Node's pods.
pub fn node(object: core::Node) -> Result<Ranges, Mistakes> {
    let spec = object.spec.unwrap_or_default();
    let listed = spec.pod_cidrs.unwrap_or_default().into_iter().chain(spec.pod_cidr);
    ranges(Kind::Node, &object.metadata, listed, "spec.podCIDRs")
}

/// Reads the ranges of a ServiceCIDR.
pub fn service_cidr(object: core::ServiceCidr) -> Result<Ranges, Mistakes> {
    let listed = object.spec.unwrap_or_default().cidrs.unwrap_or_default();
    ranges(Kind::ServiceCidr, &object.metadata, listed, "spec.cidrs")
}

fn ranges(
    kind: Kind,
    metadata: &Meta,
    listed: impl IntoIterator<Item = String>,
    field: &str,
) -> Result<Ranges, Mistakes> {
    let object = ObjectKey {
        namespace: "".into(),
        ..key(metadata)?
    };
    let mut mistakes = Mistakes::new();
    let read = |text: String| match text.parse::<Cidrs>() {
        Ok(cidrs) => cidrs.ranges().to_vec(),
        Err(bad) => {
            mistakes.push(format!("{field}: {bad}"));
            Vec::new()
        }
    };
    let cidrs = listed.into_iter().flat_map(read).collect();
    if mistakes.is_empty() {
        Ok(Ranges {
            key: Key { kind, object },
            cidrs,
        })
    } else {
        Err(mistakes)
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

fn addresses(texts: impl IntoIterator<Item = String>, field: &str, mistakes: &mut Mistakes) -> Vec<IpAddr> {
    let read = |text: String| match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            mistakes.push(format!("{field}: '{text}' is not an IP address"));
            None
        }
    };
    texts.into_iter().filter_map(read).collect()
}
