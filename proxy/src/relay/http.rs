//! Bodies on their way: from a client to a server and back, HTTP/1 and HTTP/2 on either side, in one task without a lock.
//!
//! A [`Half`] is one side's connection or stream; a [`Pump`] moves one direction from one half to the other. Nothing is
//! gathered: bytes go on when the source has no more at hand, and a source waits when the sink is full. What a head says,
//! and what becomes of a fault, is `exchange.rs`' matter.

pub mod stream;

use crate::{
    exchange::mirror::Copier,
    h1::{Conn, buffer::BLOCK},
};
use bytes::Bytes;
use http::HeaderMap;
use std::{
    io,
    task::{Context, Poll, ready},
};
use stream::{Got, Receiver, Sender};
use weft_proto::limits;
use weft_wire::h1::{BodyDecoder, BodyEncoder, BodyLength, Fields, Piece, Refused};

/// Why a side cannot go on.
#[derive(Debug)]
pub enum Cause {
    /// Its connection broke.
    Io(io::Error),
    /// Its HTTP/2 stream or connection broke.
    H2(h2::Error),
    /// What it sent is not what HTTP/1 allows.
    Refused(Refused),
    /// It ended in the middle.
    Cut,
    /// Its body is not as long as its head said.
    Length,
}

impl Cause {
    /// The code of the reset, where it was one.
    pub fn reset(&self) -> Option<h2::Reason> {
        match self {
            Self::H2(error) if error.is_reset() => error.reason(),
            _ => None,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(out),
            Self::H2(error) => error.fmt(out),
            Self::Refused(refused) => refused.fmt(out),
            Self::Cut => out.write_str("the body ended in the middle"),
            Self::Length => out.write_str("the body has not the length that its head says"),
        }
    }
}

impl std::error::Error for Cause {}

/// Which side broke.
#[derive(Debug)]
pub enum Broken {
    /// The one that was read from.
    Source(Cause),
    /// The one that was written to.
    Sink(Cause),
}

/// Trailers as they came.
#[derive(Clone, Debug)]
pub enum Trailers {
    /// Over HTTP/1, with order and case.
    Fields(Box<Fields>),
    /// Over HTTP/2.
    Map(HeaderMap),
}

impl Trailers {
    /// For an HTTP/2 stream.
    fn into_map(self) -> HeaderMap {
        match self {
            Self::Fields(fields) => fields.to_header_map(),
            Self::Map(map) => map,
        }
    }
}

/// One side of an exchange, for bodies.
#[allow(
    clippy::large_enum_variant,
    reason = "one for each exchange, which lives in one place"
)]
pub enum Half<'a> {
    /// An HTTP/1 connection.
    H1(H1Half<'a>),
    /// An HTTP/2 stream.
    H2(H2Half),
}

/// An HTTP/1 connection with the bodies on it.
pub struct H1Half<'a> {
    /// The connection.
    pub conn: &'a mut Conn,
    /// Takes apart what comes.
    pub decoder: BodyDecoder,
    /// Puts together what goes.
    pub encoder: BodyEncoder,
}

/// An HTTP/2 stream.
#[derive(Default)]
pub struct H2Half {
    /// What comes; absent until there is something.
    pub receiver: Option<Receiver>,
    /// What goes; absent until a head was sent.
    pub sender: Option<Sender>,
    /// Bytes that the head says are still to come.
    pub expected: Option<u64>,
}

impl<'a> H1Half<'a> {
    /// Bodies are set when their heads are known.
    pub fn new(conn: &'a mut Conn) -> Self {
        Self {
            conn,
            decoder: BodyDecoder::request(BodyLength::None),
            encoder: BodyEncoder::new(BodyLength::None),
        }
    }
}

