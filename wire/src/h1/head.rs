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
        httparse::Error::Version if says_version(head, line) => Refused::Version,
        httparse::Error::Version => line,
        httparse::Error::NewLine => Refused::Newline,
        httparse::Error::TooManyHeaders => Refused::TooManyFields,
        httparse::Error::HeaderName => bad_name(head),
        httparse::Error::HeaderValue => Refused::FieldValue,
    }
}

/// Which the first line is that has no name: one that continues the line before it, or another.
fn bad_name(head: &[u8]) -> Refused {
    for line in head.split_inclusive(|&byte| byte == b'\n').skip(1) {
        match line.iter().position(|&byte| !crate::sniff::is_token_byte(byte)) {
            Some(0) if matches!(line[0], b' ' | b'\t') => return Refused::Fold,
            Some(end) if end == 0 || line[end] != b':' => return Refused::FieldName,
            _ => {}
        }
    }
    Refused::FieldName
}

/// Whether a version that is none of ours stands where the version belongs: first in a status line, third in a request line.
fn says_version(head: &[u8], line: Refused) -> bool {
    let place = if line == Refused::StatusLine { 0 } else { 2 };
    let word = head
        .split(|&byte| byte == b' ')
        .nth(place)
        .and_then(|word| word.strip_prefix(b"HTTP/"));
    match word.unwrap_or_default() {
        [b'1', b'.', minor, ..] => (b'2'..=b'9').contains(minor),
        [b'1', ..] => false,
        [major, ..] => major.is_ascii_digit(),
        [] => false,
    }
}
