//! A gRPC channel to the controller over TLS of our own, so that certificates can change under way.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use weft_proto::limits;

use crate::hop::tcp;

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

/// Connects to `host:port`. The channel does not connect again by itself: who holds it decides when.
pub async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| -> Connecting {
        let (address, tls) = (address.clone(), tls.clone());
        Box::pin(async move { Ok(TokioIo::new(stream(&address, tls).await?)) })
    });
    // The name is not looked at: who the server is, its certificate says.
    Endpoint::from_static("http://weft-controller")
        .connect_timeout(limits::CONNECT_TIME + limits::HANDSHAKE_TIME)
        // A stream that is open but dead would otherwise be waited for for ever (RELIABILITY F12).
        .http2_keep_alive_interval(limits::H2_PING)
        .keep_alive_timeout(limits::H2_PING_ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .user_agent(concat!("weft-proxy/", env!("CARGO_PKG_VERSION")))?
        .connect_with_connector(connector)
        .await
}

async fn stream(address: &str, tls: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let found = timeout(limits::CONNECT_TIME, tokio::net::lookup_host(address)).await??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for address in found {
        match handshake(address, tls.clone()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn handshake(address: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = tcp::dial(address).await.map_err(io::Error::other)?;
    tcp::prepare_mesh(&stream);
    let name = ServerName::IpAddress(address.ip().into());
    timeout(limits::HANDSHAKE_TIME, TlsConnector::from(tls).connect(name, stream)).await?
}

/// Longer and longer pauses, none of them quite the same as another proxy's.
pub struct BackOff {
    next: Duration,
    most: Duration,
}

impl BackOff {
    /// Starts short.
    pub fn new(most: Duration) -> Self {
        Self {
            next: Duration::from_millis(100),
            most,
        }
    }

    /// How long to wait now: between half and all of the step.
    pub fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        jitter(step, 50)
    }

    /// Begins again after a success.
    pub fn reset(&mut self) {
        *self = Self::new(self.most);
    }
}

/// A time shortened by up to this many hundredths, at random.
pub fn jitter(time: Duration, hundredths: u32) -> Duration {
    let off = crate::endpoint::balance::random_below(hundredths as usize * 10 + 1) as u32;
    time - time * off / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f11_pauses_grow_to_a_bound_and_differ() {
        let mut back_off = BackOff::new(Duration::from_secs(10));
        let steps: Vec<_> = (0..20).map(|_| back_off.step()).collect();
        assert!(steps[0] <= Duration::from_millis(100) && steps[0] >= Duration::from_millis(50));
        assert!(
            steps[10..]
                .iter()
                .all(|step| (Duration::from_secs(5)..=Duration::from_secs(10)).contains(step))
        );
        assert!(steps[10..].iter().any(|step| *step != steps[10]));
    }
}
