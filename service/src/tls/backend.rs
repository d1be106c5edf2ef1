//! TLS towards an application's own server: what its certificate must be is said by a policy, and always checked.
//!
//! Without alternative names the certificate must be for the server name. With them one of them must be in it, and the
//! server name is the SNI alone (BackendTLSPolicy). Sessions are not resumed: a resumed one would not be checked again.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};
use x509_parser::extensions::GeneralName;

use super::{Bundle, CredentialsError, provider, validity};

/// The roots that a server's chain may lead to.
#[derive(Clone, Debug)]
pub enum Roots {
    /// These.
    Own(Bundle),
    /// Those of the system that the program runs on.
    System,
}

/// What a server of an application must prove, and what it is shown.
#[derive(Debug)]
pub struct BackendTls {
    /// The name that the certificate must have where there are no alternative names.
    pub server_name: ServerName<'static>,
    /// DNS names of which one must be in the certificate; `*.suffix` is any name one label longer than the suffix.
    pub dns_names: Vec<String>,
    /// URIs of which one must be in the certificate, as it is written here.
    pub uris: Vec<String>,
    /// Whom to trust.
    pub roots: Roots,
    /// What is shown where the server asks for a certificate.
    pub client_certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl BackendTls {
    /// A client's configuration that offers nothing by ALPN yet: TLS 1.2 and 1.3.
    pub fn client(self) -> Result<ClientConfig, CredentialsError> {
        let (store, own) = match &self.roots {
            Roots::Own(bundle) => (bundle.store(), bundle.certificates().to_vec()),
            Roots::System => (system()?, Vec::new()),
        };
        let verifier = Verifier {
            roots: store,
            own,
            server_name: self.server_name,
            dns_names: self.dns_names,
            uris: self.uris,
            provider: provider(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect(super::SUPPORTED)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.client_certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(CredentialsError::Key)?,
        };
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }
}

/// The system's roots, read once.
fn system() -> Result<Arc<RootCertStore>, CredentialsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // What cannot be a root is nobody's root.
        store.add_parsable_certificates(found.certs);
        Arc::new(store)
    });
    if roots.is_empty() {
        return Err(CredentialsError::EmptyBundle);
    }
    Ok(roots.clone())
}

/// None of the names that were asked for is in the certificate.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has none of the names {}", .0.join(", "))]
struct NoName(Vec<String>);

#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    /// A server may show a root itself, where that was trusted by name.
    own: Vec<CertificateDer<'static>>,
    server_name: ServerName<'static>,
    dns_names: Vec<String>,
    uris: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn has_name(&self, leaf: &ParsedCertificate<'_>, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        if self.dns_names.is_empty() && self.uris.is_empty() {
            return verify_server_name(leaf, &self.server_name);
        }
        let precise = self.dns_names.iter().filter(|name| !name.starts_with("*."));
        for name in precise {
            let name = ServerName::try_from(name.as_str()).map_err(|error| Error::General(error.to_string()))?;
            if verify_server_name(leaf, &name).is_ok() {
                return Ok(());
            }
        }
        let malformed = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, certificate) = x509_parser::parse_x509_certificate(end_entity).map_err(|_| malformed())?;
        let names = certificate.subject_alternative_name().map_err(|_| malformed())?;
        let names = names
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        let is_one = names.iter().any(|name| match name {
            GeneralName::URI(uri) => self.uris.iter().any(|own| own == uri),
            GeneralName::DNSName(name) => self.dns_names.iter().any(|own| is_below(own, name)),
            _ => false,
        });
        if is_one {
            return Ok(());
        }
        let wanted = self.dns_names.iter().chain(&self.uris).cloned().collect();
        Err(CertificateError::Other(OtherError(Arc::new(NoName(wanted)))).into())
    }
}

