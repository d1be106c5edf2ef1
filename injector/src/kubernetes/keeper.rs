//! Keeps the webhook's CA in its Secret, and the webhook's configuration in step with it.
//!
//! Every replica runs this, and none leads. A round looks at both objects, makes the step that is due, and writes only
//! what differs, each time against the version that it has read: who comes second finds nothing left to do. The
//! configuration is read before the Secret, so that a bundle from an old Secret can never be written over a newer one.
//! Watches only say when to look again; without them a round comes once a minute.
//!
//! A certificate is served only when its CA stands in the configuration. What was served goes on being served, and is
//! renewed from memory, while the API server is away (RELIABILITY F14). A Secret that is gone is made again from memory
//! (T42), and a bundle that somebody took out is put back.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PartialObjectMeta, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use weft_proto::{
    limits,
    names::{self, kubernetes as name},
};

use super::{BackOff, Failure, What, jitter};
use crate::{
    certificate::{
        Issued,
        authority::{self, Authority, Lives},
    },
    health::Health,
    metrics::Metrics,
};

/// Longest time between two rounds.
const LOOK: Duration = Duration::from_secs(60);
/// Shortest time between two rounds that nothing but the clock asked for.
const BRIEFLY: Duration = Duration::from_millis(200);
/// Conflicts one after the other that are no longer another replica's doing.
const CONFLICTS: u32 = 10;

/// Subjects of the problems that are told here.
mod subject {
    pub(super) const KEEPING: &str = "webhook CA";
    pub(super) const MISSING: &str = "webhook configuration";
    pub(super) const SERVING: &str = "webhook certificate";
    pub(super) const SECRET: &str = "watch of the Secret";
    pub(super) const CONFIGURATION: &str = "watch of the webhook configuration";
}

/// One replica's part.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    client: Client,
    namespace: String,
    names: Vec<String>,
    lives: Lives,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    issued: watch::Sender<Option<Issued>>,
    /// What the Secret held last.
    known: Option<Authority>,
    /// What API servers trust, for each webhook of the configuration.
    published: Vec<Vec<u8>>,
    /// The CA of what is served, and when it is to be renewed.
    serving: Option<(String, SystemTime)>,
}

