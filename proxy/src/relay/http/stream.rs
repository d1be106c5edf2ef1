//! The two directions of an HTTP/2 stream, as bodies need them.
//!
//! DATA is fetched as soon as it is there, since h2 charges small frames that lie unread to the whole connection; its
//! flow-control capacity is given back only when it goes on, so that the window bounds the memory. What is sent is joined
//! into few frames, the last of which ends the stream.

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

/// Frames shorter than this are joined with their neighbours.
const SHORT: usize = 1024;
/// So much of each stream is handed to h2 without asking for room: it holds a unary call, for the price of one lock
/// instead of three.
const UNASKED: usize = 64 << 10;
/// Bytes that may wait here before their source has to wait.
const FULL: usize = 32 << 10;

/// The receiving direction.
pub struct Receiver {
    stream: RecvStream,
    /// Fetched and not gone on; their capacity is not released.
    ahead: VecDeque<Bytes>,
    /// Short frames, joined, behind `ahead`.
    joined: BytesMut,
    end: Option<Result<(), h2::Error>>,
}

/// What came next.
pub enum Got {
    /// Bytes; never empty.
    Data(Bytes),
    /// The end, with trailers or without.
    End(Option<HeaderMap>),
}

impl Receiver {
    /// Receives from this stream.
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            ahead: VecDeque::new(),
            joined: BytesMut::new(),
            end: None,
        }
    }

    /// Whether nothing follows: no data, no trailers.
    pub fn is_over(&self) -> bool {
        self.ahead.is_empty() && self.joined.is_empty() && self.stream.is_end_stream()
    }

    /// What comes next. The caller sends it on.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Got, h2::Error>> {
        loop {
            if let Some(bytes) = self.ahead.pop_front() {
                return Poll::Ready(self.went_on(bytes).map(Got::Data));
            }
            if !self.joined.is_empty() {
                let bytes = self.joined.split().freeze();
                return Poll::Ready(self.went_on(bytes).map(Got::Data));
            }
            match &self.end {
                Some(Ok(())) => {
                    let trailers = ready!(self.stream.poll_trailers(cx))?;
                    return Poll::Ready(Ok(Got::End(trailers)));
                }
                Some(Err(_)) => {
                    let error = self.end.replace(Ok(())).and_then(Result::err).expect("just looked");
                    return Poll::Ready(Err(error));
                }
                None => match ready!(self.stream.poll_data(cx)) {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => return Poll::Ready(self.went_on(bytes).map(Got::Data)),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => self.end = Some(Ok(())),
                },
            }
        }
    }

    /// Fetches what has come while it cannot go on yet.
    pub fn take_in(&mut self, cx: &mut Context<'_>) {
        self.take_in_up_to(cx, usize::MAX);
    }

    /// The same, until so many bytes are held; the rest waits below.
    pub fn take_in_up_to(&mut self, cx: &mut Context<'_>, limit: usize) {
        while self.end.is_none() && self.joined.len() + self.ahead.iter().map(Bytes::len).sum::<usize>() < limit {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) if bytes.len() < SHORT => self.joined.extend_from_slice(&bytes),
                Poll::Ready(Some(Ok(bytes))) => {
                    if !self.joined.is_empty() {
                        self.ahead.push_back(self.joined.split().freeze());
                    }
                    self.ahead.push_back(bytes);
                }
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Pending => return,
            }
        }
    }

    fn went_on(&mut self, bytes: Bytes) -> Result<Bytes, h2::Error> {
        self.stream.flow_control().release_capacity(bytes.len())?;
        Ok(bytes)
    }

    /// The stream below, and what was fetched from it and not gone on: for a tunnel.
    pub fn into_parts(mut self) -> (RecvStream, Bytes) {
        let mut ahead = BytesMut::new();
        for bytes in self.ahead.drain(..) {
            ahead.extend_from_slice(&bytes);
        }
        ahead.extend_from_slice(&self.joined);
        // The tunnel counts what it hands on itself, and does not know of these.
        let _ = self.stream.flow_control().release_capacity(ahead.len());
        (self.stream, ahead.freeze())
    }
}

/// How a direction ends.
enum Finish {
    End,
    Trailers(HeaderMap),
}

/// The sending direction.
pub struct Sender {
    stream: SendStream<Bytes>,
    first: Bytes,
    joined: BytesMut,
    finish: Option<Finish>,
    unasked: usize,
    is_over: bool,
}

impl Sender {
    /// Sends on this stream.
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            stream,
            first: Bytes::new(),
            joined: BytesMut::new(),
            finish: None,
            unasked: UNASKED,
            is_over: false,
        }
    }

    /// For a stream whose head was all.
    pub fn over(stream: SendStream<Bytes>) -> Self {
        Self {
            is_over: true,
            ..Self::new(stream)
        }
    }

    /// Queues a copy.
    pub fn put(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
    }

    /// Queues bytes.
    pub fn put_bytes(&mut self, bytes: Bytes) {
        if self.first.is_empty() && self.joined.is_empty() && bytes.len() >= SHORT {
            self.first = bytes;
        } else {
            self.joined.extend_from_slice(&bytes);
        }
    }

    /// Whether what waits should be sent before more is queued.
    pub fn is_full(&self) -> bool {
        self.first.len() + self.joined.len() >= FULL
    }

    /// Queues the end.
    pub fn finish(&mut self, trailers: Option<HeaderMap>) {
        self.finish = Some(trailers.map_or(Finish::End, Finish::Trailers));
    }

    /// Hands everything that waits to h2, as its windows allow.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            if self.first.is_empty() {
                if self.joined.is_empty() {
                    break;
                }
                self.first = self.joined.split().freeze();
            }
            let room = ready!(self.poll_room(cx))?;
            let all = room >= self.first.len();
            let bytes = self.first.split_to(room.min(self.first.len()));
            let ends = all && self.joined.is_empty() && matches!(self.finish, Some(Finish::End));
            self.stream.send_data(bytes, ends)?;
            if all {
                self.first = Bytes::new();
            }
            self.is_over = ends;
        }
        match self.finish.take() {
            None => return Poll::Ready(Ok(())),
            Some(Finish::End) => self.stream.send_data(Bytes::new(), true)?,
            Some(Finish::Trailers(trailers)) => self.stream.send_trailers(trailers)?,
        }
        self.is_over = true;
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, h2::Error>> {
        let wanted = self.first.len();
        if self.unasked > 0 {
            let room = wanted.min(self.unasked);
            self.unasked -= room;
            return Poll::Ready(Ok(room));
        }
        self.stream.reserve_capacity(wanted);
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => {
                    room?;
                }
                // Neither open nor reset with a reason: it ended under us.
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            }
        }
    }

    /// Ready when the other side has reset the stream.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }

    /// Whether everything, the end included, was handed over.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
        self.is_over = true;
    }

    /// The stream below, for a tunnel. Nothing waits here then.
    pub fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }
}
