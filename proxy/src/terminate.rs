//! TLS that is addressed to weft: the mesh's own, with a certificate on both sides.
//!
//! A handshake that fails ends the connection. Nothing that was sent on it is ever looked at as plaintext (T33).

pub mod gateway;

use std::{io, sync::Arc};

use tokio_rustls::TlsAcceptor;
use weft_proto::limits;
use weft_service::{spiffe::Id, tls};

use crate::{
    app::Shared,
    fault::{Fault, Reason},
    hop::tcp,
    io::Io,
};

/// Ends the mesh's TLS, for a bounded time; also who the client is.
pub async fn mesh(io: Io, shared: &Arc<Shared>) -> Result<(Io, Id), Fault> {
    let Some(credentials) = shared.valid_credentials() else {
        return Err(Fault::new(Reason::NoCertificate));
    };
    if let Some(socket) = io.as_socket() {
        tcp::prepare_mesh(socket);
    }
    let handshake = TlsAcceptor::from(credentials.mesh_server()).accept(io.below_tls());
    let handshake = tokio::time::timeout(limits::HANDSHAKE_TIME, handshake).await;
    let tls = handshake
        .map_err(|_| Fault::new(Reason::ClientTlsTimeout))?
        .map_err(|error: io::Error| Fault::because(Reason::ClientTls, error))?;
    let peer = tls::peer(tls.get_ref().1).ok_or_else(|| Fault::new(Reason::ClientTls))?;
    Ok((Io::tls(tls), peer))
}
