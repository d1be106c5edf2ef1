//! Endpoint → stream: which transport, and why.
//!
//! Outbound to an endpoint where weft listens is mTLS or fails. An endpoint in the proxy's own pod is reached inside the
//! process, since what the proxy itself dials is never redirected back to it. A backend with a TLS policy is spoken to by
//! that, within either of them. Everything else is plain.

pub mod backend_tls;
pub mod h2;
pub mod tcp;
pub mod tls;
pub mod tunnel;

use std::{net::SocketAddr, sync::Arc};

use backend_tls::{Offer, Policy};
use smallvec::SmallVec;
use weft_proto::limits;
use weft_route::Ask;

use crate::{
    app::Shared,
    connection::Connection,
    endpoint::{self, Endpoint, Lease},
    fault::{Fault, Reason},
    io::Io,
    record::{Hop, Record, RuleName},
    role::Direction,
    tables::Backend,
};

/// How an endpoint is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/2 over mutual TLS 1.3, to another weft.
    Mesh,
    /// What the application speaks, without weft at the other end.
    Plain,
    /// As `Mesh`, but to the other side of this very proxy, without TLS.
    Itself,
    /// TLS to the application's own server, inside a stream of the mesh where weft listens.
    Tls(Arc<Policy>),
}

impl Transport {
    /// Whether weft stands at the other end, so that `weft-*` fields and CONNECT streams may be used.
    pub fn is_mesh(&self) -> bool {
        matches!(self, Self::Mesh | Self::Itself)
    }

    /// The label in metrics and logs, for bytes or HTTP/1 on this hop.
    pub fn label(&self) -> Hop {
        match self {
            Self::Mesh => Hop::Mesh,
            Self::Plain => Hop::Plain,
            Self::Itself => Hop::Itself,
            Self::Tls(_) => Hop::Tls,
        }
    }

    /// The label for HTTP/2 on this hop.
    pub fn label_h2(&self) -> Hop {
        match self {
            Self::Plain => Hop::H2c,
            Self::Tls(_) => Hop::TlsH2,
            mesh => mesh.label(),
        }
    }
}

/// How this endpoint of this backend is spoken to on behalf of this connection.
pub fn transport(endpoint: &Endpoint, backend: &Backend, connection: &Connection) -> Transport {
    match (connection.facts.direction, &backend.tls) {
        (Direction::Inbound, _) => Transport::Plain,
        (_, Some(policy)) => Transport::Tls(policy.clone()),
        (_, None) => reach(endpoint),
    }
}

/// How this endpoint is reached from outside of its pod.
pub fn reach(endpoint: &Endpoint) -> Transport {
    match endpoint.identity {
        None => Transport::Plain,
        Some(_) if endpoint.is_self => Transport::Itself,
        Some(_) => Transport::Mesh,
    }
}

/// A plain TCP connection to the endpoint.
pub async fn dial(endpoint: &Endpoint) -> Result<Io, Fault> {
    match tcp::dial(endpoint.address).await {
        Ok(stream) => {
            endpoint.load.reached();
            Ok(Io::socket(stream))
        }
        Err(fault) => {
            endpoint.load.failed();
            Err(fault)
        }
    }
}

/// A stream of bytes to the endpoint: a CONNECT stream where weft is at the other end, else a connection, with TLS where
/// the backend has a policy.
pub async fn open(endpoint: &Arc<Endpoint>, transport: &Transport, shared: &Arc<Shared>) -> Result<Io, Fault> {
    match transport {
        Transport::Plain => dial(endpoint).await,
        Transport::Mesh | Transport::Itself => tunnel::open(endpoint, transport, shared).await,
        Transport::Tls(policy) => {
            let connecting = Box::pin(backend_tls::connect(policy, Offer::Bytes, endpoint, shared));
            Ok(connecting.await?.0)
        }
    }
}

/// A stream to a server, open on behalf of a client's connection of bytes.
#[derive(Debug)]
pub struct Opened {
    /// The stream.
    pub io: Io,
    /// The endpoint at its other end.
    pub lease: Lease,
    /// The backend that the endpoint is of.
    pub backend: Arc<Backend>,
    /// How it is spoken to.
    pub transport: Transport,
    /// The rule that took the connection, where one did.
    pub rule: Option<RuleName>,
    /// The gateway's listener that took it.
    pub listener: Option<Arc<str>>,
}

impl Opened {
    /// Tells the record where the connection went: what is left are the stream and the place at its endpoint.
    pub fn enter(self, record: &mut Record) -> (Io, Lease) {
        if let Some(listener) = &self.listener {
            record.listener(listener);
        }
        if let Some(rule) = self.rule {
            record.rule(rule);
        }
        record.backend(&self.backend.id);
        let identity = self.lease.identity_label.as_ref();
        record.endpoint(self.lease.address, identity, self.transport.label());
        (self.io, self.lease)
    }
}

/// Opens a stream of bytes to one of the endpoints that the connection's own rules lead to. Another endpoint is tried when one
/// cannot be reached, since nothing was sent. TLS of the client's own goes as it is, whatever the backend's policy says.
pub fn open_any<'a>(
    connection: &'a Connection,
    ask: &Ask<'_>,
) -> impl Future<Output = Result<Opened, Fault>> + Send + use<'a> {
    // Decided at once: what is asked is not held while the stream is opened.
    let decided = connection
        .destination()
        .and_then(|(destination, listener)| Ok((destination.take_bytes(ask)?, listener)));
    let is_tls = matches!(ask, Ask::Tls { .. }) && !connection.facts.tls;
    async move {
        let ((backend, rule), listener) = decided?;
        if !is_tls {
            backend.usable()?;
        }
        open_one_of(connection, backend, is_tls, rule, listener).await
    }
}

async fn open_one_of(
    connection: &Connection,
    backend: Arc<Backend>,
    is_tls: bool,
    rule: Option<RuleName>,
    listener: Option<Arc<str>>,
) -> Result<Opened, Fault> {
    let mut tried: SmallVec<[SocketAddr; limits::ATTEMPTS]> = SmallVec::new();
    let mut last = None;
    while tried.len() < limits::ATTEMPTS {
        let lease = match endpoint::choose(&backend, &tried) {
            Ok(lease) => lease,
            Err(none) => return Err(last.unwrap_or(none)),
        };
        let transport = match transport(&lease, &backend, connection) {
            Transport::Tls(_) if is_tls => reach(&lease),
            transport => transport,
        };
        match open(&lease, &transport, &connection.shared).await {
            Ok(io) => {
                // What comes after is the application's time.
                lease.answered();
                return Ok(Opened {
                    io,
                    lease,
                    backend,
                    transport,
                    rule,
                    listener,
                });
            }
            Err(fault) if fault.may_replay() => {
                tried.push(lease.address);
                last = Some(fault);
            }
            Err(fault) => return Err(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(Reason::NoEndpoint)))
}

#[cfg(test)]
mod tests;
