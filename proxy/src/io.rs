//! The one stream type: whatever carries a connection's bytes, read and written alike.
//!
//! What stands below (a socket, TLS, a stream of an HTTP/2 connection, another part of this process) is known here and
//! nowhere else. An end is always one of two: a clean end (read returns nothing) or a reset (read fails with
//! `ConnectionReset`); [`Io::reset`] is how to make the second one, whatever stands below.

mod pipe;
mod tunnel;

use std::{
    io,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

pub use tunnel::Tunnel;

/// One stream of bytes, with those that were read ahead of their reader in front.
pub struct Io {
    /// Read already and given again, before anything from `stream`.
    ahead: Bytes,
    stream: Stream,
}

enum Stream {
    Socket(TcpStream),
    /// A socket below TLS: rustls asks for 4 KiB at a time, this fetches more with one system call.
    Bulk(TcpStream),
    Tls(Box<TlsStream<Io>>),
    Tunnel(Box<Tunnel>),
    Pipe(Box<pipe::Pipe>),
}

/// Bytes fetched at once below TLS. The memory belongs to the thread, not to the connection.
const BULK: usize = 32 << 10;

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Io {
    /// A TCP connection.
    pub fn socket(stream: TcpStream) -> Self {
        Self {
            ahead: Bytes::new(),
            stream: Stream::Socket(stream),
        }
    }

    /// TLS that weft ends, or begins.
    pub fn tls(stream: impl Into<TlsStream<Io>>) -> Self {
        Self {
            ahead: Bytes::new(),
            stream: Stream::Tls(Box::new(stream.into())),
        }
    }

    /// A CONNECT stream of an HTTP/2 connection.
    pub fn tunnel(tunnel: Tunnel) -> Self {
        Self {
            ahead: Bytes::new(),
            stream: Stream::Tunnel(Box::new(tunnel)),
        }
    }

    /// Two ends of a stream inside of this process, holding at most `capacity` bytes in each direction.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (a, b) = pipe::Pipe::pair(capacity);
        let of = |pipe| Self {
            ahead: Bytes::new(),
            stream: Stream::Pipe(Box::new(pipe)),
        };
        (of(a), of(b))
    }

    /// Makes ready for TLS on top: larger reads.
    pub(crate) fn below_tls(self) -> Self {
        let stream = match self.stream {
            Stream::Socket(socket) => Stream::Bulk(socket),
            other => other,
        };
        Self {
            ahead: self.ahead,
            stream,
        }
    }

    /// Puts bytes in front of everything that was not read yet.
    pub fn unread(&mut self, bytes: Bytes) {
        if self.ahead.is_empty() {
            self.ahead = bytes;
        } else if !bytes.is_empty() {
            let mut joined = BytesMut::with_capacity(bytes.len() + self.ahead.len());
            joined.extend_from_slice(&bytes);
            joined.extend_from_slice(&self.ahead);
            self.ahead = joined.freeze();
        }
    }

    /// Whether bytes were put back that nobody has read again.
    pub fn has_unread(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Ends the stream abortively, so that the other side sees a reset and not an end: RST on TCP, RST_STREAM in HTTP/2.
    pub fn reset(self) {
        match self.stream {
            Stream::Socket(socket) | Stream::Bulk(socket) => {
                // Fails only on a socket that is gone already.
                let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
            }
            Stream::Tls(tls) => {
                let below = match *tls {
                    TlsStream::Client(tls) => tls.into_inner().0,
                    TlsStream::Server(tls) => tls.into_inner().0,
                };
                below.reset();
            }
            Stream::Tunnel(tunnel) => tunnel.reset(),
            Stream::Pipe(pipe) => pipe.reset(),
        }
    }

    /// Takes in what has arrived already without giving it to the reader, where leaving it below would do harm: HTTP/2
    /// charges small frames that nobody fetches to the whole connection. Flow control still bounds it.
    pub fn poll_take_in(&mut self, cx: &mut Context<'_>) {
        if let Stream::Tunnel(tunnel) = &mut self.stream {
            tunnel.poll_take_in(cx);
        }
    }

    /// Ready when the other side has reset the stream, although nobody reads or writes now; `BrokenPipe` where it only
    /// wants nothing more (RFC 9113 8.1: a complete answer, then `NO_ERROR`). Pending for ever where that cannot be seen
    /// without reading.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.stream {
            Stream::Tunnel(tunnel) => tunnel.poll_reset(cx),
            _ => Poll::Pending,
        }
    }

    /// Whether the bytes are a kernel socket's own, without anything between.
    pub fn as_socket(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Socket(socket) | Stream::Bulk(socket) => Some(socket),
            _ => None,
        }
    }

    /// The TLS state, where weft ended TLS on this stream.
    pub fn as_tls(&self) -> Option<&TlsStream<Io>> {
        match &self.stream {
            Stream::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// The local address of the socket below.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.as_socket().and_then(|socket| socket.local_addr().ok())
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if !me.ahead.is_empty() {
            let n = me.ahead.len().min(out.remaining());
            out.put_slice(&me.ahead[..n]);
            me.ahead.advance(n);
            if me.ahead.is_empty() {
                // Lets go of the memory that the bytes were a part of.
                me.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut me.stream {
            Stream::Socket(socket) => Pin::new(socket).poll_read(cx, out),
            Stream::Bulk(socket) => poll_bulk(socket, &mut me.ahead, cx, out),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, out),
            Stream::Tunnel(tunnel) => tunnel.poll_read(cx, out),
            Stream::Pipe(pipe) => Pin::new(&mut **pipe).poll_read(cx, out),
        }
    }
}

/// Straight into the thread's memory, then hands out what fits and keeps only what is left over.
fn poll_bulk(
    socket: &mut TcpStream,
    ahead: &mut Bytes,
    cx: &mut Context<'_>,
    out: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(BULK, 0);
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(socket).poll_read(cx, &mut read))?;
        let filled = read.filled();
        let n = filled.len().min(out.remaining());
        out.put_slice(&filled[..n]);
        if n < filled.len() {
            *ahead = Bytes::copy_from_slice(&filled[n..]);
        }
        Poll::Ready(Ok(()))
    })
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Socket(socket) | Stream::Bulk(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
            Stream::Tunnel(tunnel) => tunnel.poll_write(cx, bytes),
            Stream::Pipe(pipe) => Pin::new(&mut **pipe).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Socket(socket) | Stream::Bulk(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, parts),
            Stream::Tunnel(tunnel) => tunnel.poll_write_vectored(cx, parts),
            Stream::Pipe(pipe) => Pin::new(&mut **pipe).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Socket(_) | Stream::Bulk(_) | Stream::Tunnel(_) => true,
            Stream::Tls(tls) => tls.is_write_vectored(),
            Stream::Pipe(_) => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Socket(_) | Stream::Bulk(_) | Stream::Tunnel(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Stream::Pipe(pipe) => Pin::new(&mut **pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Socket(socket) | Stream::Bulk(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Stream::Tunnel(tunnel) => Poll::Ready(tunnel.end()),
            Stream::Pipe(pipe) => Pin::new(&mut **pipe).poll_shutdown(cx),
        }
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.stream {
            Stream::Socket(_) | Stream::Bulk(_) => "tcp",
            Stream::Tls(_) => "tls",
            Stream::Tunnel(_) => "tunnel",
            Stream::Pipe(_) => "pipe",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_that_were_put_back_come_first() {
        let (mut near, mut far) = Io::pair(64);
        far.write_all(b"third").await.unwrap();
        near.unread(Bytes::from_static(b"second "));
        near.unread(Bytes::from_static(b"first "));
        let mut read = vec![0; 18];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(read, b"first second third");
    }

    #[tokio::test]
    async fn t13_a_reset_is_not_an_end() {
        let (mut near, far) = Io::pair(64);
        far.reset();
        assert_eq!(
            near.read(&mut [0; 8]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        let (mut near, far) = Io::pair(64);
        drop(far);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn t13_a_reset_of_tcp_is_not_an_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        Io::socket(server).reset();
        let mut client = Io::socket(client);
        assert_eq!(
            client.read(&mut [0; 8]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }

    #[test]
    fn a_stream_is_small() {
        assert!(size_of::<Io>() <= 80, "{}", size_of::<Io>());
    }
}
