//! Copies of requests for other backends, whose answers are thrown away.
//!
//! A copy never delays its request and never changes it: the body is handed over as it passes, and a copy that cannot keep
//! up is given up. How many there are, how much of a body waits for each and how long one may take are bounded.

use super::{
    head::{Changes, Request, ToServer, Wants},
    server::{self, Head, Server, Way},
};
use crate::{
    connection::Connection,
    endpoint::{self, Lease},
    fault::{Fault, Reason},
    h1::pool,
    hop, metrics,
    relay::http::{Half, Trailers},
    tables::Backend,
};
use bytes::Bytes;
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};
use tokio::{sync::mpsc, time::timeout};
use weft_proto::limits;

/// Copies that are on their way.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A part of a body.
enum Piece {
    Data(Bytes),
    End(Option<Trailers>),
}

/// The end of a copy at its request: what passes there is put in here.
pub struct Copier {
    pieces: mpsc::UnboundedSender<Piece>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
}

impl Copier {
    /// Hands a part of the body over. `false`: the copy is given up.
    pub fn put(&self, bytes: Bytes) -> bool {
        let length = bytes.len();
        if self.waiting.fetch_add(length, Relaxed) + length > limits::EARLY {
            return false;
        }
        self.pieces.send(Piece::Data(bytes)).is_ok()
    }

    /// The body has ended. One that is dropped before has not.
    pub fn end(self, trailers: Option<Trailers>) {
        // A copy that is gone needs no end.
        let _ = self.pieces.send(Piece::End(trailers));
    }
}

/// Everything about one copy.
struct Mirror {
    request: Request,
    changes: Changes,
    has_body: bool,
    backend: Arc<Backend>,
    connection: Arc<Connection>,
    pieces: mpsc::UnboundedReceiver<Piece>,
    waiting: Arc<AtomicUsize>,
    /// Something of the body was sent.
    has_sent: bool,
    _place: Open,
}

struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

/// Sends a copy of the request, which is as it goes to its own backend. Its body, where it has one, is to be put in.
pub fn start(
    request: &Request,
    changes: &Changes,
    has_body: bool,
    backend: &Arc<Backend>,
    connection: &Arc<Connection>,
) -> Option<Copier> {
    let direction = connection.facts.direction;
    if OPEN.fetch_add(1, Relaxed) >= limits::MIRRORS {
        OPEN.fetch_sub(1, Relaxed);
        metrics::limit_reached("MIRRORS");
        metrics::mirrored(direction, &backend.id, "too_many");
        return None;
    }
    let (sender, pieces) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let mirror = Mirror {
        request: request.clone(),
        changes: changes.clone(),
        has_body,
        backend: backend.clone(),
        connection: connection.clone(),
        pieces,
        waiting: waiting.clone(),
        has_sent: false,
        _place: Open,
    };
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(run(mirror));
    tokio::spawn(task);
    let copier = Copier {
        pieces: sender,
        waiting,
    };
    if has_body {
        return Some(copier);
    }
    copier.end(None);
    None
}

async fn run(mut mirror: Mirror) {
    let ended = timeout(limits::MIRROR_TIME, mirror.send()).await;
    let outcome = match ended {
        Ok(Ok(())) => "answered",
        Ok(Err(fault)) => fault.reason.label(),
        Err(_) => Reason::BackendTimeout.label(),
    };
    metrics::mirrored(mirror.connection.facts.direction, &mirror.backend.id, outcome);
}

impl Mirror {
    /// Endpoint after endpoint, while nothing of it was sent.
    async fn send(&mut self) -> Result<(), Fault> {
        self.backend.usable()?;
        let mut tried: Vec<SocketAddr> = Vec::new();
        loop {
            let lease = endpoint::choose(&self.backend, &tried)?;
            match self.send_to(&lease).await {
                Err(fault) if fault.may_replay() && !self.has_sent && tried.len() + 1 < limits::ATTEMPTS => {
                    if !matches!(fault.reason, Reason::HopGone | Reason::ServerGone) {
                        tried.push(lease.address);
                    }
                }
                ended => return ended,
            }
        }
    }

