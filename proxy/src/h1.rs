//! HTTP/1 connections, to clients and to servers: bytes in, bytes out, and the pool of idle ones.
//!
//! What the bytes mean is the `weft-wire` crate's matter, what is done with them `exchange.rs`' and `relay/http.rs`'. A
//! connection that holds no unread and no unwritten bytes holds no buffer.

pub mod buffer;
pub mod pool;

use crate::io::Io;
use buffer::{Unread, give_text, take_text};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;
use weft_proto::limits;

/// Bytes that may wait to be written before their source has to wait.
const FULL: usize = 64 << 10;
/// Shorter pieces are copied next to the others, longer ones are written from where they are.
const COPIED: usize = 2 << 10;

/// One HTTP/1 connection.
pub struct Conn {
    io: Io,
    /// Read and not used yet.
    pub unread: Unread,
    out: Out,
    /// The other side has ended its direction.
    ended: bool,
}

/// What waits to be written: composed bytes, then at most one piece as it came, then composed bytes again.
#[derive(Default)]
struct Out {
    first: BytesMut,
    written: usize,
    large: Bytes,
    last: BytesMut,
}

impl Out {
    fn len(&self) -> usize {
        self.first.len() - self.written + self.large.len() + self.last.len()
    }

    fn text(&mut self) -> &mut BytesMut {
        let text = if self.large.is_empty() {
            &mut self.first
        } else {
            &mut self.last
        };
        if text.capacity() == 0 {
            *text = take_text();
        }
        text
    }

    fn wrote(&mut self, mut count: usize) {
        let step = count.min(self.first.len() - self.written);
        self.written += step;
        count -= step;
        let step = count.min(self.large.len());
        self.large.advance(step);
        count -= step;
        if self.written == self.first.len() && self.large.is_empty() {
            self.large = Bytes::new();
            give_text(std::mem::replace(&mut self.first, std::mem::take(&mut self.last)));
            self.written = count;
            if self.written == self.first.len() && self.written > 0 {
                give_text(std::mem::take(&mut self.first));
                self.written = 0;
            }
        }
    }
}

impl Conn {
    /// A connection over `io`.
    pub fn new(io: Io) -> Self {
        Self {
            io,
            unread: Unread::default(),
            out: Out::default(),
            ended: false,
        }
    }

    /// Reads once; 0 says that the other side has ended its direction. At most `limit` unread bytes are held.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let count = ready!(self.unread.poll_fill(&mut self.io, cx, limit))?;
        self.ended = count == 0;
        Poll::Ready(Ok(count))
    }

    /// The same, to wait for.
    pub async fn fill(&mut self, limit: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, limit)).await
    }

    /// Looks whether the other side broke the connection off, while nothing is wanted from it. What it sends ahead is kept,
    /// as far as [`limits::PIPELINE`]; an end of its direction is remembered and is no break.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while !self.ended && self.unread.len() < limits::PIPELINE {
            if let Err(error) = ready!(self.poll_fill(cx, limits::PIPELINE)) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// Whether the other side has ended its direction.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Where bytes to be written are composed.
    pub fn compose(&mut self) -> &mut BytesMut {
        self.out.text()
    }

    /// Queues a copy.
    pub fn put(&mut self, bytes: &[u8]) {
        self.out.text().extend_from_slice(bytes);
    }

    /// Queues bytes without a copy, where that is worth it.
    pub fn put_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < COPIED || !self.out.large.is_empty() {
            self.put(&bytes);
        } else {
            self.out.large = bytes;
        }
    }

    /// Whether what waits should be written before more is queued.
    pub fn is_full(&self) -> bool {
        !self.out.large.is_empty() || self.out.len() >= FULL
    }

    /// Whether everything was written.
    pub fn is_flushed(&self) -> bool {
        self.out.len() == 0
    }

    /// Writes everything that waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() > 0 {
            while self.out.len() > 0 {
                let out = &self.out;
                let count = if out.large.is_empty() {
                    ready!(Pin::new(&mut self.io).poll_write(cx, &out.first[out.written..]))?
                } else {
                    let parts = [&out.first[out.written..], &out.large, &out.last].map(IoSlice::new);
                    let from = usize::from(parts[0].is_empty());
                    ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &parts[from..]))?
                };
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.wrote(count);
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// The same, to wait for.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends our direction, after everything that waits was written.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await
    }

    /// Ends our direction, then reads and drops what still comes, for a bounded time and length: a close with unread bytes
    /// would be a reset, and could take the answer away from the client that is still sending.
    pub async fn linger(mut self) {
        if self.shutdown().await.is_err() {
            return;
        }
        let drop_the_rest = async {
            let mut dropped = 0;
            while dropped < LINGER_BYTES {
                self.unread.clear();
                match self.fill(buffer::BLOCK).await {
                    Ok(count) if count > 0 => dropped += count,
                    _ => break,
                }
            }
        };
        // Whoever goes on sending for longer gets the reset.
        let _ = tokio::time::timeout(LINGER, drop_the_rest).await;
    }

    /// The stream below with everything that was read and not used in front; what was not written is lost.
    pub fn into_io(mut self) -> Io {
        if !self.unread.is_empty() {
            let ahead = Bytes::copy_from_slice(self.unread.bytes());
            self.unread.clear();
            self.io.unread(ahead);
        }
        self.io
    }

    /// Closes abortively: the other side sees a reset, and takes nothing that it got for complete.
    pub fn reset(self) {
        self.io.reset();
    }

    /// Whether the connection is as new: nothing unread, nothing unwritten, not ended.
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.is_flushed() && !self.ended
    }
}

