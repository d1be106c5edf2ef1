//! ★ One socket, from its first byte to its last.
//!
//! All branching of a connection happens here; stages do one thing and return. What happens to each request on a
//! connection that speaks HTTP is `exchange.rs`' story.

pub mod gateway;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason as H2Reason, RecvStream, server::SendResponse};
use http::{Request, Response, StatusCode};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::OwnedSemaphorePermit, time::Instant};
use weft_proto::{
    limits,
    names::{self, check},
    rpc::discovery::Protocol as Declared,
};
use weft_service::{drain::Signal, spiffe::Id};

use crate::{
    app::Shared,
    authorize,
    detect::{self, Seen, silence},
    exchange,
    fault::{Fault, Reason},
    front::{At, Listener},
    hop::{self, Opened, tcp},
    io::{Io, Tunnel},
    original_dst,
    record::{Facts, Protocol, Record},
    relay::{self, bytes::Side, idle::Clocks},
    role::{Direction, Role},
    tables::{Destination, Followed},
    terminate,
};
use weft_route::{Ask, HttpView};

/// What is known of a client's connection; shared by everything that happens on it.
pub struct Connection {
    /// Number, direction, addresses, mesh or not: what logs and metrics say.
    pub facts: Arc<Facts>,
    /// Who the client is, where it proved that.
    pub peer: Option<Id>,
    /// What it leads to.
    pub toward: Toward,
    /// The parts that live as long as the process.
    pub shared: Arc<Shared>,
}

/// What a connection leads to.
pub enum Toward {
    /// One destination, followed as it changes.
    Destination(Followed),
    /// What the listeners of a gateway's port say.
    Port(Box<At>),
}

impl From<Followed> for Toward {
    fn from(followed: Followed) -> Self {
        Self::Destination(followed)
    }
}

impl Connection {
    /// What it leads to now, and the gateway's listener that takes it: for its bytes.
    pub fn destination(&self) -> Result<(Arc<Destination>, Option<Arc<str>>), Fault> {
        match &self.toward {
            Toward::Destination(followed) => Ok((followed.current(), None)),
            Toward::Port(at) => at.listener().map(|listener| of(&listener)),
        }
    }

    /// What a request on it leads to now, and the gateway's listener that takes it.
    pub fn destination_of(&self, request: &dyn HttpView) -> Result<(Arc<Destination>, Option<Arc<str>>), Fault> {
        match &self.toward {
            Toward::Destination(followed) => Ok((followed.current(), None)),
            Toward::Port(at) => at.listener_for(request.host()).map(|listener| of(&listener)),
        }
    }

    /// The one destination that it leads to, where it does.
    pub fn followed(&self) -> Option<&Followed> {
        match &self.toward {
            Toward::Destination(followed) => Some(followed),
            Toward::Port(_) => None,
        }
    }

    /// The drain of the gateway's port, else of the connection's direction.
    pub fn drain(&self) -> &Signal {
        match &self.toward {
            Toward::Port(at) => &at.open.drain,
            Toward::Destination(_) => self.shared.drain(self.facts.direction),
        }
    }
}

