//! The certificate authority: what it is made of, and what it signs.
//!
//! `ca.crt` holds the certificate that signs, and behind it the intermediates up to the root where there are some; `ca.key`
//! its key; `ca-bundle.crt`, which may be missing, further roots that peers may chain to. They come from a directory
//! ([`files`]) or from a Secret ([`secret`]), and are read anew when they change; what cannot be read leaves the last good CA
//! in place.

pub mod files;
pub mod secret;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use arc_swap::ArcSwapOption;
use base64::prelude::{BASE64_STANDARD, Engine};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKey, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use weft_proto::names::kubernetes::{CA_BUNDLE as BUNDLE, CA_CERTIFICATE as CERTIFICATE, CA_KEY as KEY};
use weft_service::{
    spiffe::Id,
    tls::{self, Bundle},
};

/// How far back a leaf's validity starts, for peers whose clock is behind.
const SKEW: Duration = Duration::from_secs(60);
/// Life of a CA that the controller makes itself.
const CA_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A CA that ends sooner signs no more: its leaves would end before they are of use, and be asked for in a circle.
const LEAST_LEFT: Duration = Duration::from_secs(10);
/// A CA that ends sooner is spoken of in the log.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// A loaded authority.
pub struct Ca {
    issuer: rcgen::Issuer<'static, KeyPair>,
    /// What goes with each leaf: the signing certificate and what is above it, without roots.
    intermediates: Vec<CertificateDer<'static>>,
    bundle: Bundle,
    trust_domain: String,
    not_after: SystemTime,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A leaf cannot outlive its CA, and an expired CA would sign what nobody believes.
    #[error("the CA's own certificate has expired {} s ago; put a new one into its Secret or directory", .0.as_secs())]
    Expired(Duration),
    /// What is left is too short for a leaf.
    #[error("the CA's own certificate ends in {} s; put a new one into its Secret or directory", .0.as_secs())]
    Ending(Duration),
    /// The library failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
}

/// A signed leaf.
pub struct Leaf {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's end.
    pub not_after: SystemTime,
    /// The leaf's serial number in hexadecimal.
    pub serial: String,
}

/// The public key of a PKCS#10 request whose signature is its own. Whatever else the request asks for counts for nothing.
pub fn public_key(csr: &[u8]) -> Result<PublicKey, String> {
    let csr = CertificateSigningRequestParams::from_der(&csr.into())
        .map_err(|error| format!("the certificate request cannot be read: {error}"))?;
    Ok(csr.public_key)
}

impl Ca {
    /// Reads the authority from its texts. `place` says where each stands, for messages.
    pub fn read(texts: &Texts, place: impl Fn(&str) -> String, trust_domain: &str) -> anyhow::Result<Self> {
        let chain = tls::certificates(&texts.certificate).with_context(|| place(CERTIFICATE))?;
        let key = std::str::from_utf8(&texts.key)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.with_context(|| format!("{}: no private key in PKCS#8 PEM", place(KEY)))?;
        let signing = chain.first().context("a PEM text has a certificate")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(signing)
            .map_err(|error| anyhow::anyhow!("{}: {error}", place(CERTIFICATE)))?;
        ensure!(
            parsed.public_key().raw == key.subject_public_key_info(),
            "{} is not the key of {}",
            place(KEY),
            place(CERTIFICATE)
        );
        ensure!(
            parsed.is_ca(),
            "{}: the first certificate is not a CA's",
            place(CERTIFICATE)
        );
        // A leaf must not outlive anything that it is proven with.
        let ends: Option<Vec<SystemTime>> = chain.iter().map(|one| Some(tls::validity(one)?.1)).collect();
        let not_after = ends
            .and_then(|ends| ends.into_iter().min())
            .context("the CA's validity cannot be read")?;

        let (mut roots, intermediates): (Vec<_>, Vec<_>) = chain.iter().cloned().partition(is_self_issued);
        if let Some(pem) = &texts.bundle {
            roots.extend(tls::certificates(pem).with_context(|| place(BUNDLE))?);
        }
        let mut seen = Vec::new();
        roots.retain(|root| {
            !seen.contains(root) && {
                seen.push(root.clone());
                true
            }
        });
        ensure!(
            !roots.is_empty(),
            "there is no root: {} has intermediates only, and {} adds none",
            place(CERTIFICATE),
            place(BUNDLE)
        );
        let bundle = Bundle::new(roots).with_context(|| place(BUNDLE))?;
        let issuer = rcgen::Issuer::from_ca_cert_der(signing, key)?;
        Ok(Self {
            issuer,
            intermediates,
            bundle,
            trust_domain: trust_domain.to_owned(),
            not_after,
        })
    }

