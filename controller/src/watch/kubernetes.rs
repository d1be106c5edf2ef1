//! The source of a real cluster: one watch for each kind of object.
//!
//! Each object is turned into its compact form as it arrives and dropped, so that memory holds neither `managedFields` nor
//! the rest of what weft does not read. A list after a broken watch is told as one batch with what has gone.

use std::{
    collections::HashSet,
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::StreamExt;
use k8s_openapi::api::{core::v1 as core, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;

use super::{Batch, Sink, Source, parse};
use crate::{
    cluster::{
        Change,
        read::Mistakes,
        types::{Key, Kind, Object, ObjectKey},
    },
    objects::GATEWAY_GROUP,
};

/// Seconds of one watch. Below the 240 s after which some load balancers drop what is silent.
const WATCH_SECONDS: u32 = 200;

/// Follows an API server.
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    /// With the configuration of the pod, or of the user's kubeconfig.
    pub async fn new() -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::try_default().await?,
        })
    }
}

impl Source for Kubernetes {
    fn follow(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let client = self.client;
        let left = Arc::new(AtomicUsize::new(Kind::ALL.len()));
        let watch = |kind| Watch::new(kind, sink.clone(), left.clone());
        let route = |kind: &str| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GATEWAY_GROUP, "v1", kind));
            Api::<DynamicObject>::all_with(client.clone(), &resource)
        };
        let namespaces = watch(Kind::Namespace).follow(Api::<core::Namespace>::all(client.clone()), parse::namespace);
        let pods = watch(Kind::Pod).follow(Api::<core::Pod>::all(client.clone()), parse::pod);
        let services = watch(Kind::Service).follow(Api::<core::Service>::all(client.clone()), |object, _| {
            parse::service(object)
        });
        let slices = watch(Kind::EndpointSlice).follow(Api::<EndpointSlice>::all(client.clone()), |object, _| {
            parse::slice(object)
        });
        let http_routes = watch(Kind::HttpRoute).follow(route("HTTPRoute"), |object: DynamicObject, _| {
            parse::http_route(&object.metadata, &object.data)
        });
        let grpc_routes = watch(Kind::GrpcRoute).follow(route("GRPCRoute"), |object: DynamicObject, _| {
            parse::grpc_route(&object.metadata, &object.data)
        });
        Box::pin(async move {
            tokio::join!(namespaces, pods, services, slices, http_routes, grpc_routes);
        })
    }
}

/// One kind of object.
struct Watch {
    kind: Kind,
    sink: Sink,
    /// Kinds that have not been told completely yet.
    left: Arc<AtomicUsize>,
    complete: bool,
    known: HashSet<ObjectKey>,
    listed: HashSet<ObjectKey>,
    batch: Vec<Change>,
}

impl Watch {
    fn new(kind: Kind, sink: Sink, left: Arc<AtomicUsize>) -> Self {
        let (known, listed) = Default::default();
        Self {
            kind,
            sink,
            left,
            complete: false,
            known,
            listed,
            batch: Vec::new(),
        }
    }

    /// Follows until the sink is closed.
    async fn follow<K, R>(mut self, api: Api<K>, read: R)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        R: Fn(K, &mut Vec<String>) -> Result<Option<Object>, Mistakes> + Send,
    {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
        let mut absent = false;
        while let Some(event) = events.next().await {
            let sent = match event {
                Ok(Event::Init) => {
                    self.listed.clear();
                    self.batch.clear();
                    Ok(())
                }
                Ok(Event::InitApply(object)) => {
                    self.take(object, &read);
                    Ok(())
                }
                Ok(Event::InitDone) => {
                    absent = false;
                    let gone: Vec<_> = self.known.difference(&self.listed).cloned().collect();
                    gone.into_iter().for_each(|key| self.forget(key));
                    self.send(true).await
                }
                Ok(Event::Apply(object)) => {
                    self.take(object, &read);
                    self.send(false).await
                }
                Ok(Event::Delete(object)) => {
                    let key = self.key(&object);
                    self.forget(key);
                    self.send(false).await
                }
                Err(error) if not_found(&error) => {
                    if !absent {
                        tracing::info!(kind = self.kind.name(), "the cluster does not have this kind of object");
                    }
                    absent = true;
                    self.send(true).await
                }
                Err(error) => {
                    tracing::warn!(kind = self.kind.name(), %error, "the watch failed and is tried again; what is known stays");
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn key<K: Resource>(&self, object: &K) -> ObjectKey {
        ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
    }

    fn take<K: Resource>(&mut self, object: K, read: impl Fn(K, &mut Vec<String>) -> Result<Option<Object>, Mistakes>) {
        let key = self.key(&object);
        let mut notes = Vec::new();
        let read = read(object, &mut notes);
        if !notes.is_empty() {
            tracing::warn!("{} {key}: {}", self.kind.name(), notes.join("; "));
        }
        self.listed.insert(key.clone());
        match read {
            Ok(Some(object)) => {
                self.known.insert(key);
                self.batch.push(Change::Apply(Box::new(object)));
            }
            Ok(None) => self.forget(key),
            // The last good version stays.
            Err(mistakes) => tracing::warn!("{} {key}: {}", self.kind.name(), mistakes.join("; ")),
        }
    }

    fn forget(&mut self, key: ObjectKey) {
        self.listed.remove(&key);
        if self.known.remove(&key) {
            self.batch.push(Change::Delete(Key {
                kind: self.kind,
                object: key,
            }));
        }
    }

    async fn send(&mut self, complete: bool) -> Result<(), ()> {
        let changes = std::mem::take(&mut self.batch);
        if !changes.is_empty() {
            self.sink.send(Batch { changes, synced: false }).await.map_err(drop)?;
        }
        // Only once the changes are sent: the last kind speaks for all.
        let first = complete && !self.complete;
        self.complete |= complete;
        if first && self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.sink
                .send(Batch {
                    changes: Vec::new(),
                    synced: true,
                })
                .await
                .map_err(drop)?;
        }
        Ok(())
    }
}

/// A definition that is not installed.
fn not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
