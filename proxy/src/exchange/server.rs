//! The server's side of one attempt: how it is spoken to, the request's head on its way, the answer's head on its way back.

use super::head::{Changes, Request, Response, Wants};
use crate::{
    app::Shared,
    connection::Connection,
    endpoint::Endpoint,
    fault::{Fault, Reason},
    h1::{Conn, pool},
    hop::{
        self, Transport,
        backend_tls::{self, Offer, Policy, Speaks},
    },
    metrics,
    record::Hop,
    relay::{
        http::{
            Cause, H1Half, H2Half, Half,
            stream::{Receiver, Sender},
        },
        upgrade,
    },
    role::Direction,
    tables::Backend,
};
use h2::client::ResponseFuture;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use weft_proto::{limits, rpc::discovery::Protocol};
use weft_wire::h1::{BodyDecoder, BodyEncoder, RequestKind, ResponseHead, Scan};

/// A way to the server that is open.
pub enum Way {
    /// HTTP/1 on a connection of its own for this request.
    H1(H1Way),
    /// A place on an HTTP/2 connection.
    H2(hop::h2::H2Hop),
}

/// An HTTP/1 connection for one request.
pub struct H1Way {
    /// The connection.
    pub conn: Box<Conn>,
    /// Where it goes back to; nowhere when it is no connection of its own.
    pub key: Option<pool::Key>,
    /// It was used before, and so may be ending unseen.
    pub reused: bool,
}

/// Whether the application is to get HTTP/1. What its port declares decides; else a sidecar's application gets what the
/// client spoke.
pub fn is_for_h1(request: &Request, wants: &Wants, backend: &Backend, connection: &Connection) -> bool {
    // A client's own CONNECT is nothing that weft takes part in, and gRPC is HTTP/2 whatever is declared.
    if connection.facts.direction == Direction::Inbound || *wants == Wants::Connect {
        return request.is_h1();
    }
    match backend.protocol {
        Protocol::Http1 => !request.is_grpc(),
        Protocol::H2c => false,
        // What a client outside of the cluster speaks with a gateway says nothing of the application.
        _ if connection.facts.direction == Direction::Gateway => !request.is_grpc(),
        _ => request.is_h1(),
    }
}

/// Opens the way that fits the request: weft speaks HTTP/2 to weft, what ALPN chose to a server with a TLS policy, and to
/// everything else HTTP/1 or HTTP/2, as `for_h1` says.
pub async fn open(
    endpoint: &Arc<Endpoint>,
    transport: &Transport,
    for_h1: bool,
    request: &Request,
    wants: &Wants,
    shared: &Arc<Shared>,
) -> Result<(Way, Hop), Fault> {
    let h2 = || hop::h2::ready(endpoint, transport, shared);
    let http1 = || http1(endpoint, transport, shared);
    match (transport, wants) {
        (Transport::Tls(policy), _) => {
            // Boxed: a request that needs no such hop has no room for it.
            Box::pin(over_tls(endpoint, transport, policy, request, wants, shared)).await
        }
        // A client's own CONNECT is nothing that weft takes part in: its bytes go through a tunnel.
        (Transport::Mesh | Transport::Itself, Wants::Connect) if request.is_h1() => {
            let io = hop::open(endpoint, transport, shared).await?;
            Ok((
                Way::H1(H1Way {
                    conn: Box::new(Conn::new(io)),
                    key: None,
                    reused: false,
                }),
                transport.label(),
            ))
        }
        (Transport::Mesh | Transport::Itself, Wants::Connect) => Err(upgrade::not_offered()),
        (Transport::Mesh | Transport::Itself, Wants::Upgrade(_)) => {
            let hop = h2().await?;
            if !hop.extended_connect {
                return Err(upgrade::not_offered());
            }
            Ok((Way::H2(hop), transport.label()))
        }
        (Transport::Mesh | Transport::Itself, Wants::Answer) => Ok((Way::H2(h2().await?), transport.label())),
        (Transport::Plain, _) if for_h1 => Ok((Way::H1(http1().await?), Hop::Plain)),
        (Transport::Plain, Wants::Upgrade(_)) => match h2().await {
            Ok(hop) if hop.extended_connect => Ok((Way::H2(hop), Hop::H2c)),
            // HTTP/2 without RFC 8441, or none at all: the same protocol by an Upgrade.
            Ok(_) => Ok((Way::H1(http1().await?), Hop::Plain)),
            Err(fault)
                if matches!(
                    fault.reason,
                    Reason::ServerHandshake | Reason::HopGone | Reason::ConnectTimeout
                ) =>
            {
                Ok((Way::H1(http1().await?), Hop::Plain))
            }
            Err(fault) => Err(fault),
        },
        (Transport::Plain, _) => Ok((Way::H2(h2().await?), Hop::H2c)),
    }
}

