//! How a WebSocket ends with its pod: with a Close frame that says so, and not with a connection that breaks.
//!
//! An application that is stopped often ends without a word, and its sockets with it. weft knows that the pod is going
//! away, and says that in its place: 1001, where no frame is cut by it and nothing was said before. So it does on both
//! sides when the drain's time has passed. Everything else, and every other tunnel, is left as it is. The bytes
//! themselves are `relay/bytes.rs`' matter.

pub mod frames;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{sleep, timeout};
use weft_proto::limits;
use weft_service::drain::Phase;

use super::bytes::Side;
use crate::{app::Shared, connection::Connection, fault::Reason, hop::tcp, role::Direction};

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What one WebSocket looks at beside its bytes.
pub struct Parting {
    /// The side on which the pod's own application is.
    app: Side,
    is_gone: Asked,
    leaves: Option<Waiting<()>>,
}

/// Whether an application that ended without a word has ended with its pod.
enum Asked {
    /// Nobody has asked yet.
    Not(Arc<Shared>, Option<SocketAddr>),
    Waits(Waiting<bool>),
}

impl Parting {
    /// For a WebSocket of this connection; `server`: the endpoint at its other end.
    pub fn new(connection: &Connection, server: Option<SocketAddr>) -> Box<Self> {
        let shared = connection.shared.clone();
        let farewell = shared.farewell.clone();
        let (app, address) = match connection.facts.direction {
            Direction::Inbound => (Side::Server, server),
            // Nobody can ask whether a client is still there.
            Direction::Outbound | Direction::Gateway => (Side::Client, None),
        };
        Box::new(Self {
            app,
            is_gone: Asked::Not(shared, address),
            leaves: Some(Box::pin(async move { farewell.draining().await })),
        })
    }

    /// The side on which the pod's own application is.
    pub fn app(&self) -> Side {
        self.app
    }

    /// Ready once: the process is about to end.
    pub fn poll_leaves(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(leaves) = &mut self.leaves else {
            return Poll::Pending;
        };
        let left = leaves.as_mut().poll(cx);
        if left.is_ready() {
            self.leaves = None;
        }
        left
    }

    /// Whether the application, which has ended without a word, has ended with its pod.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Asked::Not(shared, address) = &self.is_gone {
            self.is_gone = Asked::Waits(Box::pin(is_gone(shared.clone(), *address)));
        }
        match &mut self.is_gone {
            Asked::Waits(waits) => waits.as_mut().poll(cx),
            Asked::Not(..) => Poll::Pending,
        }
    }
}

/// The word that a pod ends comes by another way than the end of its application, and may be the later one. An
/// application that takes no more connections is gone, whoever ended it.
async fn is_gone(shared: Arc<Shared>, app: Option<SocketAddr>) -> bool {
    // What comes in is drained first; what goes out, only when the application has ended.
    if shared.inbound_drain.phase() > Phase::Running {
        return true;
    }
    let Some(app) = app else { return false };
    let refused = async || matches!(tcp::dial(app).await, Err(fault) if fault.reason == Reason::ConnectRefused);
    let asked = async {
        if refused().await {
            return true;
        }
        sleep(limits::FAREWELL_WAIT).await;
        refused().await
    };
    tokio::select! {
        () = shared.inbound_drain.draining() => true,
        gone = timeout(2 * limits::FAREWELL_WAIT, asked) => gone.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests;
