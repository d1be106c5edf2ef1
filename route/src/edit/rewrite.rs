//! A new path on the way to the backend. The query is kept as sent.

use crate::{
    canonical::{self, split},
    rule::{PathChange, Rewrite},
};

/// What is wrong with a rewrite.
pub(crate) fn check(rewrite: &Rewrite) -> Result<(), String> {
    if let Some(host) = &rewrite.host {
        check_host(host)?;
    }
    rewrite.path.as_ref().map_or(Ok(()), check_path)
}

pub(crate) fn check_host(host: &str) -> Result<(), String> {
    match crate::Host::parse(host.as_bytes()) {
        Ok(parsed) if parsed.as_str() == host => Ok(()),
        _ => Err(format!("'{host}' is not a host name in lower case without a port")),
    }
}

pub(crate) fn check_path(change: &PathChange) -> Result<(), String> {
    let (PathChange::Full(path) | PathChange::Prefix(path)) = change;
    let clean = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\'));
    // An empty replacement of a prefix removes it; the specification's table has that case.
    let rooted = path.starts_with('/') || (path.is_empty() && matches!(change, PathChange::Prefix(_)));
    if clean && rooted {
        Ok(())
    } else {
        Err(format!(
            "the replacement path {path:?} must begin with '/' and hold neither spaces nor '?', '#' or '\\'"
        ))
    }
}

/// Path and query after the change. `prefix` bytes of the canonical path are what the rule's match took.
pub fn target(change: &PathChange, target: &[u8], prefix: usize) -> Vec<u8> {
    let (path, query) = split(target);
    let mut new = changed_path(change, path, prefix);
    if let Some(query) = query {
        new.push(b'?');
        new.extend_from_slice(query);
    }
    new
}

/// The table of `replacePrefixMatch` in the specification comes down to: the prefix and the replacement without a
/// slash at their ends, then the rest as it was, and `/` where nothing is left.
pub(crate) fn changed_path(change: &PathChange, path: &[u8], prefix: usize) -> Vec<u8> {
    match change {
        PathChange::Full(new) => new.as_bytes().to_vec(),
        // `OPTIONS *` has no prefix.
        PathChange::Prefix(_) if path == b"*" => path.to_vec(),
        PathChange::Prefix(new) => {
            let path = canonical::path(path);
            let rest = path.get(prefix..).unwrap_or_default();
            let mut joined = new.trim_end_matches('/').as_bytes().to_vec();
            joined.extend_from_slice(rest);
            if joined.is_empty() {
                joined.push(b'/');
            }
            joined
        }
    }
}
