//! One destination as it is now: its rules, compiled, and its backends with their endpoints. Immutable; replaced whole.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use weft_proto::{
    convert,
    rpc::discovery::{self as rpc, DestinationKind, Protocol},
};
use weft_route::{Ask, NoRoute, NoTarget, Table, Target};
use weft_service::spiffe::Id;

use crate::{
    endpoint::{Endpoint, Load, balance::random_below, sticky},
    fault::{Fault, Reason},
    hop::backend_tls::Policy,
    record::{self, RuleName},
};

/// What is to be done with connections to one address.
#[derive(Debug)]
pub struct Destination {
    /// What the address is.
    pub kind: DestinationKind,
    /// `namespace/name` of the Service or the pod; empty for an address outside of the cluster.
    pub object: Arc<str>,
    /// What its port declares; [`Protocol::Detect`] when it declares nothing.
    pub protocol: Protocol,
    /// The rules for requests and connections to it; empty when there are none.
    pub table: Arc<Table>,
    /// Every backend that a rule names, by the index that it uses. The listeners of a gateway share them.
    pub backends: Arc<[Arc<Backend>]>,
    default_backend: Option<u32>,
    /// Endpoints by what tokens of sessions call them.
    pub sticky: sticky::Index,
    /// Set where connections fail, and why.
    refused: Option<Reason>,
    /// What the controller calls this content.
    pub version: String,
}

/// Where a share of the requests goes.
#[derive(Debug)]
pub struct Backend {
    /// The label in metrics and logs.
    pub id: Arc<str>,
    /// What its port declares.
    pub protocol: Protocol,
    /// Those that are live first, then those on their way out.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How many are live.
    pub live: usize,
    /// TLS that weft begins towards the endpoints.
    pub tls: Option<Arc<Policy>>,
    /// Why nothing can be sent there.
    pub refused: Option<Arc<str>>,
}

impl Destination {
    /// Nothing can be done: every connection fails with this reason.
    pub fn refused(reason: Reason) -> Self {
        Self {
            kind: DestinationKind::Unknown,
            object: "".into(),
            protocol: Protocol::Detect,
            table: Arc::default(),
            backends: Arc::default(),
            default_backend: None,
            sticky: sticky::Index::default(),
            refused: Some(reason),
            version: String::new(),
        }
    }

    /// One endpoint, which is the address itself.
    fn one(kind: DestinationKind, id: &str, protocol: Protocol, endpoint: Endpoint) -> Self {
        let backend = Backend {
            id: record::intern(id),
            protocol,
            endpoints: vec![Arc::new(endpoint)],
            live: 1,
            tls: None,
            refused: None,
        };
        Self {
            kind,
            object: "".into(),
            protocol,
            table: Arc::default(),
            backends: Arc::new([Arc::new(backend)]),
            default_backend: Some(0),
            sticky: sticky::Index::default(),
            refused: None,
            version: String::new(),
        }
    }

    /// A gateway's listener: what no rule takes goes nowhere.
    pub fn listener(name: &str, version: &str, table: Arc<Table>, backends: Arc<[Arc<Backend>]>) -> Self {
        Self {
            object: name.into(),
            version: version.to_owned(),
            table,
            backends,
            ..Self::refused(Reason::NoRule)
        }
    }

    /// An address outside of the cluster: passed on as it is.
    pub fn outside(address: SocketAddr) -> Self {
        Self::one(
            DestinationKind::Outside,
            "outside",
            Protocol::Detect,
            Endpoint::at(address),
        )
    }

    /// A port of the pod that the proxy stands in, seen from its inbound side.
    pub fn own(address: SocketAddr, protocol: Protocol, before: Option<&Self>) -> Self {
        let mut endpoint = Endpoint {
            is_self: true,
            ..Endpoint::at(address)
        };
        if let Some(before) = before.and_then(|before| before.backends.first()?.endpoints.first()) {
            endpoint.load = before.load.clone();
        }
        Self::one(DestinationKind::Pod, "self", protocol, endpoint)
    }

