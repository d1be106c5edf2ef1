//! Bytes to another weft: a CONNECT stream on a pooled connection that carries tunnels only (RFC 9113 8.5).
//!
//! The stream is open when the other side says so, and it says so when the application has taken the connection: a
//! refused dial is known before a byte is sent.

use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use http::{Method, Request, StatusCode, Uri};
use tokio::time::timeout;
use weft_proto::{limits, names};

use super::{Transport, h2 as pool};
use crate::{
    app::Shared,
    endpoint::Endpoint,
    fault::{Fault, Reason},
    io::{Io, Tunnel},
};

/// Opens a tunnel to the endpoint.
pub async fn open(endpoint: &Arc<Endpoint>, transport: &Transport, shared: &Arc<Shared>) -> Result<Io, Fault> {
    let mut hop = pool::acquire(endpoint, transport, pool::Purpose::Tunnels, shared).await?;
    let (answer, send) = hop
        .send
        .send_request(request(endpoint), false)
        .map_err(|error| lost(&hop, error))?;
    let answer = timeout(limits::CONNECT_TIME + limits::HANDSHAKE_TIME, answer)
        .await
        .map_err(|_| Fault::new(Reason::ConnectTimeout).replayable())?
        .map_err(|error| lost(&hop, error))?;
    match answer.status() {
        StatusCode::OK => Ok(stream(send, answer.into_body(), hop.place)),
        status => {
            let text = answer
                .headers()
                .get(names::http::ERROR)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let reason = match status {
                StatusCode::SERVICE_UNAVAILABLE => Reason::ConnectRefused,
                StatusCode::GATEWAY_TIMEOUT => Reason::ConnectTimeout,
                StatusCode::FORBIDDEN => Reason::NotAllowed,
                _ => Reason::Unreachable,
            };
            endpoint.load.failed();
            Err(Fault::because(reason, format!("the endpoint's weft answered {status} {text}")).replayable())
        }
    }
}

fn request(endpoint: &Endpoint) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::builder()
        .authority(endpoint.address.to_string())
        .build()
        .expect("an address and a port are an authority");
    request
}

fn stream(send: h2::SendStream<Bytes>, receive: RecvStream, place: pool::Place) -> Io {
    Io::tunnel(Tunnel::new(send, receive, Some(Box::new(place))))
}

/// Before the answer no byte was sent: whatever happened, another endpoint may be tried.
fn lost(hop: &pool::H2Hop, error: h2::Error) -> Fault {
    if error.is_go_away() || error.is_io() {
        hop.place.retire();
    }
    let reason = match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Reason::StreamRefused,
        Some(h2::Reason::CONNECT_ERROR) => Reason::ConnectRefused,
        _ => Reason::HopGone,
    };
    Fault::because(reason, error).replayable()
}
