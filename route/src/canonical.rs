//! The view of a path that rules are compared with. The path that is forwarded stays as it was sent.
//!
//! The canonical form: unreserved characters are not percent-encoded, everything that RFC 3986 wants encoded is, in
//! upper-case hexadecimal; `//` is `/`; dot segments are resolved (RFC 3986 6.2.2). Some servers read still more into
//! a path: `%2F` or `\` as `/`, `%00` or `#` as its end, `;x` as no part of it, an overlong encoding as the character
//! it stands for. `readings` walks those; a table refuses a path only where they lead to different rules.

use std::borrow::Cow;

/// Ways in which a server may read a path otherwise, as bits.
pub(crate) mod doubt {
    pub(crate) const SLASH: u8 = 1;
    pub(crate) const BACKSLASH: u8 = 1 << 1;
    pub(crate) const NUL: u8 = 1 << 2;
    pub(crate) const FRAGMENT: u8 = 1 << 3;
    pub(crate) const PARAMETERS: u8 = 1 << 4;
    pub(crate) const OVERLONG: u8 = 1 << 5;
    /// `//` before `..`: some merge slashes first, and some last.
    pub(crate) const EMPTY: u8 = 1 << 6;
}

/// Path and query of a target; the query without its `?`.
pub fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// The canonical form of a path. Borrowed where the path is in that form already. `*` stays as it is; an empty path is
/// `/` (RFC 9112 3.2.1).
pub fn path(path: &[u8]) -> Cow<'_, [u8]> {
    if path.is_empty() {
        return Cow::Borrowed(b"/");
    }
    if path[0] != b'/' || is_canonical(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(resolved(&encoded(path), true))
}

/// Whether the path is in canonical form already, and so plain that all read it alike.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && is_canonical(path) && !path.iter().any(|byte| matches!(byte, b'%' | b';' | b'#'))
}

fn is_canonical(path: &[u8]) -> bool {
    let mut at = 0;
    while at < path.len() {
        match path[at] {
            b'/' => match &path[at + 1..] {
                [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => return false,
                _ => {}
            },
            b'%' => match &path[at + 1..] {
                [high, low, ..] if !high.is_ascii_lowercase() && !low.is_ascii_lowercase() => {
                    match decoded(*high, *low) {
                        Some(byte) if !is_unreserved(byte) => {}
                        _ => return false,
                    }
                }
                _ => return false,
            },
            byte if !stays(byte) => return false,
            _ => {}
        }
        at += 1;
    }
    true
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar`, `/`, and `#`, which no path has and which is kept so that it is seen. A table: this is asked for every byte.
const STAYS: [bool; 256] = {
    let mut stays = [false; 256];
    let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/#";
    let mut at = 0;
    while at < all.len() {
        stays[all[at] as usize] = true;
        at += 1;
    }
    stays
};

fn stays(byte: u8) -> bool {
    STAYS[usize::from(byte)]
}

fn decoded(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

/// The three bytes of a percent-encoded one.
pub(crate) fn encode(byte: u8, mut push: impl FnMut(u8)) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    push(b'%');
    push(HEX[usize::from(byte >> 4)]);
    push(HEX[usize::from(byte & 15)]);
}

/// The path with exactly the right characters encoded. A `%` that encodes nothing is a character like any other that
/// must be encoded; otherwise `%%361` would become `%61`, and that `a` when it is read once more.
fn encoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 16);
    let mut at = 0;
    while at < path.len() {
        let byte = match (path[at], &path[at + 1..]) {
            (b'%', [high, low, ..]) => match decoded(*high, *low) {
                Some(byte) if is_unreserved(byte) => {
                    out.push(byte);
                    at += 3;
                    continue;
                }
                Some(byte) => {
                    encode(byte, |byte| out.push(byte));
                    at += 3;
                    continue;
                }
                None => b'%',
            },
            (byte, _) => byte,
        };
        if stays(byte) {
            out.push(byte)
        } else {
            encode(byte, |byte| out.push(byte))
        }
        at += 1;
    }
    out
}

/// The path without dot segments and without empty ones. `merge_first`: `//..` takes away what is before both slashes.
fn resolved(path: &[u8], merge_first: bool) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut open = true;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        open = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            b"" if merge_first => {}
            segment => kept.push(segment),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in kept.into_iter().filter(|segment| !segment.is_empty()) {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if open || out.is_empty() {
        out.push(b'/');
    }
    out
}