/// Whether `name` is `*.suffix` itself, or one label longer than the suffix.
fn is_below(wildcard: &str, name: &str) -> bool {
    let Some(suffix) = wildcard.strip_prefix("*.") else {
        return false;
    };
    name.split_once('.')
        .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        if self.own.contains(end_entity) {
            // The certificate itself is the root, as self-signed ones are: there is no chain to follow.
            let (begins, ends) = validity(end_entity).ok_or(CertificateError::BadEncoding)?;
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
            if at < begins {
                return Err(CertificateError::NotValidYet.into());
            }
            if at >= ends {
                return Err(CertificateError::Expired.into());
            }
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        }
        self.has_name(&leaf, end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use std::time::{Duration, SystemTime};

    struct Ca(Issuer<'static, KeyPair>, CertificateDer<'static>);

    fn ca() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Ca(Issuer::new(params, key), certificate)
    }

    fn params(names: &[&str], ends_in: i64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(7200)).into();
        params.not_after = time::OffsetDateTime::from(now) + time::Duration::seconds(ends_in);
        params
    }

    fn leaf(ca: &Ca, names: &[&str], ends_in: i64) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params(names, ends_in).signed_by(&key, &ca.0).unwrap().der().clone()
    }

    fn verify(root: &CertificateDer<'static>, names: &[&str], leaf: &CertificateDer<'_>) -> Result<(), String> {
        let is_uri = |name: &&&str| name.contains("://");
        let own = |name: &&str| (*name).to_owned();
        let verifier = Verifier {
            roots: Bundle::new(vec![root.clone()]).unwrap().store(),
            own: vec![root.clone()],
            server_name: "shop.example.com".try_into().unwrap(),
            dns_names: names.iter().filter(|name| !is_uri(name)).map(own).collect(),
            uris: names.iter().filter(is_uri).map(own).collect(),
            provider: provider(),
        };
        let name = verifier.server_name.clone();
        verifier
            .verify_server_cert(leaf, &[], &name, &[], UnixTime::now())
            .map(drop)
            .map_err(|error| error.to_string().to_lowercase())
    }

    #[test]
    fn the_server_name_is_checked_where_no_other_name_is_wanted() {
        let ca = ca();
        assert_eq!(verify(&ca.1, &[], &leaf(&ca, &["shop.example.com"], 3600)), Ok(()));
        assert_eq!(verify(&ca.1, &[], &leaf(&ca, &["*.example.com"], 3600)), Ok(()));
        for names in [&["cart.example.com"][..], &["spiffe://shop.example.com/x"], &[]] {
            let refused = verify(&ca.1, &[], &leaf(&ca, names, 3600)).unwrap_err();
            assert!(refused.contains("not valid for"), "{refused}");
        }
    }

    #[test]
    fn one_of_the_alternative_names_is_enough_and_the_server_name_is_none_of_them() {
        let ca = ca();
        let server = leaf(&ca, &["shop.example.com", "spiffe://example.com/shop"], 3600);
        for names in [
            &["shop.example.com"][..],
            &["spiffe://example.com/shop"],
            &["other.example.com", "spiffe://example.com/shop"],
            &["*.example.com"],
        ] {
            assert_eq!(verify(&ca.1, names, &server), Ok(()), "{names:?}");
        }
        for names in [
            &["other.example.com"][..],
            &["spiffe://example.com/other"],
            &["spiffe://example.com/Shop"],
            &["*.shop.example.com"],
            &["*.com"],
        ] {
            let refused = verify(&ca.1, names, &server).unwrap_err();
            assert!(refused.contains(&names[0].to_lowercase()), "{refused}");
        }
    }

    #[test]
    fn a_foreign_root_and_an_expired_certificate_are_refused() {
        let (own, foreign) = (ca(), ca());
        let refused = verify(&own.1, &[], &leaf(&foreign, &["shop.example.com"], 3600)).unwrap_err();
        // Both roots have one subject, so that the chain is tried and its signature does not hold.
        assert!(refused.contains("badsignature"), "{refused}");
        let refused = verify(&own.1, &[], &leaf(&own, &["shop.example.com"], -60)).unwrap_err();
        assert!(refused.contains("expired"), "{refused}");
    }

    #[test]
    fn a_self_signed_certificate_is_trusted_where_it_is_the_root_itself() {
        let own = |ends_in| {
            let mut params = params(&["shop.example.com"], ends_in);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let certificate = own(3600);
        assert_eq!(verify(&certificate, &[], &certificate), Ok(()));
        assert!(verify(&certificate, &["other.example.com"], &certificate).is_err());
        let ended = own(-60);
        assert!(verify(&ended, &[], &ended).unwrap_err().contains("expired"));
    }
}
