//! The listeners of a Gateway and of the ListenerSets that add to it: which of them can be served, and why not.

use std::{collections::BTreeSet, sync::Arc};

use weft_proto::{names::port::METRICS, rpc::discovery::ListenerProtocol};

use super::{
    certificates::{self, ClientCheck},
    hosts,
    objects::{Gateway, ListenerSet},
    references::From,
};
use crate::{
    cluster::{
        Cluster,
        types::{Certificate, Kind},
    },
    objects::{
        GATEWAY_GROUP,
        gateway::{self as spec, Namespaces},
    },
};

/// A condition's reason with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Because {
    /// As the Gateway API words it.
    pub reason: &'static str,
    /// What, and where.
    pub message: String,
}

impl Because {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }
}

/// A Gateway of weft's with all listeners.
#[derive(Debug)]
pub struct View<'a> {
    /// The Gateway.
    pub gateway: &'a Arc<Gateway>,
    /// The ListenerSets that name it, those that come first by precedence first.
    pub sets: Vec<Set<'a>>,
    /// Its own listeners, in the order of the object, then those of its sets.
    pub listeners: Vec<Listener<'a>>,
}

/// A ListenerSet.
#[derive(Debug)]
pub struct Set<'a> {
    /// The object.
    pub set: &'a Arc<ListenerSet>,
    /// The Gateway allows sets of its namespace.
    pub allowed: bool,
}

/// A listener.
#[derive(Debug)]
pub struct Listener<'a> {
    /// The position of its set; `None`: the Gateway's own.
    pub set: Option<usize>,
    /// As it is asked for.
    pub spec: &'a spec::Listener,
    /// Its host pattern; `None`: every host.
    pub hostname: Option<Arc<str>>,
    /// What is served there; `None`: nothing, its protocol is not supported.
    pub protocol: Option<ListenerProtocol>,
    /// The kinds of routes that may attach.
    pub kinds: Vec<Kind>,
    /// Why it is not accepted.
    pub refused: Option<Because>,
    /// Why it is not distinct from others.
    pub conflict: Option<Because>,
    /// Which of its references lead nowhere, the first of them.
    pub unresolved: Option<Because>,
    /// Other listeners with TLS for hosts of its own.
    pub overlap: Option<Because>,
    /// Its certificates, as far as they can be used.
    pub certificates: Vec<Arc<Certificate>>,
    /// How clients are checked.
    pub client_check: Option<ClientCheck>,
}

impl Listener<'_> {
    /// Routes may attach, whether it can be served or not.
    pub fn takes_routes(&self) -> bool {
        self.protocol.is_some() && self.conflict.is_none()
    }

    /// It is one that a gateway serves.
    pub fn is_served(&self) -> bool {
        let has_certificate = match self.protocol {
            Some(ListenerProtocol::ListenerHttps | ListenerProtocol::ListenerTls) => !self.certificates.is_empty(),
            _ => true,
        };
        self.takes_routes() && self.refused.is_none() && !self.kinds.is_empty() && has_certificate
    }

    fn is_tls(&self) -> bool {
        use ListenerProtocol::*;
        matches!(self.protocol, Some(ListenerHttps | ListenerTls | ListenerPassthrough))
    }
}

impl<'a> View<'a> {
    /// Looks at a Gateway.
    pub fn new(cluster: &'a Cluster, gateway: &'a Arc<Gateway>) -> Self {
        let mut sets: Vec<Set<'a>> = cluster
            .listener_sets_of(&gateway.key)
            .map(|set| Set {
                set,
                allowed: allows(cluster, gateway, set),
            })
            .collect();
        // "ListenerSet ordered by creation time (oldest first) [then] alphabetically by {namespace}/{name}."
        sets.sort_by_key(|one| (one.set.created, &one.set.key));
        let mut listeners: Vec<Listener<'a>> = Vec::new();
        let own = From {
            kind: Kind::Gateway,
            namespace: &gateway.key.namespace,
        };
        listeners.extend(
            gateway
                .spec
                .listeners
                .iter()
                .map(|spec| listener(cluster, gateway, own, None, spec)),
        );
        for (index, one) in sets.iter().enumerate().filter(|(_, one)| one.allowed) {
            let from = From {
                kind: Kind::ListenerSet,
                namespace: &one.set.key.namespace,
            };
            let specs = one.set.spec.listeners.iter();
            listeners.extend(specs.map(|spec| listener(cluster, gateway, from, Some(index), spec)));
        }
        conflicts(&mut listeners);
        overlaps(&mut listeners);
        Self {
            gateway,
            sets,
            listeners,
        }
    }

    /// The namespace of a listener, which is that of its object.
    pub fn namespace(&self, listener: &Listener<'_>) -> &Arc<str> {
        match listener.set {
            Some(index) => &self.sets[index].set.key.namespace,
            None => &self.gateway.key.namespace,
        }
    }

