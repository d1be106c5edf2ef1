//! The compact objects of a [`super::Cluster`]: what weft reads of each, and nothing else.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde_json::Value;

use weft_proto::{
    rpc::discovery::Protocol,
    skip::{Cidrs, Ports},
};

use crate::{
    gateway::objects::{BackendTlsPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant},
    translate::Route,
};

/// The kinds of objects that weft reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// v1 Namespace.
    Namespace,
    /// v1 Pod.
    Pod,
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// gateway.networking.k8s.io/v1 HTTPRoute.
    HttpRoute,
    /// gateway.networking.k8s.io/v1 GRPCRoute.
    GrpcRoute,
    /// v1 Node.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR.
    ServiceCidr,
    /// gateway.networking.k8s.io/v1 GatewayClass.
    GatewayClass,
    /// gateway.networking.k8s.io/v1 Gateway.
    Gateway,
    /// gateway.networking.k8s.io/v1 ListenerSet.
    ListenerSet,
    /// gateway.networking.k8s.io/v1 TLSRoute.
    TlsRoute,
    /// gateway.networking.k8s.io/v1 TCPRoute.
    TcpRoute,
    /// gateway.networking.k8s.io/v1 UDPRoute.
    UdpRoute,
    /// gateway.networking.k8s.io/v1 BackendTLSPolicy.
    BackendTlsPolicy,
    /// gateway.networking.k8s.io/v1 ReferenceGrant.
    ReferenceGrant,
    /// v1 Secret: those that others refer to.
    Secret,
    /// v1 ConfigMap: those that others refer to.
    ConfigMap,
}

impl Kind {
    /// All of them; those that are watched come first, in the order of [`Kind::WATCHED`].
    pub const ALL: [Kind; 18] = [
        Kind::Namespace,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::Node,
        Kind::ServiceCidr,
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::TlsRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::BackendTlsPolicy,
        Kind::ReferenceGrant,
        Kind::Secret,
        Kind::ConfigMap,
    ];

    /// Those of which every object is followed. Secrets and ConfigMaps are read by name, where something refers to them.
    pub const WATCHED: [Kind; 16] = [
        Kind::Namespace,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::Node,
        Kind::ServiceCidr,
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::TlsRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::BackendTlsPolicy,
        Kind::ReferenceGrant,
    ];

    /// The kind's name in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::HttpRoute => "HTTPRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::Node => "Node",
            Kind::ServiceCidr => "ServiceCIDR",
            Kind::GatewayClass => "GatewayClass",
            Kind::Gateway => "Gateway",
            Kind::ListenerSet => "ListenerSet",
            Kind::TlsRoute => "TLSRoute",
            Kind::TcpRoute => "TCPRoute",
            Kind::UdpRoute => "UDPRoute",
            Kind::BackendTlsPolicy => "BackendTLSPolicy",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
        }
    }

    /// Whether its objects belong to no namespace.
    pub fn is_cluster_wide(self) -> bool {
        matches!(
            self,
            Kind::Namespace | Kind::Node | Kind::ServiceCidr | Kind::GatewayClass
        )
    }

    /// Whether it is one of the Gateway API.
    pub fn is_gateway_api(self) -> bool {
        use Kind::*;
        self.is_route()
            || matches!(
                self,
                GatewayClass | Gateway | ListenerSet | BackendTlsPolicy | ReferenceGrant
            )
    }

    /// Whether it is a route, of which weft makes rules or at least says why not.
    pub fn is_route(self) -> bool {
        use Kind::*;
        matches!(self, HttpRoute | GrpcRoute | TlsRoute | TcpRoute | UdpRoute)
    }
}

/// Namespace and name of an object; the namespace is empty for what belongs to none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Of these two.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object among all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub object: ObjectKey,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.object)
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Namespace.
    Namespace(Namespace),
    /// A Pod.
    Pod(Pod),
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    Slice(Slice),
    /// A route of any kind.
    Route(Observed, Route),
    /// A Node or a ServiceCIDR.
    Ranges(Ranges),
    /// A GatewayClass.
    GatewayClass(Observed, GatewayClass),
    /// A Gateway.
    Gateway(Observed, Arc<Gateway>),
    /// A ListenerSet.
    ListenerSet(Observed, ListenerSet),
    /// A BackendTLSPolicy.
    BackendTlsPolicy(Observed, BackendTlsPolicy),
    /// A ReferenceGrant.
    ReferenceGrant(ReferenceGrant),
    /// A Secret.
    Secret(Secret),
    /// A ConfigMap.
    ConfigMap(ConfigMap),
}

