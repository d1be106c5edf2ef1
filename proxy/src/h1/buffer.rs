//! Memory for bytes on their way: taken from the thread when there is something to hold, given back when there is not.
//!
//! An idle connection holds none. The memory is initialised once, when the thread first makes it.

use bytes::BytesMut;
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Size of one block.
pub const BLOCK: usize = 16 << 10;
/// Blocks that a thread keeps for later.
const KEPT: usize = 64;

thread_local! {
    static BLOCKS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static TEXTS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

fn take_block() -> Box<[u8]> {
    BLOCKS
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice())
}

fn give_block(block: Box<[u8]>) {
    if block.len() == BLOCK {
        // A thread that is ending keeps nothing.
        let _ = BLOCKS.try_with(|blocks| {
            let mut blocks = blocks.borrow_mut();
            if blocks.len() < KEPT {
                blocks.push(block);
            }
        });
    }
}

/// Empty memory to compose bytes in.
pub fn take_text() -> BytesMut {
    TEXTS
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| BytesMut::with_capacity(BLOCK))
}

/// Gives it back.
pub fn give_text(mut text: BytesMut) {
    if text.capacity() >= BLOCK && text.capacity() <= 4 * BLOCK {
        text.clear();
        let _ = TEXTS.try_with(|texts| {
            let mut texts = texts.borrow_mut();
            if texts.len() < KEPT {
                texts.push(text);
            }
        });
    }
}

/// Bytes that were read and not used yet.
#[derive(Default)]
pub struct Unread {
    block: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Unread {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes were used.
    pub fn used(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start >= self.end {
            self.clear();
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        give_block(std::mem::take(&mut self.block));
    }

    /// Reads once, behind what is there. At most `limit` bytes are held: with so many, nothing is read and the answer is
    /// an error of the kind `OutOfMemory`.
    pub fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        if self.len() >= limit {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        if self.block.is_empty() {
            self.block = take_block();
        } else if self.end == self.block.len() {
            self.make_room();
        }
        let end = self.block.len().min(self.start + limit);
        let mut into = ReadBuf::new(&mut self.block[self.end..end]);
        let polled = Pin::new(io).poll_read(cx, &mut into);
        let count = into.filled().len();
        self.end += count;
        if self.is_empty() {
            self.clear();
        }
        polled.map_ok(|()| count)
    }

    fn make_room(&mut self) {
        if self.start >= self.block.len() / 4 {
            self.block.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = vec![0; self.block.len() * 2].into_boxed_slice();
            larger[..self.len()].copy_from_slice(self.bytes());
            give_block(std::mem::replace(&mut self.block, larger));
        }
        (self.start, self.end) = (0, self.end - self.start);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        give_block(std::mem::take(&mut self.block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn fill(unread: &mut Unread, mut from: &[u8], limit: usize) -> io::Result<usize> {
        match unread.poll_fill(&mut from, &mut Context::from_waker(Waker::noop()), limit) {
            Poll::Ready(done) => done,
            Poll::Pending => unreachable!("a slice is always ready"),
        }
    }

    #[test]
    fn holds_memory_only_while_bytes_are_unread() {
        let mut unread = Unread::default();
        assert_eq!(unread.block.len(), 0);
        fill(&mut unread, b"abc", 100).unwrap();
        assert_eq!(unread.block.len(), BLOCK);
        unread.used(2);
        assert_eq!(unread.bytes(), b"c");
        unread.used(1);
        assert_eq!(unread.block.len(), 0);
        assert_eq!(fill(&mut unread, b"", 100).unwrap(), 0);
        assert_eq!(unread.block.len(), 0);
    }

    #[test]
    fn keeps_the_order_while_it_moves_and_grows() {
        let data: Vec<u8> = (0..60_000u32).map(|number| number as u8).collect();
        let mut unread = Unread::default();
        let mut from = 0;
        while from < data.len() {
            from += fill(&mut unread, &data[from..], 64 << 10).unwrap();
        }
        assert_eq!(unread.bytes(), &data[..]);
        unread.used(30_000);
        fill(&mut unread, b"tail", 64 << 10).unwrap();
        assert_eq!(&unread.bytes()[..30_000], &data[30_000..]);
        assert_eq!(&unread.bytes()[30_000..], b"tail");
    }

    #[test]
    fn refuses_to_hold_more_than_its_limit() {
        let mut unread = Unread::default();
        assert_eq!(fill(&mut unread, &[1; 100], 40).unwrap(), 40);
        assert_eq!(
            fill(&mut unread, &[1; 100], 40).unwrap_err().kind(),
            io::ErrorKind::OutOfMemory
        );
    }
}
