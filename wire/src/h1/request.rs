//! A request's head: parsed, guarded, and asked what it means.

use super::fields::{Fields, Known};
use super::{BodyLength, Refused, Scan, Version, guard, head};
use crate::host::Host;
use bytes::{Buf, Bytes, BytesMut};
use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use weft_proto::limits;

/// The four forms of a target (RFC 9112 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, of CONNECT only.
    Authority,
    /// `*`, of OPTIONS only.
    Asterisk,
}

/// A request's head. Its bytes are kept in one block; a clone shares them.
#[derive(Clone)]
pub struct RequestHead {
    fields: Fields,
    method: u16,
    target: u16,
    form: Form,
    /// Where path and query begin, from the start of the target.
    path_at: u16,
    version: Version,
    body: BodyLength,
    keep_alive: bool,
    expect_continue: bool,
    te_trailers: bool,
    te_option: bool,
    upgrade: Option<(u32, u16)>,
    host: HostAt,
}

/// The canonical host; as sent nearly always, and then it costs nothing.
#[derive(Clone)]
enum HostAt {
    None,
    Sent { at: u32, len: u16, port: Option<u16> },
    Changed { name: Box<str>, port: Option<u16> },
}

impl RequestHead {
    /// Parses one head from the front of `buffer`. `Ok(None)`: not complete, read more and call again with the same `scan`.
    /// Otherwise the head and how many bytes it took, blank lines before it included.
    ///
    /// No more than `limits::HEAD` bytes are looked at, so the caller's buffer needs not be longer than that.
    pub fn parse(buffer: &[u8], scan: &mut Scan) -> Result<Option<(RequestHead, usize)>, Refused> {
        let blank = blank_lines(buffer)?;
        let bytes = head::window(&buffer[blank..]);
        if bytes.is_empty() || !scan.is_due(bytes) {
            return head::incomplete(bytes);
        }
        let mut headers = [const { MaybeUninit::<httparse::Header>::uninit() }; limits::FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Partial) => head::incomplete(bytes),
            Err(error) => Err(head::explain(error, bytes, Refused::RequestLine)),
            Ok(httparse::Status::Complete(length)) => {
                let request = RequestHead::from_parsed(&bytes[..length], &parsed)?;
                *scan = Scan::default();
                Ok(Some((request, blank + length)))
            }
        }
    }

    /// As [`RequestHead::parse`], and takes the head's bytes out of `buffer`.
    pub fn take(buffer: &mut BytesMut, scan: &mut Scan) -> Result<Option<RequestHead>, Refused> {
        Ok(RequestHead::parse(buffer, scan)?.map(|(head, length)| {
            buffer.advance(length);
            head
        }))
    }

    fn from_parsed(sent: &[u8], parsed: &httparse::Request<'_, '_>) -> Result<RequestHead, Refused> {
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refused::RequestLine);
        };
        let version = if minor == 0 { Version::H10 } else { Version::H11 };
        let line = method.len() + target.len() + b"  HTTP/1.1\r\n".len();
        // With a bare LF after it, the line is one byte shorter.
        if sent.get(line - 2..line) != Some(b"\r\n") {
            return Err(Refused::Newline);
        }
        let block = Bytes::copy_from_slice(sent);
        let (fields, seen) = guard::fields(sent, block, parsed.headers, version, guard::From::Client)?;
        let (form, authority) = form(method, target)?;
        let path_at = if form == Form::Absolute {
            authority.end as u16
        } else {
            0
        };
        let host = host(&fields, &seen, version, method.len() + 1, target, form, authority)?;
        let body = guard::request_length(&seen);
        let upgrade = if seen.upgrade && seen.upgrade_option && version == Version::H11 && body.is_empty() {
            upgrade_token(&fields)?
        } else {
            None
        };
        Ok(RequestHead {
            method: method.len() as u16,
            target: target.len() as u16,
            form,
            path_at,
            version,
            body,
            keep_alive: guard::keep_alive(version, &seen),
            // RFC 9110 10.1.1: from an HTTP/1.0 client it is ignored.
            expect_continue: seen.expect_continue && version == Version::H11,
            te_trailers: seen.te_trailers,
            te_option: seen.te_option,
            upgrade,
            host,
            fields,
        })
    }

    fn text(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(&self.fields.block[range]).expect("httparse checks the line")
    }

    /// The method as sent.
    pub fn method(&self) -> &str {
        self.text(0..self.method as usize)
    }

    pub(super) fn target_range(&self) -> Range<usize> {
        let start = self.method as usize + 1;
        start..start + self.target as usize
    }

    /// The target as sent.
    pub fn target(&self) -> &str {
        self.text(self.target_range())
    }

    /// In which form the target was sent.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The target without scheme and authority: begins with `/`, or is `*`; of an absolute form without a path, what is
    /// left may be empty or begin with `?`. Empty for CONNECT.
    pub fn path_and_query(&self) -> &str {
        match self.form {
            Form::Authority => "",
            _ => &self.target()[self.path_at as usize..],
        }
    }

    /// The path as sent, `/` where an absolute form has none. Empty for CONNECT.
    pub fn path(&self) -> &str {
        let path = self.path_and_query();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        if path.is_empty() && self.form == Form::Absolute {
            "/"
        } else {
            path
        }
    }

    /// The query as sent, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query().split_once('?').map(|(_, query)| query)
    }

    /// The version as sent.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Takes fields away, as if they had not been sent. What they said of framing, connection and host still holds.
    pub fn forget(&mut self, is_forgotten: impl Fn(&str) -> bool) {
        let block = self.fields.block.clone();
        self.fields.list.retain(|at| {
            let start = at.start as usize;
            let name = block.get(start..start + at.name as usize).unwrap_or_default();
            !std::str::from_utf8(name).is_ok_and(&is_forgotten)
        });
    }

    /// How the body's end is known.
    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the client is ready for another request on this connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue`. It may have a body all the same, or none.
    pub fn expects_continue(&self) -> bool {
        self.expect_continue && !self.body.is_empty()
    }

    /// Whether `TE: trailers` was sent.
    pub fn accepts_trailers(&self) -> bool {
        self.te_trailers
    }

    pub(super) fn te_option(&self) -> bool {
        self.te_option
    }

    /// The token of the protocol that the client wants to change to, in the case in which it was sent. The first of a
    /// list; `h2c` and `h2` do not count, nor does an Upgrade in HTTP/1.0, without `Connection: upgrade` or with a body:
    /// such a request goes on without it.
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade
            .map(|(at, len)| self.text(at as usize..at as usize + len as usize))
    }

    /// The canonical host that this request is for, from an absolute target or `Host`. None in HTTP/1.0 without `Host`,
    /// and where `Host` is empty.
    pub fn host(&self) -> Option<Host<'_>> {
        match &self.host {
            HostAt::None => None,
            HostAt::Sent { at, len, port } => {
                let at = *at as usize;
                Some(Host {
                    name: Cow::Borrowed(self.text(at..at + *len as usize)),
                    port: *port,
                })
            }
            HostAt::Changed { name, port } => Some(Host {
                name: Cow::Borrowed(name),
                port: *port,
            }),
        }
    }

    /// Whether the method is CONNECT.
    pub fn is_connect(&self) -> bool {
        self.form == Form::Authority
    }

    /// Whether the method is HEAD, so that its response has no body.
    pub fn is_head(&self) -> bool {
        self.method() == "HEAD"
    }

    /// What the response's framing needs to know.
    pub fn kind(&self) -> super::RequestKind {
        match self.method() {
            "HEAD" => super::RequestKind::Head,
            "CONNECT" => super::RequestKind::Connect,
            _ => super::RequestKind::Other,
        }
    }

    /// Length of the head's bytes.
    pub fn byte_length(&self) -> usize {
        self.fields.block.len()
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("target", &self.target())
            .field("version", &self.version)
            .field("body", &self.body)
            .field("keep_alive", &self.keep_alive)
            .field("upgrade", &self.upgrade())
            .field("fields", &self.fields)
            .finish()
    }
}

/// Blank lines before a request are skipped (RFC 9112 2.2: old clients send one after a body), a few at most.
fn blank_lines(buffer: &[u8]) -> Result<usize, Refused> {
    const MOST: usize = 4;
    let count = buffer.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
    match buffer.get(count * 2) {
        _ if count > MOST => Err(Refused::RequestLine),
        Some(b'\n') => Err(Refused::Newline),
        // Half of another blank line: httparse would call it incomplete, and so do we.
        Some(b'\r') if buffer.len() > count * 2 + 1 => Err(Refused::Newline),
        _ => Ok(count * 2),
    }
}

/// The form of a target, and where its authority stands in it.
pub(super) fn form(method: &str, target: &str) -> Result<(Form, Range<usize>), Refused> {
    if method == "CONNECT" {
        return Ok((Form::Authority, 0..target.len()));
    }
    if target.starts_with('/') {
        return Ok((Form::Origin, 0..0));
    }
    if target == "*" {
        return if method == "OPTIONS" {
            Ok((Form::Asterisk, 0..0))
        } else {
            Err(Refused::Target)
        };
    }
    let (scheme, rest) = target.split_once("://").ok_or(Refused::Target)?;
    let mut letters = scheme.bytes();
    let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Err(Refused::Target);
    }
    let start = scheme.len() + 3;
    let end = rest.find(['/', '?', '#']).map_or(target.len(), |at| start + at);
    if start == end {
        return Err(Refused::Target);
    }
    Ok((Form::Absolute, start..end))
}

/// The port of a scheme with its `://`.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    if is("http://") || is("ws://") {
        Some(80)
    } else if is("https://") || is("wss://") {
        Some(443)
    } else {
        None
    }
}

