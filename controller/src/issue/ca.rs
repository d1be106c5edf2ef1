//! The certificate authority: its files, and what it signs.
//!
//! `ca.crt` holds the certificate that signs, and behind it the intermediates up to the root where there are some; `ca.key`
//! its key; `ca-bundle.crt`, which may be missing, further roots that peers may chain to. All are read anew when they
//! change; what cannot be read leaves the last good CA in place.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKey, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use weft_service::{
    spiffe::Id,
    tls::{self, Bundle},
};

/// How far back a leaf's validity starts, for peers whose clock is behind.
const SKEW: Duration = Duration::from_secs(60);
/// Life of a CA that the controller makes itself.
const CA_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

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
    #[error("the CA's own certificate has expired {} s ago; put a new one into --ca-dir", .0.as_secs())]
    Expired(Duration),
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
    /// Reads the authority of a directory.
    pub fn load(directory: &Path, trust_domain: &str) -> anyhow::Result<Self> {
        use anyhow::{Context, ensure};
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
        };
        let chain = tls::certificates(&read(CERTIFICATE)?).with_context(|| place(directory, CERTIFICATE))?;
        let key = String::from_utf8(read(KEY)?)
            .ok()
            .and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = key.with_context(|| format!("{}: no private key in PKCS#8 PEM", place(directory, KEY)))?;
        let signing = chain.first().context("a PEM text has a certificate")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(signing)
            .map_err(|error| anyhow::anyhow!("{}: {error}", place(directory, CERTIFICATE)))?;
        ensure!(
            parsed.public_key().raw == key.subject_public_key_info(),
            "{} is not the key of {}",
            place(directory, KEY),
            place(directory, CERTIFICATE)
        );
        ensure!(
            parsed.is_ca(),
            "{}: the first certificate is not a CA's",
            place(directory, CERTIFICATE)
        );
        let (_, not_after) = tls::validity(signing).context("the CA's validity cannot be read")?;

        let (mut roots, intermediates): (Vec<_>, Vec<_>) = chain.iter().cloned().partition(is_self_issued);
        match fs::read(directory.join(BUNDLE)) {
            Ok(pem) => roots.extend(tls::certificates(&pem).with_context(|| place(directory, BUNDLE))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| place(directory, BUNDLE)),
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
            place(directory, CERTIFICATE),
            place(directory, BUNDLE)
        );
        let bundle = Bundle::new(roots).with_context(|| place(directory, BUNDLE))?;
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

    /// When the signing certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a leaf for `id` with this public key.
    pub fn sign(&self, id: &Id, key: &PublicKey, life: Duration, now: SystemTime) -> Result<Leaf, Refused> {
        if let Ok(ago) = now.duration_since(self.not_after) {
            return Err(Refused::Expired(ago));
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

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const BUNDLE: &str = "ca-bundle.crt";

fn place(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

fn is_self_issued(certificate: &CertificateDer<'static>) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, one)| one.subject() == one.issuer())
}

/// Makes a root with its key, unless there is one. The key is readable for its owner only.
pub fn create(directory: &Path, trust_domain: &str) -> anyhow::Result<()> {
    use anyhow::{Context, bail};
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => return Ok(()),
        (false, false) => {}
        (true, false) => bail!(
            "{} is there and {} is not; remove it, or add its key",
            certificate.display(),
            key.display()
        ),
        (false, true) => bail!(
            "{} is there and {} is not; remove it, or add its certificate",
            key.display(),
            certificate.display()
        ),
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .with_context(|| directory.display().to_string())?;
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
    // The key first: a certificate without its key would be in the way for ever.
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&certificate, &root.pem(), 0o644)?;
    tracing::info!(certificate = %certificate.display(), "made a CA");
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    use anyhow::Context;
    let open = || {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    };
    open()
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| path.display().to_string())
}

/// The authority of a directory, followed.
pub struct CaFiles {
    directory: PathBuf,
    trust_domain: String,
    current: ArcSwap<Ca>,
    changes: watch::Sender<u64>,
}

impl CaFiles {
    /// Loads it for the first time.
    pub fn new(directory: &Path, trust_domain: &str) -> anyhow::Result<Arc<Self>> {
        let ca = Ca::load(directory, trust_domain)?;
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            trust_domain: trust_domain.to_owned(),
            current: ArcSwap::from_pointee(ca),
            changes: watch::Sender::new(0),
        }))
    }

    /// The authority now.
    pub fn current(&self) -> Arc<Ca> {
        self.current.load_full()
    }

    /// Tells when it has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows the files for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look(&mut seen);
        }
    }

    /// Loads the files anew if they have changed since they were `seen`.
    fn look(&self, seen: &mut Stamps) {
        let now = self.stamps();
        if now == std::mem::replace(seen, now) {
            return;
        }
        match Ca::load(&self.directory, &self.trust_domain) {
            Ok(ca) => {
                tracing::info!(roots = ca.bundle().certificates().len(), "the CA's files have changed");
                self.current.store(Arc::new(ca));
                self.changes.send_modify(|count| *count += 1);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the CA's files have changed and cannot be used; the last stay");
            }
        }
    }

    fn stamps(&self) -> Stamps {
        [CERTIFICATE, KEY, BUNDLE].map(|name| {
            let metadata = fs::metadata(self.directory.join(name)).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
        })
    }
}

/// Inode, size and time of change of each file that is there.
type Stamps = [Option<(u64, u64, i64, i64)>; 3];

#[cfg(test)]
impl CaFiles {
    /// One look, as at the next tick.
    pub(super) fn look_again(&self) {
        self.look(&mut [None; 3]);
    }
}
