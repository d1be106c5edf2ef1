//! Text, compared exactly or by a regular expression that runs in linear time.

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use crate::{limits, rule::Text};

/// A compiled [`Text`].
#[derive(Clone, Debug)]
pub(crate) enum TextTest {
    Exact(Arc<str>),
    Regex(Regex),
}

impl TextTest {
    pub(crate) fn new(text: &Text) -> Result<Self, String> {
        Ok(match text {
            Text::Exact(exact) => TextTest::Exact(exact.clone()),
            Text::Regex(pattern) => TextTest::Regex(regex(pattern)?),
        })
    }

    pub(crate) fn holds(&self, value: &[u8]) -> bool {
        match self {
            TextTest::Exact(exact) => exact.as_bytes() == value,
            TextTest::Regex(regex) => regex.is_match(value),
        }
    }
}

/// A regular expression that the whole text must match. Bounded in length and in memory; the engine has no backtracking.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    let shown: String = pattern.chars().take(64).collect();
    if pattern.len() > limits::REGEX {
        let (length, limit) = (pattern.len(), limits::REGEX);
        return Err(format!(
            "the regular expression '{shown}…' has {length} bytes; the limit is {limit}"
        ));
    }
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(limits::REGEX_COMPILED)
            .dfa_size_limit(limits::REGEX_COMPILED)
            .build()
    };
    // First alone, so that an unbalanced `)` cannot reach over the group that anchors it.
    build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))).map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("the regular expression '{shown}' takes more than {limit} bytes when compiled; make its repetitions shorter")
        }
        // The engine's message draws the pattern over several lines; the last one says what is wrong.
        error => {
            let message = error.to_string();
            let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("the regular expression '{shown}' is not valid: {reason}")
        }
    })
}