/// The doubts that a path leaves, as bits of [`doubt`]. The path has gone through [`encoded`].
fn doubts(path: &[u8]) -> u8 {
    let mut found = 0;
    let mut empty = false;
    let mut at = 0;
    while at < path.len() {
        let rest = &path[at..];
        found |= match rest {
            [b'%', b'2', b'F', ..] => doubt::SLASH,
            [b'%', b'5', b'C', ..] => doubt::BACKSLASH,
            [b'%', b'0', b'0', ..] => doubt::NUL,
            [b'%', ..] if overlong(rest).is_some() => doubt::OVERLONG,
            [b'#', ..] => doubt::FRAGMENT,
            [b';', ..] => doubt::PARAMETERS,
            [b'/', b'/', ..] => {
                empty = true;
                0
            }
            [b'/', b'.', b'.'] | [b'/', b'.', b'.', b'/', ..] if empty => doubt::EMPTY,
            _ => 0,
        };
        at += 1;
    }
    found
}

/// An ASCII character in a longer encoding than it needs, which decoders may take for that character (RFC 3629 10):
/// the character, and how many bytes of the path it takes.
fn overlong(path: &[u8]) -> Option<(u8, usize)> {
    let octet = |index: usize| match path.get(3 * index..3 * index + 3) {
        Some([b'%', high, low]) => decoded(*high, *low),
        _ => None,
    };
    let tail = |index: usize| octet(index).filter(|byte| byte & 0xC0 == 0x80).map(|byte| byte & 0x3F);
    let (last, octets, upper) = match octet(0)? {
        lead @ (0xC0 | 0xC1) => (tail(1)?, 2, lead & 1),
        0xE0 if matches!(octet(1), Some(0x80 | 0x81)) => (tail(2)?, 3, octet(1)? & 1),
        0xF0 if octet(1) == Some(0x80) && matches!(octet(2), Some(0x80 | 0x81)) => (tail(3)?, 4, octet(2)? & 1),
        _ => return None,
    };
    Some((upper << 6 | last, 3 * octets))
}

/// Every other reading of a path, each in canonical form, until `differs` says that one leads elsewhere. `mask`: the
/// doubts that matter. Answers whether one did.
pub(crate) fn readings(path: &[u8], mask: u8, mut differs: impl FnMut(&[u8]) -> bool) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let plain = if is_canonical(path) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(encoded(path))
    };
    let mut present = doubts(&plain);
    if present & doubt::OVERLONG != 0 {
        present |= doubts(&shortened(&plain));
    }
    present &= mask;
    // Every combination: a server may read some of these its own way, and not the others.
    let mut bits = present;
    while bits != 0 {
        if differs(&reading(&plain, bits)) {
            return true;
        }
        bits = (bits - 1) & present;
    }
    false
}

fn shortened(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match overlong(&path[at..]) {
            Some((byte, length)) => {
                if is_unreserved(byte) || byte == b'/' {
                    out.push(byte);
                } else {
                    encode(byte, |byte| out.push(byte));
                }
                at += length;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

fn reading(path: &[u8], bits: u8) -> Vec<u8> {
    let has = |bit: u8| bits & bit != 0;
    let path = if has(doubt::OVERLONG) {
        Cow::Owned(shortened(path))
    } else {
        Cow::Borrowed(path)
    };
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    let mut in_parameters = false;
    while at < path.len() {
        let (byte, length) = match &path[at..] {
            [b'%', b'2', b'F', ..] if has(doubt::SLASH) => (b'/', 3),
            [b'%', b'5', b'C', ..] if has(doubt::BACKSLASH) => (b'/', 3),
            [b'%', b'0', b'0', ..] if has(doubt::NUL) => break,
            [b'#', ..] if has(doubt::FRAGMENT) => break,
            [byte, ..] => (*byte, 1),
            [] => break,
        };
        at += length;
        match byte {
            b'/' => in_parameters = false,
            b';' if has(doubt::PARAMETERS) => in_parameters = true,
            _ => {}
        }
        if !in_parameters {
            out.push(byte);
        }
    }
    resolved(&out, !has(doubt::EMPTY))
}

/// What keeps a rule's path from ever being met, or from meaning one thing.
pub(crate) fn check_rule(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("the path {path:?} does not begin with '/'"));
    }
    if path.contains('?') {
        return Err(format!("the path {path:?} holds '?', which begins the query"));
    }
    let encoded = encoded(path.as_bytes());
    let trimmed = resolved(&encoded, true);
    if encoded != trimmed {
        return Err(format!(
            "the path {path:?} holds '//' or a '.' or '..' segment, which no canonical path has"
        ));
    }
    if doubts(&encoded) & !doubt::PARAMETERS != 0 {
        return Err(format!(
            "the path {path:?} holds '%2F', '%5C', '%00', '#' or an overlong encoding"
        ));
    }
    Ok(())
}
