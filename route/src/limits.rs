//! The limits of this crate. `weft_proto::limits` lists them with all others, and a test there holds that they agree;
//! they stand here because that crate depends on this one.

/// Bytes of a regular expression in a rule.
pub const REGEX: usize = 1 << 10;
/// Bytes of a compiled regular expression.
pub const REGEX_COMPILED: usize = 1 << 20;
