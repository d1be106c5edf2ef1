//! Bodies taken apart: lengths, chunks and trailers, bytes until the close.

use super::fields::Fields;
use super::{BodyLength, Refused, trailers};
use bytes::{Buf, Bytes, BytesMut};
use weft_proto::limits;

/// What the next bytes of a body are, borrowed from the input.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes of the body; never empty.
    Data(&'a [u8]),
    /// The trailers that may pass; perhaps none of those that were sent. [`Piece::End`] follows.
    Trailers(Box<Fields>),
    /// The body is complete. What follows in the input belongs to the next message.
    End,
    /// All input is consumed; there is more to come.
    NeedMore,
}

/// As [`Piece`], with its bytes owned.
#[derive(Debug)]
pub enum Frame {
    /// Bytes of the body; never empty.
    Data(Bytes),
    /// The trailers that may pass.
    Trailers(Box<Fields>),
    /// The body is complete.
    End,
    /// All input is consumed; there is more to come.
    NeedMore,
}

/// Takes one body apart, whatever the pieces are in which it arrives. Everything between the data is consumed as it comes,
/// so that the caller's buffer never has to grow for it.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Old servers pad a chunk's size with blanks.
    blanks_after_size: bool,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    Size {
        value: u64,
        digits: u8,
    },
    Blanks {
        value: u64,
    },
    Extension {
        value: u64,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// CR LF of the last line before, then what was read of the section.
    Trailers(Vec<u8>),
    End,
}

impl BodyDecoder {
    /// For the body of a request.
    pub fn request(length: BodyLength) -> BodyDecoder {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => State::End,
            BodyLength::Length(left) => State::Length(left),
            BodyLength::Chunked => State::Size { value: 0, digits: 0 },
            BodyLength::UntilClose => State::UntilClose,
        };
        BodyDecoder {
            state,
            extensions: 0,
            blanks_after_size: false,
        }
    }

    /// For the body of a response.
    pub fn response(length: BodyLength) -> BodyDecoder {
        BodyDecoder {
            blanks_after_size: true,
            ..BodyDecoder::request(length)
        }
    }

    /// Whether the body is complete.
    pub fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// The peer closed: whether the body is complete by that. If not, it was cut off, and the other side must see that too.
    pub fn close(&mut self) -> bool {
        if let State::UntilClose = self.state {
            self.state = State::End;
        }
        self.is_end()
    }

    /// Bytes that are known to be still to come, at least.
    pub fn remaining(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data { left } => left,
            _ => 0,
        }
    }

    /// Takes the next piece from the front of `input`: how many bytes it took, and what it is. Data is the end of what it took.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), Refused> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match &mut self.state {
                State::End => return Ok((used, Piece::End)),
                _ if rest.is_empty() => return Ok((used, Piece::NeedMore)),
                State::UntilClose => return Ok((input.len(), Piece::Data(rest))),
                State::Length(left) => {
                    let data = front(rest, left);
                    if *left == 0 {
                        self.state = State::End;
                    }
                    return Ok((used + data.len(), Piece::Data(data)));
                }
                State::Data { left } => {
                    let data = front(rest, left);
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((used + data.len(), Piece::Data(data)));
                }
                State::Trailers(block) => {
                    let (taken, complete) = trailer_lines(block, rest)?;
                    used += taken;
                    if complete {
                        let block = std::mem::take(block);
                        self.state = State::End;
                        // Nothing between the last chunk and the blank line.
                        if block != b"\r\n\r\n" {
                            return Ok((used, Piece::Trailers(Box::new(trailers::parse(block)?))));
                        }
                    }
                }
                _ => {
                    used += 1;
                    self.grammar(rest[0])?;
                }
            }
        }
    }

    /// One byte of what stands between the data.
    fn grammar(&mut self, byte: u8) -> Result<(), Refused> {
        self.state = match (&self.state, byte) {
            (&State::Size { digits: 16, .. }, b) if b.is_ascii_hexdigit() => return Err(Refused::ChunkTooBig),
            (&State::Size { value, digits }, b) if b.is_ascii_hexdigit() => {
                let digit = (b as char).to_digit(16).expect("a hexadecimal digit");
                State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Refused::ChunkSize),
            (&State::Size { value, .. } | &State::Blanks { value }, b'\r') => State::SizeLf { value },
            (&State::Size { value, .. } | &State::Blanks { value }, b';') => State::Extension { value },
            (&State::Size { value, .. } | &State::Blanks { value }, b' ' | b'\t') if self.blanks_after_size => {
                self.count_extension()?;
                State::Blanks { value }
            }
            (State::Size { .. } | State::Blanks { .. }, _) => return Err(Refused::ChunkSize),
            (&State::Extension { value }, b'\r') => State::SizeLf { value },
            (&State::Extension { value }, b'\t' | b' '..=0x7e | 0x80..) => {
                self.count_extension()?;
                State::Extension { value }
            }
            (State::Extension { .. }, _) => return Err(Refused::ChunkExtension),
            (State::SizeLf { value: 0 }, b'\n') => State::Trailers(Vec::new()),
            (&State::SizeLf { value }, b'\n') => State::Data { left: value },
            (State::SizeLf { .. }, _) => return Err(Refused::ChunkSize),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            _ => return Err(Refused::ChunkEnd),
        };
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), Refused> {
        self.extensions += 1;
        if self.extensions > limits::CHUNK_EXTENSIONS {
            Err(Refused::ChunkExtension)
        } else {
            Ok(())
        }
    }

    /// As [`BodyDecoder::step`], and takes the bytes out of `buffer`: data shares the buffer's memory.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Frame, Refused> {
        let (used, piece) = self.step(buffer)?;
        let data = match piece {
            Piece::Data(data) => data.len(),
            Piece::Trailers(fields) => {
                buffer.advance(used);
                return Ok(Frame::Trailers(fields));
            }
            Piece::End => {
                buffer.advance(used);
                return Ok(Frame::End);
            }
            Piece::NeedMore => {
                buffer.advance(used);
                return Ok(Frame::NeedMore);
            }
        };
        buffer.advance(used - data);
        Ok(Frame::Data(buffer.split_to(data).freeze()))
    }
}

/// As many of the bytes as are left, which are counted.
fn front<'a>(bytes: &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= count as u64;
    &bytes[..count]
}

/// Adds lines of the trailer section to `block` up to its blank line: how many bytes it took, and whether that is complete.
fn trailer_lines(block: &mut Vec<u8>, input: &[u8]) -> Result<(usize, bool), Refused> {
    if block.is_empty() {
        if input.starts_with(b"\r\n") {
            // Nearly always.
            block.extend_from_slice(b"\r\n\r\n");
            return Ok((2, true));
        }
        block.extend_from_slice(b"\r\n");
    }
    let mut used = 0;
    while used < input.len() {
        let rest = &input[used..];
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        if block.len() - 2 + end > limits::TRAILERS {
            return Err(Refused::TrailersTooLong);
        }
        block.extend_from_slice(&rest[..end]);
        used += end;
        if rest[end - 1] == b'\n' && !block.ends_with(b"\r\n") {
            return Err(Refused::Newline);
        }
        if block.ends_with(b"\r\n\r\n") {
            return Ok((used, true));
        }
    }
    Ok((used, false))
}
