//! A stream between two parts of this process, which can be reset as a socket can.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

pub(super) struct Pipe {
    stream: DuplexStream,
    /// Set by us before we let go: what the other end then sees is a reset.
    reset_by_us: Arc<AtomicBool>,
    reset_by_them: Arc<AtomicBool>,
}

impl Pipe {
    pub(super) fn pair(capacity: usize) -> (Self, Self) {
        let (a, b) = tokio::io::duplex(capacity);
        let (by_a, by_b) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        (
            Self {
                stream: a,
                reset_by_us: by_a.clone(),
                reset_by_them: by_b.clone(),
            },
            Self {
                stream: b,
                reset_by_us: by_b,
                reset_by_them: by_a,
            },
        )
    }

    pub(super) fn reset(self) {
        self.reset_by_us.store(true, Ordering::Release);
    }

    fn was_reset(&self) -> bool {
        self.reset_by_them.load(Ordering::Acquire)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        if out.filled().len() == before && out.remaining() > 0 && self.was_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(match written {
            Err(_) if self.was_reset() => Err(io::ErrorKind::ConnectionReset.into()),
            written => written,
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