impl Half<'_> {
    /// Whether what waits should be written before more is queued.
    pub fn is_full(&self) -> bool {
        match self {
            Self::H1(half) => half.conn.is_full(),
            Self::H2(half) => half.sender.as_ref().is_some_and(Sender::is_full),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        match self {
            Self::H1(half) => half.encoder.data(bytes, half.conn.compose()).map_err(|_| Cause::Length),
            Self::H2(half) => {
                half.sender.as_mut().ok_or(Cause::Cut)?.put(bytes);
                Ok(())
            }
        }
    }

    /// Queues a part of a body.
    pub fn put_bytes(&mut self, bytes: Bytes) -> Result<(), Cause> {
        match self {
            Self::H1(half) => {
                let length = bytes.len();
                let before = half.encoder.before(length).map_err(|_| Cause::Length)?;
                half.conn.put(before.as_ref());
                half.conn.put_bytes(bytes);
                half.conn.put(half.encoder.after(length));
                Ok(())
            }
            Self::H2(half) => {
                half.sender.as_mut().ok_or(Cause::Cut)?.put_bytes(bytes);
                Ok(())
            }
        }
    }

    /// Queues a body's end.
    pub fn finish(&mut self, trailers: Option<Trailers>) -> Result<(), Cause> {
        match self {
            Self::H1(half) => {
                let (encoder, out) = (&mut half.encoder, half.conn.compose());
                match trailers {
                    None => encoder.finish(out),
                    Some(Trailers::Fields(fields)) => encoder.finish_with(&fields, out),
                    Some(Trailers::Map(map)) => encoder.finish_with_map(&map, out),
                }
                .map_err(|_| Cause::Length)
            }
            Self::H2(half) => {
                if let Some(sender) = &mut half.sender {
                    sender.finish(trailers.map(Trailers::into_map));
                }
                Ok(())
            }
        }
    }

    /// Writes everything that waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        match self {
            Self::H1(half) => half.conn.poll_flush(cx).map_err(Cause::Io),
            Self::H2(half) => match &mut half.sender {
                Some(sender) => sender.poll_flush(cx).map_err(Cause::H2),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// Throws away what comes, until the body's end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        loop {
            match self {
                Self::H1(half) => {
                    let (used, piece) = half.decoder.step(half.conn.unread.bytes()).map_err(Cause::Refused)?;
                    let ended = match piece {
                        Piece::Data(_) => Some(false),
                        Piece::Trailers(_) | Piece::End => Some(true),
                        Piece::NeedMore => None,
                    };
                    half.conn.unread.used(used);
                    match ended {
                        Some(false) => {}
                        Some(true) => return Poll::Ready(Ok(())),
                        None if ready!(half.conn.poll_fill(cx, BLOCK)).map_err(Cause::Io)? > 0 => {}
                        None if half.decoder.close() => return Poll::Ready(Ok(())),
                        None => return Poll::Ready(Err(Cause::Cut)),
                    }
                }
                Self::H2(half) => match &mut half.receiver {
                    None => return Poll::Ready(Ok(())),
                    Some(receiver) => {
                        if let Got::End(_) = ready!(receiver.poll_next(cx)).map_err(Cause::H2)? {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
            }
        }
    }

    /// Takes in what must not lie below while it cannot go on.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        if let Self::H2(H2Half {
            receiver: Some(receiver),
            ..
        }) = self
        {
            receiver.take_in(cx);
        }
    }
}

/// What was taken from a client before its request was answered, so that it can be sent once more elsewhere.
#[derive(Default)]
pub struct Kept {
    pieces: Vec<Bytes>,
    length: usize,
    ended: Option<Option<Trailers>>,
    is_over: bool,
    /// Where else it goes as it is taken.
    copies: Vec<Copier>,
}

impl Kept {
    fn add(&mut self, bytes: impl FnOnce() -> Bytes, length: usize) {
        if self.is_over && self.copies.is_empty() {
            return;
        }
        let bytes = bytes();
        self.copies.retain(|copy| copy.put(bytes.clone()));
        if self.is_over {
            return;
        }
        self.length += length;
        if self.length > limits::EARLY {
            return self.stop();
        }
        self.pieces.push(bytes);
    }

    fn end(&mut self, trailers: &Option<Trailers>) {
        for copy in self.copies.drain(..) {
            copy.end(trailers.clone());
        }
        if !self.is_over {
            self.ended = Some(trailers.clone());
        }
    }

    /// The body goes to a copy of the request as well.
    pub fn copy_to(&mut self, copy: Copier) {
        self.copies.push(copy);
    }

    /// The same, where what is taken is wanted for anything.
    pub fn if_wanted(&mut self) -> Option<&mut Self> {
        (!self.is_over || !self.copies.is_empty()).then_some(self)
    }

    /// Whether the request can be sent once more from its beginning.
    pub fn is_complete(&self) -> bool {
        !self.is_over
    }

    /// Nothing is kept any more: the answer has begun.
    pub fn stop(&mut self) {
        *self = Self {
            is_over: true,
            copies: std::mem::take(&mut self.copies),
            ..Self::default()
        };
    }
}

/// Moves one direction of an exchange.
#[derive(Default)]
pub struct Pump {
    /// Bytes of the body so far.
    pub bytes: u64,
    /// The source's end was passed on.
    finished: bool,
    /// Everything was written, or nothing more can be.
    done: bool,
    /// `grpc-status` in the trailers.
    pub grpc_status: Option<u32>,
}

