//! Keeps one key of a ConfigMap equal to a text, whoever changes or deletes it.

use std::{collections::BTreeMap, future::Future};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};
use weft_proto::names::kubernetes::{NAME, PART_OF, PART_OF_WEFT};

use super::{
    Complaint, Failure, bounded,
    follow::{Event, Follow, pause},
};

/// The labels of weft's own objects.
pub fn labels(component: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PART_OF.to_owned(), PART_OF_WEFT.to_owned()),
        (NAME.to_owned(), component.to_owned()),
    ])
}

/// Which key of which ConfigMap.
#[derive(Clone)]
pub struct Keeper {
    /// The way to the API server.
    pub client: Client,
    /// The ConfigMap's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The key that is kept; others are left alone.
    pub key: &'static str,
    /// The component that the ConfigMap is labelled with.
    pub component: &'static str,
}

impl Keeper {
    /// Keeps it for ever, while `active`. `None`: what it must hold is not known yet.
    ///
    /// `sure` is asked before each write, and may bring `wanted` up to date: of several writers one may be behind, and must not
    /// undo what another knows better. `false`: not now.
    pub async fn keep<F: Future<Output = bool>>(
        self,
        mut wanted: watch::Receiver<Option<String>>,
        mut active: watch::Receiver<bool>,
        sure: impl Fn() -> F,
    ) {
        let path = format!("/api/v1/namespaces/{}/configmaps", self.namespace);
        let mut events = Follow::<ConfigMap>::named(self.client.clone(), path, &self.name);
        let place = format!("{}/{}", self.namespace, self.name);
        let mut watching = Complaint::new(format!("following the ConfigMap {place}"));
        let mut writing = Complaint::new(format!("writing the ConfigMap {place}"));
        let (mut known, mut found, mut listing) = (None, None, true);
        let (mut not_before, mut failures) = (Instant::now(), 0);
        loop {
            let text = wanted.borrow_and_update().clone();
            let differs = |known: &Option<ConfigMap>, text: &str| self.value(known.as_ref()) != Some(text);
            let due = text.filter(|text| !listing && *active.borrow_and_update() && differs(&known, text));
            let write = async {
                match &due {
                    Some(_) => tokio::time::sleep_until(not_before).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    Event::Restarted => (found, listing) = (None, true),
                    Event::Apply(map) if listing => found = Some(map),
                    Event::Apply(map) => known = Some(map),
                    Event::Delete(_) => known = None,
                    Event::Listed => {
                        (known, listing) = (found.take(), false);
                        watching.works();
                    }
                    Event::Watching => watching.works(),
                    Event::Failed(Failure::Expired(_)) => {}
                    Event::Failed(failure) => watching.failed(&failure),
                },
                Ok(()) = wanted.changed() => {}
                Ok(()) = active.changed() => {}
                () = write => {
                    // Two that disagree must not do so at full speed.
                    not_before = Instant::now() + pause(failures + 1);
                    if !sure().await {
                        continue;
                    }
                    let Some(text) = wanted.borrow_and_update().clone().filter(|text| differs(&known, text)) else { continue };
                    match self.write(known.as_ref(), text).await {
                        Ok(map) => {
                            writing.works();
                            failures = 0;
                            known = Some(map);
                        }
                        // Another was faster: the watch tells what there is now.
                        Err(Failure::Conflict(_)) => failures += 1,
                        Err(failure) => {
                            failures += 1;
                            writing.failed(&failure);
                        }
                    }
                }
            }
        }
    }

    fn value<'a>(&self, map: Option<&'a ConfigMap>) -> Option<&'a str> {
        map?.data.as_ref()?.get(self.key).map(String::as_str)
    }

    async fn write(&self, known: Option<&ConfigMap>, text: String) -> Result<ConfigMap, Failure> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut map = known.cloned().unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels(self.component)),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        map.metadata.managed_fields = None;
        map.data.get_or_insert_default().insert(self.key.to_owned(), text);
        let written = match known {
            // With the version that is known, so that it fails where there is a newer one.
            Some(_) => bounded(api.replace(&self.name, &PostParams::default(), &map)).await,
            None => bounded(api.create(&PostParams::default(), &map)).await,
        }?;
        tracing::info!(config_map = %format_args!("{}/{}", self.namespace, self.name), "written");
        Ok(written)
    }
}
