//! The compact objects of a [`super::Cluster`]: what weft reads of each, and nothing else.

use std::{fmt, net::IpAddr, sync::Arc};

use weft_proto::{
    rpc::discovery::Protocol,
    skip::{Cidrs, Ports},
};

use crate::translate::Route;

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
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::Namespace,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::Node,
        Kind::ServiceCidr,
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
        }
    }

    /// Whether its objects belong to no namespace.
    pub fn is_cluster_wide(self) -> bool {
        matches!(self, Kind::Namespace | Kind::Node | Kind::ServiceCidr)
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
    /// An HTTPRoute or a GRPCRoute.
    Route(Route),
    /// A Node or a ServiceCIDR.
    Ranges(Ranges),
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
            Object::Route(route) => return route.key.clone(),
            Object::Ranges(ranges) => return ranges.key.clone(),
        };
        Key { kind, object }
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
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
    /// Its cluster addresses; empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
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
