//! Listeners: one of each address for each worker, a bound on what is open, patience when the system runs out.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
};
use weft_proto::limits;

use crate::{app::Shared, metrics};

/// A connection's place among those that the proxy holds open.
pub type Place = OwnedSemaphorePermit;

/// A listener that shares its port with those of the other workers.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::ACCEPT_QUEUE as i32)?;
    Ok(socket.into())
}

/// Whether this family is missing on the node, which is no mistake.
pub fn is_missing_family(address: SocketAddr, error: &io::Error) -> bool {
    let missing = [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL].map(Some);
    address.is_ipv6() && missing.contains(&error.raw_os_error())
}

/// Accepts until `stop`, one task for each connection. What the kernel has accepted by then is still taken.
pub async fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: impl Future,
    serve: impl Fn(TcpStream, SocketAddr, Place) -> F,
) {
    let mut stop = pin!(stop);
    loop {
        let place = place(&shared).await;
        let accepted = {
            let _waiting = Waiting::new(&shared);
            poll_fn(|cx| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending => stop.as_mut().poll(cx).map(|_| None),
            })
            .await
        };
        let Some(accepted) = accepted else { return };
        match accepted {
            Ok((stream, client)) => {
                // Boxed, since the runtime moves what it is given.
                let served: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(serve(stream, client, place));
                tokio::spawn(served);
            }
            // The client was gone before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                // No descriptors or no memory. What is open goes on, and makes room when it ends.
                metrics::limit_reached("ACCEPT_BACK_OFF");
                tracing::debug!(%error, "cannot accept for now");
                tokio::time::sleep(limits::ACCEPT_BACK_OFF).await;
            }
        }
    }
}

/// A place that waits for its client.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting_places.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting_places.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn place(shared: &Arc<Shared>) -> OwnedSemaphorePermit {
    let places = &shared.places;
    match places.clone().try_acquire_owned() {
        Ok(place) => place,
        Err(_) => {
            metrics::limit_reached("CONNECTIONS");
            places
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed")
        }
    }
}
