//! Fault → what the client is told: an HTTP status with the `weft-error` field, a trailers-only response for gRPC, a reset
//! of the stream or of the connection where the response had begun. A response that was cut never looks complete.

use crate::fault::{Blame, Fault, Reason};
use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use std::fmt::Write as _;
use weft_proto::names;
use weft_wire::h1::Version;

/// The text of the `weft-error` field: the reason, as in metrics, and what it means. Nothing in it came from outside.
pub fn error_field(reason: Reason) -> String {
    format!("{}: {}", reason.label(), reason.text())
}

/// An answer of weft's own to an HTTP/1 request, composed onto `out`.
pub struct Answer<'a> {
    /// The version to answer in.
    pub version: Version,
    /// Whether it answers HEAD, which is told the length and not sent the body.
    pub is_head: bool,
    /// Whether the connection is closed after it.
    pub close: bool,
    /// The status, where it is not the fault's own.
    pub status: Option<u16>,
    /// Fields beside those that weft needs.
    pub fields: &'a [(HeaderName, HeaderValue)],
}

impl Answer<'_> {
    /// Says what failed.
    pub fn fault(&self, reason: Reason, out: &mut BytesMut) {
        let text = error_field(reason);
        self.line(self.status.unwrap_or(reason.status()), out);
        let _ = write!(out, "{}: {text}\r\ncontent-type: text/plain\r\n", names::http::ERROR);
        self.end(Some(&text), out);
    }

    /// Says no more than status and fields do.
    pub fn empty(&self, out: &mut BytesMut) {
        self.line(self.status.unwrap_or(204), out);
        self.end(None, out);
    }

    fn line(&self, status: u16, out: &mut BytesMut) {
        let reason = StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let _ = write!(
            out,
            "{} {status} {}\r\n",
            self.version.as_str(),
            reason.unwrap_or("Failed")
        );
    }

    fn end(&self, text: Option<&str>, out: &mut BytesMut) {
        let length = text.map_or(0, |text| text.len() + 1);
        let connection = match (self.close, self.version) {
            (true, _) => "connection: close\r\n",
            (false, Version::H10) => "connection: keep-alive\r\n",
            (false, Version::H11) => "",
        };
        for (name, value) in self.fields {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // RFC 9110 8.6: a 204 has no length.
        if self.status != Some(204) {
            let _ = write!(out, "content-length: {length}\r\n");
        }
        let _ = write!(out, "{connection}\r\n");
        if let (Some(text), false) = (text, self.is_head) {
            let _ = writeln!(out, "{text}");
        }
    }
}

/// Whether a request is a gRPC call, which must be answered as one.
pub fn is_grpc(fields: &http::HeaderMap) -> bool {
    fields
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| is_grpc_type(value.as_bytes()))
}

/// `application/grpc`, `application/grpc+proto` and others, but not `application/grpc-web`.
pub fn is_grpc_type(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    value
        .get(..TYPE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
        && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// An answer of weft's own over HTTP/2: the head, and whether a body of [`error_field`] follows.
pub fn over_h2(reason: Reason, is_grpc: bool) -> (Response<()>, Option<String>) {
    let mut response = Response::new(());
    let text = error_field(reason);
    let value = HeaderValue::from_str(&text).expect("reasons are plain text");
    let fields = response.headers_mut();
    if is_grpc {
        // "Trailers-Only" of gRPC over HTTP/2: the status in the one head that there is.
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert("grpc-status", HeaderValue::from(reason.grpc() as u16));
        fields.insert("grpc-message", percent_encoded(&text));
        fields.insert(names::http::ERROR, value);
        return (response, None);
    }
    fields.insert(names::http::ERROR, value);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len() + 1));
    *response.status_mut() = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (response, Some(text + "\n"))
}

/// `grpc-message` is percent-encoded outside of printable ASCII, and `%` itself.
fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    HeaderValue::from_str(&encoded).expect("only printable ASCII is left")
}

/// The code with which a stream is reset whose response had begun, or cannot be given.
pub fn reset_code(fault: &Fault) -> h2::Reason {
    let source = std::error::Error::source(fault).and_then(|source| source.downcast_ref::<h2::Error>());
    match fault.reason {
        // The server's own code goes on.
        Reason::ServerReset => source.and_then(h2::Error::reason).unwrap_or(h2::Reason::INTERNAL_ERROR),
        Reason::StreamRefused | Reason::ConnectRefused if fault.may_replay() => h2::Reason::REFUSED_STREAM,
        Reason::BadRequest | Reason::BadRequestBody | Reason::BadMeshField => h2::Reason::PROTOCOL_ERROR,
        Reason::HeadTooLarge | Reason::ConnectionLimit => h2::Reason::ENHANCE_YOUR_CALM,
        _ => match fault.blame {
            Blame::Client => h2::Reason::CANCEL,
            Blame::Us | Blame::Server => h2::Reason::INTERNAL_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answer: &Answer<'_>) -> String {
        let mut out = BytesMut::new();
        answer.fault(Reason::NoEndpoint, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    const PLAIN: Answer<'_> = Answer {
        version: Version::H11,
        is_head: false,
        close: false,
        status: None,
        fields: &[],
    };

    #[test]
    fn a_fault_says_what_failed_in_status_field_and_body() {
        assert_eq!(
            answered(&PLAIN),
            "HTTP/1.1 503 Service Unavailable\r\nweft-error: no_endpoint: no endpoint is available\r\n\
             content-type: text/plain\r\ncontent-length: 38\r\n\r\nno_endpoint: no endpoint is available\n"
        );
        let head = answered(&Answer {
            is_head: true,
            close: true,
            version: Version::H10,
            ..PLAIN
        });
        assert!(head.starts_with("HTTP/1.0 503 "));
        assert!(
            head.ends_with("content-length: 38\r\nconnection: close\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn a_grpc_call_is_answered_with_trailers_only() {
        let (response, body) = over_h2(Reason::RequestTimeout, true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(body.is_none());
    }

    #[test]
    fn grpc_web_is_not_grpc() {
        assert!(is_grpc_type(b"application/grpc"));
        assert!(is_grpc_type(b"Application/gRPC+proto"));
        assert!(!is_grpc_type(b"application/grpc-web"));
        assert!(!is_grpc_type(b"application/json"));
    }

    #[test]
    fn every_reason_can_be_told_in_both_versions() {
        for reason in Reason::ALL {
            over_h2(*reason, true);
            over_h2(*reason, false);
            answered(&PLAIN);
        }
    }
}
