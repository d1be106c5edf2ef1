//! The one canonical form of a host: lower case, without port and trailing dot, IPv6 in brackets as RFC 5952 writes it.
//!
//! Routing, policy and logs look at this form; what was sent is forwarded.

use crate::h1::Refused;
use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A host and the port that was written with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host<'a> {
    /// Canonical name; an IPv6 address has its brackets.
    pub name: Cow<'a, str>,
    /// The port, if one was written.
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Reads a `Host` field's value or an authority. Userinfo, blanks, lists and percent-escapes are refused.
    pub fn parse(text: &'a str) -> Result<Host<'a>, Refused> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(Refused::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| Refused::Host)?;
            let canonical = format!("[{address}]");
            let sent = &text[..text.len() - port.len()];
            let name = if canonical == sent {
                Cow::Borrowed(sent)
            } else {
                Cow::Owned(canonical)
            };
            return Ok(Host {
                name,
                port: parse_port(port)?,
            });
        }
        let end = memchr::memchr(b':', text.as_bytes()).unwrap_or(text.len());
        let (name, port) = text.split_at(end);
        Ok(Host {
            name: canonical_name(name)?,
            port: parse_port(port)?,
        })
    }

    /// Whether both name the same host and port, where a port that is not written is `default`.
    pub fn same(&self, other: &Host<'_>, default: Option<u16>) -> bool {
        self.name == other.name && self.port.or(default) == other.port.or(default)
    }
}

/// The canonical form of a name without port: also for server names in a ClientHello.
pub(crate) fn canonical_name(name: &str) -> Result<Cow<'_, str>, Refused> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let (mut upper, mut previous) = (false, b'.');
    for &byte in name.as_bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            // An empty label: two readers may take it for different names.
            b'.' if previous != b'.' => {}
            b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => {}
            _ => return Err(Refused::Host),
        }
        previous = byte;
    }
    if previous == b'.' {
        return Err(Refused::Host);
    }
    Ok(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// `""`, `:` (RFC 3986 allows a port of no digits) or `:80`.
fn parse_port(text: &str) -> Result<Option<u16>, Refused> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Ok(None),
        Some("") => Ok(None),
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| Refused::Host)
        }
        _ => Err(Refused::Host),
    }
}
