//! The path, in its canonical form.

use std::sync::Arc;

use regex::bytes::Regex;

use super::text;
use crate::{canonical, rule::PathMatch};

/// A compiled [`PathMatch`].
#[derive(Clone, Debug)]
pub(crate) enum PathTest {
    /// Every path: no condition, or the prefix `/`.
    Any,
    Exact(Arc<[u8]>),
    /// Without a slash at its end, and not empty.
    Prefix(Arc<[u8]>),
    Regex(Regex),
}

impl PathTest {
    pub(crate) fn new(path: Option<&PathMatch>) -> Result<Self, String> {
        Ok(match path {
            None => PathTest::Any,
            Some(PathMatch::Exact(path)) => {
                canonical::check_rule(path)?;
                PathTest::Exact(canonical::path(path.as_bytes()).into())
            }
            Some(PathMatch::Prefix(path)) => {
                canonical::check_rule(path)?;
                // "When specified, a trailing `/` is ignored." (PathMatchPathPrefix)
                match canonical::path(path.as_bytes()).strip_suffix(b"/") {
                    Some([]) => PathTest::Any,
                    Some(prefix) => PathTest::Prefix(prefix.into()),
                    None => PathTest::Prefix(canonical::path(path.as_bytes()).into()),
                }
            }
            Some(PathMatch::Regex(pattern)) => PathTest::Regex(text::regex(pattern)?),
        })
    }

    pub(crate) fn holds(&self, path: &[u8]) -> bool {
        match self {
            PathTest::Any => true,
            PathTest::Exact(exact) => **exact == *path,
            PathTest::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/'),
            PathTest::Regex(regex) => regex.is_match(path),
        }
    }

    /// How much of a path the prefix takes.
    pub(crate) fn prefix_length(&self) -> usize {
        if let PathTest::Prefix(prefix) = self {
            prefix.len()
        } else {
            0
        }
    }
}