/// Over TLS of the application's own: HTTP/2 where the server chose it and the request can ride on it, else HTTP/1.1, on
/// a connection that offers nothing else.
async fn over_tls(
    endpoint: &Arc<Endpoint>,
    transport: &Transport,
    policy: &Policy,
    request: &Request,
    wants: &Wants,
    shared: &Arc<Shared>,
) -> Result<(Way, Hop), Fault> {
    let is_known_h1 = || backend_tls::recall(endpoint.address, policy) == Some(Speaks::Http1);
    // Servers with RFC 8441 know WebSocket by it, and hardly anything else.
    let is_h1s_own = match wants {
        Wants::Answer => false,
        Wants::Upgrade(token) => request.is_h1() && !upgrade::is_websocket(token),
        Wants::Connect => request.is_h1(),
    };
    let may_be_h1 = policy.offers_http1();
    if policy.offers_h2() && !(is_h1s_own && may_be_h1) && !is_known_h1() {
        match hop::h2::ready(endpoint, transport, shared).await {
            Ok(hop) if hop.extended_connect || !matches!(wants, Wants::Upgrade(_)) => {
                return Ok((Way::H2(hop), transport.label_h2()));
            }
            Ok(_) if !may_be_h1 => return Err(upgrade::not_offered()),
            Ok(_) => {}
            // The connection that found that out is kept for whoever comes first.
            Err(_) if is_known_h1() => {}
            Err(fault) => return Err(fault),
        }
    }
    if request.is_grpc() {
        return Err(Fault::because(Reason::ServerAlpn, "a gRPC call needs HTTP/2").replayable());
    }
    Ok((Way::H1(http1(endpoint, transport, shared).await?), transport.label()))
}

/// A connection for one request, of those that are idle or a new one.
async fn http1(endpoint: &Arc<Endpoint>, transport: &Transport, shared: &Arc<Shared>) -> Result<H1Way, Fault> {
    let key = pool::Key::new(endpoint, transport);
    if let Some(conn) = pool::take(key) {
        return Ok(H1Way {
            conn,
            key: Some(key),
            reused: true,
        });
    }
    let dialled = match transport {
        Transport::Tls(policy) => {
            let connecting = Box::pin(backend_tls::connect(policy, Offer::Http1, endpoint, shared));
            connecting
                .await
                .map(|(io, _)| io)
                .inspect_err(|_| endpoint.load.failed())
        }
        _ => hop::dial(endpoint).await,
    };
    metrics::hop_connection(transport.label(), dialled.as_ref().err().map(|fault| fault.reason));
    let io = dialled?;
    Ok(H1Way {
        conn: Box::new(Conn::new(io)),
        key: Some(key),
        reused: false,
    })
}

/// The server, once the request's head is on its way.
pub struct Server<'a> {
    /// The bodies.
    pub half: Half<'a>,
    /// What the answer's framing depends on.
    kind: RequestKind,
    /// A weft.
    mesh: bool,
    /// What a failure before any answer means.
    reused: bool,
    answer: Answer,
}

enum Answer {
    H1(Scan),
    H2(ResponseFuture),
    Came,
}

/// A head that came from the server.
pub enum Head {
    /// 1xx: another head follows.
    Interim(Response),
    /// The answer.
    Final(Response),
}

impl<'a> Server<'a> {
    /// Composes the request's head for an HTTP/1 server; it is written together with what there is of the body.
    pub fn h1(
        conn: &'a mut Conn,
        reused: bool,
        request: &Request,
        changes: &Changes,
        wants: &Wants,
        has_body: bool,
    ) -> Self {
        let length = request.encode(changes, wants, has_body, conn.compose());
        let mut half = H1Half::new(conn);
        half.encoder = BodyEncoder::new(length);
        Self {
            half: Half::H1(half),
            kind: request.kind(),
            mesh: false,
            reused: reused && request.is_idempotent(),
            answer: Answer::H1(Scan::default()),
        }
    }

