//! The task of one pooled connection: makes it, drives it, sees that the peer lives, and ends it when nobody needs it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Connection, SendRequest},
};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep, timeout},
};
use weft_proto::limits;

use super::{Counts, Key, Link, Ready, State, client_builder, forget_closed};
use crate::{
    app::Shared,
    connection,
    endpoint::Endpoint,
    fault::{Fault, Reason},
    h1::{self, Conn},
    hop::{
        Transport,
        backend_tls::{self, Offer, Speaks},
        tcp, tls,
    },
    io::Io,
    metrics,
};

pub(super) struct Start {
    pub(super) key: Key,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
    pub(super) tell: watch::Sender<State>,
}

/// Spawns the task. It does not end with whoever wanted the connection first: others wait for it too.
pub(super) fn start(start: Start) {
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(run(start));
    tokio::spawn(task);
}

async fn run(start: Start) {
    let Start {
        key,
        endpoint,
        shared,
        link,
        tell,
    } = start;
    let counts = link.counts.clone();
    let load = endpoint.load.clone();
    let connecting = connect(&key, &endpoint, &shared);
    let made = timeout(limits::CONNECT_TIME + limits::HANDSHAKE_TIME, connecting).await;
    match made.unwrap_or_else(|_| Err(Fault::new(Reason::ConnectTimeout).replayable())) {
        Ok(Made::Http1(conn)) => {
            load.reached();
            metrics::hop_connection(key.transport.label(), None);
            h1::pool::give(h1::pool::Key::new(&endpoint, &key.transport), conn);
            let _ = tell.send(State::Failed {
                reason: Reason::ServerHandshake,
                why: "the server chose HTTP/1.1".into(),
            });
        }
        Ok(Made::Http2(driver, send)) => {
            load.reached();
            metrics::hop_connection(key.transport.label_h2(), None);
            // A peer that allows no streams at all makes them wait, not its connections many.
            let most = send.current_max_send_streams().clamp(1, limits::H2_STREAMS_USED);
            let extended_connect = send.is_extended_connect_protocol_enabled();
            let _ = link.ready.set(Ready {
                send,
                extended_connect,
                most,
            });
            let _ = tell.send(State::Ready);
            // When the pool and the streams have let go of it, the connection ends by itself.
            drop((link, tell, shared, endpoint));
            if driver.run(&counts).await == Ended::Dead {
                load.failed();
            }
        }
        Err(fault) => {
            tracing::debug!(endpoint = %key.address, error = %fault, "no connection to the endpoint");
            load.failed();
            metrics::hop_connection(key.transport.label_h2(), Some(fault.reason));
            let _ = tell.send(State::Failed {
                reason: fault.reason,
                why: fault.cause().into(),
            });
        }
    }
    counts.closed.store(true, Relaxed);
    forget_closed(&key);
}

/// A connection to the endpoint.
enum Made {
    Http2(Driver, SendRequest<Bytes>),
    /// By ALPN: good for somebody else.
    Http1(Box<Conn>),
}