/// The one host of a request, or why it has none that all readers agree on.
fn host(
    fields: &Fields,
    seen: &guard::Seen,
    version: Version,
    target_at: usize,
    target: &str,
    form: Form,
    authority: Range<usize>,
) -> Result<HostAt, Refused> {
    if seen.host.is_none() && version == Version::H11 {
        return Err(Refused::NoHost);
    }
    let field = match seen.host.map(|index| &fields.list[index]) {
        None => None,
        Some(at) if at.value == 0 => None,
        Some(at) => {
            let value = std::str::from_utf8(fields.value(at)).map_err(|_| Refused::Host)?;
            Some((Host::parse(value)?, at.start as usize + at.value_at as usize))
        }
    };
    let is_host_empty = seen.host.is_some() && field.is_none();
    let (host, at) = match form {
        Form::Origin | Form::Asterisk => match field {
            None => return Ok(HostAt::None),
            Some(field) => field,
        },
        Form::Absolute => {
            let own = Host::parse(&target[authority.clone()])?;
            let default = default_port(&target[..authority.start]);
            if is_host_empty || field.is_some_and(|(host, _)| !host.same(&own, default)) {
                return Err(Refused::HostsDiffer);
            }
            (own, target_at + authority.start)
        }
        Form::Authority => {
            let own = Host::parse(target).map_err(|_| Refused::Target)?;
            if own.port.is_none() {
                return Err(Refused::Target);
            }
            // Some clients leave the port out of Host here; the name must agree all the same.
            if is_host_empty || field.is_some_and(|(host, _)| !host.same(&own, own.port)) {
                return Err(Refused::HostsDiffer);
            }
            (own, target_at)
        }
    };
    Ok(match host.name {
        Cow::Borrowed(name) => HostAt::Sent {
            at: at as u32,
            len: name.len() as u16,
            port: host.port,
        },
        Cow::Owned(name) => HostAt::Changed {
            name: name.into(),
            port: host.port,
        },
    })
}

/// The first token of the `Upgrade` fields that is not HTTP/2, as a range of the block.
fn upgrade_token(fields: &Fields) -> Result<Option<(u32, u16)>, Refused> {
    for at in fields.known(Known::Upgrade) {
        let value = fields.value(at);
        let value_at = at.start as usize + at.value_at as usize;
        for token in guard::items(value) {
            if token.len() > limits::UPGRADE_TOKEN || !is_protocol(token) {
                return Err(Refused::Upgrade);
            }
            if token.eq_ignore_ascii_case(b"h2c") || token.eq_ignore_ascii_case(b"h2") {
                continue;
            }
            let offset = token.as_ptr() as usize - value.as_ptr() as usize;
            return Ok(Some(((value_at + offset) as u32, token.len() as u16)));
        }
    }
    Ok(None)
}

/// `protocol-name ["/" protocol-version]` (RFC 9110 7.8).
pub(super) fn is_protocol(token: &[u8]) -> bool {
    let mut parts = token.split(|&byte| byte == b'/');
    let named = parts.next().is_some_and(is_token);
    let versioned = parts.next().is_none_or(is_token);
    named && versioned && parts.next().is_none()
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| crate::sniff::is_token_byte(byte))
}