fn of(listener: &Listener) -> (Arc<Destination>, Option<Arc<str>>) {
    (listener.destination.clone(), Some(listener.name.clone()))
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection as a listener accepted it. The future holds as little as it can: idle connections are many.
pub fn accepted(
    stream: TcpStream,
    client: SocketAddr,
    role: Arc<Role>,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send + 'static {
    // Boxed apart: what looking takes is given back before the connection begins to be idle.
    served(Box::pin(begin(stream, client, role, shared)), place)
}

/// Serves what a beginning comes to, which has a place until its end.
async fn served(beginning: Pin<Box<impl Future<Output = Option<Known>>>>, place: OwnedSemaphorePermit) {
    if let Some((serving, record)) = beginning.await.and_then(pass) {
        serving.await;
        if let Some(record) = record {
            record.close();
        }
    }
    drop(place);
}

/// Where it meant to go, and what its client speaks.
async fn begin(stream: TcpStream, client: SocketAddr, role: Arc<Role>, shared: Arc<Shared>) -> Option<Known> {
    tcp::prepare(&stream);
    let original = match original_dst::read(&stream, &role, &shared.config.pod_ips) {
        Ok(original) => original,
        Err(fault) => {
            let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let local = stream.local_addr().unwrap_or(nowhere);
            let record = Record::connection(Facts::new(role.direction, client, local, None, false));
            failed(record, &fault);
            Io::socket(stream).reset();
            return None;
        }
    };
    if role.answers_check && is_check(original) {
        answer_check(stream).await;
        shared.redirects_set.notify_one();
        return None;
    }
    let facts = Facts::new(role.direction, client, original, None, false);
    look(Io::socket(stream), facts, role, shared).await
}

fn is_check(original: SocketAddr) -> bool {
    original == (check::ADDRESS_V4, check::PORT).into() || original == (check::ADDRESS_V6, check::PORT).into()
}

/// What `weft-init` asks: whether a connection that it makes lands here.
async fn answer_check(mut stream: TcpStream) {
    let answered = async {
        stream.write_all(check::ANSWER).await?;
        stream.shutdown().await
    };
    // One that goes away without its answer has asked in vain.
    let _ = tokio::time::timeout(limits::HANDSHAKE_TIME, answered).await;
}

/// A connection of which is known what its client speaks.
struct Known {
    io: Io,
    seen: Seen,
    /// Open already, on behalf of a client that was silent, with the number of its bytes that went over it.
    hop: Option<(Box<Opened>, usize)>,
    began: Instant,
    connection: Arc<Connection>,
}

/// Finds out what the client speaks, and ends the mesh's TLS. `None`: the client was told that it failed.
async fn look(mut io: Io, facts: Arc<Facts>, role: Arc<Role>, shared: Arc<Shared>) -> Option<Known> {
    let began = Instant::now();
    if role.direction == Direction::Inbound {
        shared.tables.workload_known().await;
    }
    let followed = shared.tables.follow(role.looks_up, facts.destination).await;
    let declared = as_declared(followed.current().protocol);
    let is_first = followed.speaks_first();
    let connection = Arc::new(Connection {
        facts,
        peer: None,
        toward: followed.into(),
        shared,
    });
    // A port that is declared needs no look, except where the mesh's own TLS may come.
    if !role.ends_mesh_tls
        && let Some(seen) = declared
    {
        return Some(Known {
            io,
            seen,
            hop: None,
            began,
            connection,
        });
    }
    // What was waited for before counts: the server that speaks first is not kept waiting twice.
    let silence = limits::SILENCE.saturating_sub(began.elapsed());
    let silence = if is_first { Duration::ZERO } else { silence };
    let first = match detect::first_bytes(&mut io, silence).await {
        Ok(Some(seen)) => Ok(silence::Broken::ByClient(seen)),
        Ok(None) => broken_silence(&mut io, &connection).await,
        Err(fault) => Err(fault),
    };
    let seen = match first {
        Ok(silence::Broken::ByClient(seen)) => seen,
        Ok(silence::Broken::Opaque {
            hop,
            seen,
            server_spoke,
            passed,
        }) => {
            if let (true, Some(followed)) = (server_spoke, connection.followed()) {
                followed.spoke_first();
            }
            return Some(Known {
                io,
                seen,
                hop: Some((hop, passed)),
                began,
                connection,
            });
        }
        Err(fault) => {
            // The client is told as the server would have told it.
            failed(Record::connection(connection.facts.clone()), &fault);
            io.reset();
            return None;
        }
    };
    if role.ends_mesh_tls && seen.is_mesh() {
        return over_the_mesh(io, began, connection).await;
    }
    let seen = match declared {
        // What its client calls TLS is passed on as it is; the ClientHello's name is worth knowing.
        Some(Seen::Tls(_)) if matches!(seen, Seen::Tls(_)) => seen,
        Some(declared) => declared,
        None => seen,
    };
    Some(Known {
        io,
        seen,
        hop: None,
        began,
        connection,
    })
}

/// What a port declares outweighs what its bytes look like.
fn as_declared(protocol: Declared) -> Option<Seen> {
    match protocol {
        Declared::Detect => None,
        Declared::Http1 => Some(Seen::Http1),
        Declared::H2c => Some(Seen::Http2),
        Declared::Tls => Some(Seen::Tls(Default::default())),
        Declared::Opaque => Some(Seen::Opaque),
    }
}

/// Waits with the client's silence, over a hop of its own where there may be one more.
async fn broken_silence(io: &mut Io, connection: &Arc<Connection>) -> Result<silence::Broken, Fault> {
    // Plaintext that will be refused is not carried anywhere before.
    let allowed = authorize::connection(&connection.facts, None, &connection.shared).is_ok();
    let place = connection
        .followed()
        .and_then(Followed::silent_place)
        .filter(|_| allowed);
    let place = place.zip(connection.shared.silent_places.clone().try_acquire_owned().ok());
    if allowed && place.is_none() {
        crate::metrics::limit_reached("SILENT_DIALS");
    }
    let opening = place.as_ref().map(|_| {
        let opening: Pin<Box<dyn Future<Output = _> + Send + '_>> = Box::pin(hop::open_any(connection, &Ask::Tcp));
        opening
    });
    // HTTP is answered request by request. At inbound, any TLS is looked at first: it may be the mesh's. Where rules look at the name
    // that TLS asks for, the hop that is open may be another's. TLS of the client's own is not put into TLS that weft begins.
    let ends_tls = connection.shared.role(connection.facts.direction).ends_mesh_tls;
    let destination = connection.destination();
    let is_other = destination.is_ok_and(|(destination, _)| destination.looks_at_tls() || destination.begins_tls());
    let for_weft: fn(&Seen) -> bool = if ends_tls || is_other {
        |seen| matches!(seen, Seen::Http1 | Seen::Http2 | Seen::Tls(_))
    } else {
        |seen| matches!(seen, Seen::Http1 | Seen::Http2)
    };
    let patience = match (&opening, allowed) {
        (Some(_), _) => limits::TUNNEL_IDLE,
        (None, true) => limits::CLIENT_IDLE,
        // Only another weft may still come, and that says who it is at once.
        (None, false) => limits::HANDSHAKE_TIME,
    };
    silence::watch(io, opening, for_weft, patience).await
}

/// The connection of another weft: its TLS is ended, and HTTP/2 spoken within.
async fn over_the_mesh(io: Io, began: Instant, connection: Arc<Connection>) -> Option<Known> {
    let (io, peer) = match terminate::mesh(io, &connection.shared).await {
        Ok(ended) => ended,
        Err(fault) => {
            failed(Record::connection(connection.facts.clone()), &fault);
            return None;
        }
    };
    let connection = Arc::into_inner(connection)?;
    let facts = connection
        .facts
        .known_better(connection.facts.destination, Some(peer.as_str()), true);
    let connection = Arc::new(Connection {
        facts,
        peer: Some(peer),
        ..connection
    });
    Some(Known {
        io,
        seen: Seen::Http2,
        hop: None,
        began,
        connection,
    })
}

/// It is known what the client speaks: how it is served, and the record to be closed afterwards, unless that is closed by
/// then. `None`: it may not be served.
fn pass(known: Known) -> Option<(Serving, Option<Box<Record>>)> {
    let Known {
        io,
        seen,
        hop,
        began,
        connection,
    } = known;
    let mut record = Box::new(Record::connection(connection.facts.clone()));
    record.detected(seen.protocol(), began.elapsed());
    if let Seen::Tls(hello) = &seen
        && let Some(name) = &hello.sni
    {
        record.server_name(name);
    }
    if let Err(fault) = authorize::connection(&connection.facts, Some(&seen), &connection.shared) {
        failed(*record, &fault);
        io.reset();
        return None;
    }
    match seen {
        Seen::Http1 => Some((Box::pin(exchange::serve_h1(io, connection)), Some(record))),
        Seen::Http2 => Some((Box::pin(exchange::serve_h2(io, connection)), Some(record))),
        Seen::Tls(_) | Seen::Opaque => Some((Box::pin(as_bytes(io, hop, seen, record, connection)), None)),
    }
}

/// Bytes that nobody looks at. `hop`: open already, where it is.
async fn as_bytes(
    io: Io,
    hop: Option<(Box<Opened>, usize)>,
    seen: Seen,
    mut record: Box<Record>,
    connection: Arc<Connection>,
) {
    let opened = match hop {
        Some((hop, passed)) => {
            record.received(passed as u64);
            *hop
        }
        None => {
            let opening = Box::pin(hop::open_any(&connection, &ask(&seen)));
            match opening.await {
                Ok(opened) => opened,
                Err(fault) => {
                    failed(*record, &fault);
                    return io.reset();
                }
            }
        }
    };
    drop(seen);
    let (server, _lease) = opened.enter(&mut record);
    carry(io, server, record).await;
}

/// What is asked of rules about bytes.
fn ask(seen: &Seen) -> Ask<'_> {
    match seen {
        Seen::Tls(hello) => Ask::Tls {
            sni: hello.sni.as_deref(),
        },
        _ => Ask::Tcp,
    }
}

