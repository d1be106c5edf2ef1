//! The protocol from the first bytes of a connection, as soon as it is certain and no later. Nothing is consumed.
//!
//! A wrong guess is worth avoiding in one direction most: bytes of another protocol taken for HTTP are answered by weft
//! instead of the server that they were for. So HTTP/1 is what has a whole request line up to ` HTTP/1.`, and everything
//! that cannot become one any more is opaque at that very byte: `GET key\r\n` (Redis) at its CR, `set a 0 0 1\r\n` (memcached) at
//! the blank after `a`.
//!
//! `Partial` may last: a client may send three letters and wait for an answer. How long that is watched is the caller's
//! to say; what is then done with the bytes, too.

use weft_proto::limits;

/// What a client's first bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// They may still become something that weft parses.
    Partial,
    /// An HTTP/1 request line, up to ` HTTP/1.`.
    Http1,
    /// The HTTP/2 connection preface, complete.
    H2Preface,
    /// A TLS record with the begin of a ClientHello.
    Tls,
    /// Nothing that weft parses.
    Opaque,
}

/// What a server's first bytes are, when it speaks before its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// They may still become something that weft knows.
    Partial,
    /// An HTTP/2 SETTINGS frame: the preface of an HTTP/2 server.
    H2Settings,
    /// An HTTP/1 status line: a 408 for a silent client, mostly.
    Http1Status,
    /// A TLS record: an alert, mostly.
    Tls,
    /// Nothing that weft knows, so it is for the client.
    Opaque,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer than any method that was ever registered (17).
const METHOD: usize = 32;
/// Largest TLS record (RFC 8446 5.1), with what older versions may add.
const RECORD: usize = (16 << 10) + (2 << 10);

/// Whether one reading of the bytes holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fits {
    Yes,
    Maybe,
    No,
}

/// Looks at a client's first bytes.
pub fn client(bytes: &[u8]) -> Client {
    if bytes.len() >= limits::HEAD {
        // Whatever it is, no request line of an acceptable length.
        return match request_line(&bytes[..limits::HEAD]) {
            Fits::Yes => Client::Http1,
            _ => Client::Opaque,
        };
    }
    match bytes.first() {
        None => return Client::Partial,
        Some(0x16) => {
            return match client_hello(bytes) {
                Fits::Yes => Client::Tls,
                Fits::Maybe => Client::Partial,
                Fits::No => Client::Opaque,
            };
        }
        _ => {}
    }
    if bytes.starts_with(PREFACE) {
        return Client::H2Preface;
    }
    match request_line(bytes) {
        Fits::Yes => Client::Http1,
        Fits::Maybe => Client::Partial,
        Fits::No if PREFACE.starts_with(bytes) => Client::Partial,
        Fits::No => Client::Opaque,
    }
}

/// A record of type handshake, of any version 3.x, whose first message is a ClientHello.
fn client_hello(bytes: &[u8]) -> Fits {
    match record(bytes) {
        Fits::Yes => {}
        other => return other,
    }
    match bytes.get(5) {
        None => Fits::Maybe,
        Some(1) => Fits::Yes,
        Some(_) => Fits::No,
    }
}

/// The five bytes before a TLS record's content.
fn record(bytes: &[u8]) -> Fits {
    let fits = |at: usize, check: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|&byte| check(byte));
    let length = || u16::from_be_bytes([bytes[3], bytes[4]]) as usize;
    let header =
        fits(0, &|byte| (0x14..=0x17).contains(&byte)) && fits(1, &|byte| byte == 3) && fits(2, &|byte| byte <= 4);
    match bytes.len() {
        _ if !header => Fits::No,
        0..5 => Fits::Maybe,
        _ if (1..=RECORD).contains(&length()) => Fits::Yes,
        _ => Fits::No,
    }
}

