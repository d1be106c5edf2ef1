//! Where the frames of a WebSocket begin and end (RFC 6455 5.2): headers are looked at, payloads are skipped unseen.
//!
//! So much is enough to say a Close frame where one fits, and to know that one was said: control frames may stand between
//! the fragments of a message, and are never compressed (RFC 7692 6.1).

use crate::endpoint::balance::random;

/// Opcode of a Close frame.
const CLOSE: u8 = 8;
/// FIN and that opcode: the first byte of a Close frame.
const CLOSE_FRAME: u8 = 0x80 | CLOSE;
/// In the second byte: a mask follows.
const MASKED: u8 = 0x80;
/// 1001: the endpoint is going away, such as a server going down (RFC 6455 7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// How far one direction of a WebSocket has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Bytes of a header that were seen; 0 outside of headers.
    seen: u8,
    /// Bytes of the header that say the length, after the first two.
    length: u8,
    /// Bytes of the whole header.
    header: u8,
    /// What is left of the payload; within a header, its length as far as that was said.
    left: u64,
    /// The frame is a Close.
    is_close: bool,
    closed: bool,
    lost: bool,
}

impl Frames {
    /// Looks at bytes that went on.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            let used = self.step(bytes);
            bytes = &bytes[used..];
        }
    }

    /// How many of these bytes belong to a frame that has begun before; none where it does not end among them.
    pub fn rest(&self, bytes: &[u8]) -> Option<usize> {
        let mut ahead = self.clone();
        let mut at = 0;
        while !ahead.is_between() {
            if ahead.lost || at == bytes.len() {
                return None;
            }
            at += ahead.step(&bytes[at..]);
        }
        Some(at)
    }

    /// Whether a Close frame would be understood here: it cuts no frame, and none was said before.
    pub fn may_close(&self) -> bool {
        self.is_between() && !self.closed
    }

    /// Whether a Close frame went by.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn is_between(&self) -> bool {
        !self.lost && self.seen == 0 && self.left == 0
    }

    /// Takes one byte of a header, or what there is of a payload; how many bytes that were.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let taken = if self.seen == 0 && self.left > 0 {
            let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= taken as u64;
            taken
        } else {
            self.header_byte(bytes[0]);
            1
        };
        self.closed |= self.is_close && self.is_between();
        taken
    }

    fn header_byte(&mut self, byte: u8) {
        match self.seen {
            0 => self.is_close = byte & 0x0f == CLOSE,
            1 => {
                (self.length, self.left) = match byte & 0x7f {
                    126 => (2, 0),
                    127 => (8, 0),
                    length => (0, length.into()),
                };
                self.header = 2 + self.length + if byte & MASKED == 0 { 0 } else { 4 };
            }
            at if at < 2 + self.length => {
                // RFC 6455 5.2: the highest of 64 bits is 0. What follows could be anything.
                self.lost |= self.length == 8 && at == 2 && byte & 0x80 != 0;
                self.left = self.left << 8 | u64::from(byte);
            }
            _ => {}
        }
        self.seen += 1;
        if self.seen >= 2 && self.seen == self.header {
            self.seen = 0;
        }
    }
}

/// A Close frame on its way.
#[derive(Clone, Copy, Debug)]
pub struct Close {
    frame: [u8; 8],
    written: u8,
    end: u8,
}

impl Close {
    /// As a server says it.
    pub fn from_server() -> Self {
        let [high, low] = GOING_AWAY;
        Self {
            frame: [CLOSE_FRAME, 2, high, low, 0, 0, 0, 0],
            written: 0,
            end: 4,
        }
    }

    /// As a client says it: masked, with numbers that scripts cannot foresee (RFC 6455 5.3).
    pub fn from_client() -> Self {
        let [a, b, c, d, ..] = random().to_be_bytes();
        let [high, low] = GOING_AWAY;
        Self {
            frame: [CLOSE_FRAME, MASKED | 2, a, b, c, d, high ^ a, low ^ b],
            written: 0,
            end: 8,
        }
    }

    /// What is still to be written of it.
    pub fn rest(&self) -> &[u8] {
        &self.frame[usize::from(self.written)..usize::from(self.end)]
    }

    /// So much more of it was written.
    pub fn written(&mut self, count: usize) {
        self.written += count as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One frame of this opcode, length and mask.
    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        // Bytes that would be headers of Close frames, if anybody took them for headers.
        bytes.resize(bytes.len() + length, 0x88);
        bytes
    }

    #[test]
    fn a_close_frame_is_what_it_says() {
        let mut frames = Frames::default();
        frames.see(Close::from_server().rest());
        assert!(frames.is_closed() && !frames.may_close());
        let close = Close::from_client();
        let [0x88, 0x82, a, b, _, _, high, low] = close.rest() else {
            panic!("{close:?}")
        };
        assert_eq!(u16::from_be_bytes([high ^ a, low ^ b]), 1001);
        let mut close = Close::from_server();
        close.written(3);
        assert_eq!(close.rest(), [0xe9]);
    }

    #[test]
    fn a_length_that_cannot_be_is_never_spoken_after() {
        let mut frames = Frames::default();
        frames.see(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!frames.may_close() && frames.rest(&[0; 100]).is_none());
        frames.see(&[0; 100]);
        assert!(!frames.may_close());
    }

    fn a_frame() -> impl Strategy<Value = (u8, usize, bool)> {
        let length = prop_oneof![0..200usize, 120..130usize, 65_530..65_540usize];
        (prop_oneof![0..3u8, 9..11u8], length, any::<bool>())
    }

    proptest! {
        #[test]
        fn any_segmentation_yields_the_same_boundaries(
            all in proptest::collection::vec(a_frame(), 1..6),
            cuts in proptest::collection::vec(1..5000usize, 0..40),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (opcode, length, masked) in all {
                bytes.extend(frame(opcode, length, masked));
                ends.push(bytes.len());
            }
            let mut frames = Frames::default();
            let mut at = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                prop_assert_eq!(frames.may_close(), ends.contains(&at), "at {}", at);
                let next = ends.iter().copied().find(|end| *end >= at).expect("the last one is the end");
                prop_assert_eq!(frames.rest(&bytes[at..]), Some(next - at));
                if next > at {
                    prop_assert_eq!(frames.rest(&bytes[at..next - 1]), None);
                }
                let end = (at + cut).min(bytes.len());
                frames.see(&bytes[at..end]);
                at = end;
            }
            prop_assert!(frames.may_close() && !frames.is_closed());
            frames.see(&frame(CLOSE, 2, true));
            prop_assert!(frames.is_closed());
        }

        #[test]
        fn any_bytes_are_looked_at_without_harm_and_alike(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0..300usize,
        ) {
            let (mut whole, mut parts) = (Frames::default(), Frames::default());
            whole.see(&bytes);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            parts.see(first);
            let _ = parts.rest(second);
            parts.see(second);
            prop_assert_eq!(whole, parts);
        }
    }
}