impl Object {
    /// Which one it is.
    pub fn key(&self) -> Key {
        let (kind, object) = match self {
            Object::Namespace(namespace) => (
                Kind::Namespace,
                ObjectKey {
                    namespace: "".into(),
                    name: namespace.name.clone(),
                },
            ),
            Object::Pod(pod) => (Kind::Pod, pod.key.clone()),
            Object::Service(service) => (Kind::Service, service.key.clone()),
            Object::Slice(slice) => (Kind::EndpointSlice, slice.key.clone()),
            Object::Route(_, route) => return route.key.clone(),
            Object::Ranges(ranges) => return ranges.key.clone(),
            Object::GatewayClass(_, class) => (
                Kind::GatewayClass,
                ObjectKey {
                    namespace: "".into(),
                    name: class.name.clone(),
                },
            ),
            Object::Gateway(_, gateway) => (Kind::Gateway, gateway.key.clone()),
            Object::ListenerSet(_, set) => (Kind::ListenerSet, set.key.clone()),
            Object::BackendTlsPolicy(_, policy) => (Kind::BackendTlsPolicy, policy.key.clone()),
            Object::ReferenceGrant(grant) => (Kind::ReferenceGrant, grant.key.clone()),
            Object::Secret(secret) => (Kind::Secret, secret.key.clone()),
            Object::ConfigMap(map) => (Kind::ConfigMap, map.key.clone()),
        };
        Key { kind, object }
    }
}

/// What an API server says of an object beside what is asked for in it. A change of this alone changes no answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Counts the changes of the specification; 0 in files.
    pub generation: i64,
    /// Counts all changes; empty in files.
    pub resource_version: Arc<str>,
    /// UID of the object; empty in files that do not say one.
    pub uid: Arc<str>,
    /// Seconds since 1970; 0 where it is not said.
    pub created: i64,
    /// Its `.status`, ours and that of others.
    pub status: Arc<Value>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// `weft.dev/mtls: strict`.
    pub strict: bool,
    /// Its pods are to be in the mesh.
    pub injected: bool,
}

/// Ranges of addresses that belong to the cluster: a Node's pods, or Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// The object that says so.
    pub key: Key,
    /// The ranges.
    pub cidrs: Cidrs,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub key: ObjectKey,
    /// UID of the object.
    pub uid: Arc<str>,
    /// Seconds since 1970.
    pub created: i64,
    /// Its own addresses: none of a pod in its node's network, nor of one that has ended.
    pub ips: Vec<IpAddr>,
    /// It uses its node's network and addresses.
    pub host_network: bool,
    /// It runs without weft, and nothing about itself says that it should.
    pub bare: bool,
    /// Its ServiceAccount.
    pub service_account: Arc<str>,
    /// weft's redirects, where the pod's specification has weft's containers.
    pub mesh: Option<Mesh>,
    /// It is being deleted.
    pub terminating: bool,
    /// Its own annotation asks for strict mTLS.
    pub strict: bool,
    /// Its kubelet's last word: every container is ready, and so is what else the pod must wait for. Stays while the node is
    /// silent, when Kubernetes itself calls all pods of the node unready.
    pub containers_ready: bool,
}

/// What the arguments of weft's containers in a pod's specification say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// Inbound ports that are not redirected.
    pub skip_inbound_ports: Ports,
}

impl Pod {
    /// The addresses under which it is found.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.ips.iter()
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ObjectKey,
    /// What kind of Service it is.
    pub kind: ServiceKind,
    /// Its cluster addresses; empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// Where it is reached from outside, as `.status.loadBalancer` says: addresses or names.
    pub ingress: Vec<Arc<str>>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// `type` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reached inside of the cluster.
    #[default]
    ClusterIp,
    /// And at a port of every node.
    NodePort,
    /// And at addresses that someone gives it.
    LoadBalancer,
    /// Another name for something outside.
    ExternalName,
}

/// A Secret that something refers to, of which the parts that weft uses are read already.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Its name.
    pub key: ObjectKey,
    /// `tls.crt` with `tls.key`, or what is wrong with them.
    pub certificate: Result<Arc<Certificate>, Arc<str>>,
    /// `ca.crt`: PEM certificates, or what is wrong with them.
    pub roots: Result<Arc<str>, Arc<str>>,
}

/// A ConfigMap that something refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigMap {
    /// Its name.
    pub key: ObjectKey,
    /// `ca.crt`: PEM certificates, or what is wrong with them.
    pub roots: Result<Arc<str>, Arc<str>>,
    /// All of its data.
    pub data: Arc<BTreeMap<String, String>>,
}

/// A certificate with its chain and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, its own certificate first.
    pub chain: Arc<str>,
    /// PEM; fits the certificate.
    pub key: Arc<str>,
    /// DNS names of the certificate, in lower case; some begin with `*.`.
    pub names: Vec<Arc<str>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key never reaches a log.
        write!(f, "Certificate({})", self.names.join(", "))
    }
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// What `appProtocol` declares.
    pub protocol: Protocol,
    /// What is spoken inside of TLS that weft originates there.
    pub within_tls: Protocol,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub key: ObjectKey,
    /// The Service that it belongs to.
    pub service: ObjectKey,
    /// TCP ports of every endpoint.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

impl Slice {
    /// Addresses of all endpoints.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().map(|endpoint| endpoint.address)
    }

    /// Pods that its endpoints name.
    pub fn pods(&self) -> impl Iterator<Item = &ObjectKey> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref())
    }
}

/// A TCP port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: Arc<str>,
    /// The endpoints' port.
    pub number: u16,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address: of several in one endpoint the first, which are the same by definition of the API.
    pub address: IpAddr,
    /// The pod behind it, where it is one.
    pub pod: Option<ObjectKey>,
    /// Takes traffic.
    pub ready: bool,
    /// Still takes traffic although it is on its way out.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
}