impl Keeper {
    /// For certificates with these DNS names or addresses, which are sent to `issued`.
    pub fn new(
        client: Client,
        namespace: &str,
        names: Vec<String>,
        lives: Lives,
        issued: watch::Sender<Option<Issued>>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            configurations: Api::all(client.clone()),
            client,
            namespace: namespace.to_owned(),
            names,
            lives,
            health,
            metrics,
            issued,
            known: None,
            published: Vec::new(),
            serving: None,
        }
    }

    /// Never returns.
    pub async fn run(mut self) {
        let changed = Notify::new();
        let (namespace, health) = (self.namespace.clone(), self.health.clone());
        let secret = What {
            verb: "watch",
            resource: "secrets",
            name: name::WEBHOOK_SECRET,
            namespace: Some(&namespace),
        };
        let configuration = What {
            resource: CONFIGURATIONS,
            name: name::WEBHOOK,
            namespace: None,
            ..secret
        };
        let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(self.client.clone(), &namespace);
        let configurations = Api::<PartialObjectMeta<MutatingWebhookConfiguration>>::all(self.client.clone());
        tokio::join!(
            follow(secrets, secret, subject::SECRET, &health, &changed),
            follow(configurations, configuration, subject::CONFIGURATION, &health, &changed),
            self.keep(&changed)
        );
    }

    async fn keep(&mut self, changed: &Notify) {
        let mut back_off = BackOff::new();
        let mut conflicts = 0;
        loop {
            let kept = self.round(SystemTime::now()).await;
            let renewed = self.renew(SystemTime::now());
            match renewed {
                Ok(()) => self.health.solved(subject::SERVING),
                Err(error) => self
                    .health
                    .problem(subject::SERVING, format!("the old one stays: {error:#}")),
            }
            let pause = match kept {
                Ok(()) => {
                    self.health.solved(subject::KEEPING);
                    (back_off, conflicts) = (BackOff::new(), 0);
                    self.until_due(SystemTime::now())
                }
                Err(Failure::Conflict) if conflicts < CONFLICTS => {
                    conflicts += 1;
                    back_off.step()
                }
                Err(failure) => {
                    self.health.problem(subject::KEEPING, failure.to_string());
                    back_off.step()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => {}
            }
        }
    }

    /// How long nothing is due.
    fn until_due(&self, now: SystemTime) -> Duration {
        let step = self.known.as_ref().map(|known| known.next_step(&self.lives));
        let renewal = self.serving.as_ref().map(|(_, renew_at)| *renew_at);
        let due = [step, renewal].into_iter().flatten().min().unwrap_or(now);
        due.duration_since(now).unwrap_or_default().clamp(BRIEFLY, jitter(LOOK))
    }

    /// Looks at both objects and makes them what they are to be.
    async fn round(&mut self, now: SystemTime) -> Result<(), Failure> {
        let what = What {
            verb: "get",
            resource: CONFIGURATIONS,
            name: name::WEBHOOK,
            namespace: None,
        };
        let configuration = what.call(self.configurations.get_opt(name::WEBHOOK)).await?;
        self.published = configuration.as_ref().map(bundles).unwrap_or_default();
        let authority = self.authority(now).await?;
        self.metrics.ca_expiry(authority.not_after());
        let bundle = authority.bundle();
        self.known = Some(authority);
        let Some(configuration) = configuration else {
            self.health.problem(
                subject::MISSING,
                format!(
                    "there is no MutatingWebhookConfiguration {}, so no pod is injected: weft install | kubectl apply --server-side -f -",
                    name::WEBHOOK
                ),
            );
            return Ok(());
        };
        self.health.solved(subject::MISSING);
        self.publish(configuration, bundle.as_bytes()).await
    }

    /// The CA as the Secret holds it, after the step that is due.
    async fn authority(&self, now: SystemTime) -> Result<Authority, Failure> {
        let what = |verb| What {
            verb,
            resource: "secrets",
            name: name::WEBHOOK_SECRET,
            namespace: Some(&self.namespace),
        };
        let found = what("get").call(self.secrets.get_opt(name::WEBHOOK_SECRET)).await?;
        let held = found.as_ref().map(|secret| {
            let none = Default::default();
            Authority::from_data(secret.data.as_ref().unwrap_or(&none))
        });
        let impossible = |error: rcgen::Error| Failure::Problem(format!("cannot make a CA for the webhook: {error}"));
        let mut authority = match held {
            Some(Ok(authority)) => authority,
            other => {
                if let Some(Err(error)) = other {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        secret = name::WEBHOOK_SECRET,
                        error,
                        "the Secret cannot be used and is made anew"
                    );
                }
                // The CA that is served from is the one that API servers trust already.
                let remembered = self.known.as_ref().map(|known| Authority::from_data(&known.data()));
                match remembered {
                    Some(Ok(authority)) => authority,
                    _ => Authority::new(now, &self.lives).map_err(impossible)?,
                }
            }
        };
        authority
            .advance(now, &self.lives, |ca| self.trusts(ca))
            .map_err(impossible)?;
        let data = authority.data();
        match found {
            Some(secret) if secret.data.as_ref() == Some(&data) => {}
            Some(secret) => {
                let secret = Secret {
                    data: Some(data),
                    ..secret
                };
                // It carries the resourceVersion that was read: whoever else writes first wins.
                what("update")
                    .call(self.secrets.replace(name::WEBHOOK_SECRET, &post(), &secret))
                    .await?;
                self.metrics.ca_written();
                tracing::info!(secret = name::WEBHOOK_SECRET, "the webhook's CA has moved on");
            }
            None => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(name::WEBHOOK_SECRET.into()),
                        namespace: Some(self.namespace.clone()),
                        labels: Some(
                            [
                                (name::PART_OF, name::PART_OF_WEFT),
                                (name::NAME, names::INJECTOR_SERVICE_ACCOUNT),
                            ]
                            .map(|(key, value)| (key.to_owned(), value.to_owned()))
                            .into(),
                        ),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    type_: Some("Opaque".into()),
                    ..Secret::default()
                };
                what("create").call(self.secrets.create(&post(), &secret)).await?;
                self.metrics.ca_written();
                tracing::info!(
                    secret = name::WEBHOOK_SECRET,
                    "the webhook's CA was not in the cluster, and is now"
                );
            }
        }
        Ok(authority)
    }

    /// Has API servers trust `bundle`, and only that.
    async fn publish(&mut self, configuration: MutatingWebhookConfiguration, bundle: &[u8]) -> Result<(), Failure> {
        if self.published.iter().all(|published| published == bundle) {
            return Ok(());
        }
        let what = What {
            verb: "patch",
            resource: CONFIGURATIONS,
            name: name::WEBHOOK,
            namespace: None,
        };
        let patch = kube::api::Patch::Json::<()>(patch(&configuration, bundle));
        let params = PatchParams {
            field_manager: Some(names::INJECTOR_SERVICE_ACCOUNT.into()),
            ..PatchParams::default()
        };
        let patched = what
            .call(self.configurations.patch(name::WEBHOOK, &params, &patch))
            .await
            .inspect_err(|failure| self.metrics.bundle_not_updated(matches!(failure, Failure::Conflict)))?;
        self.metrics.bundle_updated();
        self.published = bundles(&patched);
        tracing::info!(configuration = name::WEBHOOK, "API servers are told which CA to trust");
        Ok(())
    }

    /// Whether API servers trust a CA, as far as is known. Without a configuration nobody calls, and nobody can be wrong.
    fn trusts(&self, ca: &str) -> bool {
        self.published.iter().all(|bundle| authority::holds(bundle, ca))
    }

    /// Signs a new certificate when one is due and its CA is trusted.
    fn renew(&mut self, now: SystemTime) -> anyhow::Result<()> {
        let Some(known) = &self.known else { return Ok(()) };
        let is_due = self
            .serving
            .as_ref()
            .is_none_or(|(ca, renew_at)| ca != known.current() || *renew_at <= now);
        if !is_due || !self.trusts(known.current()) {
            return Ok(());
        }
        let issued = known.issue(&self.names, now, &self.lives)?;
        self.serving = Some((known.current().to_owned(), issued.renew_at.unwrap_or(issued.not_after)));
        self.metrics.certificate_expiry(issued.not_after);
        tracing::info!("a new certificate for the webhook");
        self.issued.send_replace(Some(issued));
        self.health.ready();
        Ok(())
    }
}