/// How long a connection that is being closed is still read from.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);
/// And how much.
const LINGER_BYTES: usize = 1 << 20;

impl Drop for Out {
    fn drop(&mut self) {
        give_text(std::mem::take(&mut self.first));
        give_text(std::mem::take(&mut self.last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_queued_is_written_in_order() {
        let (near, mut far) = Io::pair(100);
        let mut conn = Conn::new(near);
        let large = Bytes::from(vec![b'L'; 5000]);
        conn.put(b"head ");
        conn.put_bytes(Bytes::from_static(b"short "));
        conn.put_bytes(large.clone());
        assert!(conn.is_full());
        conn.put(b" tail");
        let reader = async {
            let mut got = vec![0; 11 + 5000 + 5];
            far.read_exact(&mut got).await.unwrap();
            got
        };
        let (flushed, got) = tokio::join!(conn.flush(), reader);
        flushed.unwrap();
        assert_eq!(&got[..11], b"head short ");
        assert_eq!(&got[11..5011], &large[..]);
        assert_eq!(&got[5011..], b" tail");
        assert!(conn.is_idle());
        conn.put(b"again");
        conn.flush().await.unwrap();
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"again");
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer() {
        let (near, mut far) = Io::pair(100);
        let mut conn = Conn::new(near);
        conn.put(b"answer");
        conn.flush().await.unwrap();
        far.write_all(b"x").await.unwrap();
        assert_eq!(conn.fill(10).await.unwrap(), 1);
        conn.unread.used(1);
        assert!(poll_fn(|cx| Poll::Ready(conn.poll_broken(cx).is_pending())).await);
        assert_eq!(conn.out.first.capacity() + conn.out.last.capacity(), 0);
        assert!(size_of::<Conn>() <= 256, "{}", size_of::<Conn>());
    }

    #[tokio::test]
    async fn an_end_is_no_break_and_a_reset_is_one() {
        let (near, far) = Io::pair(100);
        let mut conn = Conn::new(near);
        drop(far);
        assert!(poll_fn(|cx| Poll::Ready(conn.poll_broken(cx).is_pending())).await);
        assert!(conn.has_ended());

        let (near, far) = Io::pair(100);
        let mut conn = Conn::new(near);
        far.reset();
        let error = poll_fn(|cx| conn.poll_broken(cx)).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
