//! One stream of an HTTP/2 connection as a stream of bytes (RFC 9113 8.5).
//!
//! DATA is fetched as soon as it is there and kept here, since h2 charges small frames that lie unread to the whole
//! connection; its flow-control capacity is given back only when the bytes are handed on, so the window bounds the
//! memory. RST_STREAM is a reset and never an end: a truncated tunnel that looked complete would be silent loss of data.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    io::IoSlice,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::ReadBuf;
use weft_proto::limits;

/// Frames shorter than this are joined, so that what is kept costs no more than what was sent.
const SHORT: usize = 1024;

/// Both halves of an HTTP/2 stream.
pub struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Fetched from h2 and not handed on; their capacity is not released yet.
    waiting: VecDeque<Bytes>,
    /// Short frames, joined, behind `waiting`.
    joined: BytesMut,
    end: Option<End>,
    ended_by_us: bool,
    /// Whatever must live as long as the stream: the place that it takes in its pool.
    _held: Option<Box<dyn Any + Send>>,
}

#[derive(Clone, Copy)]
enum End {
    Clean,
    Reset,
}

impl Tunnel {
    /// Joins both halves; `held` is dropped together with them.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream, held: Option<Box<dyn Any + Send>>) -> Self {
        let (waiting, joined) = (VecDeque::new(), BytesMut::new());
        Self {
            send,
            receive,
            waiting,
            joined,
            end: None,
            ended_by_us: false,
            _held: held,
        }
    }

    pub(super) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Fetches one frame; pending when there is none yet.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let frame = ready!(self.receive.poll_data(cx));
        match frame {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) if bytes.len() < SHORT => self.joined.extend_from_slice(&bytes),
            Some(Ok(bytes)) => {
                self.settle();
                self.waiting.push_back(bytes);
            }
            Some(Err(_)) => self.end = Some(End::Reset),
            None => self.end = Some(End::Clean),
        }
        Poll::Ready(())
    }

    /// Moves joined bytes to where they are handed on from.
    fn settle(&mut self) {
        if !self.joined.is_empty() {
            let joined = std::mem::take(&mut self.joined).freeze();
            self.waiting.push_back(joined);
        }
    }

    pub(super) fn poll_take_in(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() {
            if self.poll_frame(cx).is_pending() {
                return;
            }
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        loop {
            self.settle();
            while out.remaining() > 0
                && let Some(front) = self.waiting.front_mut()
            {
                let n = front.len().min(out.remaining());
                out.put_slice(&front[..n]);
                front.advance(n);
                if front.is_empty() {
                    self.waiting.pop_front();
                }
            }
            if out.remaining() == 0 || self.end.is_some() || self.poll_frame(cx).is_pending() {
                break;
            }
        }
        let read = out.filled().len() - before;
        if read > 0 {
            // An error here says that the stream is gone, which the next read tells.
            let _ = self.receive.flow_control().release_capacity(read);
            return Poll::Ready(Ok(()));
        }
        match self.end {
            _ if out.remaining() == 0 => Poll::Ready(Ok(())),
            Some(End::Clean) => Poll::Ready(Ok(())),
            Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => Poll::Pending,
        }
    }

    /// How much of `wanted` may be sent now; pending when the peer's window or our own queue is full.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.ended_by_us {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.send.reserve_capacity(wanted.min(limits::H2_SEND_BUFFER));
        loop {
            // Asked first: h2 tells of changes only, and what is there may have been there before.
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(stopped(error.reason()))),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
    }

    fn send(&mut self, bytes: Bytes) -> io::Result<usize> {
        let n = bytes.len();
        match self.send.send_data(bytes, false) {
            Ok(()) => Ok(n),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(self.poll_room(cx, bytes.len()))?;
        Poll::Ready(self.send(Bytes::copy_from_slice(&bytes[..n])))
    }

    /// One frame from several parts.
    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut room = ready!(self.poll_room(cx, wanted))?;
        let mut frame = BytesMut::with_capacity(room);
        for part in parts {
            let n = part.len().min(room);
            frame.extend_from_slice(&part[..n]);
            room -= n;
        }
        Poll::Ready(self.send(frame.freeze()))
    }

    /// Ends our direction cleanly.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended_by_us, true) {
            return Ok(());
        }
        match self.send.send_data(Bytes::new(), true) {
            Ok(()) => Ok(()),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Ready(stopped(ready!(self.send.poll_reset(cx)).ok()))
    }
}

/// What it means that the peer has reset the stream while we still send.
fn stopped(reason: Option<Reason>) -> io::Error {
    match reason {
        Some(Reason::NO_ERROR) => io::ErrorKind::BrokenPipe.into(),
        _ => io::ErrorKind::ConnectionReset.into(),
    }
}