    /// The trust domain of what it signs.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Every root that peers may chain to.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// [`Ca::bundle`] in PEM.
    pub fn bundle_pem(&self) -> String {
        self.bundle.certificates().iter().map(|one| pem(one)).collect()
    }

    /// When the signing certificate ends, or the first of those above it.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a leaf for `id` with this public key.
    pub fn sign(&self, id: &Id, key: &PublicKey, life: Duration, now: SystemTime) -> Result<Leaf, Refused> {
        if let Ok(ago) = now.duration_since(self.not_after) {
            return Err(Refused::Expired(ago));
        }
        let left = self.not_after.duration_since(now).unwrap_or_default();
        if left < LEAST_LEFT {
            return Err(Refused::Ending(left));
        }
        let not_after = whole_seconds((now + life).min(self.not_after));
        let mut serial = [0; 16];
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut serial)
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        // Positive, and never shorter (RFC 5280, 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;

        let mut params = CertificateParams::default();
        params.not_before = whole_seconds(now - SKEW).into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // No subject: the one name is the URI, which is critical then.
        params.distinguished_name = DistinguishedName::new();
        let uri = id
            .as_str()
            .to_owned()
            .try_into()
            .map_err(|_| rcgen::Error::InvalidAsn1String(rcgen::InvalidAsn1String::Ia5String(id.to_string())))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer)?;
        let chain = std::iter::once(leaf.der().clone())
            .chain(self.intermediates.iter().cloned())
            .collect();
        Ok(Leaf {
            chain,
            not_after,
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// X.509 has no fractions of seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// RFC 7468: base64 in lines of 64.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in BASE64_STANDARD.encode(certificate).as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn is_self_issued(certificate: &CertificateDer<'static>) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, one)| one.subject() == one.issuer())
}

/// What an authority is read from, each in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Texts {
    /// The signing certificate and what is above it.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Further roots.
    pub bundle: Option<Vec<u8>>,
}

impl Texts {
    /// A new root with its key.
    pub fn generate(trust_domain: &str) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "weft");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("weft CA of {trust_domain}"));
        params.not_before = whole_seconds(now - SKEW).into();
        params.not_after = whole_seconds(now + CA_LIFE).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate()?;
        let root = params.self_signed(&pair)?;
        Ok(Self {
            certificate: root.pem().into_bytes(),
            key: pair.serialize_pem().into_bytes(),
            bundle: None,
        })
    }
}

/// The authority now, wherever it comes from. There may be none yet.
pub struct Authority {
    current: ArcSwapOption<Ca>,
    changes: watch::Sender<u64>,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Authority {
    /// The authority now.
    pub fn current(&self) -> Option<Arc<Ca>> {
        self.current.load_full()
    }

    /// Tells when it has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until there is one.
    pub async fn loaded(&self) {
        let mut changes = self.changes();
        while self.current().is_none() {
            // Cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    fn replace(&self, ca: Ca) {
        let old = self.current();
        let roots = ca.bundle.certificates();
        if let Ok(left) = ca.not_after.duration_since(SystemTime::now())
            && left < SOON
        {
            tracing::warn!(left = ?left, "the CA's certificate ends soon; put a new one in its place");
        }
        let dropped = |old: &Ca| old.bundle.certificates().iter().any(|root| !roots.contains(root));
        if old.as_deref().is_some_and(dropped) {
            tracing::warn!(
                "a root that was trusted has gone from the bundle: workloads whose certificates lead to it are refused until \
                 they have new ones; to change roots unharmed, keep the old one in {BUNDLE} for a day"
            );
        }
        tracing::info!(roots = roots.len(), "have the CA");
        self.current.store(Some(Arc::new(ca)));
        self.changes.send_modify(|count| *count += 1);
    }
}
