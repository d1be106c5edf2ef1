//! A response's head, from a server of either version to a client of either version.

use super::{Edits, FieldChanges, declared, grpc_status, internal, strip};
use crate::fault::Reason;
use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use weft_proto::names;
use weft_wire::h1::{self, BodyLength, Connection, Edit, Forward, Framing, RequestKind, Version};

const REASON: HeaderName = HeaderName::from_static(names::http::REASON);
const STATUS: HeaderName = HeaderName::from_static(names::http::STATUS);
const BODY: HeaderName = HeaderName::from_static(names::http::BODY);

/// A response, as the server sent it.
pub enum Response {
    /// Over HTTP/1.
    H1(h1::ResponseHead),
    /// Over HTTP/2, with what it was before it crossed the mesh.
    H2(http::response::Parts, Crossed),
}

/// What HTTP/2 could not say of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    reason: Option<Vec<u8>>,
    /// It refuses an Upgrade, with a status that HTTP/2 would take for success.
    is_refusal: bool,
    until_close: bool,
}

impl Response {
    /// Reads a response that came over HTTP/2. `mesh`: from a weft.
    pub fn from_h2(mut parts: http::response::Parts, mesh: bool) -> Self {
        let fields = &mut parts.headers;
        let mut crossed = Crossed::default();
        if mesh {
            crossed.reason = fields.remove(&REASON).map(|value| value.as_bytes().to_vec());
            let status = fields
                .remove(&STATUS)
                .and_then(|value| http::StatusCode::from_bytes(value.as_bytes()).ok());
            if let Some(status) = status.filter(|status| status.is_success()) {
                parts.status = status;
                crossed.is_refusal = true;
            }
            crossed.until_close = fields.remove(&BODY).is_some_and(|value| value == "close");
        }
        strip(fields);
        Self::H2(parts, crossed)
    }

    /// The status as the server meant it.
    pub fn status(&self) -> u16 {
        match self {
            Self::H1(head) => head.status(),
            Self::H2(parts, _) => parts.status.as_u16(),
        }
    }

    /// Whether the connection that it came on may be used again.
    pub fn keeps_alive(&self) -> bool {
        match self {
            Self::H1(head) => head.keep_alive(),
            Self::H2(..) => true,
        }
    }

    /// Why a weft answered in place of the application, where it did.
    pub fn reason(&self) -> Option<Reason> {
        let Self::H2(parts, _) = self else { return None };
        let (label, _) = parts.headers.get(names::http::ERROR)?.to_str().ok()?.split_once(':')?;
        Reason::ALL.iter().copied().find(|reason| reason.label() == label)
    }

