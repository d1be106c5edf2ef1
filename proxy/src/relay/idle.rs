//! The clocks of a relay: how long it may be silent, whole and with one half closed.
//!
//! A clock is restarted by writing down the time; the timer behind it is moved only when it rings.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};
use weft_proto::limits;

/// How long a relay of bytes may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// While both directions are open.
    pub open: Duration,
    /// Once one direction has ended.
    pub half_closed: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            open: limits::TUNNEL_IDLE,
            half_closed: limits::HALF_CLOSED,
        }
    }
}

/// A running clock.
pub struct Idle {
    clocks: Clocks,
    half_closed: bool,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    /// Starts now.
    pub fn start(clocks: Clocks) -> Self {
        Self {
            clocks,
            half_closed: false,
            last: Instant::now(),
            timer: Box::pin(sleep(clocks.open)),
        }
    }

    /// Something has happened.
    pub fn restart(&mut self) {
        self.last = Instant::now();
    }

    /// One direction has ended: from now on the shorter time holds.
    pub fn half_closed(&mut self) {
        if !std::mem::replace(&mut self.half_closed, true) {
            self.restart();
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Nothing more is to be handed on: from now on there is this much time, whatever happens.
    pub fn linger(&mut self, time: Duration) {
        self.clocks = Clocks {
            open: time,
            half_closed: time,
        };
        self.restart();
        let deadline = self.deadline();
        self.timer.as_mut().reset(deadline);
    }

    fn deadline(&self) -> Instant {
        self.last
            + if self.half_closed {
                self.clocks.half_closed
            } else {
                self.clocks.open
            }
    }

    /// Ready when nothing has happened for too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.deadline() {
                return Poll::Ready(());
            }
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline);
        }
    }
}