/// `method target HTTP/1.`, one blank between them, the target in a form that RFC 9112 3.2 knows.
fn request_line(bytes: &[u8]) -> Fits {
    let Some(end) = bytes.iter().take(METHOD + 1).position(|&byte| !is_token_byte(byte)) else {
        return if bytes.len() > METHOD { Fits::No } else { Fits::Maybe };
    };
    if end == 0 || bytes[end] != b' ' {
        return Fits::No;
    }
    let (method, rest) = (&bytes[..end], &bytes[end + 1..]);
    let length = rest.iter().position(|&byte| byte <= b' ' || byte == 0x7f);
    let target = &rest[..length.unwrap_or(rest.len())];
    let complete = length.is_some();
    match (
        if method == b"CONNECT" {
            authority(target, complete)
        } else {
            target_form(target, complete)
        },
        length,
    ) {
        (Fits::No, _) => Fits::No,
        (_, None) => Fits::Maybe,
        (_, Some(at)) if rest[at] != b' ' => Fits::No,
        (_, Some(at)) => prefix(&rest[at + 1..], b"HTTP/1."),
    }
}

/// `/…`, `*`, or `scheme://…`.
fn target_form(target: &[u8], complete: bool) -> Fits {
    match target.first() {
        None if complete => return Fits::No,
        None => return Fits::Maybe,
        Some(b'/') => return Fits::Yes,
        Some(b'*') => return if target.len() == 1 { Fits::Yes } else { Fits::No },
        Some(first) if !first.is_ascii_alphabetic() => return Fits::No,
        Some(_) => {}
    }
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme = target.iter().take_while(|byte| is_scheme(byte)).count();
    match prefix(&target[scheme..], b"://") {
        // What came so far may be the begin of a scheme, but no scheme is so long.
        Fits::Maybe if complete || scheme > METHOD => Fits::No,
        // After the scheme there must be a host.
        Fits::Yes if complete && target.len() == scheme + 3 => Fits::No,
        fits => fits,
    }
}

/// `host:port` of CONNECT.
fn authority(target: &[u8], complete: bool) -> Fits {
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte);
    if !target.iter().all(is_host) || target.len() > 300 {
        return Fits::No;
    }
    if !complete {
        return Fits::Maybe;
    }
    let port = target
        .iter()
        .rposition(|&byte| byte == b':')
        .map(|at| &target[at + 1..]);
    match port {
        Some(port) if !port.is_empty() && port.iter().all(u8::is_ascii_digit) => Fits::Yes,
        _ => Fits::No,
    }
}

fn prefix(bytes: &[u8], wanted: &[u8]) -> Fits {
    if bytes.starts_with(wanted) {
        Fits::Yes
    } else if wanted.starts_with(bytes) {
        Fits::Maybe
    } else {
        Fits::No
    }
}

/// RFC 9110 5.6.2 tchar.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Looks at the first bytes of a server that spoke before its client.
pub fn server(bytes: &[u8]) -> Server {
    let readings = [
        (settings(bytes), Server::H2Settings),
        (prefix(bytes, b"HTTP/1."), Server::Http1Status),
        (record(bytes), Server::Tls),
    ];
    if let Some((_, certain)) = readings.iter().find(|(fits, _)| *fits == Fits::Yes) {
        return *certain;
    }
    if readings.iter().any(|(fits, _)| *fits == Fits::Maybe) {
        Server::Partial
    } else {
        Server::Opaque
    }
}

/// The header of a first SETTINGS frame (RFC 9113 6.5): pairs of six bytes, not many; no flags; stream 0.
fn settings(bytes: &[u8]) -> Fits {
    const SETTINGS: usize = 64;
    let tail = [4, 0, 0, 0, 0, 0];
    if bytes.first().is_some_and(|&byte| byte != 0)
        || bytes.get(1).is_some_and(|&byte| byte as usize > SETTINGS * 6 / 256)
    {
        return Fits::No;
    }
    if bytes.len() < 3 {
        return Fits::Maybe;
    }
    let length = u16::from_be_bytes([bytes[1], bytes[2]]) as usize;
    if !length.is_multiple_of(6) || length > SETTINGS * 6 {
        Fits::No
    } else {
        prefix(&bytes[3..], &tail)
    }
}
