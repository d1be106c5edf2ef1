//! A small client of the Identity service, for a controller in role `routes`, which holds no CA.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use weft_proto::{
    limits,
    rpc::identity::{CertifyRequest, CertifyResponse, identity_client::IdentityClient},
};
use weft_service::{
    spiffe::Id,
    tls::{self, Bundle},
};

/// A channel to `address` (`host:port`) over this TLS configuration. Also how tests speak to discovery.
pub async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let dial = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (dial, config) = (dial.clone(), config.clone());
        async move {
            let stream = TcpStream::connect(&dial).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(config)
                .connect(tls::no_server_name(), stream)
                .await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // The URI is for the :authority only; the connector dials.
    Endpoint::from_static("http://weft.invalid")
        .connect_timeout(limits::CONNECT_TIME)
        .http2_keep_alive_interval(limits::H2_PING)
        .keep_alive_timeout(limits::H2_PING_ANSWER)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// Asks for a certificate once.
pub async fn certify(
    address: &str,
    bundle: &Bundle,
    service: &Id,
    token: String,
    csr: Vec<u8>,
) -> anyhow::Result<CertifyResponse> {
    let channel = connect(address, tls::identity_client(bundle, service)).await?;
    let mut request = tonic::Request::new(CertifyRequest { token, csr });
    request.set_timeout(Duration::from_secs(10));
    Ok(IdentityClient::new(channel).certify(request).await?.into_inner())
}
