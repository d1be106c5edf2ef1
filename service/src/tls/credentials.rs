//! A workload's credentials, and the place where the running program keeps the current ones.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::sync::watch;
use weft_proto::names::MESH_ALPN;

use super::{identity_server, mesh_client, mesh_server, provider, verify};
use crate::spiffe::{Id, NoId};

/// Why some certificates and a key are not usable as credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// PEM that cannot be read.
    #[error("no {what} can be read from the PEM text: {error}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The parser's words.
        error: String,
    },
    /// A trust bundle without roots trusts nobody.
    #[error("the trust bundle holds no certificate")]
    EmptyBundle,
    /// A root that cannot be used as one.
    #[error("certificate {position} of the trust bundle cannot be a root: {error}")]
    BadRoot {
        /// Position in the bundle, from 1.
        position: usize,
        /// The verifier's words.
        error: rustls::Error,
    },
    /// The chain has no leaf.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The leaf names no workload.
    #[error("the leaf certificate names no workload: {0}")]
    NoId(#[from] NoId),
    /// The leaf's validity cannot be read.
    #[error("the leaf certificate's validity cannot be read")]
    Validity,
    /// The key is not one, or not the leaf's.
    #[error("the private key does not fit the certificate: {0}")]
    Key(rustls::Error),
}

/// The roots that a peer's chain may lead to.
#[derive(Clone)]
pub struct Bundle {
    certificates: Arc<[CertificateDer<'static>]>,
    store: Arc<RootCertStore>,
    client_verifier: Arc<dyn ClientCertVerifier>,
}

impl Bundle {
    /// A bundle of these roots, all of which must be usable.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, CredentialsError> {
        let mut store = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            let bad = |error| CredentialsError::BadRoot {
                position: index + 1,
                error,
            };
            store.add(certificate.clone()).map_err(bad)?;
        }
        if store.is_empty() {
            return Err(CredentialsError::EmptyBundle);
        }
        let store = Arc::new(store);
        let client_verifier = WebPkiClientVerifier::builder_with_provider(store.clone(), provider())
            .build()
            .map_err(|_| CredentialsError::EmptyBundle)?;
        Ok(Self {
            certificates: certificates.into(),
            store,
            client_verifier,
        })
    }

    /// A bundle from PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialsError> {
        Self::new(super::certificates(pem)?)
    }

    /// The roots' certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        self.store.clone()
    }

    pub(super) fn client_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.client_verifier.clone()
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} roots)", self.certificates.len())
    }
}

/// A certificate chain with its key, and whom to trust meanwhile.
pub struct Credentials {
    key: Arc<CertifiedKey>,
    resolver: Arc<SingleCertAndKey>,
    bundle: Bundle,
    id: Id,
    not_before: SystemTime,
    not_after: SystemTime,
    /// What is asked for on each connection is made once.
    servers: Servers,
}

struct Servers {
    mesh: std::sync::OnceLock<Arc<ServerConfig>>,
    discovery: std::sync::OnceLock<Arc<ServerConfig>>,
    identity: std::sync::OnceLock<Arc<ServerConfig>>,
}

impl Credentials {
    /// Checks that chain, key and bundle fit together: the key is the leaf's and the leaf names one workload.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: Bundle,
    ) -> Result<Self, CredentialsError> {
        let leaf = chain.first().ok_or(CredentialsError::EmptyChain)?;
        let id = Id::of_certificate(leaf)?;
        let (not_before, not_after) = validity(leaf).ok_or(CredentialsError::Validity)?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(CredentialsError::Key)?;
        key.keys_match().map_err(CredentialsError::Key)?;
        let key = Arc::new(key);
        let resolver = Arc::new(SingleCertAndKey::from(key.clone()));
        let servers = Servers {
            mesh: Default::default(),
            discovery: Default::default(),
            identity: Default::default(),
        };
        Ok(Self {
            key,
            resolver,
            bundle,
            id,
            not_before,
            not_after,
            servers,
        })
    }

    /// Whose certificate this is.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The roots that peers may chain to.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// When the leaf starts to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When the leaf ends to be valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether the leaf is past its end.
    pub fn expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// Whether a peer's chain is one that these credentials accept now; its identity then. For live connections after the
    /// trust bundle has changed (RELIABILITY T52).
    pub fn accepts(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Id, rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.bundle
            .client_verifier
            .verify_client_cert(leaf, intermediates, now)?;
        Ok(verify::id_in(self.id.trust_domain(), leaf)?)
    }

    /// [`mesh_server`] for `weft/1`, made once.
    pub fn mesh_server(&self) -> Arc<ServerConfig> {
        self.servers.mesh.get_or_init(|| mesh_server(self, MESH_ALPN)).clone()
    }

    /// [`mesh_server`] for gRPC, made once.
    pub fn discovery_server(&self) -> Arc<ServerConfig> {
        self.servers
            .discovery
            .get_or_init(|| mesh_server(self, super::H2))
            .clone()
    }

    /// [`identity_server`], made once.
    pub fn identity_server(&self) -> Arc<ServerConfig> {
        self.servers.identity.get_or_init(|| identity_server(self)).clone()
    }

    /// [`mesh_client`] for `weft/1`.
    pub fn mesh_client(&self, expected: &Id) -> Arc<ClientConfig> {
        mesh_client(self, expected, MESH_ALPN)
    }

    /// [`mesh_client`] for gRPC.
    pub fn discovery_client(&self, expected: &Id) -> Arc<ClientConfig> {
        mesh_client(self, expected, super::H2)
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        self.resolver.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .field("bundle", &self.bundle)
            .finish_non_exhaustive()
    }
}

/// From when to when a certificate is valid.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let time = |seconds: i64| UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?));
    let validity = certificate.validity();
    Some((
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ))
}

/// The current credentials of the running program: empty until the first are there, then replaced whole.
pub struct Holder {
    current: ArcSwapOption<Credentials>,
    changes: watch::Sender<u64>,
}

impl Default for Holder {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Holder {
    /// A holder without credentials.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Replaces the credentials, for every handshake from now on.
    pub fn set(&self, credentials: Credentials) {
        self.current.store(Some(Arc::new(credentials)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// The current credentials; `None` before the first.
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.current.load_full()
    }

    /// Tells of every [`Holder::set`]; the value counts them.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits for the first credentials.
    pub async fn first(&self) -> Arc<Credentials> {
        let mut changes = self.changes();
        loop {
            if let Some(credentials) = self.current() {
                return credentials;
            }
            // Cannot fail: the sender lives in `self`.
            let _ = changes.changed().await;
        }
    }
}
