//! The route library from the outside: a corpus of text, an oracle written from the specification, and properties.

mod corpus;
mod generate;
mod hosts;
mod language;
mod oracle;
mod paths;
mod properties;
mod regexes;
