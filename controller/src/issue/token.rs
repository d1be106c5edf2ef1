//! Who a caller is, by its ServiceAccount token: asked of the API server, or, in a sandbox and only there, checked with the
//! sandbox's own key.
//!
//! Both demand the audience `weft-ca` and a token that is bound to a pod. There is no third way and no default.

use std::{future::Future, pin::Pin, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use weft_proto::{limits, names::TOKEN_AUDIENCE};

use crate::{answers::Answers, api::bounded, cluster::types::ObjectKey};

/// Issuer of a sandbox's tokens, where they name one.
pub const SANDBOX_ISSUER: &str = "weft-sandbox";
/// Seconds by which clocks may differ.
const LEEWAY: u64 = 5;

/// What a good token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's ServiceAccount.
    pub service_account: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not good, and will not be.
    #[error("{0}")]
    Token(String),
    /// Nobody could say.
    #[error("{0}")]
    Unavailable(String),
}

/// A way to check tokens.
pub trait Check: Send + Sync {
    /// Checks one.
    fn check<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Claim, Refused>> + Send + 'a>>;
}

fn refused(why: impl Into<String>) -> Refused {
    Refused::Token(why.into())
}

/// `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(username: &str) -> Result<(&str, &str), Refused> {
    let account = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    account.ok_or_else(|| refused("it is not of a ServiceAccount"))
}

/// Tokens that a sandbox signs with ES256.
pub struct SandboxTokens {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iss: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Named,
    serviceaccount: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

impl SandboxTokens {
    /// With the public key in PEM.
    pub fn new(pem: &[u8]) -> Result<Self, String> {
        let key = DecodingKey::from_ec_pem(pem).map_err(|error| format!("no EC public key in PEM: {error}"))?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[TOKEN_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Ok(Self { key, validation })
    }

    fn claim(&self, token: &str) -> Result<Claim, Refused> {
        let token = jsonwebtoken::decode::<Claims>(token.trim(), &self.key, &self.validation)
            .map_err(|error| refused(error.to_string()))?;
        let Claims { sub, iss, kubernetes } = token.claims;
        if let Some(other) = iss.filter(|iss| iss != SANDBOX_ISSUER) {
            return Err(refused(format!("its issuer is '{other}', not '{SANDBOX_ISSUER}'")));
        }
        let (namespace, account) = service_account(&sub)?;
        if (namespace, account) != (&*kubernetes.namespace, &*kubernetes.serviceaccount.name) {
            return Err(refused("its subject and its kubernetes.io claim differ"));
        }
        if kubernetes.pod.name.is_empty() || kubernetes.pod.uid.is_empty() {
            return Err(refused("it is not bound to a pod"));
        }
        Ok(Claim {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            pod_name: kubernetes.pod.name,
            pod_uid: kubernetes.pod.uid,
        })
    }
}

impl Check for SandboxTokens {
    fn check<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Claim, Refused>> + Send + 'a>> {
        Box::pin(std::future::ready(self.claim(token)))
    }
}

/// A check that also wants the pod of the token to be there still, as an API server does. For the sandbox, whose objects this
/// process reads anyway.
pub struct OfLivingPods {
    /// Checks the token itself.
    pub tokens: SandboxTokens,
    /// Knows the pods.
    pub answers: Arc<Answers>,
}

impl OfLivingPods {
    async fn claim(&self, token: &str) -> Result<Claim, Refused> {
        let claim = self.tokens.claim(token)?;
        let pod = ObjectKey::new(&claim.namespace, &claim.pod_name);
        let mut batches = self.answers.batches();
        let there = async {
            while !self.answers.is_synced() || self.answers.pod_uid(&pod).is_none() {
                // Cannot fail: `self` holds the sender.
                let _ = batches.changed().await;
            }
        };
        // A pod's first token may come before the file with the pod was read.
        let _ = tokio::time::timeout(limits::DESTINATION_TIME, there).await;
        match self.answers.pod_uid(&pod) {
            None => Err(refused(format!("its pod {pod} is not there"))),
            Some(uid) if !uid.is_empty() && *uid != *claim.pod_uid => Err(refused(format!(
                "its pod {pod} has been replaced by another of the same name"
            ))),
            Some(_) => Ok(claim),
        }
    }
}

impl Check for OfLivingPods {
    fn check<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Claim, Refused>> + Send + 'a>> {
        Box::pin(self.claim(token))
    }
}

/// Asks the API server.
pub struct TokenReviews {
    client: Client,
}

impl TokenReviews {
    /// Through this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Check for TokenReviews {
    fn check<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Claim, Refused>> + Send + 'a>> {
        Box::pin(async move {
            let spec = TokenReviewSpec {
                token: Some(token.trim().to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            };
            let review = TokenReview {
                spec,
                ..TokenReview::default()
            };
            let reviews: Api<TokenReview> = Api::all(self.client.clone());
            let params = PostParams::default();
            let asked = bounded(reviews.create(&params, &review));
            // Sooner than the caller is told that it took too long.
            let review = tokio::time::timeout(limits::TOKEN_REVIEW, asked).await;
            let review = review.map_err(|_| Refused::Unavailable("the API server does not answer".into()))?;
            claim_of(review.map_err(|failure| Refused::Unavailable(failure.to_string()))?)
        })
    }
}

fn claim_of(review: TokenReview) -> Result<Claim, Refused> {
    let status = review.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Err(refused(
            status.error.unwrap_or_else(|| "the API server does not know it".into()),
        ));
    }
    // An authenticator that knows no audiences names none, and has then checked none.
    if !status
        .audiences
        .unwrap_or_default()
        .iter()
        .any(|audience| audience == TOKEN_AUDIENCE)
    {
        return Err(refused(format!("it is not for the audience {TOKEN_AUDIENCE}")));
    }
    let user = status.user.unwrap_or_default();
    let (namespace, account) = service_account(user.username.as_deref().unwrap_or_default())?;
    let extra = user.extra.unwrap_or_default();
    let pod = |field: &str| {
        let value = extra.get(&format!("authentication.kubernetes.io/pod-{field}"));
        let value = value
            .and_then(|values| values.first())
            .filter(|value| !value.is_empty());
        value.cloned().ok_or_else(|| refused("it is not bound to a pod"))
    };
    Ok(Claim {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod_name: pod("name")?,
        pod_uid: pod("uid")?,
    })
}

#[cfg(test)]
mod tests;
