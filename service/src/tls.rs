//! The one place that makes TLS configurations.
//!
//! Inside the mesh and towards the controller: TLS 1.3 only, no resumption (a resumed session would skip the check of
//! the peer's certificate, RELIABILITY T52), no SNI, and a peer is who its one SPIFFE id says, in our own trust domain.
//! Credentials rotate: [`Holder`] hands out configurations that are made anew when the credentials change. When to renew,
//! and what a peer may have, is for others.

mod backend;
mod credentials;
pub mod gateway;
mod verify;

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

pub use backend::{BackendTls, Roots};
pub use credentials::{Bundle, Credentials, CredentialsError, Holder, validity};
pub use verify::Untrusted;

use crate::spiffe::Id;

/// ALPN id of HTTP/2 over TLS (RFC 9113 3.2), and so of gRPC: discovery, identity, servers of applications.
pub const H2: &[u8] = b"h2";
/// ALPN id of HTTP/1.1 (RFC 7301 6).
pub const HTTP1: &[u8] = b"http/1.1";

/// Makes aws-lc-rs the process's provider of cryptography. The first line of every `main`, and of tests that use
/// libraries which build TLS configurations of their own; calling it again does nothing.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .clone()
}

const SUPPORTED: &str = "aws-lc-rs supports the protocol versions";

/// Server with our certificate that demands a client certificate of our trust domain. `alpn`: the one protocol offered.
pub fn mesh_server(credentials: &Credentials, alpn: &[u8]) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect(SUPPORTED)
        .with_client_cert_verifier(Arc::new(verify::Client::new(credentials)))
        .with_cert_resolver(credentials.resolver());
    without_resumption(config, alpn)
}

/// Client with our certificate that accepts the peer `expected` and no other.
pub fn mesh_client(credentials: &Credentials, expected: &Id, alpn: &[u8]) -> Arc<ClientConfig> {
    let config =
        client(verify::Server::new(credentials.bundle(), expected)).with_client_cert_resolver(credentials.resolver());
    without_sni(config, alpn)
}

/// Server of the identity service: proven by its SPIFFE certificate; a caller has no certificate yet.
pub fn identity_server(credentials: &Credentials) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect(SUPPORTED)
        .with_no_client_auth()
        .with_cert_resolver(credentials.resolver());
    without_resumption(config, H2)
}

/// Client of the identity service, which must be `expected`.
pub fn identity_client(bundle: &Bundle, expected: &Id) -> Arc<ClientConfig> {
    without_sni(client(verify::Server::new(bundle, expected)).with_no_client_auth(), H2)
}

/// HTTPS server that an API server calls: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
pub fn webhook_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect(SUPPORTED)
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// HTTPS client that trusts `roots` only, by host name: how a sandbox calls the webhook.
pub fn webhook_client(roots: &Bundle) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect(SUPPORTED)
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// HTTPS client that believes any certificate, as the kubelet does when it probes: what is asked is whether there is an answer.
pub fn probe_client() -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect(SUPPORTED)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Anybody(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The identity of the peer of a finished mesh connection. `None` where the peer showed no certificate.
///
/// The verifiers of this module have checked the certificate, so that a second reading cannot fail.
pub fn peer(connection: &rustls::CommonState) -> Option<Id> {
    Id::of_certificate(connection.peer_certificates()?.first()?).ok()
}

/// Certificates of a PEM text. An error for one that has none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CredentialsError::Pem {
            what: "certificate",
            error: error.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(CredentialsError::Pem {
            what: "certificate",
            error: "there is none in the text".into(),
        });
    }
    Ok(certificates)
}

/// The private key of a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| CredentialsError::Pem {
        what: "private key",
        error: error.to_string(),
    })
}

/// A private key in PKCS#8, as DER.
pub fn pkcs8(der: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(der).into()
}

fn client(verifier: verify::Server) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect(SUPPORTED)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// A resumed session takes the peer's certificate from the ticket, and the verifier is never asked: neither expiry nor a
/// changed trust bundle would count. So there are no tickets.
fn without_resumption(mut config: ServerConfig, alpn: &[u8]) -> Arc<ServerConfig> {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

fn without_sni(mut config: ClientConfig, alpn: &[u8]) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// The name to give to `rustls` where it wants one. It is neither sent nor compared: the SPIFFE id decides.
pub fn no_server_name() -> rustls::pki_types::ServerName<'static> {
    rustls::pki_types::ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
}

#[cfg(test)]
mod tests;
