//! Conditions that HTTPRoute and GRPCRoute share, and the checks that an API server makes by pattern.

use std::sync::Arc;

use weft_route::rule::{Text, ValueMatch};

use crate::{cluster::read::Mistakes, objects};

/// A token of RFC 9110, as names of header fields, methods and cookies are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A field value as the Gateway API allows it: visible ASCII, single spaces or tabs inside.
pub(super) fn is_field_value(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 4096
        && text
            .bytes()
            .all(|b| (b'!'..=b'~').contains(&b) || matches!(b, b' ' | b'\t'))
        && !text.starts_with([' ', '\t'])
        && !text.ends_with([' ', '\t'])
}

/// `PreciseHostname` of the Gateway API.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// `Exact` or `RegularExpression`, which may be absent for `Exact`.
pub(super) fn text(kind: Option<&str>, value: &str, at: &str, mistakes: &mut Mistakes) -> Text {
    match kind {
        None | Some("Exact") => {}
        Some("RegularExpression") => {
            // How long it may be is for the `route` crate to say.
            return Text::Regex(value.into());
        }
        Some(other) => mistakes.push(format!("{at}.type is '{other}'; it can be Exact or RegularExpression")),
    }
    Text::Exact(value.into())
}

/// Conditions on header fields.
pub(super) fn headers(given: &[objects::ValueMatch], at: &str, mistakes: &mut Mistakes) -> Vec<ValueMatch> {
    values(given, &format!("{at}.headers"), mistakes, |name| {
        name.to_ascii_lowercase().into()
    })
}

/// Conditions on query parameters.
pub(super) fn query(given: &[objects::ValueMatch], at: &str, mistakes: &mut Mistakes) -> Vec<ValueMatch> {
    values(given, &format!("{at}.queryParams"), mistakes, |name| name.into())
}

fn values(
    given: &[objects::ValueMatch],
    at: &str,
    mistakes: &mut Mistakes,
    name: impl Fn(&str) -> Arc<str>,
) -> Vec<ValueMatch> {
    let mut matches: Vec<ValueMatch> = Vec::new();
    for (index, one) in given.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if !is_token(&one.name) {
            mistakes.push(format!("{at}.name '{}' is not a name", one.name));
        }
        let value = text(one.kind.as_deref(), &one.value, &at, mistakes);
        let name = name(&one.name);
        // "If multiple entries specify equivalent header names, only the first entry with an equivalent name MUST be
        // considered for a match."
        if matches.iter().all(|other| other.name != name) {
            matches.push(ValueMatch { name, value });
        }
    }
    matches
}
