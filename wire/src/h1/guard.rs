//! The framing guard: one pass over the parsed fields that builds their table and refuses what two readers could frame differently.

use super::fields::{At, Fields, Known};
use super::{BodyLength, Refused, Version};
use bytes::Bytes;
use smallvec::SmallVec;

/// What the fields of a head say, gathered in the pass that builds their table.
#[derive(Default)]
pub(super) struct Seen {
    /// Index of the `Host` field.
    pub host: Option<usize>,
    pub length: Option<u64>,
    pub chunked: bool,
    pub close: bool,
    pub keep_alive: bool,
    /// `Connection` has the option `upgrade`.
    pub upgrade_option: bool,
    /// `Connection` has the option `te`.
    pub te_option: bool,
    /// There is an `Upgrade` field.
    pub upgrade: bool,
    /// `TE` has `trailers`.
    pub te_trailers: bool,
    pub expect_continue: bool,
    /// `Connection` names other fields.
    named: bool,
}

/// Whose message it is: a few habits of real servers do no harm, and are refused in requests only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Server,
}

/// Builds the table for `headers`, which point into `sent`; `block` is the same bytes to keep.
pub(super) fn fields(
    sent: &[u8],
    block: Bytes,
    headers: &[httparse::Header<'_>],
    version: Version,
    from: From,
) -> Result<(Fields, Seen), Refused> {
    let mut list: SmallVec<[At; 16]> = SmallVec::with_capacity(headers.len());
    let mut seen = Seen::default();
    let offset = |bytes: &[u8]| bytes.as_ptr() as usize - sent.as_ptr() as usize;
    let mut encodings = 0;
    for header in headers {
        let start = offset(header.name.as_bytes());
        // The line before this one ended here; httparse takes a bare LF for an end, we do not.
        if start < 2 || sent[start - 2] != b'\r' {
            return Err(Refused::Newline);
        }
        if let Some(before) = list.last_mut() {
            before.line = (start - before.start as usize) as u16;
        }
        let known = Known::of(header.name);
        match known {
            Known::Other | Known::Internal | Known::KeepAlive | Known::ProxyConnection | Known::Http2Settings => {}
            Known::Host => {
                if seen.host.replace(list.len()).is_some() && from == From::Client {
                    return Err(Refused::TwoHosts);
                }
            }
            Known::ContentLength => {
                let length = content_length(header.value, from)?;
                if seen.length.replace(length).is_some() {
                    return Err(Refused::TwoLengths);
                }
            }
            Known::TransferEncoding => {
                transfer_encoding(header.value)?;
                encodings += 1;
            }
            Known::Connection => connection(header.value, &mut seen),
            Known::Te => seen.te_trailers |= items(header.value).any(|item| item.eq_ignore_ascii_case(b"trailers")),
            Known::Upgrade => seen.upgrade = true,
            Known::Expect => seen.expect_continue |= header.value.eq_ignore_ascii_case(b"100-continue"),
        }
        // An empty value of httparse may point anywhere in the line; it begins after the colon then.
        let value_at = if header.value.is_empty() {
            header.name.len() + 1
        } else {
            offset(header.value) - start
        };
        list.push(At {
            start: start as u32,
            line: 0,
            name: header.name.len() as u16,
            value_at: value_at as u16,
            value: header.value.len() as u16,
            known,
            hop: false,
        });
    }
    if !sent.ends_with(b"\r\n\r\n") {
        return Err(Refused::Newline);
    }
    if let Some(last) = list.last_mut() {
        last.line = (sent.len() - 2 - last.start as usize) as u16;
    }
    match encodings {
        0 => {}
        _ if version == Version::H10 => return Err(Refused::EncodingInHttp10),
        1 if seen.length.is_some() => return Err(Refused::LengthAndEncoding),
        1 => seen.chunked = true,
        _ => return Err(Refused::Encoding),
    }
    let mut fields = Fields { block, list };
    if seen.named {
        mark_named(&mut fields);
    }
    Ok((fields, seen))
}

/// The items of a comma-separated value, without the blanks around them; empty ones are left out (RFC 9110 5.6.1.2).
pub(super) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(|item| item.trim_ascii())
        .filter(|item| !item.is_empty())
}

/// One plain decimal number. A server may pad it with zeros (a fixed-width place filled in later); a client that does is odd.
fn content_length(value: &[u8], from: From) -> Result<u64, Refused> {
    let odd = value.is_empty()
        || !value.iter().all(u8::is_ascii_digit)
        || (from == From::Client && value.len() > 1 && value[0] == b'0');
    if odd {
        return Err(Refused::Length);
    }
    value
        .iter()
        .try_fold(0u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
        .ok_or(Refused::Length)
}

/// `chunked`, whose case does not matter (RFC 9112 7): it is written on in lower case, so that nobody can read it otherwise.
fn transfer_encoding(value: &[u8]) -> Result<(), Refused> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    // RFC 9112 6.1: a coding that is well formed and not understood is 501. Everything else is somebody's trick.
    let mut codings = value.split(|&byte| byte == b',').map(|item| item.trim_ascii()).rev();
    let last_is_chunked = codings.next().is_some_and(|item| item.eq_ignore_ascii_case(b"chunked"));
    let compressed = |item: &[u8]| {
        [b"gzip" as &[u8], b"x-gzip", b"deflate", b"compress", b"x-compress"]
            .iter()
            .any(|name| item.eq_ignore_ascii_case(name))
    };
    if last_is_chunked && codings.all(compressed) {
        Err(Refused::EncodingUnknown)
    } else {
        Err(Refused::Encoding)
    }
}

fn connection(value: &[u8], seen: &mut Seen) {
    for item in items(value) {
        let is = |known: &[u8]| item.eq_ignore_ascii_case(known);
        match item.len() {
            5 if is(b"close") => seen.close = true,
            10 if is(b"keep-alive") => seen.keep_alive = true,
            7 if is(b"upgrade") => seen.upgrade_option = true,
            2 if is(b"te") => seen.te_option = true,
            14 if is(b"http2-settings") => {}
            _ => seen.named = true,
        }
    }
}

/// Marks the fields that `Connection` names. A name there must not take away what says where a message goes, where it ends
/// and who sent it ("hop-by-hop abuse"): those stay.
fn mark_named(fields: &mut Fields) {
    const STAY: [&[u8]; 12] = [
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"forwarded",
        b"origin",
        b"set-cookie",
        b"trailer",
        b"vary",
    ];
    let mut named: Vec<u8> = Vec::new();
    for at in fields.known(Known::Connection) {
        named.extend_from_slice(fields.value(at));
        named.push(b',');
    }
    for index in 0..fields.list.len() {
        let at = fields.list[index];
        if at.known != Known::Other {
            continue;
        }
        let name = fields.name(&at).as_bytes();
        let stays = || STAY.iter().any(|stay| stay.eq_ignore_ascii_case(name)) || starts_with(name, b"x-forwarded-");
        fields.list[index].hop = items(&named).any(|item| item.eq_ignore_ascii_case(name)) && !stays();
    }
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Keep-alive by version and `Connection` (RFC 9112 9.3); `close` wins.
pub(super) fn keep_alive(version: Version, seen: &Seen) -> bool {
    !seen.close && (version == Version::H11 || seen.keep_alive)
}

/// The length of a request's body (RFC 9112 6.3).
pub(super) fn request_length(seen: &Seen) -> BodyLength {
    match seen.length {
        _ if seen.chunked => BodyLength::Chunked,
        Some(length) => BodyLength::Length(length),
        None => BodyLength::None,
    }
}
