//! A response's head, from a server.

use super::fields::{Fields, Known};
use super::{BodyLength, Refused, Scan, Version, guard, head};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use std::mem::MaybeUninit;
use weft_proto::limits;

/// What a response's framing depends on besides itself (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// HEAD: no response has a body.
    Head,
    /// CONNECT: after 2xx the connection is a tunnel.
    Connect,
    /// Any other method.
    Other,
}

/// A response's head. Its bytes are kept in one block; a clone shares them.
#[derive(Clone)]
pub struct ResponseHead {
    fields: Fields,
    status: u16,
    /// Length of the status line without its CR LF.
    line: u16,
    version: Version,
    body: BodyLength,
    keep_alive: bool,
    /// Fields for framing, if there are any, mean nothing here and stay behind.
    unframed: bool,
}

impl ResponseHead {
    /// Parses one head from the front of `buffer`. `Ok(None)`: not complete, read more and call again with the same `scan`.
    /// Otherwise the head and how many bytes it took. Interim heads (1xx) are heads like others: [`ResponseHead::is_interim`].
    ///
    /// A refusal is the server's fault: answer 502 and use its connection no more.
    pub fn parse(
        buffer: &[u8],
        request: RequestKind,
        scan: &mut Scan,
    ) -> Result<Option<(ResponseHead, usize)>, Refused> {
        let bytes = head::window(buffer);
        if bytes.is_empty() || !scan.is_due(bytes) {
            return head::incomplete(bytes);
        }
        // Blank lines before a status line are the rest of some other body: httparse would skip them.
        if matches!(bytes[0], b'\r' | b'\n') {
            return Err(Refused::StatusLine);
        }
        let mut headers = [const { MaybeUninit::<httparse::Header>::uninit() }; limits::FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers) {
            Ok(httparse::Status::Partial) => head::incomplete(bytes),
            Err(error) => Err(head::explain(error, bytes, Refused::StatusLine)),
            Ok(httparse::Status::Complete(length)) => {
                let response = ResponseHead::from_parsed(&bytes[..length], &parsed, request)?;
                *scan = Scan::default();
                Ok(Some((response, length)))
            }
        }
    }

    /// As [`ResponseHead::parse`], and takes the head's bytes out of `buffer`.
    pub fn take(buffer: &mut BytesMut, request: RequestKind, scan: &mut Scan) -> Result<Option<ResponseHead>, Refused> {
        Ok(ResponseHead::parse(buffer, request, scan)?.map(|(head, length)| {
            buffer.advance(length);
            head
        }))
    }

    fn from_parsed(
        sent: &[u8],
        parsed: &httparse::Response<'_, '_>,
        request: RequestKind,
    ) -> Result<ResponseHead, Refused> {
        let (Some(status @ 100..), Some(minor)) = (parsed.code, parsed.version) else {
            return Err(Refused::StatusLine);
        };
        let version = if minor == 0 { Version::H10 } else { Version::H11 };
        let newline = memchr::memchr(b'\n', sent).ok_or(Refused::StatusLine)?;
        if sent[newline - 1] != b'\r' {
            return Err(Refused::Newline);
        }
        let block = Bytes::copy_from_slice(sent);
        let (fields, seen) = guard::fields(sent, block, parsed.headers, version, guard::From::Server)?;
        let body = match (status, request) {
            (100..=199 | 204 | 304, _) | (_, RequestKind::Head) | (200..=299, RequestKind::Connect) => BodyLength::None,
            _ => match guard::request_length(&seen) {
                BodyLength::None => BodyLength::UntilClose,
                length => length,
            },
        };
        Ok(ResponseHead {
            status,
            line: (newline - 1) as u16,
            version,
            body,
            keep_alive: guard::keep_alive(version, &seen) && body != BodyLength::UntilClose,
            unframed: match status {
                100..=199 => true,
                204 => seen.chunked || seen.length.is_some_and(|length| length > 0),
                200..=299 => request == RequestKind::Connect,
                _ => false,
            },
            fields,
        })
    }

    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason as sent: any bytes but controls, often none.
    pub fn reason(&self) -> &[u8] {
        const BEFORE: usize = b"HTTP/1.1 200 ".len();
        self.fields.block.get(BEFORE..self.line as usize).unwrap_or_default()
    }

    pub(super) fn status_line(&self) -> &[u8] {
        &self.fields.block[..self.line as usize]
    }

    /// The version as sent.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// How the body's end is known, for the request that was asked.
    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the server will take another request on this connection once the body is read.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    pub(super) fn is_unframed(&self) -> bool {
        self.unframed
    }

    /// Whether another head follows for the same request: 1xx but 101.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether the server changed to `token`: 101 that names that protocol and no other. Without it, or with another one,
    /// a 101 is the server's fault.
    pub fn is_upgrade_to(&self, token: &str) -> bool {
        let mut tokens = self
            .fields
            .known(Known::Upgrade)
            .flat_map(|at| guard::items(self.fields.value(at)));
        self.status == 101
            && tokens
                .next()
                .is_some_and(|first| first.eq_ignore_ascii_case(token.as_bytes()))
            && tokens.next().is_none()
    }

    /// The first protocol of the `Upgrade` fields that is not HTTP/2, as 426 has it.
    pub fn upgrade(&self) -> Option<&str> {
        let tokens = self
            .fields
            .known(Known::Upgrade)
            .flat_map(|at| guard::items(self.fields.value(at)));
        let mut others =
            tokens.filter(|token| !token.eq_ignore_ascii_case(b"h2c") && !token.eq_ignore_ascii_case(b"h2"));
        others.next().and_then(|token| std::str::from_utf8(token).ok())
    }

    /// Length of the head's bytes.
    pub fn byte_length(&self) -> usize {
        self.fields.block.len()
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("version", &self.version)
            .field("body", &self.body)
            .field("keep_alive", &self.keep_alive)
            .field("fields", &self.fields)
            .finish()
    }
}
