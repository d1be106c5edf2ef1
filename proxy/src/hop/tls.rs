//! Mutual TLS to another weft: our certificate, one expected identity, ALPN `weft/1` alone, no SNI.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{CertificateError, pki_types::ServerName};
use tokio_rustls::TlsConnector;
use weft_proto::limits;
use weft_service::{spiffe::Id, tls::Untrusted};

use super::tcp;
use crate::{
    app::Shared,
    fault::{Blame, Fault, Reason},
    io::Io,
};

/// Connects to the weft that listens at the endpoint's address. Never falls back to anything else.
pub async fn connect(address: SocketAddr, expected: &Id, shared: &Arc<Shared>) -> Result<Io, Fault> {
    let credentials = shared
        .valid_credentials()
        .ok_or_else(|| Fault::new(Reason::NoCertificate).blaming(Blame::Us).replayable())?;
    let stream = tcp::dial(address).await?;
    tcp::prepare_mesh(&stream);
    let connector = TlsConnector::from(credentials.mesh_client(expected));
    // The verifier looks at the SPIFFE id and at no name; nothing of this is sent.
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = connector.connect(name, Io::socket(stream).below_tls());
    let tls = tokio::time::timeout(limits::HANDSHAKE_TIME, handshake)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| Fault::because(reason(&error), error).replayable())?;
    Ok(Io::tls(tls))
}

fn reason(error: &io::Error) -> Reason {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) if other.0.is::<Untrusted>() => {
            Reason::ServerIdentity
        }
        _ => Reason::ServerTls,
    }
}
