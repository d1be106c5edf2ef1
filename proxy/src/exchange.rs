//! ★ One HTTP request, from its head to the end of its answer.
//!
//! ask → decide → authorize → endpoint → hop → relay, the record kept throughout. The client speaks HTTP/1 or HTTP/2
//! (`exchange/h1.rs`, `exchange/h2.rs` take its requests), the server too (`exchange/server.rs`), and what stands
//! between them is the same for all four. Of itself weft tries again only what was certainly not processed.

mod attempts;
pub mod client;
mod forwarded;
pub mod h1;
pub mod h2;
pub mod head;
pub mod mirror;
pub mod plan;
pub mod server;

use crate::{
    authorize,
    connection::Connection,
    endpoint::Lease,
    fault::{Fault, Reason},
    h1::pool,
    hop::{self, Transport},
    io::{Io, Tunnel},
    metrics,
    record::{Direction, Hop, Protocol, Record},
    relay::{
        http::{Broken, Cause, Half, stream::Sender},
        upgrade,
    },
};
use ::h2::client::SendRequest;
use attempts::Tried;
use bytes::Bytes;
use client::{Client, End};
use head::{Edits, Request, Response, ToServer, Wants};
use plan::{Go, Plan};
use server::{H1Way, Head, Server, Way};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use weft_proto::limits;
use weft_route::{Decision, HttpView};

pub use h1::serve as serve_h1;
pub use h2::serve as serve_h2;

/// Opens the record of a request.
fn record(request: &Request, wants: &Wants, connection: &Connection) -> Record {
    let mut record = Record::exchange(connection.facts.clone());
    record.protocol(match upgrade::protocol(wants) {
        Some(protocol) => protocol,
        None if request.is_grpc() => Protocol::Grpc,
        None if request.is_h1() => Protocol::Http1,
        None => Protocol::Http2,
    });
    record.request(
        request.own_method().as_bytes(),
        request.host().unwrap_or_default(),
        request.target(),
    );
    if let Some(tracer) = &connection.shared.tracer
        && let Some(span) = tracer.begin(request, request.version(), &connection.facts)
    {
        record.trace(span, &connection.shared);
    }
    record
}

/// Carries one request out. Whatever happens, the client is told, and the record knows.
async fn run(
    client: &mut Client<'_>,
    request: &mut Request,
    wants: &Wants,
    connection: &Arc<Connection>,
    record: &mut Record,
) -> End {
    // What the client asked for is looked at, before rules change it.
    let allowed = authorize::request(request, wants, connection);
    if authorize::is_own_probe(request, wants, connection) {
        record.probe();
    }
    let ended = match allowed.and_then(|()| plan::decide(request, connection, &mut client.own, record)) {
        Ok(Plan::Answer(status, fields)) => return client.own(status, &fields, record).await,
        Ok(Plan::Go(mut go)) => {
            if let Some(span) = record.span() {
                request.enter(span, &mut go.changes);
            }
            for backend in std::mem::take(&mut go.mirrors) {
                // Of a tunnel there is no copy.
                if *wants == Wants::Answer
                    && let Some(copy) = mirror::start(request, &go.changes, client.has_body(), &backend, connection)
                {
                    client.kept.copy_to(copy);
                }
            }
            let deadline = go.request_timeout.map(|time| record.started() + time);
            let going = pin!(attempts::go_on(client, request, wants, &mut go, connection, record));
            within(going, deadline)
                .await
                .unwrap_or_else(|| Err(Fault::new(Reason::RequestTimeout)))
        }
        Err(fault) => Err(fault),
    };
    finish(ended, client, record).await
}

