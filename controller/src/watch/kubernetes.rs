//! The source of a real cluster: one watch for each kind of object.
//!
//! Each object is read into its compact form as it arrives ([`crate::objects::core`] skips the rest while it is parsed), so that
//! memory holds neither `managedFields` nor whole specifications. A list after a broken watch is told as one batch with what has
//! gone. A kind whose definition is not installed has no objects, and is asked for again until it is.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use kube::Client;
use serde::de::DeserializeOwned;

use super::{
    Batch, Health, Sink, Source,
    parse::{self, Origin},
};
use crate::{
    api::{
        Complaint, Failure,
        follow::{Event, Follow},
    },
    cluster::{
        Change,
        read::{self, Mistakes},
        types::{Key, Kind, Object, ObjectKey},
    },
    objects::{
        GATEWAY_GROUP,
        core::{Custom, EndpointSlice, Namespace, Node, Pod, Service, ServiceCidr},
    },
};

/// Follows an API server.
pub struct Kubernetes {
    client: Client,
    health: Arc<Health>,
}

impl Kubernetes {
    /// Tells in `health` how it goes.
    pub fn new(client: Client, health: Arc<Health>) -> Self {
        Self { client, health }
    }
}

impl Source for Kubernetes {
    fn follow(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let left = Arc::new(AtomicUsize::new(Kind::WATCHED.len()));
        let watch = |kind, path| Watch::new(kind, path, &self, sink.clone(), left.clone());
        let namespaces = watch(Kind::Namespace, "/api/v1/namespaces".into())
            .follow(|one: Namespace, notes| parse::namespace(one, notes));
        let pods = watch(Kind::Pod, "/api/v1/pods".into()).follow(|one: Pod, notes| parse::pod(one, notes));
        let services = watch(Kind::Service, "/api/v1/services".into()).follow(|one: Service, _| parse::service(one));
        let slices = watch(Kind::EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices".into())
            .follow(|one: EndpointSlice, _| parse::slice(one));
        let nodes = watch(Kind::Node, "/api/v1/nodes".into()).follow(|one: Node, _| parse::node(one));
        let ranges = watch(Kind::ServiceCidr, "/apis/networking.k8s.io/v1/servicecidrs".into())
            .follow(|one: ServiceCidr, _| parse::service_cidr(one));
        let gateway_api = Kind::WATCHED.into_iter().filter(|kind| kind.is_gateway_api());
        let gateway_api = gateway_api.map(|kind| {
            let path = format!("/apis/{GATEWAY_GROUP}/v1/{}", plural(kind));
            watch(kind, path).follow(move |one: Custom, _| parse::custom(kind, one, Origin::ApiServer))
        });
        let gateway_api = join_all(gateway_api.collect::<Vec<_>>());
        Box::pin(async move {
            tokio::join!(namespaces, pods, services, slices, nodes, ranges, gateway_api);
        })
    }
}

/// The resource's name in a path.
pub(crate) fn plural(kind: Kind) -> String {
    let name = kind.name().to_ascii_lowercase();
    match name.strip_suffix('y') {
        // Policies, but gateways.
        Some(stem) if !stem.ends_with('a') => format!("{stem}ies"),
        _ if name.ends_with('s') => format!("{name}es"),
        _ => format!("{name}s"),
    }
}

/// What the objects of an API server have in common.
trait Named {
    fn name(&self) -> Result<ObjectKey, Mistakes>;
}

macro_rules! named {
    ($($kind:ident),+) => {
        $( impl Named for $kind { fn name(&self) -> Result<ObjectKey, Mistakes> { read::key(&self.metadata) } } )+
    };
}
named!(Namespace, Pod, Service, EndpointSlice, Custom, Node, ServiceCidr);

/// One kind of object.
struct Watch {
    kind: Kind,
    client: Client,
    path: String,
    health: Arc<Health>,
    sink: Sink,
    /// Kinds that have not been told completely yet.
    left: Arc<AtomicUsize>,
    complete: bool,
    known: HashSet<ObjectKey>,
    /// What the list that is being read holds.
    listed: Option<HashSet<ObjectKey>>,
    batch: Vec<Change>,
    shared: Shared,
}

impl Watch {
    fn new(kind: Kind, path: String, source: &Kubernetes, sink: Sink, left: Arc<AtomicUsize>) -> Self {
        Self {
            kind,
            client: source.client.clone(),
            path,
            health: source.health.clone(),
            sink,
            left,
            complete: false,
            known: HashSet::new(),
            listed: None,
            batch: Vec::new(),
            shared: Shared::default(),
        }
    }

