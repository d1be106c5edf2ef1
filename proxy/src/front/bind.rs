//! Sockets of a gateway's ports: each worker binds its own, in both families, while the port is wanted.
//!
//! A port that goes away takes what the kernel had accepted already, and then nothing more. One that cannot be bound is told, and
//! tried again; the others go on.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::{net::TcpListener, sync::oneshot};
use weft_proto::limits;

use super::{Front, port::Open};
use crate::{
    accept::{self, Place},
    app::Shared,
    connection,
};

/// A port as one worker has it.
struct Here {
    open: Arc<Open>,
    /// The families that are bound; dropped when the port is not wanted any more.
    sockets: Vec<(SocketAddr, oneshot::Sender<()>)>,
}

/// Binds and unbinds for one worker, for ever. Runs on that worker's own runtime.
pub async fn run(worker: usize, shared: Arc<Shared>) {
    let Some(front) = shared.front.clone() else { return };
    let mut opens = front.opens();
    let mut here: Vec<Here> = Vec::new();
    loop {
        let wanted = opens.borrow_and_update().clone();
        here.retain(|port| wanted.iter().any(|open| Arc::ptr_eq(open, &port.open)));
        let mut is_complete = true;
        for open in wanted.iter() {
            let at = match here.iter().position(|port| Arc::ptr_eq(&port.open, open)) {
                Some(at) => at,
                None => {
                    here.push(Here {
                        open: open.clone(),
                        sockets: Vec::new(),
                    });
                    here.len() - 1
                }
            };
            is_complete &= here[at].bind(worker, &front, &shared);
        }
        if is_complete {
            if opens.changed().await.is_err() {
                return;
            }
        } else {
            // Whoever has the port may let go of it.
            let _ = tokio::time::timeout(limits::BIND_PAUSE, opens.changed()).await;
        }
    }
}

impl Here {
    /// Binds what is not bound yet; whether nothing is left to be tried again.
    fn bind(&mut self, worker: usize, front: &Front, shared: &Arc<Shared>) -> bool {
        let number = self.open.number;
        let mut troubles = Vec::new();
        for address in [
            (Ipv4Addr::UNSPECIFIED, number).into(),
            (Ipv6Addr::UNSPECIFIED, number).into(),
        ] {
            if self.sockets.iter().any(|(bound, _)| *bound == address) {
                continue;
            }
            match listen(address) {
                Ok(listener) => {
                    let (stop, stopped) = oneshot::channel();
                    self.sockets.push((address, stop));
                    let (open, of) = (self.open.clone(), shared.clone());
                    let serve = move |stream, client, place: Place| {
                        connection::gateway::accepted(stream, client, open.clone(), of.clone(), place)
                    };
                    tokio::spawn(Box::pin(accept::serve(listener, shared.clone(), stopped, serve)));
                }
                Err(error) if accept::is_missing_family(address, &error) => {
                    tracing::debug!(%address, "the node has no IPv6");
                }
                Err(error) => troubles.push(format!("{address}: {error}")),
            }
        }
        let is_complete = troubles.is_empty();
        if self.open.tried(worker, troubles) {
            let troubles = self.open.troubles();
            match &troubles[..] {
                [] => tracing::info!(port = number, worker, "the port is open"),
                _ => tracing::warn!(
                    port = number,
                    worker,
                    ?troubles,
                    "the port cannot be bound; it is tried again"
                ),
            }
            front.count_unbound();
        }
        is_complete
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(accept::bind(address)?)
}