/// What a future comes to before the deadline, if there is one.
///
/// It is borrowed: a future that is moved into another one takes its place twice.
async fn within<F: Future>(mut future: Pin<&mut F>, deadline: Option<Instant>) -> Option<F::Output> {
    let mut timer = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        match &mut timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

async fn finish(ended: Result<End, Fault>, client: &mut Client<'_>, record: &mut Record) -> End {
    let end = match ended {
        Ok(end) => end,
        Err(fault) => client.fail(&fault, record).await,
    };
    record.received(client.up.bytes);
    record.sent(client.down.bytes);
    if let Some(status) = client.down.grpc_status {
        record.grpc_status(status);
    }
    end
}

/// One attempt at one endpoint.
async fn try_one(
    client: &mut Client<'_>,
    request: &Request,
    wants: &Wants,
    go: &mut Go,
    lease: &Lease,
    connection: &Arc<Connection>,
    record: &mut Record,
) -> Result<Tried, Fault> {
    let transport = hop::transport(lease, &go.backend, connection);
    let for_h1 = server::is_for_h1(request, wants, &go.backend, connection);
    let expected = match transport {
        Transport::Plain if !for_h1 => Hop::H2c,
        _ => transport.label(),
    };
    record.endpoint(lease.address, lease.identity_label.as_ref(), expected);
    let (way, label) = server::open(lease, &transport, for_h1, request, wants, &connection.shared).await?;
    record.hop(label);
    let mut talk = Talk {
        go,
        for_h1,
        request,
        wants,
        lease,
        connection,
        record,
    };
    match way {
        Way::H1(way) => talk.over_h1(client, way).await,
        Way::H2(mut hop) => {
            let talked = talk.over_h2(client, &mut hop.send, &transport).await;
            if talked.as_ref().is_err_and(server::is_ending) {
                hop.place.retire();
            }
            match talked? {
                Talked::Answered(end) => Ok(Tried::Ended(end)),
                Talked::Again => Ok(Tried::Again),
                Talked::Tunnel(send, receive, ahead) => {
                    let mut io = Io::tunnel(Tunnel::new(send, receive, Some(Box::new(hop.place))));
                    io.unread(ahead);
                    Ok(Tried::Ended(End::Tunnel(io, None)))
                }
            }
        }
    }
}

/// WebSocket's handshake, where only one side of the exchange has one.
#[derive(Default)]
struct Keys {
    /// The key that weft made for an HTTP/1 server.
    own: Option<String>,
    /// What answers the client's key, which an HTTP/2 server does not see.
    answer: Option<String>,
}

/// What came of an attempt over HTTP/2.
enum Talked {
    Answered(End),
    Again,
    Tunnel(::h2::SendStream<Bytes>, ::h2::RecvStream, Bytes),
}

/// Everything that one attempt looks at.
struct Talk<'a> {
    go: &'a mut Go,
    /// The application is to get HTTP/1.
    for_h1: bool,
    request: &'a Request,
    wants: &'a Wants,
    lease: &'a Lease,
    connection: &'a Arc<Connection>,
    record: &'a mut Record,
}

