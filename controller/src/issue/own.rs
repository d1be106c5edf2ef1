//! The controller's own certificates: signed by the CA that it holds, or asked for as every workload does.
//!
//! Renewed at half of what is left, with jitter, and at once when the CA changes.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;
use weft_service::{
    spiffe::Id,
    tls::{self, Bundle, Credentials, Holder},
};

use super::{ca::Authority, client};

/// Keeps a holder filled from the CA that this process holds.
pub async fn from_ca(holder: Arc<Holder>, ca: Arc<Authority>, id: Id, life: Duration) {
    ca.loaded().await;
    let changes = ca.changes();
    keep(holder, Some(changes), || {
        let credentials = signed(&ca, &id, life);
        async move { credentials }
    })
    .await;
}

/// Credentials for `id`, signed now.
pub fn signed(ca: &Authority, id: &Id, life: Duration) -> anyhow::Result<Credentials> {
    let ca = ca.current().context("there is no CA yet")?;
    let pair = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&pair)?;
    let key = super::ca::public_key(csr.der()).map_err(anyhow::Error::msg)?;
    let leaf = ca.sign(id, &key, life, SystemTime::now())?;
    Ok(Credentials::new(
        leaf.chain,
        tls::pkcs8(pair.serialize_der()),
        ca.bundle().clone(),
    )?)
}

/// Where a controller without a CA gets its certificate.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `host:port` of the identity service.
    pub address: String,
    /// Who must answer there.
    pub service: Id,
    /// Holds our projected token; read at each use.
    pub token_file: PathBuf,
    /// Holds the roots to start with; read at each use.
    pub trust_bundle: PathBuf,
}

/// Keeps a holder filled from the identity service.
pub async fn from_service(holder: Arc<Holder>, remote: Remote) {
    keep(holder, None, || certified(&remote)).await;
}

async fn certified(remote: &Remote) -> anyhow::Result<Credentials> {
    let read = async |path: &PathBuf| tokio::fs::read(path).await.with_context(|| path.display().to_string());
    let bundle = Bundle::from_pem(&read(&remote.trust_bundle).await?)?;
    let token = String::from_utf8(read(&remote.token_file).await?).context("the token is not text")?;
    let pair = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&pair)?.der().to_vec();
    let answer = client::certify(&remote.address, &bundle, &remote.service, token.trim().to_owned(), csr).await?;
    let certificates = |list: Vec<Vec<u8>>| list.into_iter().map(Into::into).collect();
    let bundle = Bundle::new(certificates(answer.trust_bundle))?;
    Ok(Credentials::new(
        certificates(answer.chain),
        tls::pkcs8(pair.serialize_der()),
        bundle,
    )?)
}

async fn keep<F: Future<Output = anyhow::Result<Credentials>>>(
    holder: Arc<Holder>,
    mut changes: Option<watch::Receiver<u64>>,
    obtain: impl Fn() -> F,
) {
    let mut pause = Duration::from_secs(1);
    loop {
        let wait = match obtain().await {
            Ok(credentials) => {
                let left = credentials
                    .not_after()
                    .duration_since(SystemTime::now())
                    .unwrap_or_default();
                tracing::info!(id = %credentials.id(), left = ?left, "have a certificate");
                holder.set(credentials);
                pause = Duration::from_secs(1);
                // Between 45 and 55 % of what is left.
                (left * (450 + chance(100)) / 1000).max(Duration::from_millis(500))
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), retry = ?pause, "cannot get a certificate of my own");
                let wait = pause * (750 + chance(500)) / 1000;
                pause = (pause * 2).min(Duration::from_secs(30));
                wait
            }
        };
        let changed = async {
            match &mut changes {
                Some(changes) => drop(changes.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed => {}
        }
    }
}

fn chance(below: u32) -> u32 {
    (RandomState::new().hash_one(0) % u64::from(below)) as u32
}