    /// Whether it refuses an Upgrade with a status that could be taken for its success.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::H2(_, Crossed { is_refusal: true, .. }))
    }

    /// `grpc-status` of a trailers-only response.
    pub fn grpc_status(&self) -> Option<u32> {
        match self {
            Self::H1(_) => None,
            Self::H2(parts, _) => grpc_status(&parts.headers),
        }
    }

    /// Writes it for a client that speaks HTTP/1: how the body's end is said, and whether the connection must be closed
    /// for that. `over`: nothing follows the head.
    pub fn encode(&self, how: &ToClient<'_>, over: bool, out: &mut BytesMut) -> (BodyLength, bool) {
        let is_11 = how.version == Version::H11;
        let said = match self {
            Self::H1(head) => head.body(),
            Self::H2(parts, crossed) => match declared(&parts.headers) {
                _ if how.kind == RequestKind::Head || matches!(self.status(), 100..=199 | 204 | 304) => {
                    BodyLength::None
                }
                Some(length) => BodyLength::Length(length),
                None if crossed.until_close => BodyLength::UntilClose,
                None if over && is_11 => BodyLength::Length(0),
                None if over => BodyLength::None,
                None => BodyLength::Chunked,
            },
        };
        let length = if said == BodyLength::Chunked && !is_11 {
            BodyLength::UntilClose
        } else {
            said
        };
        let close = how.close || length == BodyLength::UntilClose;
        let connection = match how.upgrade {
            Some(token) => Connection::Upgrade(token),
            None if how.tunnel => Connection::Unsaid,
            None if close => Connection::Close,
            None if !is_11 => Connection::KeepAlive,
            None => Connection::Unsaid,
        };
        let mut changes = FieldChanges::default();
        how.edits.apply(&mut changes);
        let mut edits = changes.list();
        match self {
            Self::H1(head) => {
                // Fields of weft's own mean nothing when they come from a server.
                edits.extend(internal(head.fields()).map(Edit::Remove));
                let framing = if length == BodyLength::UntilClose {
                    Framing::Unsaid
                } else {
                    Framing::AsSent
                };
                head.encode(
                    &Forward {
                        framing,
                        connection,
                        edits: &edits,
                        ..Forward::default()
                    },
                    out,
                );
            }
            Self::H2(parts, crossed) => {
                let framing = match length {
                    BodyLength::Chunked => Framing::Chunked,
                    BodyLength::Length(0) if declared(&parts.headers).is_none() => Framing::Length(0),
                    _ => Framing::AsSent,
                };
                let how = Forward {
                    framing,
                    connection,
                    edits: &edits,
                    ..Forward::default()
                };
                h1::encode_response(parts, crossed.reason.as_deref(), &how, out);
            }
        }
        (length, close)
    }

    /// The response for a client that speaks HTTP/2. `mesh`: a weft, which is told what HTTP/2 cannot say.
    pub fn into_h2(self, edits: Edits<'_>, mesh: bool) -> http::Response<()> {
        let mut response = match self {
            Self::H1(head) => {
                let mut response = head.to_http();
                strip(response.headers_mut());
                if mesh {
                    tell_reason(&head, &mut response);
                    if head.body() == BodyLength::UntilClose {
                        response.headers_mut().insert(BODY, HeaderValue::from_static("close"));
                    }
                }
                response
            }
            Self::H2(parts, _) => http::Response::from_parts(parts, ()),
        };
        edits.apply(response.headers_mut());
        response
    }
}

impl Response {
    /// Answers the key of a WebSocket client for a server that never saw one.
    pub fn accept_key(&mut self, answer: &str) {
        if let (Self::H2(parts, _), Ok(answer)) = (self, HeaderValue::from_str(answer)) {
            parts.headers.insert(http::header::SEC_WEBSOCKET_ACCEPT, answer);
        }
    }

    /// The 101 that a 2xx to extended CONNECT stands for. One that came over HTTP/1 is one already.
    pub fn into_101(self) -> Self {
        match self {
            Self::H2(mut parts, crossed) => {
                parts.status = http::StatusCode::SWITCHING_PROTOCOLS;
                Self::H2(parts, crossed)
            }
            h1 => h1,
        }
    }

    /// The 2xx to extended CONNECT that a 101 stands for. One that came over HTTP/2 is one already.
    pub fn into_switched(self, mesh: bool) -> http::Response<()> {
        match self {
            Self::H1(head) => {
                let mut response = head.to_http();
                strip(response.headers_mut());
                if mesh {
                    tell_reason(&head, &mut response);
                }
                *response.status_mut() = http::StatusCode::OK;
                response
            }
            Self::H2(parts, _) => http::Response::from_parts(parts, ()),
        }
    }
}

/// How a response is written for an HTTP/1 client.
pub struct ToClient<'a> {
    /// What the client speaks.
    pub version: Version,
    /// What it asked for.
    pub kind: RequestKind,
    /// The connection is closed after it in any case.
    pub close: bool,
    /// The connection is a tunnel after it.
    pub tunnel: bool,
    /// The protocol that both sides changed to.
    pub upgrade: Option<&'a str>,
    /// What rules change.
    pub edits: Edits<'a>,
}

fn tell_reason(head: &h1::ResponseHead, response: &mut http::Response<()>) {
    let usual = response.status().canonical_reason().unwrap_or_default();
    if head.reason() != usual.as_bytes()
        && let Ok(reason) = HeaderValue::from_bytes(head.reason())
    {
        response.headers_mut().insert(REASON, reason);
    }
}

/// The refusal of an Upgrade with a status that would mean success over HTTP/2.
pub fn refuse_upgrade(response: &mut http::Response<()>) {
    let status = HeaderValue::from(response.status().as_u16());
    response.headers_mut().insert(STATUS, status);
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
}
