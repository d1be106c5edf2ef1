//! HTTP/1.0 and 1.1 (RFC 9112), both roles, over `httparse`.
//!
//! ```text
//! RequestHead::parse(bytes)  ──►  RequestHead   .method() .target() .host() .body() .keep_alive() .upgrade() .fields()
//!                                      │ .encode(..)       the same head for an HTTP/1 server, byte for byte but for edits
//!                                      │ .to_http(..)      an `http::Request` for an HTTP/2 hop
//! BodyDecoder::request(head.body())    ──►  Data | Trailers | End | NeedMore
//! BodyEncoder::new(length)             ──►  what to write before and after each piece, and at the end
//! ```
//!
//! The framing guard is part of parsing: a head that two readers could understand differently is [`Refused`] and never
//! becomes a value. A request's refusal has a status to answer with; the connection is closed afterwards. A response's
//! refusal is the server's fault (502).

mod body;
mod convert;
mod encode;
mod error;
mod fields;
mod guard;
mod head;
mod request;
mod response;
mod send;
mod trailers;

pub use body::{BodyDecoder, Frame, Piece};
pub use convert::{Converted, encode_request, encode_response, encode_trailers, is_target_of};
pub use encode::{Connection, Edit, Forward, Framing};
pub use error::Refused;
pub use fields::{Field, Fields, Known};
pub use head::Scan;
pub use request::{Form, RequestHead};
pub use response::{RequestKind, ResponseHead};
pub use send::{BodyEncoder, ChunkHead, WrongLength};
pub use trailers::trailer_passes;

/// How the end of a message's body is known (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// So many bytes. `Length(0)` is said by the message, and is kept apart from `None` since it is passed on.
    Length(u64),
    /// Chunks, then perhaps trailers.
    Chunked,
    /// Everything until the server closes. Responses only.
    UntilClose,
}

impl BodyLength {
    /// Whether no byte of a body follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, BodyLength::None | BodyLength::Length(0))
    }
}

/// The version that a head says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// `HTTP/1.0`
    H10,
    /// `HTTP/1.1`
    H11,
}

impl Version {
    /// As it stands in a head.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::H10 => "HTTP/1.0",
            Version::H11 => "HTTP/1.1",
        }
    }
}

impl From<Version> for http::Version {
    fn from(version: Version) -> Self {
        match version {
            Version::H10 => http::Version::HTTP_10,
            Version::H11 => http::Version::HTTP_11,
        }
    }
}
