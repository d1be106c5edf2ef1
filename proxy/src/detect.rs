//! The first bytes of a client → what it speaks. Nothing is consumed: what was read is put back in front.
//!
//! Bytes are read until the answer is certain, and no further. A client that says nothing is `silence.rs`' matter.

pub mod silence;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};
use weft_proto::{limits, names};
use weft_wire::{
    hello::{self, Hello},
    sniff,
};

use crate::{
    fault::{Fault, Reason},
    io::Io,
    record::Protocol,
};

/// What a client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS.
    Tls(Hello),
    /// Anything else.
    Opaque,
}

impl Seen {
    /// The label in metrics and logs.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Http1 => Protocol::Http1,
            Self::Http2 => Protocol::Http2,
            Self::Tls(_) => Protocol::Tls,
            Self::Opaque => Protocol::Opaque,
        }
    }

    /// Whether this is the TLS of another weft. Its ALPN id stands alone; every other TLS belongs to the application.
    pub fn is_mesh(&self) -> bool {
        matches!(self, Self::Tls(hello) if hello.offers_only(names::MESH_ALPN) && hello.sni.is_none())
    }
}

/// What a client's first bytes mean; `None`: not certain yet.
pub(crate) fn verdict(bytes: &[u8]) -> Option<Seen> {
    match sniff::client(bytes) {
        sniff::Client::Partial => None,
        sniff::Client::Http1 => Some(Seen::Http1),
        sniff::Client::H2Preface => Some(Seen::Http2),
        sniff::Client::Opaque => Some(Seen::Opaque),
        sniff::Client::Tls => match hello::scan(bytes) {
            hello::Scan::NeedMore => None,
            hello::Scan::NotTls => Some(Seen::Opaque),
            hello::Scan::Hello(hello) => Some(Seen::Tls(hello)),
        },
    }
}

/// Reads once into `bytes`; the memory for it is on the stack, so that who waits holds none.
pub(crate) fn poll_more(io: &mut Io, bytes: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut memory = [std::mem::MaybeUninit::uninit(); 4096];
    let mut read = ReadBuf::uninit(&mut memory);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    bytes.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

/// Waits for a client's first byte no longer than `silence`, then for certainty. `None`: the client is silent, or has said
/// what may still become anything (one letter, say) and waits: `silence.rs` goes on from there.
pub async fn first_bytes(io: &mut Io, silence: Duration) -> Result<Option<Seen>, Fault> {
    let mut bytes = BytesMut::new();
    let first = poll_fn(|cx| poll_more(io, &mut bytes, cx));
    match tokio::time::timeout(silence, first).await {
        Err(_) => return Ok(None),
        Ok(Err(error)) => return Err(Fault::because(Reason::DetectClosed, error)),
        // An end without a word: what the server may want to say is still to be heard.
        Ok(Ok(0)) => return Ok(Some(Seen::Opaque)),
        Ok(Ok(_)) => {}
    }
    let seen = certain(io, &mut bytes, silence).await;
    io.unread(bytes.freeze());
    seen
}

/// Reads on until it is certain what the client speaks, for a bounded time and number of bytes.
async fn certain(io: &mut Io, bytes: &mut BytesMut, silence: Duration) -> Result<Option<Seen>, Fault> {
    let began = Instant::now();
    loop {
        if let Some(seen) = verdict(bytes) {
            return Ok(Some(seen));
        }
        if bytes.len() > limits::CLIENT_HELLO + 5 {
            return Err(Fault::new(Reason::BadHello));
        }
        let is_tls = sniff::client(bytes) == sniff::Client::Tls;
        let time = if is_tls { limits::HANDSHAKE_TIME } else { silence };
        match tokio::time::timeout_at(began + time, poll_fn(|cx| poll_more(io, bytes, cx))).await {
            Ok(Ok(0)) => return Ok(Some(Seen::Opaque)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Fault::because(Reason::DetectClosed, error)),
            // Half a ClientHello is nothing that could be passed on: it may have been meant for weft.
            Err(_) if is_tls => return Err(Fault::new(Reason::DetectTimeout)),
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn t57_nothing_is_consumed_whatever_the_segments() {
        let text = b"GET /some/path HTTP/1.1\r\nhost: a\r\n\r\n";
        let (mut client, mut io) = Io::pair(1024);
        let writer = tokio::spawn(async move {
            for byte in text {
                client.write_u8(*byte).await.unwrap();
                // What comes slower than the silence is `silence.rs`' matter.
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(first_bytes(&mut io, limits::SILENCE).await.unwrap(), Some(Seen::Http1));
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, text);
        writer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_silent() {
        let (_client, mut io) = Io::pair(1024);
        assert_eq!(first_bytes(&mut io, limits::SILENCE).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn t57_the_beginning_of_a_hello_is_never_passed_on() {
        let (mut client, mut io) = Io::pair(1024);
        client.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
        assert_eq!(
            first_bytes(&mut io, limits::SILENCE).await.unwrap_err().reason,
            Reason::DetectTimeout
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_that_may_still_become_http_is_no_verdict_and_is_kept() {
        let (mut client, mut io) = Io::pair(1024);
        client.write_all(b"HE").await.unwrap();
        assert_eq!(first_bytes(&mut io, limits::SILENCE).await.unwrap(), None);
        assert_eq!(io.read_u16().await.unwrap(), u16::from_be_bytes(*b"HE"));
    }
}
