//! The fields of a head or a trailer section: ranges into one block, in their order, with their case and bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::fmt;
use weft_proto::names;

/// The fields that mean something to a proxy; recognised once, while a head is parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Any other field.
    Other,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Expect`
    Expect,
    /// `Host`
    Host,
    /// `HTTP2-Settings`
    Http2Settings,
    /// `Keep-Alive`
    KeepAlive,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `TE`
    Te,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `weft-…`
    Internal,
}

impl Known {
    /// Recognises a name in any case.
    pub(super) fn of(name: &str) -> Known {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("te") => Known::Te,
            4 if is("host") => Known::Host,
            6 if is("expect") => Known::Expect,
            7 if is("upgrade") => Known::Upgrade,
            10 if is("connection") => Known::Connection,
            10 if is("keep-alive") => Known::KeepAlive,
            14 if is("content-length") => Known::ContentLength,
            14 if is("http2-settings") => Known::Http2Settings,
            16 if is("proxy-connection") => Known::ProxyConnection,
            17 if is("transfer-encoding") => Known::TransferEncoding,
            _ if is_internal(name) => Known::Internal,
            _ => Known::Other,
        }
    }
}

/// Whether a field may be set inside of `weft/1` only.
pub(crate) fn is_internal(name: &str) -> bool {
    let prefix = names::http::INTERNAL_PREFIX;
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Where one field stands in its block. Sixteen bits hold every length: a block has at most 64 KiB, its first line included.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// First byte of the line.
    pub start: u32,
    /// Length of the line with its CR LF.
    pub line: u16,
    /// Length of the name.
    pub name: u16,
    /// First byte of the value, from the start of the line.
    pub value_at: u16,
    /// Length of the value, without the blanks around it.
    pub value: u16,
    pub known: Known,
    /// Named by `Connection`, and so meant for one hop only.
    pub hop: bool,
}

/// Fields in the order in which they were sent.
#[derive(Clone, Default)]
pub struct Fields {
    pub(super) block: Bytes,
    pub(super) list: SmallVec<[At; 16]>,
}

/// One field as it was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// In the case in which it was sent.
    pub name: &'a str,
    /// Without the blanks around it. Any byte but controls; often UTF-8, not always.
    pub value: &'a [u8],
    /// What it is to a proxy.
    pub known: Known,
}

impl Fields {
    pub(super) fn name_bytes(&self, at: &At) -> &[u8] {
        &self.line(at)[..at.name as usize]
    }

    pub(super) fn name(&self, at: &At) -> &str {
        std::str::from_utf8(self.name_bytes(at)).expect("a parsed name is ASCII")
    }

    pub(super) fn value(&self, at: &At) -> &[u8] {
        &self.block[self.value_range(at)]
    }

    fn value_range(&self, at: &At) -> std::ops::Range<usize> {
        let start = at.start as usize + at.value_at as usize;
        start..start + at.value as usize
    }

    pub(super) fn line(&self, at: &At) -> &[u8] {
        &self.block[at.start as usize..at.start as usize + at.line as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, hop-by-hop ones too.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.list.iter().map(|at| Field {
            name: self.name(at),
            value: self.value(at),
            known: at.known,
        })
    }

    /// The values of one name, in any case.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.list
            .iter()
            .filter(move |at| self.name_bytes(at).eq_ignore_ascii_case(name.as_bytes()))
            .map(|at| self.value(at))
    }

    /// The first value of a name, in any case.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    pub(super) fn known(&self, known: Known) -> impl Iterator<Item = &At> {
        self.list.iter().filter(move |at| at.known == known)
    }

    /// The value as a `HeaderValue` that shares the block.
    pub(super) fn shared_value(&self, at: &At) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.block.slice(self.value_range(at)))
            .expect("httparse passes no byte that HeaderValue refuses")
    }

    /// Appends the fields that cross to another hop to a map; values share the block.
    pub(super) fn append_to(&self, map: &mut HeaderMap, passes: impl Fn(&At) -> bool) {
        map.reserve(self.list.len());
        for at in self.list.iter().filter(|at| passes(at)) {
            let name = HeaderName::from_bytes(self.name_bytes(at)).expect("a parsed name is a token");
            map.append(name, self.shared_value(at));
        }
    }

    /// The fields as a map, for an HTTP/2 hop. Order within a name is kept; values share the block.
    pub fn to_header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        self.append_to(&mut map, |_| true);
        map
    }
}

impl fmt::Debug for Fields {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| field.name)).finish()
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes", self.name, self.value.len())
    }
}
