//! The limits of this crate. `weft_proto::limits` lists them with all others, and a test there holds that they agree;
//! they stand here because that crate depends on this one.

use std::time::Duration;

/// Bytes of a regular expression in a rule.
pub const REGEX: usize = 1 << 10;
/// Bytes of a compiled regular expression.
pub const REGEX_COMPILED: usize = 1 << 20;
/// Attempts of a request after its first one.
pub const RETRIES: usize = 10;
/// Pause before another attempt that a rule may ask for.
pub const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of the name of a session's cookie or header field.
pub const SESSION_NAME: usize = 128;
/// Tokens of one request that are tried; a browser sends several where a cookie was set for several paths.
pub const SESSION_TOKENS: usize = 4;
/// Bytes of a key that signs sessions, at least.
pub const SESSION_KEY: usize = 16;
