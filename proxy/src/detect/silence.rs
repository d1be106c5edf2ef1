//! A client that says nothing: perhaps its server speaks first, perhaps it takes its time.
//!
//! The opaque hop is opened, and both sides are watched. Servers of known protocols speak first too: h2c servers send
//! SETTINGS at once, HTTP/1 servers a 408 to a silent client, so such words prove nothing and are held while the client is
//! still waited for. Any other first byte of the server makes the connection opaque, over the hop that is open already.
//!
//! A client that has said what may still become anything (the first letters of a method, or a whole message of a protocol
//! of its own) and now waits is served alike: its words go to the server over that hop at once. When the server answers,
//! the connection is opaque; when the client goes on and turns out to speak HTTP, the hop is dropped, and a server that
//! saw part of a request line and an end has processed nothing. Time never decides.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};
use weft_proto::limits;
use weft_wire::sniff;

use super::{Seen, poll_more, verdict};
use crate::{
    fault::{Fault, Reason},
    hop::Opened,
    io::Io,
};

/// How a silence ended.
#[derive(Debug)]
pub enum Broken {
    /// The client spoke; a hop that was open for it is dropped, since its own is chosen for what it said.
    ByClient(Seen),
    /// The connection is bytes, over this hop. Whether the server's own words said so is worth remembering.
    Opaque {
        /// The hop that is open already, with the server's first bytes in front.
        hop: Box<Opened>,
        /// What the client said, if it did.
        seen: Seen,
        /// The server spoke before its client's protocol was certain, in no protocol that is known.
        server_spoke: bool,
        /// Bytes of the client that went over the hop already.
        passed: usize,
    },
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened, Fault>> + Send + 'a>>;

struct Silence<'a> {
    client: &'a mut Io,
    /// What the client has said, while that is not certain.
    said: BytesMut,
    /// How much of that went over the hop.
    passed: usize,
    /// From the first byte of a ClientHello: half of one is never passed on.
    certain_by: Option<Pin<Box<Sleep>>>,
    opening: Option<Opening<'a>>,
    hop: Option<Box<Opened>>,
    /// What the server has said and nobody was given yet.
    held: BytesMut,
    /// What ended the waiting, when only the hop is still missing.
    decided: Option<Seen>,
    /// Which of the client's words are for weft itself.
    for_weft: fn(&Seen) -> bool,
    patience: Pin<Box<Sleep>>,
}

/// Watches both sides. `opening` opens the opaque hop; without one (too many are open for silent clients) only the client
/// is waited for. `for_weft` says which words of the client are not simply passed on. After `patience` the waiting ends.
pub async fn watch<'a>(
    client: &'a mut Io,
    opening: Option<Opening<'a>>,
    for_weft: fn(&Seen) -> bool,
    patience: Duration,
) -> Result<Broken, Fault> {
    let (said, held) = (BytesMut::new(), BytesMut::new());
    let patience = Box::pin(sleep(patience));
    let mut silence = Silence {
        client,
        said,
        passed: 0,
        certain_by: None,
        opening,
        hop: None,
        held,
        decided: None,
        for_weft,
        patience,
    };
    let broken = poll_fn(|cx| silence.poll(cx)).await;
    let Silence { client, mut said, .. } = silence;
    if let Ok(Broken::Opaque { passed, .. }) = &broken {
        said.advance(*passed);
    }
    client.unread(said.freeze());
    broken
}

impl Silence<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Broken, Fault>> {
        // The client first: what it says outweighs what the server says at the same moment.
        if self.decided.is_none()
            && let Poll::Ready(seen) = self.poll_client(cx)
        {
            match seen {
                Err(fault) => return Poll::Ready(Err(fault)),
                Ok(seen) if (self.for_weft)(&seen) => return Poll::Ready(Ok(Broken::ByClient(seen))),
                Ok(seen) if self.opening.is_none() && self.hop.is_none() => {
                    return Poll::Ready(Ok(Broken::ByClient(seen)));
                }
                Ok(seen) => self.decided = Some(seen),
            }
        }
        if let Some(opening) = &mut self.opening
            && let Poll::Ready(opened) = opening.as_mut().poll(cx)
        {
            self.opening = None;
            match opened {
                Ok(opened) => self.hop = Some(Box::new(opened)),
                // As the client would have seen it without weft.
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
        if self.hop.is_some() {
            if let Some(seen) = self.decided.take() {
                return Poll::Ready(Ok(self.opaque(seen, false)));
            }
            if let Poll::Ready(Err(fault)) = self.poll_pass(cx) {
                return Poll::Ready(Err(fault));
            }
            if let Poll::Ready(server) = self.poll_server(cx) {
                return Poll::Ready(server.map(|server_spoke| self.opaque(Seen::Opaque, server_spoke)));
            }
        }
        self.patience
            .as_mut()
            .poll(cx)
            .map(|()| Err(Fault::new(Reason::DetectTimeout)))
    }

    fn opaque(&mut self, seen: Seen, server_spoke: bool) -> Broken {
        let mut hop = self.hop.take().expect("asked only when it is there");
        hop.io.unread(std::mem::take(&mut self.held).freeze());
        Broken::Opaque {
            hop,
            seen,
            server_spoke,
            passed: self.passed,
        }
    }

    /// Passes on what the client has said, while nobody knows what it is.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.certain_by.is_some() {
            return Poll::Pending;
        }
        let hop = self.hop.as_mut().expect("asked only when it is there");
        let broken = |error| Fault::because(Reason::ServerReset, error);
        while self.passed < self.said.len() {
            let io = Pin::new(&mut hop.io);
            self.passed += ready!(io.poll_write(cx, &self.said[self.passed..])).map_err(broken)?;
        }
        Pin::new(&mut hop.io).poll_flush(cx).map_err(broken)
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<Seen, Fault>> {
        loop {
            match poll_more(self.client, &mut self.said, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Seen::Opaque)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::because(Reason::DetectClosed, error))),
                Poll::Pending => break,
            }
            if let Some(seen) = verdict(&self.said) {
                return Poll::Ready(Ok(seen));
            }
            if self.said.len() > limits::CLIENT_HELLO + 5 {
                return Poll::Ready(Err(Fault::new(Reason::BadHello)));
            }
            if sniff::client(&self.said) == sniff::Client::Tls {
                self.certain_by
                    .get_or_insert_with(|| Box::pin(sleep(limits::HANDSHAKE_TIME)));
            }
        }
        match &mut self.certain_by {
            Some(timer) => timer.as_mut().poll(cx).map(|()| Err(Fault::new(Reason::DetectTimeout))),
            None => Poll::Pending,
        }
    }

    /// Ready when the server has made the connection opaque, by its words (`true`) or by its end.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        let hop = self.hop.as_mut().expect("asked only when it is there");
        while self.held.len() < limits::GREETING {
            match poll_more(&mut hop.io, &mut self.held, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => match sniff::server(&self.held) {
                    sniff::Server::Opaque => return Poll::Ready(Ok(true)),
                    sniff::Server::Partial
                    | sniff::Server::H2Settings
                    | sniff::Server::Http1Status
                    | sniff::Server::Tls => {}
                },
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::because(Reason::ServerReset, error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Known protocols say no more than this unasked; the rest waits below.
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
