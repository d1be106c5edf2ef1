//! A listener on both families, with TLS where it is asked for, that ends as a good application does: at SIGTERM it
//! accepts nothing more, lets open exchanges finish, and is gone.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// Where a server listens.
#[derive(clap::Args, Clone)]
pub struct Listen {
    /// TCP port, on IPv6 and IPv4. 0 takes any free one; it is printed.
    #[arg(long, env = "LISTEN", default_value_t = 8080)]
    listen: u16,
    /// PEM file of a certificate chain, for TLS.
    #[arg(long, env = "TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, env = "TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// ALPN ids that TLS offers, comma-separated.
    #[arg(long, env = "ALPN", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Seconds that open connections have after SIGTERM.
    #[arg(long, env = "GRACE", default_value_t = 3)]
    grace: u64,
}

/// Plain or TLS, all the same to the application.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One client.
pub struct Connection {
    /// Its bytes.
    pub io: Box<dyn Stream>,
    /// Becomes true when the application is to end.
    pub ending: watch::Receiver<bool>,
}

/// Whether, and how, a server speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// When a certificate is given.
    IfGiven,
    /// Always; it makes its own certificate when none is given.
    Always,
}

impl Listen {
    fn acceptor(&self, tls: Tls, alpn: &[&str]) -> Result<Option<TlsAcceptor>> {
        let (chain, key) = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let chain = CertificateDer::pem_file_iter(cert)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .with_context(|| format!("--tls-cert {}", cert.display()))?;
                if chain.is_empty() {
                    bail!("--tls-cert {}: it holds no certificate", cert.display());
                }
                let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("--tls-key {}", key.display()))?;
                (chain, key)
            }
            _ if tls == Tls::Always => {
                let pod = crate::pod();
                let mut params = rcgen::CertificateParams::new(vec![pod.clone(), "localhost".into()])?;
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(rcgen::DnType::CommonName, pod);
                let key = rcgen::KeyPair::generate()?;
                let certificate = params.self_signed(&key)?;
                let key = PrivatePkcs8KeyDer::from(key.serialize_der());
                (vec![certificate.der().clone()], key.into())
            }
            _ => return Ok(None),
        };
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let own = self.alpn.iter().map(String::as_str);
        let ids: Vec<_> = if self.alpn.is_empty() {
            alpn.to_vec()
        } else {
            own.collect()
        };
        config.alpn_protocols = ids.into_iter().map(|id| id.as_bytes().to_vec()).collect();
        Ok(Some(Arc::new(config).into()))
    }

    /// Serves until SIGTERM or SIGINT. `alpn` is what TLS offers unless the user says otherwise.
    pub async fn serve<H, F>(self, what: &'static str, tls: Tls, alpn: &[&str], handle: H) -> Result<()>
    where
        H: Fn(Connection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let acceptor = self.acceptor(tls, alpn)?;
        let listener = bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on port {}", self.listen))?;
        println!("{what} listening on {}", listener.local_addr()?);
        let (end, ending) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let accepted = tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    eprintln!("{what}: cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, handle, ending) = (acceptor.clone(), handle.clone(), ending.clone());
            tokio::spawn(async move {
                if let Err(error) = connection(stream, acceptor, handle, ending).await {
                    eprintln!("{what}: {client}: {error:#}");
                }
            });
        }
        drop(listener);
        end.send_replace(true);
        // What is open holds a receiver.
        drop(ending);
        let _ = tokio::time::timeout(Duration::from_secs(self.grace), end.closed()).await;
        Ok(())
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    handle: H,
    ending: watch::Receiver<bool>,
) -> Result<()>
where
    H: Fn(Connection) -> F,
    F: Future<Output = Result<()>>,
{
    stream.set_nodelay(true)?;
    let io: Box<dyn Stream> = match acceptor {
        Some(acceptor) => Box::new(acceptor.accept(stream).await.context("TLS handshake")?),
        None => Box::new(stream),
    };
    handle(Connection { io, ending }).await
}

/// The unspecified IPv6 address takes IPv4 too; where there is no IPv6, IPv4 alone.
async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}
