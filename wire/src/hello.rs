//! A ClientHello's server name and ALPN ids, read without TLS: any segmentation, several records, any version.
//!
//! Tolerant: versions, suites, and extensions that are not known (GREASE too) are stepped over. Only what does not hold
//! together as a ClientHello is [`Scan::NotTls`], and then the server may judge it.

use crate::host;
use std::borrow::Cow;
use weft_proto::limits;

/// What the bytes so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scan {
    /// A ClientHello that is not complete.
    NeedMore,
    /// No ClientHello, or none that can be read within `limits::CLIENT_HELLO`: opaque.
    NotTls,
    /// A complete ClientHello.
    Hello(Hello),
}

/// What a ClientHello says in the clear.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Hello {
    /// The server's name, in lower case, checked, without trailing dot; none where the client names none (or nonsense).
    /// With encrypted ClientHello it is the outer, public name.
    pub sni: Option<Box<str>>,
    /// The ids offered, verbatim and in order.
    pub alpn: Vec<Box<[u8]>>,
}

impl Hello {
    /// Whether exactly this id is offered, alone.
    pub fn offers_only(&self, id: &[u8]) -> bool {
        matches!(self.alpn.as_slice(), [only] if **only == *id)
    }
}

/// Bytes before a record's content: type, version, length.
const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Looks at the first bytes of a connection; none is consumed. Give all bytes again when there are more.
pub fn scan(bytes: &[u8]) -> Scan {
    let window = &bytes[..bytes.len().min(limits::CLIENT_HELLO)];
    match message(window) {
        Message::Complete(message) => read(&message).map_or(Scan::NotTls, Scan::Hello),
        Message::NeedMore if bytes.len() < limits::CLIENT_HELLO => Scan::NeedMore,
        Message::NeedMore | Message::NotTls => Scan::NotTls,
    }
}

enum Message<'a> {
    NeedMore,
    NotTls,
    /// The content of the ClientHello message, without its header.
    Complete(Cow<'a, [u8]>),
}

/// Gathers the handshake message over as many records as it takes.
fn message(bytes: &[u8]) -> Message<'_> {
    let mut rest = bytes;
    let mut gathered: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let fits = |at: usize, check: fn(u8) -> bool| rest.get(at).is_none_or(|&byte| check(byte));
        if !fits(0, |byte| byte == HANDSHAKE) || !fits(1, |byte| byte == 3) || !fits(2, |byte| byte <= 4) {
            return Message::NotTls;
        }
        let Some(header) = rest.get(..RECORD_HEADER) else {
            return Message::NeedMore;
        };
        let length = u16::from_be_bytes([header[3], header[4]]) as usize;
        if length == 0 || length > 16 << 10 {
            return Message::NotTls;
        }
        let content = &rest[RECORD_HEADER..];
        let part = &content[..length.min(content.len())];
        if gathered.is_empty() {
            gathered = Cow::Borrowed(part)
        } else {
            gathered.to_mut().extend_from_slice(part)
        }
        if gathered.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Message::NotTls;
        }
        if let Some(&[_, a, b, c]) = gathered.first_chunk::<4>() {
            let end = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
            if end > limits::CLIENT_HELLO {
                return Message::NotTls;
            }
            if gathered.len() >= end {
                return Message::Complete(match gathered {
                    Cow::Borrowed(all) => Cow::Borrowed(&all[4..end]),
                    Cow::Owned(all) => Cow::Owned(all[4..end].to_vec()),
                });
            }
        }
        match content.get(length..) {
            None => return Message::NeedMore,
            Some(after) => rest = after,
        }
    }
}

/// Steps through bytes with big-endian lengths; `None` where they end too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn u8(&mut self) -> Option<usize> {
        self.take(1).map(|bytes| bytes[0] as usize)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length)
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()? as usize;
        self.take(length)
    }
}

/// Reads the content of a ClientHello (RFC 8446 4.1.2; RFC 5246 7.4.1.2 without extensions).
fn read(message: &[u8]) -> Option<Hello> {
    let mut reader = Reader(message);
    let version = reader.u16()?;
    let _random = reader.take(32)?;
    let session = reader.vector8()?;
    let suites = reader.vector16()?;
    let compressions = reader.vector8()?;
    if version >> 8 != 3 || session.len() > 32 || suites.len() < 2 || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    let mut hello = Hello::default();
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.vector16()?);
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, extensions.vector16()?);
        // Twice is refused by every TLS library; two readers could take a different one of them.
        match kind {
            SERVER_NAME if std::mem::replace(&mut has_name, true) => return None,
            SERVER_NAME => hello.sni = server_name(content)?,
            ALPN if std::mem::replace(&mut has_alpn, true) => return None,
            ALPN => hello.alpn = protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 3: a list with one host name at most.
fn server_name(content: &[u8]) -> Option<Option<Box<str>>> {
    if content.is_empty() {
        return Some(None);
    }
    let mut outer = Reader(content);
    let mut list = Reader(outer.vector16()?);
    let mut found = None;
    while !list.0.is_empty() {
        let (kind, name) = (list.u8()?, list.vector16()?);
        if kind != 0 {
            continue;
        }
        if found.is_some() {
            return None;
        }
        found = Some(host_name(name));
    }
    Some(found.flatten())
}

/// A DNS name, in lower case; nothing else counts as a name.
fn host_name(name: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(name).ok()?;
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if text.len() > 255 || !plain {
        return None;
    }
    host::canonical_name(text).ok().map(|name| name.into())
}

/// RFC 7301 3.1: ids of one byte or more each.
fn protocols(content: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut outer = Reader(content);
    let mut list = Reader(outer.vector16()?);
    let mut ids = Vec::new();
    while !list.0.is_empty() {
        match list.vector8()? {
            [] => return None,
            id => ids.push(id.into()),
        }
    }
    Some(ids)
}
