//! TLS that a gateway's listener ends.

use std::{io, sync::Arc};

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use weft_proto::limits;
use weft_service::tls;

use crate::{
    app::Shared,
    fault::{Fault, Reason},
    io::Io,
    metrics,
};

/// Ends the client's TLS, for a bounded time, one of a bounded number at once: the stream within, and whether HTTP/2 was chosen for it.
/// `sni` is what led to the configuration, and must be what the handshake says too.
pub async fn end(
    io: Io,
    config: Arc<ServerConfig>,
    sni: Option<&str>,
    shared: &Arc<Shared>,
) -> Result<(Io, bool), Fault> {
    let handshake = async {
        let _place = match shared.handshakes.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                metrics::limit_reached("HANDSHAKES");
                let waited = shared.handshakes.clone().acquire_owned().await;
                waited.expect("the semaphore is never closed")
            }
        };
        TlsAcceptor::from(config).accept(io.below_tls()).await
    };
    let handshake = tokio::time::timeout(limits::HANDSHAKE_TIME, handshake).await;
    let tls = handshake
        .map_err(|_| Fault::new(Reason::ClientTlsTimeout))?
        .map_err(|error: io::Error| Fault::because(Reason::ClientTls, error))?;
    let connection = tls.get_ref().1;
    let named = connection.server_name().map(|name| name.trim_end_matches('.'));
    if !same_name(named, sni) {
        return Err(Fault::because(Reason::ClientTls, "two readers see two server names"));
    }
    let is_h2 = connection.alpn_protocol() == Some(tls::H2);
    Ok((Io::tls(tls), is_h2))
}

fn same_name(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => false,
    }
}
