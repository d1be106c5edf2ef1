//! Upgrade and 101, extended CONNECT and 2xx: what asks for a tunnel, what opens it, and nothing else does.
//!
//! Over HTTP/1 only 101 with the very token that was asked for counts, over HTTP/2 only 2xx to an extended CONNECT. Any
//! other answer is an answer: bytes that the client sent ahead are dropped then, and its connection is closed
//! (CVE-2026-2833, CVE-2024-23326). The bytes of the tunnel itself are `relay/bytes.rs`' matter.

pub mod handshake;

use crate::{
    connection::Connection,
    endpoint::Lease,
    exchange::head::{Changes, Request, Wants},
    fault::{Blame, Fault, Reason},
    io::Io,
    record::{Protocol, Record},
    relay::{
        bytes::{self, Side},
        idle::Clocks,
        websocket::Parting,
    },
};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use weft_proto::limits;
use weft_route::{HttpView, edit::Fields};
use weft_wire::h1::ResponseHead;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: &str = "sec-websocket-accept";

/// What the client speaks after the tunnel is open, for metrics.
pub fn protocol(wants: &Wants) -> Option<Protocol> {
    match wants {
        Wants::Answer => None,
        Wants::Upgrade(token) if is_websocket(token) => Some(Protocol::WebSocket),
        Wants::Upgrade(_) => Some(Protocol::Upgrade),
        Wants::Connect => Some(Protocol::Connect),
    }
}

/// Whether a token of an Upgrade is WebSocket's.
pub fn is_websocket(token: &str) -> bool {
    token.eq_ignore_ascii_case("websocket")
}

/// Checks what HTTP/2 leaves open: a `:protocol` is a token of bounded length (T12).
pub fn check_token(token: &str) -> Result<(), Fault> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let (name, version) = token.split_once('/').unwrap_or((token, "1"));
    let is_h2 = ["h2", "h2c"].iter().any(|h2| token.eq_ignore_ascii_case(h2));
    if token.len() > limits::UPGRADE_TOKEN || !is_token(name) || !is_token(version) || is_h2 {
        return Err(Fault::because(
            Reason::BadRequest,
            "the :protocol of an extended CONNECT is not a token of this kind",
        ));
    }
    Ok(())
}

/// The key that an HTTP/1 server needs where the client, by RFC 8441, has none. It is added to the changes.
pub fn add_key(request: &Request, wants: &Wants, changes: &mut Changes) -> Option<String> {
    let (Wants::Upgrade(token), Request::H2(_, None)) = (wants, request) else {
        return None;
    };
    let mut has_key = false;
    request.each_header(KEY.as_str(), &mut |_| has_key = true);
    if has_key || !is_websocket(token) {
        return None;
    }
    let key = handshake::key();
    changes
        .fields
        .set(&KEY, &HeaderValue::from_str(&key).expect("base64 is plain text"));
    Some(key)
}

/// Takes the key out of an HTTP/1 client's handshake that goes on by RFC 8441, which has none; what answers it (RFC 8441 5.1).
pub fn take_key(head: &mut http::Request<()>, wants: &Wants) -> Option<String> {
    match wants {
        Wants::Upgrade(token) if is_websocket(token) => {
            let key = head.headers_mut().remove(&KEY)?;
            Some(handshake::accept(key.to_str().ok()?))
        }
        _ => None,
    }
}

/// What an HTTP/1 server's answer means for a request that wants more than an answer: whether the tunnel is open.
pub fn is_open(head: &ResponseHead, wants: &Wants, key: Option<&str>) -> Result<bool, Fault> {
    let bad = |what: &'static str| Err(Fault::because(Reason::BadUpgrade, what));
    match wants {
        Wants::Connect => Ok((200..300).contains(&head.status())),
        Wants::Upgrade(token) if head.status() == 101 => {
            if !head.is_upgrade_to(token) {
                return bad("101 with another protocol than the one that was asked for");
            }
            match key {
                Some(key) if head.fields().get(ACCEPT) != Some(handshake::accept(key).as_bytes()) => {
                    bad("101 with a wrong Sec-WebSocket-Accept")
                }
                _ => Ok(true),
            }
        }
        _ if head.status() == 101 => bad("101 without being asked"),
        _ => Ok(false),
    }
}

/// Carries the tunnel's bytes until both sides have ended, and closes its record. The lease is a place at the server's
/// endpoint, which the tunnel takes for as long.
pub async fn carry(client: Io, server: Io, mut record: Record, lease: Option<Lease>, connection: Arc<Connection>) {
    record.tunnel_opened();
    let is_websocket = record.spoken() == Protocol::WebSocket;
    let parting = is_websocket.then(|| Parting::new(&connection, lease.as_ref().map(|lease| lease.address)));
    drop(connection);
    let moved = |side, count| match side {
        Side::Client => record.received(count),
        Side::Server => record.sent(count),
    };
    let ended = bytes::tunnel(client, server, Clocks::default(), parting, moved);
    if let Err(fault) = ended.await {
        record.fault(&fault);
    }
    record.close();
}

/// An extended CONNECT cannot go to a server that never offered it (RFC 8441 3).
pub fn not_offered() -> Fault {
    Fault::new(Reason::NoExtendedConnect).blaming(Blame::Server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_wire::h1::{RequestKind, Scan};

    fn head(text: &str) -> ResponseHead {
        let parsed = ResponseHead::parse(text.as_bytes(), RequestKind::Other, &mut Scan::default());
        parsed.expect("a head").expect("a complete one").0
    }

    #[test]
    fn t09_only_101_with_the_same_token_opens_a_tunnel() {
        let wants = Wants::Upgrade("foo".into());
        let open = |text| is_open(&head(text), &wants, None);
        assert!(open("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: FOO\r\n\r\n").unwrap());
        assert!(!open("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap());
        assert!(open("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: bar\r\n\r\n").is_err());
        assert!(open("HTTP/1.1 101 X\r\n\r\n").is_err());
        assert!(is_open(&head("HTTP/1.1 101 X\r\nUpgrade: foo\r\n\r\n"), &Wants::Answer, None).is_err());
    }

    #[test]
    fn a_key_of_ours_must_be_accepted() {
        let wants = Wants::Upgrade("websocket".into());
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let text = |accept: &str| {
            format!(
                "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )
        };
        assert!(is_open(&head(&text("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), &wants, Some(key)).unwrap());
        assert!(is_open(&head(&text("x")), &wants, Some(key)).is_err());
    }

    #[test]
    fn t12_a_protocol_is_a_short_token() {
        assert!(check_token("websocket").is_ok());
        assert!(check_token("tls/1.0").is_ok());
        for bad in ["a b", "", "a\r\nb", "h2c", "H2", &"x".repeat(65)] {
            assert!(check_token(bad).is_err(), "{bad:?}");
        }
    }
}
