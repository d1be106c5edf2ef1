//! TLS that a gateway ends for the world: one configuration for each listener, so that neither a certificate nor a session's ticket
//! of one listener is ever taken at another (RELIABILITY T26). TLS 1.2 and 1.3, with the suites that rustls has: forward secrecy
//! and authenticated encryption alone (T56).

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs::Ticketer,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{CredentialsError, SUPPORTED, certificates, private_key, provider};

/// A certificate chain with its key, as a listener shows it.
#[derive(Debug)]
pub struct ServerKey {
    key: Arc<CertifiedKey>,
    /// DNS names of the leaf, in lower case; `*.` before those of a wildcard.
    names: Vec<String>,
}

impl ServerKey {
    /// Reads PEM texts, and checks that the key is the leaf's.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, CredentialsError> {
        let chain = certificates(chain.as_bytes())?;
        let key = private_key(key.as_bytes())?;
        let names = chain.first().map(|leaf| dns_names(leaf)).unwrap_or_default();
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(CredentialsError::Key)?;
        match key.keys_match() {
            // "Unknown" is said of keys that cannot tell.
            Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(error) => return Err(CredentialsError::Key(error)),
        }
        Ok(Self {
            key: Arc::new(key),
            names,
        })
    }

    fn covers(&self, name: &str) -> bool {
        let parent = name.split_once('.').map_or("", |(_, parent)| parent);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            Some(suffix) => suffix.eq_ignore_ascii_case(parent),
            None => own.eq_ignore_ascii_case(name),
        })
    }
}

fn dns_names(leaf: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::prelude::*;
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// Whom a listener lets in.
#[derive(Clone, Debug)]
pub struct ClientValidation(Arc<dyn ClientCertVerifier>);

impl ClientValidation {
    /// Clients must show a certificate whose chain leads to one of these PEM roots.
    pub fn required(roots: &str) -> Result<Self, CredentialsError> {
        let mut store = RootCertStore::empty();
        for (index, certificate) in certificates(roots.as_bytes())?.into_iter().enumerate() {
            store.add(certificate).map_err(|error| CredentialsError::BadRoot {
                position: index + 1,
                error,
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|_| CredentialsError::EmptyBundle)?;
        Ok(Self(verifier))
    }

    /// Clients are asked for a certificate, and let in whatever they say: nobody is told who they claim to be.
    pub fn asked() -> Self {
        Self(Arc::new(Anybody))
    }
}

/// What is spoken within the TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Within {
    /// HTTP/2 or HTTP/1.1, as the client chooses.
    Http,
    /// Bytes, of which nobody knows a name.
    Bytes,
}

/// Server with these certificates: of those that the client can verify the first that has the name it asks for, elliptic curves
/// before RSA.
///
/// Without client certificates sessions may be resumed, at this very listener. With them they are not: a resumed session would skip
/// the check of the certificate (T52).
pub fn gateway_server(
    keys: Vec<Arc<ServerKey>>,
    validation: Option<&ClientValidation>,
    within: Within,
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect(SUPPORTED);
    let builder = match validation {
        Some(ClientValidation(verifier)) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ListenerKeys(keys)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    if validation.is_none() {
        config.ticketer = Ticketer::new()?;
    } else {
        config.send_tls13_tickets = 0;
    }
    if within == Within::Http {
        config.alpn_protocols = vec![super::H2.to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct ListenerKeys(Vec<Arc<ServerKey>>);

impl ResolvesServerCert for ListenerKeys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default();
        let fits = |key: &&Arc<ServerKey>| key.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let best = self.0.iter().filter(fits).min_by_key(|key| {
            let is_rsa = key.key.key.algorithm() == SignatureAlgorithm::RSA;
            (!key.covers(name), is_rsa)
        });
        best.map(|key| key.key.clone())
    }
}

/// Asks, and believes nothing: what is shown is not used for anything.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn key(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let leaf = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    #[test]
    fn t56_a_gateway_has_forward_secrecy_and_authenticated_encryption_alone() {
        let (chain, key) = key(&["a.test"]);
        let key = Arc::new(ServerKey::from_pem(&chain, &key).unwrap());
        let config = gateway_server(vec![key], None, Within::Http).unwrap();
        for suite in &config.crypto_provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
            assert!(name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_"), "{name}");
        }
        assert_eq!(config.max_early_data_size, 0, "nothing is replayed");
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_certificate_is_read_with_its_own_key_alone() {
        let (chain, own) = key(&["a.test"]);
        assert!(ServerKey::from_pem(&chain, &own).is_ok());
        assert!(matches!(
            ServerKey::from_pem(&chain, &key(&["a.test"]).1),
            Err(CredentialsError::Key(_))
        ));
        assert!(matches!(
            ServerKey::from_pem("no PEM", &own),
            Err(CredentialsError::Pem { .. })
        ));
        assert!(matches!(
            ServerKey::from_pem(&chain, ""),
            Err(CredentialsError::Pem { .. })
        ));
        assert!(ClientValidation::required("").is_err());
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let (chain, own) = key(&["one.test", "*.Wild.test"]);
        let read = ServerKey::from_pem(&chain, &own).unwrap();
        for covered in ["one.test", "a.wild.test"] {
            assert!(read.covers(covered), "{covered}");
        }
        for other in ["wild.test", "a.b.wild.test", "two.test", ""] {
            assert!(!read.covers(other), "{other}");
        }
    }
}
