//! The proxy's certificate: asked for with a key that never leaves the process, renewed long before it ends.
//!
//! The token is read anew each time. The server is proven by the trust bundle and its SPIFFE id; the bundle that comes
//! with a certificate replaces the one before it. Who may be issued what is the controller's matter.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use weft_proto::{
    limits, names,
    rpc::identity::{CertifyRequest, CertifyResponse, identity_client::IdentityClient},
};
use weft_service::tls::{self, Bundle, Credentials};

use crate::{
    app::Shared,
    discovery::channel::{self, BackOff, jitter},
    metrics,
};

/// Longest pause between two attempts: a pod that starts waits for its certificate.
const PAUSE: Duration = Duration::from_secs(15);

/// Keeps the certificate fresh, for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut back_off = BackOff::new(PAUSE);
    loop {
        let attempt = tokio::time::timeout(2 * (limits::CONNECT_TIME + limits::HANDSHAKE_TIME), certify(&shared)).await;
        match attempt.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time"))) {
            Ok(credentials) => {
                back_off.reset();
                let renewal = until_renewal(credentials.not_before(), credentials.not_after(), SystemTime::now());
                let expires = credentials.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
                metrics::certificate_expires(expires.as_secs_f64());
                tracing::info!(identity = %credentials.id(), renewal_s = renewal.as_secs(), "certificate");
                shared.credentials.set(credentials);
                tokio::time::sleep(renewal).await;
            }
            Err(error) => {
                let pause = back_off.step();
                let address = &shared.config.identity_address;
                tracing::warn!(%address, error = format!("{error:#}"), pause_ms = pause.as_millis() as u64, "no certificate");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Half of the life that is left when it comes, less up to a fifth of that, so that pods which started together part.
fn until_renewal(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Duration {
    let left = not_after.duration_since(now.max(not_before)).unwrap_or_default();
    jitter(left / 2, 20)
}

/// One certificate.
async fn certify(shared: &Shared) -> anyhow::Result<Credentials> {
    let config = &shared.config;
    let token_file = &config.token_file;
    let token = tokio::fs::read_to_string(token_file).await.with_context(|| {
        format!(
            "the token cannot be read from {} ({})",
            token_file.display(),
            names::env::TOKEN_FILE
        )
    })?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no key can be made")?;
    let mut request = CertificateParams::default();
    // The issuer takes the public key and nothing else.
    request.distinguished_name = DistinguishedName::new();
    let csr = request
        .serialize_request(&key)
        .context("no certificate request can be made")?;

    let bundle = shared
        .credentials
        .current()
        .map_or_else(|| config.trust_bundle.clone(), |now| now.bundle().clone());
    let expected = config.controller(names::IDENTITY_SERVICE_ACCOUNT);
    let channel = channel::connect(&config.identity_address, tls::identity_client(&bundle, &expected)).await?;
    let request = CertifyRequest {
        token: token.trim().to_owned(),
        csr: csr.der().to_vec(),
    };
    let answer = IdentityClient::new(channel).certify(request).await?.into_inner();
    credentials(answer, key, bundle, shared)
}

/// What came must be ours, and valid.
fn credentials(answer: CertifyResponse, key: KeyPair, bundle: Bundle, shared: &Shared) -> anyhow::Result<Credentials> {
    let roots: Vec<_> = answer.trust_bundle.into_iter().map(|der| der.to_vec().into()).collect();
    let bundle = if roots.is_empty() { bundle } else { Bundle::new(roots)? };
    let chain = answer.chain.into_iter().map(|der| der.to_vec().into()).collect();
    let credentials = Credentials::new(chain, tls::pkcs8(key.serialize_der()), bundle)?;
    let expected = shared.config.identity();
    anyhow::ensure!(
        *credentials.id() == expected,
        "the certificate is of {}, expected was {expected}",
        credentials.id()
    );
    anyhow::ensure!(
        !credentials.expired(SystemTime::now()),
        "the certificate that came has expired already"
    );
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f20_a_certificate_is_renewed_before_half_of_its_life() {
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let renewal = until_renewal(now - Duration::from_secs(60), now + day, now);
        assert!(renewal <= day / 2 && renewal >= day * 2 / 5, "{renewal:?}");
        assert_eq!(
            until_renewal(now - day, now - Duration::from_secs(1), now),
            Duration::ZERO
        );
    }
}
