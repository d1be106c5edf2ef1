//! The route library from the outside: a corpus of text, an oracle written from the specification, and properties.

// Helpers of tests are tests, which clippy sees only inside of `#[test]`.
#![allow(clippy::unwrap_used)]

mod corpus;
mod generate;
mod hosts;
mod language;
mod listeners;
mod oracle;
mod paths;
mod properties;
mod regexes;
mod sessions;