async fn carry(client: Io, server: Io, mut record: Box<Record>) {
    record.tunnel_opened();
    let ended = relay::bytes::bytes(client, server, Clocks::default(), |side, n| match side {
        Side::Client => record.received(n),
        Side::Server => record.sent(n),
    });
    match ended.await {
        Ok(()) => record.close(),
        Err(fault) => failed(*record, &fault),
    }
}

fn failed(mut record: Record, fault: &Fault) {
    tracing::debug!(conn = record.facts().connection, stage = fault.stage.name(), error = %fault, "connection failed");
    record.fault(fault);
    record.close();
}

/// A CONNECT stream of another weft: bytes for the application. Its authority must be the connection's own destination.
pub async fn tunnel(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, connection: Arc<Connection>) {
    let mut record = Record::connection(connection.facts.clone());
    record.protocol(Protocol::Opaque);
    let authority = request
        .uri()
        .authority()
        .and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    if authority != Some(connection.facts.destination) {
        let fault = Fault::new(Reason::ForeignAuthority);
        refuse(&mut respond, &fault);
        return failed(record, &fault);
    }
    let opened = match Box::pin(hop::open_any(&connection, &Ask::Tcp)).await {
        Ok(opened) => opened,
        Err(fault) => {
            if connection.drain().phase() > weft_service::drain::Phase::Running && fault.may_replay() {
                // The application has gone already and nothing was sent: the caller's weft takes another endpoint.
                respond.send_reset(H2Reason::REFUSED_STREAM);
            } else {
                refuse(&mut respond, &fault);
            }
            return failed(record, &fault);
        }
    };
    let (server, _lease) = opened.enter(&mut record);
    // An error here means that the stream is gone, and then there is nobody to tell.
    let Ok(send) = respond.send_response(Response::new(()), false) else {
        server.reset();
        return failed(record, &Fault::new(Reason::ClientGone));
    };
    let client = Io::tunnel(Tunnel::new(send, request.into_body(), None));
    carry(client, server, Box::new(record)).await;
}

