//! The `Location` of a redirect.

use super::{Here, rewrite};
use crate::{
    Host,
    canonical::{self, split},
    rule::Redirect,
};

/// What is wrong with a redirect.
pub(crate) fn check(redirect: &Redirect) -> Result<(), String> {
    if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
        return Err(format!(
            "{} is not the status of a redirect: 301, 302, 303, 307 or 308",
            redirect.status
        ));
    }
    if let Some(scheme) = &redirect.scheme
        && !matches!(&**scheme, "http" | "https")
    {
        return Err(format!("a redirect's scheme is 'http' or 'https', not '{scheme}'"));
    }
    if let Some(host) = &redirect.host {
        rewrite::check_host(host)?;
    }
    if redirect.port == Some(0) {
        return Err("a redirect's port is 1 to 65535, not 0".into());
    }
    redirect.path.as_ref().map_or(Ok(()), rewrite::check_path)
}

/// Where the client is sent: always an absolute URI, unless neither the rule nor the request names a host.
pub fn location(redirect: &Redirect, here: &Here<'_>, prefix: usize) -> Vec<u8> {
    let (path, query) = split(here.target);
    let mut location = Vec::with_capacity(64 + here.target.len());
    let host = match &redirect.host {
        Some(host) => Some(host.to_string()),
        None => here
            .host
            .and_then(|sent| Host::parse(sent).ok())
            .map(|host| host.as_str().to_owned()),
    };
    let scheme = redirect.scheme.as_deref().unwrap_or(here.scheme);
    let absolute = host.is_some();
    if let Some(host) = host {
        location.extend_from_slice(format!("{scheme}://{host}").as_bytes());
        if let Some(port) = port(redirect, here, scheme) {
            location.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    match &redirect.path {
        Some(change) => safe(&rewrite::changed_path(change, path, prefix), &mut location),
        // "When empty, the request path is used as-is." Without a host before it, `//elsewhere` would be one.
        None if absolute => safe(if path.starts_with(b"/") { path } else { b"/" }, &mut location),
        None => safe(&canonical::path(path), &mut location),
    }
    if let Some(query) = query {
        location.push(b'?');
        safe(query, &mut location);
    }
    location
}

/// "If redirect scheme is not-empty, the redirect port MUST be the well-known port associated with the redirect
/// scheme. [...] If redirect scheme is empty, the redirect port MUST be the Gateway Listener port", and the default
/// port of the scheme is not written (HTTPRequestRedirectFilter.port).
fn port(redirect: &Redirect, here: &Here<'_>, scheme: &str) -> Option<u16> {
    let well_known = if scheme == "https" { 443 } else { 80 };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => here.port,
    };
    (port != well_known).then_some(port)
}

/// What a client may not send in a target is encoded before it is sent back to a client in a field.
fn safe(bytes: &[u8], location: &mut Vec<u8>) {
    for byte in bytes {
        if byte.is_ascii_graphic() {
            location.push(*byte);
        } else {
            canonical::encode(*byte, |byte| location.push(byte));
        }
    }
}