impl Pump {
    /// Whether there is nothing left to do.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the source's body was taken completely.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Gives up: the sink takes no more.
    pub fn give_up(&mut self) {
        self.done = true;
    }

    /// Sends once more what was taken before.
    pub fn replay(&mut self, kept: &Kept, to: &mut Half<'_>) -> Result<(), Cause> {
        self.bytes = 0;
        for piece in &kept.pieces {
            self.bytes += piece.len() as u64;
            to.put_bytes(piece.clone())?;
        }
        if let Some(trailers) = &kept.ended {
            to.finish(trailers.clone())?;
            self.finished = true;
        }
        Ok(())
    }

    /// Moves what can be moved. Ready when all of the body is on its way.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Half<'_>,
        to: &mut Half<'_>,
        mut kept: Option<&mut Kept>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.finished {
                ready!(to.poll_flush(cx)).map_err(Broken::Sink)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if to.is_full() {
                match to.poll_flush(cx) {
                    Poll::Ready(flushed) => flushed.map_err(Broken::Sink)?,
                    Poll::Pending => {
                        from.take_in(cx);
                        return Poll::Pending;
                    }
                }
            }
            let moved = match from {
                Half::H1(from) => self.move_h1(cx, from, to, &mut kept),
                Half::H2(from) => self.move_h2(cx, from, to, &mut kept),
            };
            match moved {
                Poll::Ready(moved) => moved?,
                Poll::Pending => {
                    if let Poll::Ready(Err(cause)) = to.poll_flush(cx) {
                        return Poll::Ready(Err(Broken::Sink(cause)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn end(
        &mut self,
        trailers: Option<Trailers>,
        to: &mut Half<'_>,
        kept: &mut Option<&mut Kept>,
    ) -> Result<(), Broken> {
        self.finished = true;
        if let Some(Trailers::Map(map)) = &trailers {
            self.grpc_status = crate::exchange::head::grpc_status(map);
        }
        if let Some(kept) = kept {
            kept.end(&trailers);
        }
        to.finish(trailers).map_err(Broken::Sink)
    }

    fn move_h1(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut H1Half<'_>,
        to: &mut Half<'_>,
        kept: &mut Option<&mut Kept>,
    ) -> Poll<Result<(), Broken>> {
        let refused = |refused| Broken::Source(Cause::Refused(refused));
        let unread = &mut from.conn.unread;
        let (used, piece) = from.decoder.step(unread.bytes()).map_err(refused)?;
        match piece {
            Piece::Data(data) => {
                self.bytes += data.len() as u64;
                if let Some(kept) = kept {
                    kept.add(|| Bytes::copy_from_slice(data), data.len());
                }
                to.put(data).map_err(Broken::Sink)?;
                unread.used(used);
            }
            Piece::Trailers(fields) => {
                unread.used(used);
                self.end(Some(Trailers::Fields(fields)), to, kept)?;
            }
            Piece::End => {
                unread.used(used);
                self.end(None, to, kept)?;
            }
            Piece::NeedMore => {
                unread.used(used);
                let count = ready!(from.conn.poll_fill(cx, BLOCK)).map_err(|error| Broken::Source(Cause::Io(error)))?;
                if count == 0 {
                    if !from.decoder.close() {
                        return Poll::Ready(Err(Broken::Source(Cause::Cut)));
                    }
                    self.end(None, to, kept)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn move_h2(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut H2Half,
        to: &mut Half<'_>,
        kept: &mut Option<&mut Kept>,
    ) -> Poll<Result<(), Broken>> {
        let wrong = || Broken::Source(Cause::Length);
        let Some(receiver) = &mut from.receiver else {
            return Poll::Ready(self.end(None, to, kept));
        };
        match ready!(receiver.poll_next(cx)).map_err(|error| Broken::Source(Cause::H2(error)))? {
            Got::Data(bytes) => {
                let length = bytes.len() as u64;
                self.bytes += length;
                if let Some(expected) = &mut from.expected {
                    // RFC 9113 8.1.1; h2 looks at this too.
                    *expected = expected.checked_sub(length).ok_or_else(wrong)?;
                }
                if let Some(kept) = kept {
                    kept.add(|| bytes.clone(), bytes.len());
                }
                to.put_bytes(bytes).map_err(Broken::Sink)?;
                if receiver.is_over() {
                    if from.expected.is_some_and(|expected| expected > 0) {
                        return Poll::Ready(Err(wrong()));
                    }
                    self.end(None, to, kept)?;
                }
            }
            Got::End(trailers) => {
                if from.expected.is_some_and(|expected| expected > 0) {
                    return Poll::Ready(Err(wrong()));
                }
                self.end(trailers.map(Trailers::Map), to, kept)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}
