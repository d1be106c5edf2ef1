//! Workload certificates: who may have one, for whom it is, and how long it lives.
//!
//! A caller is who its token says ([`token`]); of its request only the public key is taken. The CA is followed
//! ([`ca`]), so that roots and keys rotate without a restart. The controller's own certificates come from here, too
//! ([`own`]).

pub mod ca;
pub mod client;
pub mod own;
pub mod token;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tonic::{Request, Response, Status};
use weft_proto::{
    limits,
    rpc::identity::{
        CertifyRequest, CertifyResponse,
        identity_server::{Identity, IdentityServer},
    },
};
use weft_service::{
    drain,
    spiffe::Id,
    tls::{Credentials, Holder},
};

use crate::{listen::Listener, serve};
use ca::{Authority, Refused};
use token::{Check, Claim};

/// Signs certificates for callers.
pub struct Issuer {
    /// The CA, followed.
    pub ca: Arc<Authority>,
    /// How callers prove who they are.
    pub check: Box<dyn Check>,
    /// Life of a leaf.
    pub life: Duration,
    /// What was asked for of late.
    pub quota: Quota,
    /// Counts for metrics.
    pub counts: Arc<Counts>,
}

/// How many certificates were signed and refused.
#[derive(Debug, Default)]
pub struct Counts {
    /// Signed.
    pub issued: AtomicU64,
    /// Refused.
    pub refused: AtomicU64,
}

/// Serves the Identity service until the drain begins.
pub async fn serve(
    listener: Listener,
    holder: Arc<Holder>,
    issuer: Arc<Issuer>,
    drain: drain::Signal,
) -> Result<(), tonic::transport::Error> {
    serve::builder()
        .timeout(limits::HANDSHAKE_TIME)
        .add_service(IdentityServer::new(Service { issuer }).max_decoding_message_size(limits::CERTIFY_REQUEST))
        .serve_with_incoming_shutdown(listener.incoming(holder, Credentials::identity_server), async move {
            drain.draining().await;
        })
        .await
}

struct Service {
    issuer: Arc<Issuer>,
}

#[tonic::async_trait]
impl Identity for Service {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let answer = self.issuer.certify(request.get_ref()).await;
        match &answer {
            Ok(_) => self.issuer.counts.issued.fetch_add(1, Ordering::Relaxed),
            Err(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), "certificate refused");
                self.issuer.counts.refused.fetch_add(1, Ordering::Relaxed)
            }
        };
        answer.map(Response::new)
    }
}

impl Issuer {
    async fn certify(&self, request: &CertifyRequest) -> Result<CertifyResponse, Status> {
        // Nothing is told apart to a caller who has not proven who it is.
        let claim = self
            .check
            .check(&request.token)
            .await
            .map_err(|refused| match refused {
                token::Refused::Token(why) => Status::unauthenticated(format!("the token is refused: {why}")),
                token::Refused::Unavailable(why) => {
                    Status::unavailable(format!("the token cannot be checked now: {why}"))
                }
            })?;
        let ca = self
            .ca
            .current()
            .ok_or_else(|| Status::unavailable("there is no CA yet; ask again"))?;
        let id = Id::workload(ca.trust_domain(), &claim.namespace, &claim.service_account)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !self.quota.take(&claim, Instant::now()) {
            let most = limits::CERTIFICATES_PER_MINUTE;
            return Err(Status::resource_exhausted(format!(
                "more than {most} certificates a minute for {id}; wait"
            )));
        }
        let key = ca::public_key(&request.csr).map_err(Status::invalid_argument)?;
        let leaf = ca
            .sign(&id, &key, self.life, SystemTime::now())
            .map_err(|refused| match refused {
                Refused::Expired(_) | Refused::Ending(_) => Status::failed_precondition(refused.to_string()),
                Refused::Signing(_) => Status::internal(refused.to_string()),
            })?;
        tracing::info!(%id, pod = %claim.pod_name, serial = %leaf.serial, "certificate issued");
        let not_after = leaf.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(CertifyResponse {
            chain: leaf.chain.iter().map(|one| one.to_vec()).collect(),
            trust_bundle: ca.bundle().certificates().iter().map(|one| one.to_vec()).collect(),
            not_after: i64::try_from(not_after).unwrap_or(i64::MAX),
        })
    }
}

/// Bounds how often one workload may ask, so that a stolen token or a proxy gone wild does not keep the CA busy.
///
/// Counted by identity and pod: a Deployment that starts a hundred pods at once is no attack.
#[derive(Debug, Default)]
pub struct Quota {
    recent: Mutex<HashMap<(String, String, String), VecDeque<Instant>>>,
}

impl Quota {
    const WINDOW: Duration = Duration::from_secs(60);

    fn take(&self, claim: &Claim, now: Instant) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |time: &Instant| now.duration_since(*time) < Self::WINDOW;
        if recent.len() > 4096 {
            recent.retain(|_, times| times.iter().any(fresh));
        }
        let key = (
            claim.namespace.clone(),
            claim.service_account.clone(),
            claim.pod_uid.clone(),
        );
        let times = recent.entry(key).or_default();
        times.retain(fresh);
        let free = times.len() < limits::CERTIFICATES_PER_MINUTE;
        if free {
            times.push_back(now);
        }
        free
    }
}

#[cfg(test)]
mod tests;
