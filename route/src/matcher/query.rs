//! Query parameters, percent-decoded.

use std::{borrow::Cow, sync::Arc};

use super::text::TextTest;
use crate::rule::ValueMatch;

/// A compiled condition on a query parameter.
#[derive(Debug)]
pub(crate) struct QueryTest {
    pub(crate) name: Arc<str>,
    value: TextTest,
}

impl QueryTest {
    pub(crate) fn new(condition: &ValueMatch) -> Result<Self, String> {
        if condition.name.is_empty() {
            return Err("the name of a query parameter is empty".into());
        }
        Ok(QueryTest {
            name: condition.name.clone(),
            value: TextTest::new(&condition.value)?,
        })
    }

    /// "It is *recommended* that implementations should match against the first value of the param" where it is
    /// repeated (HTTPQueryParamMatch.name).
    pub(crate) fn holds(&self, query: &[u8]) -> bool {
        query
            .split(|byte| *byte == b'&')
            .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &pair[pair.len()..]),
            })
            .find(|(name, _)| *decoded(name) == *self.name.as_bytes())
            .is_some_and(|(_, value)| self.value.holds(&decoded(value)))
    }
}

/// As forms encode it: `+` is a space. What is not an encoding stands for itself.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|digits| text[at] == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(byte);
            at += 3;
            continue;
        }
        out.push(if text[at] == b'+' { b' ' } else { text[at] });
        at += 1;
    }
    Cow::Owned(out)
}