    async fn send_to(&mut self, lease: &Lease) -> Result<(), Fault> {
        let connection = self.connection.clone();
        let transport = hop::transport(lease, &self.backend, &connection);
        let for_h1 = server::is_for_h1(&self.request, &Wants::Answer, &self.backend, &connection);
        let opening = server::open(
            lease,
            &transport,
            for_h1,
            &self.request,
            &Wants::Answer,
            &connection.shared,
        );
        match opening.await?.0 {
            Way::H1(mut way) => {
                let mut server = Server::h1(
                    &mut way.conn,
                    way.reused,
                    &self.request,
                    &self.changes,
                    &Wants::Answer,
                    self.has_body,
                );
                let keeps = self.over(lease, &mut server).await?;
                if let (true, Some(key)) = (keeps, way.key) {
                    pool::give(key, way.conn);
                }
                Ok(())
            }
            Way::H2(mut hop) => {
                let mesh = transport.is_mesh();
                let how = ToServer::new(&transport, for_h1, &connection.facts);
                let head = self.request.to_h2(&self.changes, &Wants::Answer, &how)?;
                let mut server = Server::h2(&mut hop.send, mesh, &self.request, head, !self.has_body)?;
                let ended = self.over(lease, &mut server).await;
                if ended.as_ref().is_err_and(server::is_ending) {
                    hop.place.retire();
                }
                ended.map(drop)
            }
        }
    }

    /// The conversation; whether the connection can be used again.
    async fn over(&mut self, lease: &Lease, server: &mut Server<'_>) -> Result<bool, Fault> {
        let mut progress = Progress::default();
        let ended = poll_fn(|cx| self.poll(cx, lease, server, &mut progress)).await;
        if ended.is_err() {
            server.cancel(None);
        }
        ended
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        lease: &Lease,
        server: &mut Server<'_>,
        progress: &mut Progress,
    ) -> Poll<Result<bool, Fault>> {
        if let Poll::Ready(Err(fault)) = self.poll_body(cx, &mut server.half, progress) {
            return Poll::Ready(Err(fault));
        }
        while progress.keeps.is_none() {
            match server.poll_head(cx) {
                Poll::Ready(Ok(Head::Interim(_))) => {}
                Poll::Ready(Ok(Head::Final(response))) => {
                    lease.answered();
                    progress.keeps = Some(response.keeps_alive());
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !progress.is_over {
            progress.is_over = match server.half.poll_discard(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(server::cut(cause))),
                Poll::Pending => return Poll::Pending,
            };
        }
        // Its answer was all that it had to say, whatever it has heard.
        Poll::Ready(Ok(progress.is_sent && progress.keeps == Some(true)))
    }

    /// What there is of the body goes on. An error: there will be no more of it.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        half: &mut Half<'_>,
        progress: &mut Progress,
    ) -> Poll<Result<(), Fault>> {
        let cut = |cause| Fault::because(Reason::ServerGone, cause);
        loop {
            if progress.has_ended || half.is_full() {
                match half.poll_flush(cx) {
                    Poll::Ready(Ok(())) if progress.has_ended => {
                        progress.is_sent = true;
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Ok(())) => {}
                    // What it has to say about that is still to be read.
                    Poll::Ready(Err(_)) | Poll::Pending => return Poll::Pending,
                }
            }
            match self.pieces.poll_recv(cx) {
                Poll::Ready(Some(Piece::Data(bytes))) => {
                    self.has_sent = true;
                    self.waiting.fetch_sub(bytes.len(), Relaxed);
                    half.put_bytes(bytes).map_err(cut)?;
                }
                Poll::Ready(Some(Piece::End(trailers))) => {
                    progress.has_ended = true;
                    if self.has_body {
                        self.has_sent = true;
                        half.finish(trailers).map_err(cut)?;
                    }
                }
                Poll::Ready(None) if !self.has_body => progress.has_ended = true,
                // It was too slow, or its request was never whole.
                Poll::Ready(None) => return Poll::Ready(Err(Fault::new(Reason::Abandoned))),
                Poll::Pending => {
                    // Whether it takes it shows when there is more.
                    let _ = half.poll_flush(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

#[derive(Default)]
struct Progress {
    /// All of the body was handed over.
    has_ended: bool,
    /// And was sent.
    is_sent: bool,
    /// The answer's head came; whether its connection may be used again.
    keeps: Option<bool>,
    /// Its body, too.
    is_over: bool,
}
