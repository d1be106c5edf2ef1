//! Changes of header fields.

use std::{collections::HashSet, fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::rule::HeaderChange;

/// A head whose fields can be changed.
pub trait Fields {
    /// Replaces every field of this name by one with this value, where the first of them was, else at the end.
    fn set(&mut self, name: &HeaderName, value: &HeaderValue);
    /// Adds one more field at the end.
    fn add(&mut self, name: &HeaderName, value: &HeaderValue);
    /// Removes every field of this name.
    fn remove(&mut self, name: &HeaderName);
}

impl Fields for HeaderMap {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.insert(name.clone(), value.clone());
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name.clone(), value.clone());
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }
}

/// Changes of header fields, with names and values already checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
    remove: Box<[HeaderName]>,
}

/// Fields that say how a message is framed, where it goes, or that belong to one connection. A rule that could write
/// them could make two readers see two different messages.
const NOT_FOR_RULES: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl HeaderEdit {
    /// Checks names and values.
    pub(crate) fn new(change: &HeaderChange) -> Result<Self, String> {
        Ok(HeaderEdit {
            set: pairs(&change.set)?,
            add: pairs(&change.add)?,
            remove: change.remove.iter().map(|text| name(text)).collect::<Result<_, _>>()?,
        })
    }

    /// Carries the changes out: set, then add, then remove.
    pub fn apply(&self, fields: &mut (impl Fields + ?Sized)) {
        self.set.iter().for_each(|(name, value)| fields.set(name, value));
        self.add.iter().for_each(|(name, value)| fields.add(name, value));
        self.remove.iter().for_each(|name| fields.remove(name));
    }
}

/// For people.
impl fmt::Display for HeaderEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |verb: &'static str| {
            move |(name, value): &(HeaderName, HeaderValue)| {
                format!("{verb} {name}: {}", String::from_utf8_lossy(value.as_bytes()))
            }
        };
        let set = self.set.iter().map(pair("set"));
        let added = self.add.iter().map(pair("add"));
        let removed = self.remove.iter().map(|name| format!("remove {name}"));
        f.write_str(&set.chain(added).chain(removed).collect::<Vec<_>>().join(", "))
    }
}

/// Whether a rule may write the field of this name, which is in lower case or is compared as if.
pub(crate) fn is_for_rules(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // `weft-*` is weft's own word between two proxies, and to the client.
    !NOT_FOR_RULES.contains(&&*name) && !name.starts_with("weft-")
}

fn name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text
        .parse()
        .map_err(|_| format!("'{text}' is not the name of a header field"))?;
    if name == "host" {
        return Err("the field 'host' is changed by a URLRewrite filter's hostname, not by a header modifier".into());
    }
    if !is_for_rules(name.as_str()) {
        return Err(format!(
            "the field '{name}' belongs to the connection or its framing; a route may not change it"
        ));
    }
    Ok(name)
}

/// "If multiple entries specify equivalent header names, the first entry with an equivalent name MUST be considered
/// for a match. Subsequent entries with an equivalent header name MUST be ignored." (HTTPHeader)
fn pairs(list: &[(Arc<str>, Arc<str>)]) -> Result<Box<[(HeaderName, HeaderValue)]>, String> {
    let mut seen = HashSet::new();
    let mut pairs = Vec::with_capacity(list.len());
    for (text, value) in list {
        let name = name(text)?;
        // Narrower than HTTP is: what the specification of HTTPHeader lets through, no encodings and no outer spaces.
        let is_clean = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) && value.trim() == &**value;
        let checked = HeaderValue::from_str(value).ok().filter(|_| is_clean);
        let value = checked.ok_or_else(|| {
            format!("the value {value:?} of the field '{name}' has characters that a field cannot hold")
        })?;
        if seen.insert(name.clone()) {
            pairs.push((name, value));
        }
    }
    Ok(pairs.into())
}