    /// The name of a listener, in all of the Gateway.
    pub fn name(&self, listener: &Listener<'_>) -> String {
        match listener.set {
            Some(index) => format!("{}/{}", self.sets[index].set.key, listener.spec.name),
            None => listener.spec.name.clone(),
        }
    }

    /// The listeners of the Gateway itself, or of one of its sets.
    pub fn of(&self, set: Option<usize>) -> impl Iterator<Item = (usize, &Listener<'a>)> {
        self.listeners
            .iter()
            .enumerate()
            .filter(move |(_, listener)| listener.set == set)
    }
}

/// Whether a Gateway takes the listeners of a set. Without a word of it: none.
fn allows(cluster: &Cluster, gateway: &Gateway, set: &ListenerSet) -> bool {
    let allowed = gateway.spec.allowed_listeners.as_ref();
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    namespaces.is_some_and(|namespaces| {
        namespaces_hold(cluster, namespaces, "None", &gateway.key.namespace, &set.key.namespace)
    })
}

/// Whether a namespace is among some. `default`: what an absent `from` means; `own`: whose `Same` is.
pub(super) fn namespaces_hold(
    cluster: &Cluster,
    namespaces: &Namespaces,
    default: &str,
    own: &str,
    namespace: &str,
) -> bool {
    match namespaces.from.as_deref().unwrap_or(default) {
        "All" => true,
        "Same" => own == namespace,
        "Selector" => {
            let selector = namespaces.selector.as_ref();
            selector.is_some_and(|selector| cluster.namespace_holds(namespace, selector))
        }
        _ => false,
    }
}

fn listener<'a>(
    cluster: &Cluster,
    gateway: &Gateway,
    from: From<'_>,
    set: Option<usize>,
    spec: &'a spec::Listener,
) -> Listener<'a> {
    let hostname = spec.hostname.as_deref().filter(|host| !host.is_empty());
    let mut listener = Listener {
        set,
        spec,
        hostname: hostname.map(|host| host.to_ascii_lowercase().into()),
        protocol: None,
        kinds: Vec::new(),
        refused: None,
        conflict: None,
        unresolved: None,
        overlap: None,
        certificates: Vec::new(),
        client_check: None,
    };
    match protocol(spec) {
        Ok(protocol) => listener.protocol = Some(protocol),
        Err(because) => {
            listener.refused = Some(because);
            return listener;
        }
    }
    if spec.port == METRICS || spec.port == 0 {
        let message = format!("port {} is taken by weft itself", spec.port);
        listener.refused = Some(Because::new("PortUnavailable", message));
    }
    kinds(&mut listener);
    certificates::of_listener(cluster, from, &mut listener);
    if listener.protocol == Some(ListenerProtocol::ListenerHttps) {
        certificates::client_check(cluster, gateway, &mut listener);
    }
    listener
}

fn protocol(spec: &spec::Listener) -> Result<ListenerProtocol, Because> {
    let mode = spec
        .tls
        .as_ref()
        .and_then(|tls| tls.mode.as_deref())
        .unwrap_or("Terminate");
    match (spec.protocol.as_str(), mode) {
        ("HTTP", _) => Ok(ListenerProtocol::ListenerHttp),
        ("HTTPS", "Terminate") => Ok(ListenerProtocol::ListenerHttps),
        ("TLS", "Terminate") => Ok(ListenerProtocol::ListenerTls),
        ("TLS", "Passthrough") => Ok(ListenerProtocol::ListenerPassthrough),
        ("TCP", _) => Ok(ListenerProtocol::ListenerTcp),
        ("HTTPS" | "TLS", mode) => Err(Because::new(
            "UnsupportedValue",
            format!(
                "the mode '{mode}' of tls does not go with the protocol {}",
                spec.protocol
            ),
        )),
        (other, _) => Err(Because::new(
            "UnsupportedProtocol",
            format!("the protocol '{other}' is not supported; it can be HTTP, HTTPS, TLS or TCP"),
        )),
    }
}

/// The kinds of routes that a protocol has.
fn of_protocol(protocol: ListenerProtocol) -> &'static [Kind] {
    match protocol {
        ListenerProtocol::ListenerHttp | ListenerProtocol::ListenerHttps => &[Kind::HttpRoute, Kind::GrpcRoute],
        ListenerProtocol::ListenerTls | ListenerProtocol::ListenerPassthrough => &[Kind::TlsRoute],
        ListenerProtocol::ListenerTcp => &[Kind::TcpRoute],
    }
}