    /// What a connection goes to when there are no rules.
    pub fn default_backend(&self) -> Result<&Arc<Backend>, Fault> {
        if let Some(reason) = self.refused {
            return Err(Fault::new(reason));
        }
        self.default_backend
            .and_then(|index| self.backend(index))
            .ok_or_else(|| Fault::new(Reason::NoEndpoint))
    }

    /// Whether weft begins TLS towards what a connection of bytes may go to.
    pub fn begins_tls(&self) -> bool {
        self.backends.iter().any(|backend| backend.tls.is_some())
    }

    /// Where a connection of bytes goes, and by which rule.
    pub fn take_bytes(&self, ask: &Ask<'_>) -> Result<(Arc<Backend>, Option<RuleName>), Fault> {
        let decision = match self.table.decide(ask, random_below(usize::MAX) as u64) {
            Err(NoRoute::NoRules) => return Ok((self.default_backend()?.clone(), None)),
            Err(no) => return Err(Fault::because(Reason::NoRule, no)),
            Ok(decision) => decision,
        };
        let rule = RuleName {
            route: decision.rule.route.clone(),
            rule: decision.rule.rule.clone(),
        };
        let invalid = |why: String| Err(Fault::because(Reason::InvalidBackend, why));
        match decision.target {
            Target::Backend(index) => match self.backend(index) {
                Some(backend) => Ok((backend.clone(), Some(rule))),
                None => invalid("the destination has no backend of this number".into()),
            },
            // The reason says already that it is not valid.
            Target::None(NoTarget::Reference(why)) => invalid(why.to_string()),
            Target::None(why) => invalid(why.to_string()),
        }
    }

    /// Whether rules look at the name that a connection's own TLS asks for.
    pub fn looks_at_tls(&self) -> bool {
        let mut rules = self.table.rules().iter();
        rules.any(|rule| rule.origin.kind == weft_route::rule::Kind::TlsRoute)
    }

    /// The backend that a rule names by this index.
    pub fn backend(&self, index: u32) -> Option<&Arc<Backend>> {
        self.backends.get(index as usize)
    }

    /// What the controller says. Endpoints that were there before keep what is known of their load. Also every part that
    /// could not be understood.
    pub(super) fn from_rpc(
        address: SocketAddr,
        version: &str,
        content: rpc::Destination,
        before: Option<&Self>,
        is_own: &dyn Fn(IpAddr) -> bool,
        inside: bool,
    ) -> (Self, Vec<String>) {
        let kind = content.kind();
        match kind {
            DestinationKind::Unknown if inside => {
                return (
                    Self {
                        version: version.to_owned(),
                        ..Self::refused(Reason::UnknownDestination)
                    },
                    Vec::new(),
                );
            }
            DestinationKind::Unknown | DestinationKind::Outside => {
                return (
                    Self {
                        version: version.to_owned(),
                        ..Self::outside(address)
                    },
                    Vec::new(),
                );
            }
            DestinationKind::Service | DestinationKind::Pod => {}
        }
        let mut mistakes = Vec::new();
        let rules = convert::rules(&content).unwrap_or_else(|wrong| {
            mistakes.extend(wrong.iter().map(ToString::to_string));
            Vec::new()
        });
        let (table, conflicts) = Table::compile(rules);
        for conflict in conflicts {
            tracing::debug!(destination = %address, ?conflict, "a rule or a part of it has no effect");
        }
        let loads = loads(before.map(|before| &before.backends[..]).unwrap_or_default());
        let protocol = content.protocol();
        let default_backend = content.default_backend;
        let backends = content
            .backends
            .into_iter()
            .map(|backend| Arc::new(Backend::from_rpc(backend, &loads, is_own, &mut mistakes)))
            .collect();
        let object = content
            .object
            .map(|name| format!("{}/{}", name.namespace, name.name))
            .unwrap_or_default();
        let destination = Self {
            kind,
            object: object.into(),
            protocol,
            table: Arc::new(table),
            backends,
            default_backend,
            sticky: sticky::Index::default(),
            refused: None,
            version: version.to_owned(),
        };
        (destination, mistakes)
    }
}

