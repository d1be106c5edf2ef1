//! The one form of a host that routes, policy, logs and the way to the server compare: parsed once, lower case,
//! without port and without the dot of the root.

use std::{borrow::Cow, fmt, net::Ipv6Addr};

/// A host in its one form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host<'a>(Cow<'a, str>);

/// Why something is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHost {
    /// Nothing is there.
    Empty,
    /// `user@host`: RFC 9110 4.2.4 has it treated as an error, since it serves to disguise a host.
    Userinfo,
    /// A character that neither a name nor an address has.
    Character,
    /// What follows `:` is not a port.
    Port,
    /// `[...]` does not hold an IPv6 address.
    Address,
    /// A label is empty or longer than 63, or the name longer than 253.
    Length,
    /// Two sources name two different hosts.
    Mismatch,
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadHost::Empty => "the host is empty",
            BadHost::Userinfo => "the host has user information in it",
            BadHost::Character => "the host has a character that no host has",
            BadHost::Port => "the host's port is not one",
            BadHost::Address => "the host is not an IPv6 address",
            BadHost::Length => "the host is too long, or has an empty label",
            BadHost::Mismatch => "the request names two different hosts",
        })
    }
}

impl std::error::Error for BadHost {}

impl<'a> Host<'a> {
    /// Reads an authority, `name`, `name:port`, `address:port` or `[address]:port`. Allocates only where the name was
    /// not in lower case, or the address not in its shortest form.
    pub fn parse(authority: &'a [u8]) -> Result<Self, BadHost> {
        if authority.is_empty() {
            return Err(BadHost::Empty);
        }
        if authority.contains(&b'@') {
            return Err(BadHost::Userinfo);
        }
        let text = std::str::from_utf8(authority).map_err(|_| BadHost::Character)?;
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(BadHost::Address)?;
            check_port(port)?;
            let parsed: Ipv6Addr = address.parse().map_err(|_| BadHost::Address)?;
            return Ok(Host(match format!("[{parsed}]") {
                shortest if text.starts_with(&shortest) => Cow::Borrowed(&text[..shortest.len()]),
                shortest => Cow::Owned(shortest),
            }));
        }
        let (name, port) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
        check_port(port)?;
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(BadHost::Empty);
        }
        // Underscores are no part of a host name, but resolvers and clusters are full of them. IDN comes as punycode.
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        {
            return Err(BadHost::Character);
        }
        if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(BadHost::Length);
        }
        Ok(Host(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        }))
    }

    /// The one host of a request: every source that it has must name the same (RFC 9112 3.2, RFC 9113 8.3.1).
    /// `None`: it has none, as HTTP/1.0 allows.
    pub fn of_request(sources: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, BadHost> {
        let mut found: Option<(Self, Option<&[u8]>)> = None;
        for source in sources {
            let host = Host::parse(source)?;
            let port = port_of(source);
            match &mut found {
                Some((first, _)) if *first != host => return Err(BadHost::Mismatch),
                // A default port may be left out in one place and written in the other.
                Some((_, first)) if first.is_some() && port.is_some() && *first != port => {
                    return Err(BadHost::Mismatch);
                }
                Some((_, first)) => *first = first.or(port),
                None => found = Some((host, port)),
            }
        }
        Ok(found.map(|(host, _)| host))
    }

    /// The host, in brackets where it is an IPv6 address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a pattern, exact or `*.suffix`, takes a host: `*.example.com` takes `a.example.com` and `a.b.example.com`, not
/// `example.com`.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

fn check_port(text: &str) -> Result<(), BadHost> {
    match text.strip_prefix(':') {
        None if text.is_empty() => Ok(()),
        // RFC 3986 3.2.3: the port may be empty.
        Some("") => Ok(()),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(BadHost::Port),
    }
}

/// The digits behind the `:` outside of brackets, where there are any.
pub(crate) fn port_of(authority: &[u8]) -> Option<&[u8]> {
    let after = authority
        .iter()
        .rposition(|byte| *byte == b']')
        .map_or(0, |bracket| bracket + 1);
    let colon = authority[after..].iter().position(|byte| *byte == b':')?;
    Some(&authority[after + colon + 1..]).filter(|port| !port.is_empty())
}
