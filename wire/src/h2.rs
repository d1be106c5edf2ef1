//! The guard for requests that came over HTTP/2, before they are routed or written as HTTP/1 (RELIABILITY T21, T22).
//!
//! The `h2` crate refuses most of this itself; it is checked here all the same, since what is missed becomes a second
//! request on an HTTP/1 connection.

use crate::h1::Refused;
use crate::host::Host;
use http::header::{self, HeaderMap, HeaderName};
use std::borrow::Cow;

/// What an HTTP/2 request means, once it is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked<'a> {
    /// The canonical host.
    pub host: Host<'a>,
    /// `content-length`, if there is one.
    pub length: Option<u64>,
}

/// Fields that belong to an HTTP/1 connection (RFC 9113 8.2.2).
const CONNECTION: [HeaderName; 4] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Checks a request's authority, target and fields. A refusal is answered with its status or by a reset.
pub fn check_request(parts: &http::request::Parts) -> Result<Checked<'_>, Refused> {
    let map = &parts.headers;
    if CONNECTION.iter().any(|name| map.contains_key(name))
        || map.contains_key("proxy-connection")
        || map
            .get_all(header::TE)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        return Err(Refused::ConnectionField);
    }
    if map.contains_key("http2-settings") {
        return Err(Refused::ConnectionField);
    }
    let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Refused::Target);
    }
    Ok(Checked {
        host: host(parts)?,
        length: content_length(map)?,
    })
}

/// `:authority`, else `host`; both must agree.
fn host(parts: &http::request::Parts) -> Result<Host<'_>, Refused> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = match fields.next() {
        None => None,
        Some(value) => Some(Host::parse(
            std::str::from_utf8(value.as_bytes()).map_err(|_| Refused::Host)?,
        )?),
    };
    if fields.next().is_some() {
        return Err(Refused::TwoHosts);
    }
    let authority = match parts.uri.authority() {
        None => return field.ok_or(Refused::NoHost),
        Some(authority) => Host::parse(authority.as_str())?,
    };
    let default = match parts.uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    match field {
        Some(field) if !field.same(&authority, default) => Err(Refused::HostsDiffer),
        _ => Ok(authority),
    }
}

fn content_length(map: &HeaderMap) -> Result<Option<u64>, Refused> {
    let mut values = map.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refused::TwoLengths);
    }
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refused::Length);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Refused::Length)?;
    text.parse().map(Some).map_err(|_| Refused::Length)
}

impl Checked<'_> {
    /// The same, with nothing borrowed.
    pub fn into_owned(self) -> Checked<'static> {
        let name = Cow::Owned(self.host.name.into_owned());
        Checked {
            host: Host {
                name,
                port: self.host.port,
            },
            length: self.length,
        }
    }
}