const CONFIGURATIONS: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";

fn post() -> PostParams {
    PostParams {
        field_manager: Some(names::INJECTOR_SERVICE_ACCOUNT.into()),
        ..PostParams::default()
    }
}

/// The bundle of each webhook.
fn bundles(configuration: &MutatingWebhookConfiguration) -> Vec<Vec<u8>> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks
        .map(|webhook| webhook.client_config.ca_bundle.clone().unwrap_or_default().0)
        .collect()
}

/// Puts the bundle into every webhook, if the configuration is still the one that was read.
fn patch(configuration: &MutatingWebhookConfiguration, bundle: &[u8]) -> Patch {
    let version = configuration.metadata.resource_version.clone().unwrap_or_default();
    let mut operations = vec![PatchOperation::Test(TestOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: version.into(),
    })];
    // ByteString is written as base64, a string, and that cannot fail.
    let value = serde_json::to_value(ByteString(bundle.to_vec())).unwrap_or_default();
    for (place, published) in bundles(configuration).iter().enumerate() {
        if published != bundle {
            operations.push(PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(["webhooks", &place.to_string(), "clientConfig", "caBundle"]),
                value: value.clone(),
            }));
        }
    }
    Patch(operations)
}

/// Says whenever one object has changed, or may have. Never returns.
async fn follow<K>(api: Api<K>, what: What<'_>, subject: &'static str, health: &Health, changed: &Notify)
where
    K: Clone + Debug + DeserializeOwned + Resource,
{
    // The name as a field: RBAC then asks for this one object only.
    let params = WatchParams::default()
        .fields(&format!("metadata.name={}", what.name))
        .timeout(u32::try_from(limits::WATCH_TIME.as_secs()).unwrap_or(u32::MAX));
    let mut back_off = BackOff::new();
    loop {
        let begun = Instant::now();
        // Version 0: it begins with what is there now, so that nothing is missed between two watches.
        match what.call(api.watch(&params, "0")).await {
            Ok(events) => {
                changed.notify_one();
                let mut events = std::pin::pin!(events);
                loop {
                    match timeout(limits::WATCH_SILENCE, events.next()).await {
                        Ok(Some(Ok(WatchEvent::Error(status)))) => {
                            tracing::debug!(subject, message = status.message, "the watch begins anew");
                            break;
                        }
                        Ok(Some(Ok(event))) => {
                            health.solved(subject);
                            if !matches!(event, WatchEvent::Bookmark(_)) {
                                changed.notify_one();
                            }
                        }
                        // A refusal comes as the first thing that is read.
                        Ok(Some(Err(error))) if matches!(&error, kube::Error::Api(status) if status.code == 403) => {
                            health.problem(subject, what.failure(&error).to_string());
                            break;
                        }
                        Ok(Some(Err(error))) => {
                            tracing::debug!(subject, %error, "the watch begins anew");
                            changed.notify_one();
                            break;
                        }
                        // The API server ends every watch in time; one that is silent for long may be dead.
                        Ok(None) | Err(_) => break,
                    }
                }
            }
            // The round that this asks for says it.
            Err(_) => changed.notify_one(),
        }
        // One that ends at once, however it began, is not to be asked for without pause.
        if begun.elapsed() > limits::WATCH_PAUSE {
            back_off = BackOff::new();
        }
        tokio::time::sleep(back_off.step()).await;
    }
}