impl Talk<'_> {
    async fn over_h1(&mut self, client: &mut Client<'_>, mut way: H1Way) -> Result<Tried, Fault> {
        let key = upgrade::add_key(self.request, self.wants, &mut self.go.changes);
        let has_body = *self.wants == Wants::Answer && client.has_body();
        let reused = way.reused;
        let mut server = Server::h1(
            &mut way.conn,
            reused,
            self.request,
            &self.go.changes,
            self.wants,
            has_body,
        );
        let keys = Keys {
            own: key,
            ..Keys::default()
        };
        let talked = self.over(client, &mut server, keys).await;
        match talked {
            Ok(Said::Answer { reusable }) => {
                if let (true, Some(key)) = (reusable, way.key) {
                    pool::give(key, way.conn);
                }
                Ok(Tried::Ended(client.end()))
            }
            Ok(Said::Again) => Ok(Tried::Again),
            Ok(Said::Switched) => Ok(Tried::Ended(End::Tunnel(way.conn.into_io(), None))),
            Err(fault) => Err(fault),
        }
    }

    async fn over_h2(
        &mut self,
        client: &mut Client<'_>,
        send: &mut SendRequest<Bytes>,
        transport: &Transport,
    ) -> Result<Talked, Fault> {
        let mesh = transport.is_mesh();
        let how = ToServer::new(transport, self.for_h1, &self.connection.facts);
        let mut head = self.request.to_h2(&self.go.changes, self.wants, &how)?;
        let mut keys = Keys::default();
        if !mesh {
            keys.answer = upgrade::take_key(&mut head, self.wants);
        }
        let ends = *self.wants == Wants::Answer && !client.has_body();
        let mut server = Server::h2(send, mesh, self.request, head, ends)?;
        match self.over(client, &mut server, keys).await? {
            Said::Answer { .. } => Ok(Talked::Answered(client.end())),
            Said::Again => {
                server.cancel(None);
                Ok(Talked::Again)
            }
            Said::Switched => {
                let gone = || Fault::new(Reason::Internal);
                let Half::H2(half) = server.half else {
                    return Err(gone());
                };
                let (receive, ahead) = half.receiver.ok_or_else(gone)?.into_parts();
                let send = half.sender.map(Sender::into_stream).ok_or_else(gone)?;
                Ok(Talked::Tunnel(send, receive, ahead))
            }
        }
    }

    /// The conversation itself, whatever both sides speak.
    async fn over(&mut self, client: &mut Client<'_>, server: &mut Server<'_>, keys: Keys) -> Result<Said, Fault> {
        let sinks = |_| Fault::new(Reason::Internal);
        client.up.replay(&client.kept, &mut server.half).map_err(sinks)?;
        let mut clock = Clock::default();
        let mut interims = 0;
        let mut response = loop {
            match poll_fn(|cx| self.poll_answer(cx, client, server, &mut clock)).await {
                Ok(Head::Final(response)) => break response,
                Ok(Head::Interim(response)) => {
                    interims += 1;
                    if interims > limits::INTERIM {
                        metrics::limit_reached("INTERIM");
                        return Err(Fault::because(Reason::BadResponse, "too many interim responses"));
                    }
                    client.interim(response)?;
                }
                Err(fault) => {
                    if fault.reason == Reason::ClientGone {
                        server.cancel(reason_of(&fault));
                    }
                    return Err(fault);
                }
            }
        };
        self.lease.answered();
        if let Some(retry) = self.go.decision.as_ref().and_then(Decision::retry)
            && client.kept.is_complete()
        {
            if self.go.retries_left && retry.codes.contains(&response.status()) {
                return Ok(Said::Again);
            }
            // What the application's own weft met is to a rule what it had been here.
            if let Some(reason) = response
                .reason()
                .filter(|reason| attempts::is_retried(*reason) && server.is_mesh())
            {
                return Err(Fault::new(reason));
            }
        }
        client.kept.stop();
        let decision = self.go.decision.as_ref();
        let session = self.go.session.as_ref().zip(decision);
        let added = session.and_then(|(session, decision)| session.field(decision, self.lease));
        let edits = Edits {
            decision,
            added: added.as_ref(),
        };
        let is_open = match (&response, self.wants) {
            (_, Wants::Answer) if response.status() != 101 => false,
            (Response::H1(head), wants) => upgrade::is_open(head, wants, keys.own.as_deref())?,
            (Response::H2(..), _) => !response.is_refusal() && (200..300).contains(&response.status()),
        };
        if is_open {
            if let Some(answer) = &keys.answer {
                response.accept_key(answer);
            }
            client.switch(response, self.wants, edits, keys.own.is_some(), self.record)?;
            poll_fn(|cx| client.half.poll_flush(cx)).await.map_err(client::broken)?;
            return Ok(Said::Switched);
        }
        let keeps = response.keeps_alive();
        let last = self.connection.drain().phase() > weft_service::drain::Phase::Running;
        client.answer(response, self.wants, edits, server.is_over(), last, self.record)?;
        let relayed = poll_fn(|cx| poll_bodies(cx, client, server, *self.wants == Wants::Answer)).await;
        if let Err(fault) = relayed {
            server.cancel(reason_of(&fault));
            return Err(fault);
        }
        if !client.up.is_finished() {
            // It answered before it had heard everything, and does not want the rest.
            server.cancel(Some(::h2::Reason::NO_ERROR));
        }
        Ok(Said::Answer {
            reusable: keeps && client.up.is_finished(),
        })
    }

    /// The request's body on its way, until a head comes back.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        server: &mut Server<'_>,
        clock: &mut Clock,
    ) -> Poll<Result<Head, Fault>> {
        let tunnel = *self.wants != Wants::Answer;
        loop {
            let before = client.up.bytes;
            let waits = tunnel || client.expects();
            if waits {
                if server.half.poll_flush(cx).is_ready() && tunnel {
                    client.hold_early(cx);
                }
            } else if !client.up.is_done() {
                match client
                    .up
                    .poll(cx, &mut client.half, &mut server.half, Some(&mut client.kept))
                {
                    Poll::Ready(Err(Broken::Source(cause) | Broken::Sink(cause @ Cause::Length))) => {
                        return Poll::Ready(Err(client::broken(cause)));
                    }
                    // What it has to say about that is still to be read.
                    Poll::Ready(Err(Broken::Sink(_))) => client.up.give_up(),
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
            }
            if let Poll::Ready(head) = server.poll_head(cx) {
                return Poll::Ready(head);
            }
            let is_sending = !waits && !client.up.is_done();
            if !is_sending && let Poll::Ready(fault) = client.poll_gone(cx) {
                return Poll::Ready(Err(fault));
            }
            if client.half.poll_flush(cx).is_ready() {
                // An interim head is on its way; whoever cannot take it is found out above.
            }
            if client.expects() {
                if clock.poll(cx, limits::EXPECT, false).is_pending() {
                    return Poll::Pending;
                }
                // RFC 9110 10.1.1: not for ever. The client sends its body, as it would have without us.
                client.go_on(true);
                clock.stop();
                continue;
            }
            let idle = match self.connection.facts.direction {
                Direction::Gateway => limits::GATEWAY_BODY_IDLE,
                Direction::Inbound | Direction::Outbound => limits::BODY_IDLE,
            };
            if is_sending && client.is_h1() && clock.poll(cx, idle, client.up.bytes != before).is_ready() {
                return Poll::Ready(Err(Fault::new(Reason::RequestBodyIdle)));
            }
            return Poll::Pending;
        }
    }
}

