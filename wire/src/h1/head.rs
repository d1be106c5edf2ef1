//! What request and response heads share: when to parse, how far to look, and what a parse error means.

use super::Refused;
use weft_proto::limits;

/// What is remembered of an incomplete head, so that a head that comes in many small pieces is not parsed anew for each.
/// One for each head that is awaited; `Scan::default()` after each complete one.
#[derive(Clone, Copy, Default, Debug)]
pub struct Scan {
    /// Bytes at the last parse.
    parsed: usize,
    /// Bytes in which no end of a head was seen.
    searched: usize,
}

impl Scan {
    /// Whether the new bytes are worth a parse: the first always; then when a blank line came in, or the bytes doubled
    /// (nonsense is refused early, and all the parsing together stays linear).
    pub(super) fn is_due(&mut self, buffer: &[u8]) -> bool {
        let from = self.searched.saturating_sub(3).min(buffer.len());
        let due = self.parsed == 0
            || buffer.len() >= self.parsed * 2
            || buffer.len() >= limits::HEAD
            || memchr::memchr_iter(b'\n', &buffer[from..]).any(|at| {
                let rest = &buffer[from + at + 1..];
                rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
            });
        self.searched = buffer.len();
        if due {
            self.parsed = buffer.len();
        }
        due
    }
}

/// What there is to say when a head is not complete yet.
pub(super) fn incomplete<T>(buffer: &[u8]) -> Result<Option<T>, Refused> {
    if buffer.len() < limits::HEAD {
        return Ok(None);
    }
    Err(if memchr::memchr(b'\n', buffer).is_some() {
        Refused::HeadTooLong
    } else {
        Refused::TargetTooLong
    })
}

/// The part of the buffer that may be a head.
pub(super) fn window(buffer: &[u8]) -> &[u8] {
    &buffer[..buffer.len().min(limits::HEAD)]
}

/// Says what httparse did not like in words that help. Slow, and only on the way to a refusal.
pub(super) fn explain(error: httparse::Error, head: &[u8], line: Refused) -> Refused {
    match error {
        httparse::Error::Token | httparse::Error::Status => line,
        httparse::Error::Version if says_version(head) => Refused::Version,
        httparse::Error::Version => line,
        httparse::Error::NewLine => Refused::Newline,
        httparse::Error::TooManyHeaders => Refused::TooManyFields,
        httparse::Error::HeaderName if memchr::memmem::find(head, b"\n ").is_some() => Refused::Fold,
        httparse::Error::HeaderName if memchr::memmem::find(head, b"\n\t").is_some() => Refused::Fold,
        httparse::Error::HeaderName => Refused::FieldName,
        httparse::Error::HeaderValue => Refused::FieldValue,
    }
}

/// Whether the first line has some `HTTP/1.7` where a version belongs.
fn says_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.split(|&byte| byte == b' ')
        .any(|word| match word.trim_ascii_end() {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => major.is_ascii_digit() && minor.is_ascii_digit(),
            b"HTTP/2" | b"HTTP/3" => true,
            _ => false,
        })
}
