//! The authority of a directory: made where it is missing, and followed.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{Authority, BUNDLE, CERTIFICATE, Ca, KEY, Texts};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

fn place(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

/// Reads the authority of a directory.
pub fn load(directory: &Path, trust_domain: &str) -> anyhow::Result<Ca> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let texts = Texts {
        certificate: read(CERTIFICATE)?,
        key: read(KEY)?,
        bundle: match fs::read(directory.join(BUNDLE)) {
            Ok(pem) => Some(pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| place(directory, BUNDLE)),
        },
    };
    Ca::read(&texts, |name| place(directory, name), trust_domain)
}

/// Makes a root with its key, unless there is one. The key is readable for its owner only.
pub fn create(directory: &Path, trust_domain: &str) -> anyhow::Result<()> {
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
    let texts = Texts::generate(trust_domain)?;
    // The key first: a certificate without its key would be in the way for ever.
    write(&key, &texts.key, 0o600)?;
    write(&certificate, &texts.certificate, 0o644)?;
    tracing::info!(certificate = %certificate.display(), "made a CA");
    Ok(())
}

fn write(path: &Path, text: &[u8], mode: u32) -> anyhow::Result<()> {
    let open = || {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    };
    open()
        .and_then(|mut file| file.write_all(text))
        .with_context(|| path.display().to_string())
}

/// Keeps an authority equal to the files of a directory.
pub struct CaFiles {
    directory: PathBuf,
    trust_domain: String,
    authority: Arc<Authority>,
}

impl CaFiles {
    /// Loads them for the first time.
    pub fn new(directory: &Path, trust_domain: &str) -> anyhow::Result<Self> {
        let authority = Arc::new(Authority::default());
        authority.replace(load(directory, trust_domain)?);
        Ok(Self {
            directory: directory.to_owned(),
            trust_domain: trust_domain.to_owned(),
            authority,
        })
    }

    /// What is kept.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Follows the files for ever.
    pub async fn follow(self) {
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
        match load(&self.directory, &self.trust_domain) {
            Ok(ca) => self.authority.replace(ca),
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
    pub(in crate::issue) fn look_again(&self) {
        self.look(&mut [None; 3]);
    }
}