/// What the server said.
enum Said {
    /// A status that the rule wants another attempt for.
    Again,
    /// An answer. `reusable`: nothing is left of it on its connection.
    Answer { reusable: bool },
    /// The tunnel is open.
    Switched,
}

/// Both bodies, until the answer's is complete.
fn poll_bodies(
    cx: &mut Context<'_>,
    client: &mut Client<'_>,
    server: &mut Server<'_>,
    has_request_body: bool,
) -> Poll<Result<(), Fault>> {
    // A client that waited for 100 and gets its answer instead may still send its body (RFC 9110 10.1.1), and the answer may depend on
    // it: a server that echoes begins its answer before it asks.
    let is_sending = has_request_body && !client.up.is_done();
    if is_sending {
        match client
            .up
            .poll(cx, &mut client.half, &mut server.half, client.kept.if_wanted())
        {
            Poll::Ready(Err(Broken::Source(cause) | Broken::Sink(cause @ Cause::Length))) => {
                return Poll::Ready(Err(client::broken(cause)));
            }
            Poll::Ready(Err(Broken::Sink(_))) => client.up.give_up(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
    }
    match client.down.poll(cx, &mut server.half, &mut client.half, None) {
        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
        // A body that does not fit its head is the server's mistake, whoever finds it.
        Poll::Ready(Err(Broken::Source(cause) | Broken::Sink(cause @ Cause::Length))) => {
            return Poll::Ready(Err(server::cut(cause)));
        }
        Poll::Ready(Err(Broken::Sink(cause))) => return Poll::Ready(Err(client::broken(cause))),
        Poll::Pending => {}
    }
    if let Poll::Ready(fault) = client.poll_gone(cx) {
        return Poll::Ready(Err(fault));
    }
    Poll::Pending
}

/// The code of the reset that a fault came from.
fn reason_of(fault: &Fault) -> Option<::h2::Reason> {
    std::error::Error::source(fault)?
        .downcast_ref::<::h2::Error>()?
        .reason()
}

/// A timer that exists only once something is waited for.
#[derive(Default)]
struct Clock(Option<Pin<Box<Sleep>>>);

impl Clock {
    /// Ready when so much time has passed since it was first asked or last restarted.
    fn poll(&mut self, cx: &mut Context<'_>, time: Duration, restart: bool) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep(time)));
        if restart {
            sleep.as_mut().reset(Instant::now() + time);
        }
        sleep.as_mut().poll(cx)
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}