fn kinds(listener: &mut Listener<'_>) {
    let Some(protocol) = listener.protocol else { return };
    let asked = listener.spec.allowed_routes.as_ref().map(|allowed| &allowed.kinds[..]);
    let possible = of_protocol(protocol);
    let asked = match asked {
        None | Some([]) => {
            listener.kinds = possible.to_vec();
            return;
        }
        Some(asked) => asked,
    };
    for one in asked {
        let kind = possible
            .iter()
            .find(|kind| one.group == GATEWAY_GROUP && kind.name() == one.kind);
        match kind {
            Some(kind) if !listener.kinds.contains(kind) => listener.kinds.push(*kind),
            Some(_) => {}
            None => {
                let names: Vec<_> = possible.iter().map(|kind| kind.name()).collect();
                let message = format!(
                    "allowedRoutes: {} of group '{}' cannot attach to the protocol {}; it can be {}",
                    one.kind,
                    one.group,
                    listener.spec.protocol,
                    names.join(" and ")
                );
                listener
                    .unresolved
                    .get_or_insert(Because::new("InvalidRouteKinds", message));
            }
        }
    }
}

/// How bytes on one port are told apart: listeners of two ways cannot share a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Tls,
    Tcp,
}

fn way(protocol: ListenerProtocol) -> Way {
    use ListenerProtocol::*;
    match protocol {
        ListenerHttp => Way::Http,
        ListenerHttps | ListenerTls | ListenerPassthrough => Way::Tls,
        ListenerTcp => Way::Tcp,
    }
}

fn conflict(one: &Listener<'_>, other: &Listener<'_>) -> Option<&'static str> {
    let (protocol, others) = (one.protocol?, other.protocol?);
    if one.spec.port != other.spec.port {
        return None;
    }
    if way(protocol) != way(others) || way(protocol) == Way::Tcp {
        return Some("ProtocolConflict");
    }
    (one.hostname == other.hostname).then_some("HostnameConflict")
}

/// Of indistinct listeners of several objects the one is served that comes first: the Gateway's own, then those of its sets in their
/// order. Of those of one object none is served; one that has lost to an object before takes no other with it.
fn conflicts(listeners: &mut [Listener<'_>]) {
    let owners: BTreeSet<Option<usize>> = listeners.iter().map(|listener| listener.set).collect();
    for owner in owners {
        lose(listeners, owner, "an object that comes first", |set| set < owner);
        lose(listeners, owner, "this object too", |set| set == owner);
    }
}

/// Marks listeners of one object that are not distinct from others, of those of `to` that are in no conflict yet.
fn lose(listeners: &mut [Listener<'_>], owner: Option<usize>, whose: &str, to: impl Fn(Option<usize>) -> bool) {
    let found: Vec<_> = (0..listeners.len())
        .filter(|index| listeners[*index].set == owner && listeners[*index].takes_routes())
        .filter_map(|index| {
            let (reason, other) = listeners
                .iter()
                .enumerate()
                .filter(|(at, other)| *at != index && to(other.set) && other.takes_routes())
                .find_map(|(_, other)| Some((conflict(&listeners[index], other)?, other)))?;
            let message = format!(
                "the listener '{}' of {whose} has port {}",
                other.spec.name, other.spec.port
            );
            let what = if reason == "HostnameConflict" {
                " and the same hostname"
            } else {
                ""
            };
            Some((index, Because::new(reason, format!("{message}{what}"))))
        })
        .collect();
    for (index, because) in found {
        listeners[index].conflict = Some(because);
    }
}

/// A client that has a connection to one listener may use it for hosts of another, where names or certificates overlap. weft answers
/// such requests 421, so that they come again on a connection of their own; the condition says that this will happen.
fn overlaps(listeners: &mut [Listener<'_>]) {
    let meet = |one: &Option<Arc<str>>, other: &Option<Arc<str>>| match (one, other) {
        (Some(one), Some(other)) => hosts::intersection(one, other).is_some(),
        _ => true,
    };
    let found: Vec<_> = listeners
        .iter()
        .enumerate()
        .filter(|(_, one)| one.is_tls() && one.takes_routes())
        .filter_map(|(index, one)| {
            let beside = listeners.iter().enumerate().filter(|(at, other)| {
                *at != index && other.is_tls() && other.takes_routes() && other.spec.port == one.spec.port
            });
            let mut because = None;
            for (_, other) in beside {
                let name = &other.spec.name;
                if certificates::overlap(one, other) {
                    let message = format!("a certificate of this listener and one of '{name}' hold for the same hosts");
                    because = Some(Because::new("OverlappingCertificates", message));
                    break;
                }
                if meet(&one.hostname, &other.hostname) {
                    let message = format!("the hostname of this listener and that of '{name}' have hosts in common");
                    because.get_or_insert(Because::new("OverlappingHostnames", message));
                }
            }
            Some((index, because?))
        })
        .collect();
    for (index, because) in found {
        listeners[index].overlap = Some(because);
    }
}
