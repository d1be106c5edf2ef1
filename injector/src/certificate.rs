//! The webhook's certificate where no cluster keeps it: read from files, or made here with a CA of its own.
//!
//! That CA lives in this process only; what the API server must trust is written to a file, whole or not at all. A new
//! CA is published one issue before it signs. The CA that replicas share is in [`crate::kubernetes`].

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use rustls::{ServerConfig, pki_types::CertificateDer};
use weft_service::tls;

pub mod authority;

pub use authority::{Authority, Lives};

/// A serving certificate with its key, and when to ask for the next one.
#[derive(Debug)]
pub struct Issued {
    /// Ready to serve with.
    pub config: Arc<ServerConfig>,
    /// The CA that signed it, PEM; empty where that is not ours.
    pub ca: String,
    /// End of the certificate's life.
    pub not_after: SystemTime,
    /// When it should be replaced. `None`: whenever its files change.
    pub renew_at: Option<SystemTime>,
}

/// Where the serving certificate comes from.
pub enum Source {
    /// Files that someone else keeps, read anew when they change.
    Files {
        /// PEM chain, leaf first.
        certificate: PathBuf,
        /// PEM private key.
        key: PathBuf,
        /// What was read last.
        last: Option<(Vec<u8>, Vec<u8>)>,
    },
    /// Our own CA, whose bundle is written to a file.
    Own {
        /// The CA.
        authority: Box<Authority>,
        /// DNS names and addresses of its certificates.
        names: Vec<String>,
        /// Where its bundle goes.
        bundle: Option<PathBuf>,
        /// When the next certificate is due.
        renew_at: SystemTime,
    },
}

impl Source {
    /// Files that are given.
    pub fn files(certificate: PathBuf, key: PathBuf) -> Self {
        Self::Files {
            certificate,
            key,
            last: None,
        }
    }

    /// A CA of our own.
    pub fn own(names: Vec<String>, bundle: Option<PathBuf>, now: SystemTime) -> anyhow::Result<Self> {
        let authority = Authority::new(now, &Lives::default()).context("cannot make a CA for the webhook")?;
        Ok(Self::Own {
            authority: Box::new(authority),
            names,
            bundle,
            renew_at: now,
        })
    }

    /// A new certificate when one is due, else `None`. The first call always gives one, or an error.
    pub fn renewed(&mut self, now: SystemTime) -> anyhow::Result<Option<Issued>> {
        match self {
            Self::Files { certificate, key, last } => {
                let chain_pem = read(certificate)?;
                let key_pem = read(key)?;
                if last
                    .as_ref()
                    .is_some_and(|(chain, key)| *chain == chain_pem && *key == key_pem)
                {
                    return Ok(None);
                }
                let named = |path: &Path| format!("{}: ", path.display());
                let chain = tls::certificates(&chain_pem).with_context(|| named(certificate))?;
                let not_after = not_after(&chain[0]).with_context(|| named(certificate))?;
                let private = tls::private_key(&key_pem).with_context(|| named(key))?;
                let config = tls::webhook_server(chain, private).with_context(|| {
                    format!("{} and {} cannot be served with", certificate.display(), key.display())
                })?;
                *last = Some((chain_pem, key_pem));
                Ok(Some(Issued {
                    config,
                    ca: String::new(),
                    not_after,
                    renew_at: None,
                }))
            }
            Self::Own {
                authority,
                names,
                bundle,
                renew_at,
            } => {
                if now < *renew_at {
                    return Ok(None);
                }
                let lives = Lives::default();
                // What the last call wrote is what clients have read long ago.
                authority.advance(now, &lives, |_| true)?;
                let issued = authority.issue(names, now, &lives)?;
                if let Some(path) = bundle {
                    write_whole(path, authority.bundle().as_bytes())
                        .with_context(|| format!("--ca-out: cannot write {}", path.display()))?;
                }
                *renew_at = issued.renew_at.unwrap_or(now);
                Ok(Some(issued))
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(crate) fn not_after(leaf: &CertificateDer) -> anyhow::Result<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).context("the certificate cannot be read")?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Readers see the old content or the new, never a part: written beside the file, then renamed over it.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_is_renewed_before_it_ends_and_not_earlier() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let start = SystemTime::now();
        let mut source = Source::own(vec!["weft-injector.weft-system.svc".into()], Some(path.clone()), start).unwrap();
        let first = source.renewed(start).unwrap().expect("the first one");
        assert!(source.renewed(start + DAY / 2).unwrap().is_none());
        let second = source.renewed(first.renew_at.unwrap()).unwrap().expect("the next one");
        assert!(first.renew_at.unwrap() < first.not_after && second.not_after > first.not_after);
        let bundle = tls::certificates(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(bundle.len(), 1);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no half-written file stays"
        );
    }

    #[test]
    fn files_are_read_again_when_they_change() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
        let write = || {
            let made = rcgen::generate_simple_self_signed(vec!["a.svc".into()]).unwrap();
            std::fs::write(&chain, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        };
        let mut source = Source::files(chain.clone(), key.clone());
        let missing = format!("{:#}", source.renewed(SystemTime::now()).unwrap_err());
        assert!(missing.contains("tls.crt"), "{missing}");
        write();
        assert!(source.renewed(SystemTime::now()).unwrap().is_some());
        assert!(source.renewed(SystemTime::now()).unwrap().is_none());
        write();
        assert!(source.renewed(SystemTime::now()).unwrap().is_some());
        std::fs::write(&key, "not a key").unwrap();
        assert!(source.renewed(SystemTime::now()).is_err());
    }
}
