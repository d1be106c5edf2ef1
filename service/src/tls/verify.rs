//! Who may be at the other end of a mesh connection: a chain that leads to the trust bundle, and one SPIFFE id, of our
//! own trust domain.
//!
//! The trust domain is compared here and not left to name constraints, which `rustls-webpki` does not apply to URIs
//! (RUSTSEC-2026-0098, RELIABILITY T51).

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{Bundle, Credentials, provider};
use crate::spiffe::{Id, NoId};

/// Why a peer's certificate is not accepted although its chain is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It names no workload.
    #[error(transparent)]
    NoId(#[from] NoId),
    /// It belongs to someone else's trust domain.
    #[error("the certificate is of {id}, which is not in the trust domain {trust_domain}")]
    TrustDomain {
        /// Whom the certificate names.
        id: Id,
        /// Our trust domain.
        trust_domain: String,
    },
    /// It names another workload than the one that was dialled.
    #[error("the certificate is of {id}, expected was {expected}")]
    OtherId {
        /// Whom the certificate names.
        id: Id,
        /// Who was dialled.
        expected: Id,
    },
}

impl From<Untrusted> for Error {
    fn from(untrusted: Untrusted) -> Self {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted))))
    }
}

pub(super) fn id_in(trust_domain: &str, leaf: &CertificateDer<'_>) -> Result<Id, Untrusted> {
    let id = Id::of_certificate(leaf)?;
    if id.trust_domain() == trust_domain {
        Ok(id)
    } else {
        Err(Untrusted::TrustDomain {
            id,
            trust_domain: trust_domain.to_owned(),
        })
    }
}

/// The server's view of its clients.
#[derive(Debug)]
pub(super) struct Client {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl Client {
    pub(super) fn new(credentials: &Credentials) -> Self {
        Self {
            chain: credentials.bundle().client_verifier(),
            trust_domain: credentials.id().trust_domain().to_owned(),
        }
    }
}

impl ClientCertVerifier for Client {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients have one certificate; a list of roots would only make the handshake longer.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        id_in(&self.trust_domain, end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The view of a probe: whoever answers is the application.
#[derive(Debug)]
pub(super) struct Anybody(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's view of the server that it dialled.
#[derive(Debug)]
pub(super) struct Server {
    roots: Arc<RootCertStore>,
    expected: Id,
    provider: Arc<CryptoProvider>,
}

impl Server {
    pub(super) fn new(bundle: &Bundle, expected: &Id) -> Self {
        Self {
            roots: bundle.store(),
            expected: expected.clone(),
            provider: provider(),
        }
    }
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        let id = id_in(self.expected.trust_domain(), end_entity)?;
        if id != self.expected {
            return Err(Untrusted::OtherId {
                id,
                expected: self.expected.clone(),
            }
            .into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is never offered inside the mesh".into())
}