/// Answers a CONNECT with the fault's status and its reason.
fn refuse(respond: &mut SendResponse<Bytes>, fault: &Fault) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(fault.reason.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Ok(text) = fault.reason.text().parse() {
        response.headers_mut().insert(names::http::ERROR, text);
    }
    // The stream may be gone already.
    let _ = respond.send_response(response, true);
}

/// A stream to this proxy's own inbound side, for an endpoint of the pod itself: what the proxy dials is never redirected
/// to it. Served as a connection of the mesh, whose other end is the pod's own identity.
pub(crate) fn to_itself(shared: &Arc<Shared>, address: SocketAddr) -> Io {
    let (near, far) = Io::pair(limits::RELAY);
    let serving: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(from_itself(far, shared.clone(), address));
    tokio::spawn(serving);
    near
}

async fn from_itself(io: Io, shared: Arc<Shared>, address: SocketAddr) {
    if crate::tables::is_reserved(address.port()) {
        return io.reset();
    }
    let peer = shared.config.identity();
    let client: IpAddr = address.ip();
    let facts = Facts::new(
        shared.inbound.direction,
        (client, 0).into(),
        address,
        Some(peer.as_str()),
        true,
    );
    let followed = shared.tables.follow(shared.inbound.looks_up, address).await;
    let connection = Arc::new(Connection {
        facts,
        peer: Some(peer),
        toward: followed.into(),
        shared,
    });
    let known = Known {
        io,
        seen: Seen::Http2,
        hop: None,
        began: Instant::now(),
        connection,
    };
    if let Some((serving, record)) = pass(known) {
        serving.await;
        if let Some(record) = record {
            record.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F: Future>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_two<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle HTTP/1 connection costs these, three small shared values, two timers and what tokio keeps for its socket.
    #[test]
    fn what_a_connection_keeps_while_it_is_idle_is_small() {
        let spawned = size(accepted);
        assert!(spawned <= 96, "{spawned}");
        let http1 = size_of_two(exchange::serve_h1);
        assert!(http1 <= 1024, "{http1}");
        let bytes = size(as_bytes);
        assert!(bytes <= 1536, "{bytes}");
        assert!(size_of::<Connection>() <= 64, "{}", size_of::<Connection>());
    }
}
