//! Requests of an HTTP/2 client or of another weft: each stream is a task, and one request may take another pod than the
//! one before it on the same connection.

use super::{
    client::{Client, End},
    head::Request,
    record, run,
};
use crate::{
    authorize,
    connection::{self, Connection},
    fault::{Fault, Reason},
    hop::h2::server_builder,
    io::Io,
    record::{Protocol, Record},
    relay::upgrade,
    respond,
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};
use tokio::time::{Instant, sleep};
use weft_proto::limits;
use weft_service::drain::Phase;
use weft_wire::{h1::Refused, h2::check_request};

type Taken = Option<Result<(http::Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

enum Event {
    Stream(Box<Taken>),
    Draining,
    Idle,
}

/// Serves a client's HTTP/2 connection until its end.
pub async fn serve(io: Io, connection: Arc<Connection>) {
    let handshake = server_builder().handshake::<_, Bytes>(io);
    let mut h2 = match tokio::time::timeout(limits::HEAD_TIME, handshake).await {
        Ok(Ok(h2)) => Box::new(h2),
        Ok(Err(error)) => return failed(&connection, &Fault::because(Reason::BadRequest, error)),
        Err(_) => return failed(&connection, &Fault::new(Reason::HeadTimeout)),
    };
    let signal = connection.drain().clone();
    // Who comes during the drain has no other endpoint: it is served, and kept no longer than it asks for something.
    let has_begun = signal.phase() > Phase::Running;
    let idle_time = if has_begun {
        limits::SERVER_IDLE
    } else {
        limits::CLIENT_IDLE
    };
    let mut draining: Pin<Box<dyn Future<Output = ()> + Send>> = if has_begun {
        Box::pin(std::future::pending())
    } else {
        Box::pin(async move { signal.draining().await })
    };
    let mut is_ending = false;
    let mut idle = Box::pin(sleep(idle_time));
    let mut yielded = false;
    loop {
        let event = poll_fn(|cx| {
            if !is_ending {
                if draining.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Draining);
                }
                if idle.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Idle);
                }
            }
            // Every stream that can run goes first, so that one write carries what all of them have queued.
            if !std::mem::replace(&mut yielded, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let taken = h2.poll_accept(cx);
            if taken.is_pending() {
                yielded = false;
            }
            taken.map(|taken| Event::Stream(Box::new(taken)))
        })
        .await;
        match event {
            Event::Draining => {
                is_ending = true;
                h2.graceful_shutdown();
            }
            Event::Idle if h2.has_streams() => idle.as_mut().reset(Instant::now() + idle_time),
            Event::Idle => {
                is_ending = true;
                h2.graceful_shutdown();
            }
            Event::Stream(taken) => match *taken {
                Some(Ok((request, respond))) => {
                    let task: Pin<Box<dyn Future<Output = ()> + Send>> =
                        Box::pin(stream(request, respond, connection.clone()));
                    tokio::spawn(task);
                    if !is_ending && authorize::takes_one_request(&connection) {
                        is_ending = true;
                        h2.graceful_shutdown();
                    }
                    // Pushed into the future without moving the timer: it rings, and looks again.
                    if idle.deadline() < Instant::now() + idle_time / 2 {
                        idle.as_mut().reset(Instant::now() + idle_time);
                    }
                }
                Some(Err(error)) if error.is_io() => return,
                Some(Err(error)) => return failed(&connection, &Fault::because(Reason::BadRequest, error)),
                None => return,
            },
        }
    }
}

fn failed(connection: &Connection, fault: &Fault) {
    tracing::debug!(conn = connection.facts.connection, error = %fault, "an HTTP/2 connection failed");
    let mut record = Record::exchange(connection.facts.clone());
    record.protocol(Protocol::Http2);
    record.fault(fault);
    record.close();
}

/// One stream.
async fn stream(request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>, connection: Arc<Connection>) {
    let mesh = connection.facts.mesh;
    let has_protocol = request.extensions().get::<h2::ext::Protocol>().is_some();
    let is_connect = request.method() == http::Method::CONNECT;
    if is_connect && !has_protocol && mesh {
        return Box::pin(connection::tunnel(request, respond, connection)).await;
    }
    let (parts, body) = request.into_parts();
    let expected = match check(&parts, is_connect, has_protocol) {
        Ok(expected) => expected,
        Err((fault, answered)) => {
            let mut record = Record::exchange(connection.facts.clone());
            record.protocol(Protocol::Http2);
            record.fault(&fault);
            if answered {
                let (response, _) = respond::over_h2(fault.reason, respond::is_grpc(&parts.headers));
                record.status(response.status().as_u16());
                let mut response = response;
                response.headers_mut().remove(http::header::CONTENT_LENGTH);
                // The stream may be gone already.
                let _ = respond.send_response(response, true);
            } else {
                respond.send_reset(h2::Reason::PROTOCOL_ERROR);
            }
            return record.close();
        }
    };
    let mut request = match Request::from_h2(parts, mesh) {
        Ok(request) => request,
        Err(fault) => {
            let mut record = Record::exchange(connection.facts.clone());
            record.protocol(Protocol::Http2);
            record.fault(&fault);
            respond.send_reset(h2::Reason::PROTOCOL_ERROR);
            return record.close();
        }
    };
    let wants = request.wants();
    let mut record = record(&request, &wants, &connection);
    let mut client = Client::h2(body, respond, expected, mesh, request.is_grpc());
    match run(&mut client, &mut request, &wants, &connection, &mut record).await {
        End::Tunnel(server, lease) => match client.into_tunnel() {
            Some(io) => Box::pin(upgrade::carry(io, server, record, lease, connection)).await,
            None => server.reset(),
        },
        _ => record.close(),
    }
}

/// The guard: what HTTP/1 could read otherwise is not let through (T21, T22). The length of the body, where it is said;
/// else the fault, and whether it is answered or the stream reset.
fn check(parts: &http::request::Parts, is_connect: bool, has_protocol: bool) -> Result<Option<u64>, (Fault, bool)> {
    let refused = |refused: Refused, answered| (Fault::because(Reason::BadRequest, refused), answered);
    let checked = check_request(parts).map_err(|no| {
        let is_about_host = matches!(
            no,
            Refused::Host | Refused::NoHost | Refused::TwoHosts | Refused::HostsDiffer
        );
        refused(no, is_about_host)
    })?;
    if let Some(token) = parts.extensions.get::<h2::ext::Protocol>() {
        upgrade::check_token(token.as_str()).map_err(|fault| (fault, false))?;
    }
    // RFC 8441 4: the body of a tunnel has no length.
    if (is_connect || has_protocol) && checked.length.is_some() {
        return Err(refused(Refused::Length, false));
    }
    Ok(checked.length)
}