    /// Follows until the sink is closed.
    async fn follow<T, R>(mut self, read: R)
    where
        T: Named + DeserializeOwned,
        R: Fn(T, &mut Vec<String>) -> Result<Option<Object>, Mistakes>,
    {
        let mut events = Follow::new(self.client.clone(), self.path.as_str());
        let mut complaint = Complaint::new(format!("watching {}", self.path));
        let mut absent = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.sink.closed() => return,
            };
            let sent = match event {
                Event::Restarted => {
                    self.listed = Some(HashSet::new());
                    Ok(())
                }
                Event::Apply(object) => {
                    self.take(object, &read);
                    // A list is told by pages: its objects are there, whatever comes behind them.
                    if self.listed.is_none() || self.batch.len() >= PAGE {
                        self.send(false).await
                    } else {
                        Ok(())
                    }
                }
                Event::Listed => {
                    absent = false;
                    complaint.works();
                    self.health.works(self.kind);
                    self.listed_all(true).await
                }
                Event::Delete(object) => {
                    if let Ok(key) = self.key(&object) {
                        self.forget(key);
                    }
                    self.send(false).await
                }
                Event::Watching => {
                    complaint.works();
                    self.health.works(self.kind);
                    Ok(())
                }
                Event::Failed(Failure::Expired(_)) => {
                    tracing::debug!(kind = self.kind.name(), "what is known is too old, and is listed anew");
                    Ok(())
                }
                Event::Failed(Failure::Absent(_)) => {
                    if !absent {
                        tracing::info!(kind = self.kind.name(), "the cluster does not have this kind of object");
                    }
                    absent = true;
                    self.health.works(self.kind);
                    self.listed = Some(HashSet::new());
                    self.listed_all(true).await
                }
                Event::Failed(failure) => {
                    self.health.failed(self.kind, &failure);
                    complaint.failed(&failure);
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn key(&self, object: &impl Named) -> Result<ObjectKey, Mistakes> {
        let mut key = object.name()?;
        if self.kind.is_cluster_wide() {
            key.namespace = "".into();
        }
        Ok(key)
    }

    fn take<T: Named>(&mut self, object: T, read: impl Fn(T, &mut Vec<String>) -> Result<Option<Object>, Mistakes>) {
        // An API server gives every object its name.
        let Ok(mut key) = self.key(&object) else { return };
        let mut notes = Vec::new();
        let read = read(object, &mut notes);
        if !notes.is_empty() {
            tracing::warn!("{} {key}: {}", self.kind.name(), notes.join("; "));
        }
        match read {
            Ok(Some(mut object)) => {
                self.shared.share(&mut object);
                // Its strings are those of the object itself.
                key = object.key().object;
                self.known.insert(key.clone());
                self.batch.push(Change::Apply(Box::new(object)));
                self.listed.as_mut().map(|listed| listed.insert(key));
            }
            Ok(None) => self.forget(key),
            // The last good version stays.
            Err(mistakes) => {
                tracing::warn!("{} {key}: {}", self.kind.name(), mistakes.join("; "));
                self.listed.as_mut().map(|listed| listed.insert(key));
            }
        }
    }

    fn forget(&mut self, key: ObjectKey) {
        if self.known.remove(&key) {
            self.batch.push(Change::Delete(Key {
                kind: self.kind,
                object: key,
            }));
        }
    }

    async fn listed_all(&mut self, complete: bool) -> Result<(), ()> {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<_> = self.known.difference(&listed).cloned().collect();
        gone.into_iter().for_each(|key| self.forget(key));
        self.shared.tidy();
        self.send(complete).await
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

/// Changes of a list that are told together.
const PAGE: usize = 256;

/// Texts that many objects have in common, held once.
#[derive(Default)]
struct Shared(HashSet<Arc<str>>);

impl Shared {
    fn share(&mut self, object: &mut Object) {
        match object {
            Object::Pod(pod) => {
                self.one(&mut pod.key.namespace);
                self.one(&mut pod.service_account);
            }
            Object::Service(service) => {
                self.one(&mut service.key.namespace);
                service.ports.iter_mut().for_each(|port| self.one(&mut port.name));
            }
            Object::Slice(slice) => {
                self.one(&mut slice.key.namespace);
                slice.service.namespace = slice.key.namespace.clone();
                slice.ports.iter_mut().for_each(|port| self.one(&mut port.name));
                for pod in slice.endpoints.iter_mut().filter_map(|endpoint| endpoint.pod.as_mut()) {
                    pod.namespace = slice.key.namespace.clone();
                }
            }
            _ => {}
        }
    }

    fn one(&mut self, text: &mut Arc<str>) {
        match self.0.get(&**text) {
            Some(known) => *text = known.clone(),
            None => drop(self.0.insert(text.clone())),
        }
    }

    /// Forgets what nobody uses.
    fn tidy(&mut self) {
        self.0.retain(|text| Arc::strong_count(text) > 1);
    }
}

#[cfg(test)]
mod tests;
