//! The access log: one JSON object on each line, written by a thread of its own.
//!
//! Workers compose their lines into buffers that the writer empties many at a time; a queue that is full drops lines and
//! counts them, it never delays traffic. What is logged is chosen here and in `record.rs`: no header field is, so no
//! credentials are (T60), and everything that came from outside is escaped down to printable characters.

use crate::{metrics, record::Direction};
use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use weft_proto::limits;

/// Longest text of one field that is logged; what is longer is cut.
const FIELD: usize = 1024;
/// How long the writer lets lines gather before it writes them.
const GATHER: Duration = Duration::from_millis(50);
const SHARDS: usize = 8;

/// The part of a log line that one record fills.
///
/// It lives in a buffer of the thread's, so that composing a line allocates nothing once the thread is warm.
#[derive(Default)]
pub struct Line(String);

thread_local! {
    static SPARE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

impl Line {
    /// An empty part. Its buffer is taken when there is something to say: most connections never have.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text from anywhere.
    pub fn field(&mut self, name: &'static str, value: &[u8]) {
        if !is_on() {
            return;
        }
        self.key(name);
        self.0.push('"');
        escape(&mut self.0, value);
        self.0.push('"');
    }

    /// Adds a word of a closed enum.
    pub fn word(&mut self, name: &'static str, value: &'static str) {
        self.key(name);
        self.0.push('"');
        self.0.push_str(value);
        self.0.push('"');
    }

    /// Adds a number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        self.key(name);
        self.0.push_str(itoa::Buffer::new().format(value));
    }

    /// Adds an address.
    pub fn address(&mut self, name: &'static str, value: SocketAddr) {
        self.key(name);
        self.0.push('"');
        push_address(&mut self.0, value);
        self.0.push('"');
    }

    /// Adds a time in milliseconds, to the microsecond.
    pub fn milliseconds(&mut self, name: &'static str, value: Duration) {
        self.key(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.0.push_str(itoa::Buffer::new().format(micros / 1000));
        self.0.push('.');
        push_three(&mut self.0, micros % 1000);
    }

    fn key(&mut self, name: &'static str) {
        if self.0.capacity() == 0 {
            self.0 = SPARE
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| String::with_capacity(512));
        }
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.0.capacity() > 0 && self.0.capacity() <= 8 * FIELD {
            let mut text = std::mem::take(&mut self.0);
            text.clear();
            // A thread that is ending has no place for it any more.
            let _ = SPARE.try_with(|spare| {
                if let Ok(mut spare) = spare.try_borrow_mut()
                    && spare.len() < 256
                {
                    spare.push(text);
                }
            });
        }
    }
}

fn push_three(out: &mut String, number: u64) {
    for divisor in [100, 10, 1] {
        out.push(char::from(b'0' + u8::try_from(number / divisor % 10).unwrap_or(0)));
    }
}

fn push_address(out: &mut String, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            for (index, octet) in address.ip().octets().into_iter().enumerate() {
                if index > 0 {
                    out.push('.');
                }
                out.push_str(itoa::Buffer::new().format(octet));
            }
            out.push(':');
            out.push_str(itoa::Buffer::new().format(address.port()));
        }
        SocketAddr::V6(_) => {
            let _ = write!(out, "{address}");
        }
    }
}

/// Appends what a JSON string may hold and a terminal may show; everything else as `\u....`.
fn escape(out: &mut String, value: &[u8]) {
    let value = &value[..value.len().min(FIELD)];
    if value
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
    {
        out.push_str(std::str::from_utf8(value).unwrap_or_default());
        return;
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                character if is_shown(character) => out.push(character),
                character => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.push_str("\\ufffd");
        }
    }
}