/// Connects, and returns once the peer's SETTINGS are known: they come before its answer to a PING.
async fn connect(key: &Key, endpoint: &Arc<Endpoint>, shared: &Arc<Shared>) -> Result<Made, Fault> {
    let io = match (&key.transport, &key.identity) {
        (Transport::Itself, _) => connection::to_itself(shared, key.address),
        (Transport::Mesh, Some(identity)) => tls::connect(key.address, identity, shared).await?,
        (Transport::Mesh, None) => return Err(Fault::new(Reason::ServerIdentity)),
        (Transport::Plain, _) => Io::socket(tcp::dial(key.address).await?),
        (Transport::Tls(policy), _) => {
            // Boxed: few connections need the room that a handshake takes.
            let (io, speaks) = Box::pin(backend_tls::connect(policy, Offer::All, endpoint, shared)).await?;
            backend_tls::remember(key.address, policy, speaks);
            if speaks == Speaks::Http1 {
                return Ok(Made::Http1(Box::new(Conn::new(io))));
            }
            io
        }
    };
    let failed = |error: h2::Error| Fault::because(Reason::ServerHandshake, error).replayable();
    let (send, mut connection) = client_builder().handshake(io).await.map_err(failed)?;
    let mut ping = connection.ping_pong().expect("taken once, right after the handshake");
    ping.send_ping(Ping::opaque()).map_err(failed)?;
    let mut connection = Box::pin(connection);
    poll_fn(|cx| {
        match connection.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Err(Fault::new(Reason::HopGone).replayable())),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(failed(error))),
            Poll::Pending => {}
        }
        ping.poll_pong(cx).map(|pong| pong.map(drop).map_err(failed))
    })
    .await?;
    // Servers that count PINGs as abuse (gRPC's) are asked once only; TCP's keepalive finds those that are gone.
    let watched = key.transport == Transport::Mesh;
    let driver = Driver {
        connection,
        ping,
        watched,
    };
    Ok(Made::Http2(driver, send))
}

struct Driver {
    connection: Pin<Box<Connection<Io, Bytes>>>,
    ping: PingPong,
    watched: bool,
}

/// After this many looks without a stream the connection is closed.
const IDLE_LOOKS: u32 = (limits::H2_IDLE.as_secs() / limits::H2_PING.as_secs()) as u32;

/// When the peer was looked after last, and what is awaited.
struct Watch {
    next: Pin<Box<Sleep>>,
    awaits_pong: bool,
    idle_looks: u32,
}

impl Watch {
    fn again(&mut self, after: Duration) {
        self.next.as_mut().reset(Instant::now() + after);
    }
}

/// Why a connection ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// The peer said so, or the transport did.
    ByItself,
    /// The peer does not answer any more.
    Dead,
    /// Nobody has needed it for a while.
    Unused,
}

impl Driver {
    async fn run(mut self, counts: &Counts) -> Ended {
        let mut watch = Watch {
            next: Box::pin(sleep(limits::H2_PING)),
            awaits_pong: false,
            idle_looks: 0,
        };
        let mut yielded = false;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = self.look(&mut watch, counts, cx) {
                return Poll::Ready(ended);
            }
            // Every stream that can run goes first, so that one write carries what all of them have queued.
            if !std::mem::replace(&mut yielded, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            yielded = false;
            self.connection.as_mut().poll(cx).map(|_| Ended::ByItself)
        })
        .await
    }

    /// Ready when the connection is to be closed: the peer is dead, or nobody needs it.
    fn look(&mut self, watch: &mut Watch, counts: &Counts, cx: &mut Context<'_>) -> Poll<Ended> {
        if watch.awaits_pong && self.ping.poll_pong(cx).is_ready() {
            // An error shows on the connection itself.
            watch.awaits_pong = false;
            watch.again(limits::H2_PING);
        }
        while watch.next.as_mut().poll(cx).is_ready() {
            if watch.awaits_pong {
                tracing::debug!("an endpoint does not answer PING");
                return Poll::Ready(Ended::Dead);
            }
            if counts.streams.load(Relaxed) == 0 {
                watch.idle_looks += 1;
                if watch.idle_looks >= IDLE_LOOKS {
                    // Who would take a stream now is on this very thread, and so comes before or after.
                    counts.closed.store(true, Relaxed);
                    return Poll::Ready(Ended::Unused);
                }
            } else {
                watch.idle_looks = 0;
                if self.watched && self.ping.send_ping(Ping::opaque()).is_ok() {
                    watch.awaits_pong = true;
                    watch.again(limits::H2_PING_ANSWER);
                    // Registers for the answer.
                    let _ = self.ping.poll_pong(cx).is_ready();
                    continue;
                }
            }
            watch.again(limits::H2_PING);
        }
        Poll::Pending
    }
}
