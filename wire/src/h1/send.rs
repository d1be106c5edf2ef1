//! Bodies put together: what is written around each piece of data, so that the data itself need not be copied.

use super::{BodyLength, Fields, trailer_passes};
use bytes::BytesMut;

/// More or fewer bytes than the head says. The connection must be closed: what was written is not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body has not the length that its head says")]
pub struct WrongLength;

/// What stands before a chunk's data: its size in hexadecimal digits and CR LF. Nothing where the body is not chunked.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHead {
    const NONE: ChunkHead = ChunkHead {
        bytes: [0; 18],
        start: 18,
    };

    fn of(mut size: usize) -> ChunkHead {
        let mut bytes = [0; 18];
        bytes[16..].copy_from_slice(b"\r\n");
        let mut start = 16;
        while start == 16 || size > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[size & 15];
            size >>= 4;
        }
        ChunkHead {
            bytes,
            start: start as u8,
        }
    }
}

impl AsRef<[u8]> for ChunkHead {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}

/// Puts one body together, for either role. For each piece: [`BodyEncoder::before`], the data, [`BodyEncoder::after`], in
/// one vectored write or by [`BodyEncoder::data`]; at the end [`BodyEncoder::finish`].
#[derive(Clone, Copy, Debug)]
pub struct BodyEncoder {
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Length(u64),
    Chunked,
    UntilClose,
    Finished,
}

impl BodyEncoder {
    /// For a body whose head says this.
    pub fn new(length: BodyLength) -> BodyEncoder {
        let state = match length {
            BodyLength::None => State::Length(0),
            BodyLength::Length(left) => State::Length(left),
            BodyLength::Chunked => State::Chunked,
            BodyLength::UntilClose => State::UntilClose,
        };
        BodyEncoder { state }
    }

    /// Whether trailers can be written.
    pub fn has_trailers(&self) -> bool {
        self.state == State::Chunked
    }

    /// What to write before `length` bytes of data. An empty piece is nothing at all: a chunk of no bytes would be the end.
    pub fn before(&mut self, length: usize) -> Result<ChunkHead, WrongLength> {
        match &mut self.state {
            _ if length == 0 => Ok(ChunkHead::NONE),
            State::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or(WrongLength)?;
                Ok(ChunkHead::NONE)
            }
            State::Chunked => Ok(ChunkHead::of(length)),
            State::UntilClose => Ok(ChunkHead::NONE),
            State::Finished => Err(WrongLength),
        }
    }

    /// What to write after `length` bytes of data.
    pub fn after(&self, length: usize) -> &'static [u8] {
        if self.state == State::Chunked && length > 0 {
            b"\r\n"
        } else {
            b""
        }
    }

    /// Writes one piece with what stands around it.
    pub fn data(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), WrongLength> {
        let before = self.before(data.len())?;
        out.reserve(data.len() + 20);
        out.extend_from_slice(before.as_ref());
        out.extend_from_slice(data);
        out.extend_from_slice(self.after(data.len()));
        Ok(())
    }

    /// Writes the end of the body. Afterwards nothing can be written.
    pub fn finish(&mut self, out: &mut BytesMut) -> Result<(), WrongLength> {
        self.end(|_| {}, out)
    }

    /// Writes the end of the body with trailers that came over HTTP/1. Where the body is not chunked they cannot be said
    /// and are left out ([`BodyEncoder::has_trailers`]).
    pub fn finish_with(&mut self, fields: &Fields, out: &mut BytesMut) -> Result<(), WrongLength> {
        let kept = |name: &str| trailer_passes(name);
        self.end(
            |out| {
                fields
                    .list
                    .iter()
                    .filter(|at| kept(fields.name(at)))
                    .for_each(|at| out.extend_from_slice(fields.line(at)))
            },
            out,
        )
    }

    /// As [`BodyEncoder::finish_with`], for trailers that came over HTTP/2.
    pub fn finish_with_map(&mut self, map: &http::HeaderMap, out: &mut BytesMut) -> Result<(), WrongLength> {
        self.end(|out| super::encode_trailers(map, out), out)
    }

    fn end(&mut self, trailers: impl FnOnce(&mut BytesMut), out: &mut BytesMut) -> Result<(), WrongLength> {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Length(0) | State::UntilClose => Ok(()),
            State::Length(_) | State::Finished => Err(WrongLength),
            State::Chunked => {
                out.extend_from_slice(b"0\r\n");
                trailers(out);
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}