/// Controls, and characters that reorder or hide text, are not shown as they are.
fn is_shown(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

/// The part of every line of a connection that stays the same.
pub(crate) fn connection_part(
    connection: u64,
    direction: Direction,
    client: SocketAddr,
    destination: SocketAddr,
    peer: Option<&str>,
    security: &'static str,
) -> Box<str> {
    if !is_on() {
        return Box::default();
    }
    let mut line = Line::new();
    line.word("direction", direction.name());
    line.number("connection", connection);
    line.address("client", client);
    line.address("destination", destination);
    line.word("security", security);
    if let Some(peer) = peer {
        line.field("client_identity", peer.as_bytes());
    }
    line.0.as_str().into()
}

#[derive(Default)]
struct Shard {
    text: Vec<u8>,
    lines: usize,
}

struct Log {
    shards: [Mutex<Shard>; SHARDS],
    waiting: AtomicUsize,
    next: AtomicUsize,
    asleep: Mutex<bool>,
    wake: Condvar,
    ended: AtomicBool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Whether there is an access log.
pub fn is_on() -> bool {
    LOG.get().is_some()
}

/// Turns the access log on for the whole process: a thread writes its lines to `out`.
pub fn start(out: impl Write + Send + 'static) -> io::Result<()> {
    let log = LOG.get_or_init(|| Log {
        shards: Default::default(),
        waiting: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        asleep: Mutex::new(false),
        wake: Condvar::new(),
        ended: AtomicBool::new(false),
    });
    std::thread::Builder::new()
        .name("access-log".into())
        .spawn(move || writer(log, out))?;
    Ok(())
}

/// Waits, for a second at most, until every line so far is written. For the end of the process.
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    while log.waiting.load(Ordering::Acquire) > 0
        && !log.ended.load(Ordering::Acquire)
        && std::time::Instant::now() < deadline
    {
        log.wake.notify_one();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Queues one line.
pub(crate) fn write(kind: &'static str, connection: &str, line: Line) {
    let Some(log) = LOG.get() else { return };
    let before = log.waiting.fetch_add(1, Ordering::AcqRel);
    if before >= limits::ACCESS_LOG {
        log.waiting.fetch_sub(1, Ordering::AcqRel);
        metrics::access_log_dropped();
        return;
    }
    let shard = SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(log.next.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    });
    {
        let mut shard = log.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let text = &mut shard.text;
        text.extend_from_slice(b"{\"time\":\"");
        with_time(|time| text.extend_from_slice(time.as_bytes()));
        text.extend_from_slice(b"\",\"kind\":\"");
        text.extend_from_slice(kind.as_bytes());
        text.push(b'"');
        text.extend_from_slice(connection.as_bytes());
        text.extend_from_slice(line.0.as_bytes());
        text.extend_from_slice(b"}\n");
        shard.lines += 1;
    }
    if before == 0 {
        let mut asleep = log.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *asleep, false) {
            log.wake.notify_one();
        }
    }
}

/// RFC 3339 in UTC, to the millisecond; the second's part is made once a second.
fn with_time(use_it: impl FnOnce(&str)) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() || text.is_empty() {
            *second = now.as_secs();
            text.clear();
            let date = time::OffsetDateTime::from_unix_timestamp(i64::try_from(now.as_secs()).unwrap_or(0))
                .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
            let _ = write!(
                text,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.",
                date.year(),
                u8::from(date.month()),
                date.day(),
                date.hour(),
                date.minute(),
                date.second()
            );
        }
        let length = text.len();
        push_three(text, u64::from(now.subsec_millis()));
        text.push('Z');
        use_it(text);
        text.truncate(length);
    });
}

fn writer(log: &'static Log, mut out: impl Write) {
    let mut text = Vec::new();
    loop {
        {
            let mut asleep = log.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            if log.waiting.load(Ordering::Acquire) == 0 {
                *asleep = true;
                // A line that came between the look and the sleep finds `asleep` set, or is found after the time.
                let _ = log.wake.wait_timeout(asleep, Duration::from_secs(60));
            }
        }
        std::thread::sleep(GATHER);
        for shard in &log.shards {
            let lines = {
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut shard.text, &mut text);
                std::mem::take(&mut shard.lines)
            };
            if lines == 0 {
                continue;
            }
            if out.write_all(&text).and_then(|()| out.flush()).is_err() {
                // The disk is full, or the reader of standard output is gone: traffic goes on without a log.
                metrics::limit_reached("ACCESS_LOG");
            }
            text.clear();
            text.shrink_to(1 << 20);
            log.waiting.fetch_sub(lines, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &[u8]) -> String {
        let mut out = String::from("\"");
        escape(&mut out, value);
        out.push('"');
        out
    }

    #[test]
    fn t60_nothing_from_outside_reaches_a_terminal_unescaped() {
        assert_eq!(escaped(b"/plain?a=b"), "\"/plain?a=b\"");
        assert_eq!(escaped(b"\x1b[2J\r\nGET"), r#""\u001b[2J\u000d\u000aGET""#);
        assert_eq!(escaped("a\u{202e}b\u{9b}".as_bytes()), r#""a\u202eb\u009b""#);
        assert_eq!(escaped(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(escaped(b"\xff\xfe"), r#""\ufffd\ufffd""#);
        assert_eq!(escaped("\u{1f600}".as_bytes()), "\"\u{1f600}\"");
        for value in [&b"\x1b\r\n\0"[..], b"\xe2\x80\xae", b"\xf0\x9f", "\u{e0041}".as_bytes()] {
            let parsed: Result<String, _> = serde_json::from_str(&escaped(value));
            assert!(parsed.is_ok(), "{value:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(escaped(&[b'a'; 5000]).len(), FIELD + 2);
    }

    #[test]
    fn addresses_read_as_usual() {
        let mut out = String::new();
        push_address(&mut out, "10.20.30.255:8080".parse().unwrap());
        push_address(&mut out, "[fd00::1]:1".parse().unwrap());
        assert_eq!(out, "10.20.30.255:8080[fd00::1]:1");
    }
}