    /// Sends the request's head on an HTTP/2 connection.
    pub fn h2(
        send: &mut h2::client::SendRequest<bytes::Bytes>,
        mesh: bool,
        request: &Request,
        head: http::Request<()>,
        ends: bool,
    ) -> Result<Server<'static>, Fault> {
        let (answer, stream) = send.send_request(head, ends).map_err(|error| {
            // It never left: a connection that is ending takes no new streams.
            Fault::because(Reason::HopGone, error).replayable()
        })?;
        let sender = if ends {
            Sender::over(stream)
        } else {
            Sender::new(stream)
        };
        Ok(Server {
            half: Half::H2(H2Half {
                sender: Some(sender),
                ..H2Half::default()
            }),
            kind: request.kind(),
            mesh,
            reused: false,
            answer: Answer::H2(answer),
        })
    }

    /// The next head, when it is there.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Fault>> {
        match (&mut self.answer, &mut self.half) {
            (Answer::H1(scan), Half::H1(half)) => {
                let head = ready!(poll_h1(half.conn, self.kind, scan, self.reused, cx))?;
                half.conn.unread.used(head.1);
                let head = head.0;
                if head.is_interim() {
                    return Poll::Ready(Ok(Head::Interim(Response::H1(head))));
                }
                half.decoder = BodyDecoder::response(head.body());
                self.answer = Answer::Came;
                Poll::Ready(Ok(Head::Final(Response::H1(head))))
            }
            (Answer::H2(answer), Half::H2(half)) => {
                if let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
                    let interim = interim.map_err(h2_fault)?;
                    let (parts, ()) = interim.into_parts();
                    return Poll::Ready(Ok(Head::Interim(Response::from_h2(parts, self.mesh))));
                }
                let (parts, body) = ready!(Pin::new(answer).poll(cx)).map_err(h2_fault)?.into_parts();
                half.receiver = Some(Receiver::new(body));
                self.answer = Answer::Came;
                Poll::Ready(Ok(Head::Final(Response::from_h2(parts, self.mesh))))
            }
            _ => Poll::Pending,
        }
    }

    /// Whether it is a weft.
    pub fn is_mesh(&self) -> bool {
        self.mesh
    }

    /// Whether nothing follows the answer's head.
    pub fn is_over(&self) -> bool {
        match &self.half {
            Half::H1(half) => half.decoder.is_end(),
            Half::H2(half) => half.receiver.as_ref().is_none_or(Receiver::is_over),
        }
    }

    /// Tells an HTTP/2 server that nobody wants its answer any more, with the client's own reason.
    pub fn cancel(&mut self, reason: Option<h2::Reason>) {
        if let Half::H2(H2Half {
            sender: Some(sender), ..
        }) = &mut self.half
        {
            sender.reset(reason.unwrap_or(h2::Reason::CANCEL));
        }
    }
}

fn poll_h1(
    conn: &mut Conn,
    kind: RequestKind,
    scan: &mut Scan,
    reused: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(ResponseHead, usize), Fault>> {
    // A connection that was kept and ends without a byte had ended before it saw the request.
    let stale = |fault: Fault, is_stale: bool| if is_stale { fault.replayable() } else { fault };
    loop {
        if !conn.unread.is_empty() {
            let parsed = ResponseHead::parse(conn.unread.bytes(), kind, scan);
            if let Some(parsed) = parsed.map_err(|refused| Fault::because(Reason::BadResponse, refused))? {
                return Poll::Ready(Ok(parsed));
            }
        }
        let is_stale = reused && conn.unread.is_empty();
        match ready!(conn.poll_fill(cx, limits::HEAD)) {
            Ok(0) => return Poll::Ready(Err(stale(Fault::new(Reason::ServerGone), is_stale))),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {
                return Poll::Ready(Err(Fault::because(
                    Reason::BadResponse,
                    "the response's head is too large",
                )));
            }
            Err(error) => return Poll::Ready(Err(stale(Fault::because(Reason::ServerGone, error), is_stale))),
        }
    }
}

/// What an error of HTTP/2 means before the answer's head.
pub fn h2_fault(error: h2::Error) -> Fault {
    if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_reset() {
        return Fault::because(Reason::StreamRefused, error).replayable();
    }
    if error.is_go_away() && error.is_remote() {
        // h2 says this of streams above the last one that the peer looked at.
        return Fault::because(Reason::HopGone, error).replayable();
    }
    if error.is_reset() {
        return Fault::because(Reason::ServerReset, error);
    }
    if error.is_io() {
        return Fault::because(Reason::ServerGone, error);
    }
    Fault::because(Reason::BadResponse, error)
}

/// What a broken answer means after its head.
pub fn cut(cause: Cause) -> Fault {
    match cause {
        Cause::H2(error) if error.is_reset() => Fault::because(Reason::ServerReset, error),
        Cause::H2(error) => Fault::because(Reason::ResponseCut, error),
        cause @ (Cause::Refused(_) | Cause::Length) => Fault::because(Reason::BadResponse, cause),
        cause => Fault::because(Reason::ResponseCut, cause),
    }
}

/// Whether the connection's place should be given up: what it answered says that it is ending.
pub fn is_ending(fault: &Fault) -> bool {
    matches!(fault.reason, Reason::HopGone | Reason::ServerGone)
}