/// What is known of endpoints' loads, by their address and their pod's UID.
pub(crate) type Loads = HashMap<(SocketAddr, Arc<str>), Arc<Load>>;

/// The loads of these backends' endpoints.
pub(crate) fn loads(backends: &[Arc<Backend>]) -> Loads {
    let endpoints = backends.iter().flat_map(|backend| &backend.endpoints);
    endpoints
        .map(|endpoint| ((endpoint.address, endpoint.pod_uid.clone()), endpoint.load.clone()))
        .collect()
}

impl Backend {
    /// Whether anything may be sent there.
    pub fn usable(&self) -> Result<(), Fault> {
        match &self.refused {
            None => Ok(()),
            Some(why) => Err(Fault::because(Reason::BackendRefused, why.to_string())),
        }
    }

    /// What the controller says of it. Endpoints that were there before keep their load; parts that could not be understood are added
    /// to the mistakes.
    pub(crate) fn from_rpc(
        backend: rpc::Backend,
        loads: &Loads,
        is_own: &dyn Fn(IpAddr) -> bool,
        mistakes: &mut Vec<String>,
    ) -> Self {
        let protocol = backend.protocol();
        let tls = backend.tls.as_ref().map(Policy::of).transpose();
        let refused = match (&tls, backend.refused.as_str()) {
            (Err(wrong), _) => {
                mistakes.push(format!("backend {}: its TLS policy: {wrong}", backend.id));
                Some(wrong.as_str().into())
            }
            (Ok(_), "") => None,
            (Ok(_), why) => Some(why.into()),
        };
        let mut endpoints = Vec::with_capacity(backend.endpoints.len());
        for (position, endpoint) in backend.endpoints.into_iter().enumerate() {
            match Endpoint::from_rpc(endpoint, loads, is_own) {
                Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
                Err(wrong) => mistakes.push(format!("backend {} endpoint {position}: {wrong}", backend.id)),
            }
        }
        endpoints.sort_by_key(|endpoint| endpoint.terminating);
        let live = endpoints.iter().take_while(|endpoint| !endpoint.terminating).count();
        Self {
            id: backend.id.into(),
            protocol,
            endpoints,
            live,
            tls: tls.unwrap_or_default(),
            refused,
        }
    }
}

impl Endpoint {
    /// An address about which nothing more is known.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            pod: "".into(),
            pod_uid: "".into(),
            identity: None,
            identity_label: None,
            terminating: false,
            is_self: false,
            load: Arc::default(),
        }
    }

    fn from_rpc(endpoint: rpc::Endpoint, loads: &Loads, is_own: &dyn Fn(IpAddr) -> bool) -> Result<Self, String> {
        let address = endpoint
            .address
            .ok_or("no address")?
            .socket_addr()
            .map_err(|wrong| wrong.to_string())?;
        // An identity that cannot be read must never become a plaintext hop: such an endpoint is left out.
        let identity: Option<Id> = match endpoint.identity.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|bad: weft_service::spiffe::BadId| bad.to_string())?,
            ),
        };
        let pod_uid: Arc<str> = endpoint.pod_uid.into();
        Ok(Self {
            address,
            pod: endpoint
                .pod
                .map(|pod| format!("{}/{}", pod.namespace, pod.name))
                .unwrap_or_default()
                .into(),
            identity_label: identity.as_ref().map(|identity| identity.as_str().into()),
            identity,
            terminating: endpoint.terminating,
            is_self: is_own(address.ip()),
            load: loads.get(&(address, pod_uid.clone())).cloned().unwrap_or_default(),
            pod_uid,
        })
    }
}
