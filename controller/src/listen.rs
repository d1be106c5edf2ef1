//! TLS listeners for gRPC: each handshake is made with the credentials of that moment, which tonic's own TLS could not.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use weft_proto::limits;
use weft_service::{
    spiffe::Id,
    tls::{self, Credentials, Holder},
};

/// Which configuration a listener takes from its credentials.
pub type Choice = fn(&Credentials) -> Arc<ServerConfig>;

/// The proven peer of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is.
    pub id: Id,
    /// Its certificates, leaf first, to be judged again when the trust bundle changes.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// When its leaf ends.
    pub not_after: SystemTime,
}

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Binds; where `[::]` is asked for on a machine without IPv6, all IPv4 addresses.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = match TcpListener::bind(address).await {
            Err(_) if address.ip().is_unspecified() && address.is_ipv6() => {
                TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await?
            }
            bound => bound?,
        };
        Ok(Self { listener })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until the returned stream is dropped; only finished handshakes come out.
    pub fn incoming(self, holder: Arc<Holder>, choice: Choice) -> ReceiverStream<io::Result<Secured>> {
        let (sender, receiver) = mpsc::channel(64);
        weft_service::task::spawn("accept", async move {
            let places = Arc::new(Semaphore::new(limits::CONTROLLER_HANDSHAKES));
            loop {
                let Ok(place) = places.clone().acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = self.listener.accept() => accepted,
                    () = sender.closed() => return,
                };
                match accepted {
                    Ok((stream, client)) => {
                        let Some(credentials) = holder.current() else {
                            tracing::debug!(%client, "closed: there is no certificate yet");
                            continue;
                        };
                        let (config, sender) = (choice(&credentials), sender.clone());
                        tokio::spawn(Box::pin(async move {
                            if let Some(secured) = handshake(stream, client, config).await {
                                let _ = sender.send(Ok(secured)).await;
                            }
                            drop(place);
                        }));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(limits::ACCEPT_BACK_OFF).await;
                    }
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

async fn handshake(stream: TcpStream, client: SocketAddr, config: Arc<ServerConfig>) -> Option<Secured> {
    let _ = stream.set_nodelay(true);
    let accept = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(limits::HANDSHAKE_TIME, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%client, %error, "TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::info!(%client, "TLS handshake took too long");
            return None;
        }
    };
    let session = stream.get_ref().1;
    let chain = session
        .peer_certificates()
        .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
    let peer = tls::peer(session)
        .zip(chain)
        .and_then(|(id, chain): (_, Arc<[CertificateDer<'static>]>)| {
            let (_, not_after) = tls::validity(chain.first()?)?;
            Some(Peer { id, chain, not_after })
        });
    Some(Secured { stream, peer })
}

/// A connection after its handshake.
pub struct Secured {
    stream: TlsStream<TcpStream>,
    peer: Option<Peer>,
}

impl Connected for Secured {
    type ConnectInfo = Option<Peer>;
    fn connect_info(&self) -> Option<Peer> {
        self.peer.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
