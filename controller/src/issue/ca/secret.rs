//! The authority of a Secret: made where it is missing, followed, and written back when it is deleted.
//!
//! Several replicas may do so at once: the API server lets one create it, and the others read what that one made. A Secret
//! that is deleted while weft runs is never replaced by a new root, which would tear the mesh in two, but by the one in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};
use weft_proto::names::IDENTITY_SERVICE_ACCOUNT;

use super::{Authority, BUNDLE, CERTIFICATE, Ca, KEY, Texts};
use crate::api::{
    Complaint, Failure, bounded,
    config_map::{Keeper, labels},
    follow,
};

/// Keeps an authority equal to a Secret.
pub struct CaSecret {
    client: Client,
    namespace: String,
    name: String,
    trust_domain: String,
    authority: Arc<Authority>,
    seen: Mutex<Seen>,
}

type Data = BTreeMap<String, ByteString>;

#[derive(Default)]
struct Seen {
    /// What the Secret held when it was looked at last.
    last: Option<Data>,
    /// What the authority was made of.
    good: Option<Data>,
}

impl CaSecret {
    /// Nothing is read yet.
    pub fn new(client: Client, namespace: &str, name: &str, trust_domain: &str) -> Arc<Self> {
        Arc::new(Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            trust_domain: trust_domain.to_owned(),
            authority: Arc::default(),
            seen: Mutex::default(),
        })
    }

    /// What is kept.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Follows the Secret for ever.
    pub async fn follow(self: Arc<Self>) {
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        let mut events = follow::Follow::<Secret>::named(self.client.clone(), path, &self.name);
        let what = format!("following the Secret {}/{}", self.namespace, self.name);
        let (mut watching, mut writing) = (Complaint::new(what), Complaint::new("making the Secret of the CA"));
        let (mut listed, mut failures) = (false, 0);
        let mut write_at: Option<Instant> = None;
        loop {
            let due = async {
                match write_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    follow::Event::Restarted => listed = false,
                    follow::Event::Apply(secret) => {
                        (listed, write_at, failures) = (true, None, 0);
                        self.take(secret.data.unwrap_or_default());
                    }
                    follow::Event::Listed => {
                        watching.works();
                        if !listed {
                            write_at = Some(Instant::now());
                        }
                    }
                    follow::Event::Delete(_) => write_at = Some(Instant::now()),
                    follow::Event::Watching => watching.works(),
                    follow::Event::Failed(Failure::Expired(_)) => {}
                    follow::Event::Failed(failure) => watching.failed(&failure),
                },
                () = due => {
                    write_at = match self.write().await {
                        Ok(()) => {
                            writing.works();
                            None
                        }
                        Err(failure) => {
                            writing.failed(&failure);
                            failures += 1;
                            Some(Instant::now() + follow::pause(failures))
                        }
                    };
                }
            }
        }
    }

    /// Reads the Secret now. Whether what is in memory is sure to be the newest.
    pub async fn refresh(&self) -> bool {
        match bounded(self.api().get_opt(&self.name)).await {
            Ok(secret) => {
                if let Some(secret) = secret {
                    self.take(secret.data.unwrap_or_default());
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Keeps a ConfigMap equal to the roots, for ever.
    pub async fn tell(self: Arc<Self>, keeper: Keeper) {
        let roots = || self.authority.current().map(|ca| ca.bundle_pem());
        let (wanted, told) = watch::channel(roots());
        let (_always, active) = watch::channel(true);
        let follow = async {
            let mut changes = self.authority.changes();
            loop {
                wanted.send_replace(roots());
                // Cannot fail: `self` holds the sender.
                let _ = changes.changed().await;
            }
        };
        let keep = keeper.keep(told, active, || async {
            let sure = self.refresh().await;
            wanted.send_replace(roots());
            sure
        });
        tokio::join!(follow, keep);
    }

    fn take(&self, data: Data) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last.as_ref() == Some(&data) {
            return;
        }
        let place = |name: &str| format!("Secret {}/{}, key {name}", self.namespace, self.name);
        let part = |name: &str| data.get(name).map(|value| value.0.clone());
        let texts = Texts {
            certificate: part(CERTIFICATE).unwrap_or_default(),
            key: part(KEY).unwrap_or_default(),
            bundle: part(BUNDLE),
        };
        match Ca::read(&texts, place, &self.trust_domain) {
            Ok(ca) => {
                seen.good = Some(data.clone());
                self.authority.replace(ca);
            }
            Err(error) => {
                let error = format!("{error:#}");
                let last = seen.good.is_some();
                if last {
                    tracing::error!(
                        error,
                        "the CA's Secret has changed and cannot be used; the last good CA stays"
                    );
                } else {
                    tracing::error!(
                        error,
                        "the CA's Secret cannot be used, and nothing is signed; repair or delete it"
                    );
                }
            }
        }
        seen.last = Some(data);
    }

    /// Makes the Secret that is missing.
    async fn write(&self) -> Result<(), Failure> {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).good.clone();
        let back = known.is_some();
        let data = match known {
            Some(data) => data,
            None => {
                let texts = Texts::generate(&self.trust_domain);
                let texts = texts.map_err(|error| Failure::Other(format!("no CA can be made: {error:#}")))?;
                Data::from([
                    (CERTIFICATE.to_owned(), ByteString(texts.certificate)),
                    (KEY.to_owned(), ByteString(texts.key)),
                ])
            }
        };
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels(IDENTITY_SERVICE_ACCOUNT)),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".into()),
            data: Some(data),
            ..Secret::default()
        };
        let place = format!("{}/{}", self.namespace, self.name);
        match bounded(self.api().create(&PostParams::default(), &secret)).await {
            Ok(_) if back => {
                tracing::error!(
                    secret = place,
                    "the CA's Secret was deleted, and is written back as it was"
                );
                Ok(())
            }
            Ok(_) => {
                tracing::info!(secret = place, "made a CA");
                Ok(())
            }
            // Another replica was faster: its Secret is told by the watch.
            Err(Failure::Conflict(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests;
