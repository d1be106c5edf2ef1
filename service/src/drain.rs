//! The end of a program: stop what is new, let finish what is open, then close.
//!
//! One [`Signal`] is shared by everything that must know; what draining means is for each part.

use std::time::Duration;

use tokio::sync::watch;

/// How far the end has come. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has ended.
    Running,
    /// Finish what is open; tell clients to go elsewhere.
    Draining,
    /// Close what is still open.
    Closed,
}

/// Starts the drain, and tells how far it is. Clones are the same signal.
#[derive(Clone, Debug)]
pub struct Signal {
    phase: watch::Sender<Phase>,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Running),
        }
    }
}

impl Signal {
    /// A signal in phase Running.
    pub fn new() -> Self {
        Self::default()
    }

    /// Running → Draining.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// → Closed.
    pub fn close(&self) {
        self.advance(Phase::Closed);
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                tracing::info!(phase = ?to, "drain");
                *phase = to;
            }
            later
        });
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// A receiver of phases, for those who wait together with other things.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Returns once the phase is Draining or later.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once the phase is Closed.
    pub async fn closed(&self) {
        self.reached(Phase::Closed).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    /// Drains at SIGTERM or SIGINT and closes `grace` later, at once at the second signal. Returns when closed.
    ///
    /// Fails only where the process may not have signal handlers.
    pub async fn on_termination(&self, grace: Duration) -> std::io::Result<()> {
        let mut stop = Termination::new()?;
        tokio::select! {
            name = stop.received() => {
                tracing::info!(signal = name, grace = ?grace, "asked to end");
                self.drain();
            }
            () = self.draining() => {}
        }
        tokio::select! {
            () = tokio::time::sleep(grace) => {}
            _ = stop.received() => {}
            () = self.closed() => {}
        }
        self.close();
        Ok(())
    }
}

/// SIGTERM and SIGINT.
pub struct Termination {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Termination {
    /// Takes the signals over from now on.
    pub fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them; its name.
    pub async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_goes_one_way() {
        let signal = Signal::new();
        let waiter = {
            let signal = signal.clone();
            tokio::spawn(async move {
                signal.draining().await;
                signal.closed().await
            })
        };
        signal.drain();
        assert_eq!(signal.phase(), Phase::Draining);
        signal.close();
        signal.drain();
        assert_eq!(signal.phase(), Phase::Closed);
        waiter.await.unwrap();
    }
}
