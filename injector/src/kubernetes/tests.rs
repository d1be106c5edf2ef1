//! Keepers against an API server of a few lines: two objects with versions, in memory.
//!
//! A real API server cannot be told to fail just now, to answer 403 for one verb, or to let a stranger write between a
//! read and a write; and a CA that lives for seconds would have two of them disagree about time. What a real one answers
//! is tried by the cluster's tests.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::ByteString;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::{
    certificate::{Issued, Lives, authority},
    health::Health,
    metrics::Metrics,
};

const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-injector-webhook";
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";

/// What the API server holds, and how it misbehaves.
#[derive(Default)]
struct State {
    objects: BTreeMap<&'static str, Value>,
    version: u64,
    /// Nobody answers.
    away: bool,
    /// A method, and the end of a path, that nobody is allowed.
    forbidden: Option<(Method, &'static str)>,
    /// Successful writes: method and object.
    writes: Vec<(Method, &'static str)>,
}

#[derive(Clone)]
struct Server {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Server {
    fn new() -> Self {
        let server = Self {
            state: Arc::default(),
            changed: watch::Sender::new(0),
        };
        let webhook = |name| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {"url": "https://x"},
            })
        };
        server.put(
            CONFIGURATION,
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "weft-injector"},
                "webhooks": [webhook("inject.weft.dev"), webhook("pod-security.inject.weft.dev")],
            }),
        );
        server
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
    }

    /// Somebody else writes.
    fn put(&self, path: &'static str, mut object: Value) {
        self.set(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.objects.insert(path, object);
        });
    }

    fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    fn secret(&self) -> Option<BTreeMap<String, ByteString>> {
        serde_json::from_value(self.object(SECRET)?["data"].clone()).ok()
    }

    /// The bundle of the first webhook; that the others have the same is checked.
    fn bundle(&self) -> Vec<u8> {
        let configuration = self.object(CONFIGURATION).unwrap();
        let bundles: Vec<ByteString> = configuration["webhooks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|webhook| serde_json::from_value(webhook["clientConfig"]["caBundle"].clone()).unwrap_or_default())
            .collect();
        assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
        bundles[0].0.clone()
    }

    fn client(&self) -> Client {
        weft_service::tls::install_provider();
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<BoxedBody>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        if head.uri.query().is_some_and(|query| query.contains("watch=true")) {
            return self.watch(head.uri.path());
        }
        let mut state = self.lock();
        if state.away {
            return Err(std::io::Error::other("connection refused"));
        }
        let (status, answer) = state.serve(&head.method, head.uri.path(), &body);
        if status.is_success() && head.method != Method::GET {
            drop(state);
            self.changed.send_modify(|version| *version += 1);
        }
        Ok(respond(status, full(answer)))
    }

    /// Tells of every change, as if it were one of this object: keepers must not care.
    fn watch(&self, collection: &str) -> Result<Response<BoxedBody>, std::io::Error> {
        let path = [SECRET, CONFIGURATION]
            .into_iter()
            .find(|path| path.starts_with(collection));
        let path = path.expect("only these two are watched");
        if self.lock().away {
            return Err(std::io::Error::other("connection refused"));
        }
        let mut changes = self.changed.subscribe();
        changes.mark_changed();
        let server = self.clone();
        let events = stream::unfold(changes, move |mut changes| {
            let server = server.clone();
            async move {
                changes.changed().await.ok()?;
                if server.lock().away {
                    return None;
                }
                let event = match server.object(path) {
                    Some(object) => json!({"type": "MODIFIED", "object": {"metadata": object["metadata"]}}),
                    None => json!({"type": "DELETED", "object": {"metadata": {"name": "x"}}}),
                };
                let line = Frame::data(Bytes::from(format!("{event}\n")));
                Some((Ok::<_, Infallible>(line), changes))
            }
        });
        Ok(respond(StatusCode::OK, StreamBody::new(events).boxed_unsync()))
    }
}

type BoxedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn full(value: Value) -> BoxedBody {
    http_body_util::Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

fn respond(status: StatusCode, body: BoxedBody) -> Response<BoxedBody> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    response.body(body).unwrap()
}

fn failed(code: u16, message: &str) -> (StatusCode, Value) {
    let status = StatusCode::from_u16(code).unwrap();
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "x",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    (status, body)
}

impl State {
    fn serve(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        if path == "/version" {
            return (
                StatusCode::OK,
                json!({"major": "1", "minor": "34", "gitVersion": "v1.34.4"}),
            );
        }
        if let Some((verb, end)) = &self.forbidden
            && verb == method
            && path.ends_with(end)
        {
            return failed(
                403,
                "User \"system:serviceaccount:weft-system:weft-injector\" cannot do that",
            );
        }
        let is_create = method == Method::POST;
        let place = [SECRET, CONFIGURATION].into_iter().find(|object| {
            if is_create {
                object.starts_with(path)
            } else {
                *object == path
            }
        });
        let Some(path) = place else {
            return failed(404, "not found");
        };
        let stored = self.objects.get(path).cloned();
        let (mut object, before) = match (method.as_str(), stored) {
            ("GET", Some(object)) => return (StatusCode::OK, object),
            ("POST", None) => (serde_json::from_slice::<Value>(body).unwrap(), Value::Null),
            ("POST", Some(_)) => return failed(409, "already exists"),
            (_, None) => return failed(404, "not found"),
            ("PUT", Some(stored)) => {
                let sent: Value = serde_json::from_slice(body).unwrap();
                let version = &sent["metadata"]["resourceVersion"];
                assert!(version.is_string(), "a write says which version it is based on");
                if *version != stored["metadata"]["resourceVersion"] {
                    return failed(409, "the object has been modified");
                }
                (sent, stored)
            }
            ("PATCH", Some(stored)) => {
                let patch: json_patch::Patch = serde_json::from_slice(body).unwrap();
                let mut patched = stored.clone();
                if json_patch::patch(&mut patched, &patch).is_err() {
                    return failed(422, "a test failed");
                }
                (patched, stored)
            }
            other => panic!("{other:?}"),
        };
        if object != before {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.objects.insert(path, object.clone());
            self.writes.push((method.clone(), path));
        }
        (StatusCode::OK, object)
    }
}

/// One replica.
struct Replica {
    issued: watch::Receiver<Option<Issued>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn replica(client: Client, lives: Lives) -> Replica {
    let (sender, issued) = watch::channel(None);
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let names = vec!["weft-injector.weft-system.svc".to_owned()];
    let keeper = Keeper::new(
        client,
        "weft-system",
        names,
        lives,
        sender,
        health.clone(),
        metrics.clone(),
    );
    Replica {
        issued,
        health,
        metrics,
        running: tokio::spawn(keeper.run()),
    }
}

/// Waits for what the state of the server makes true.
async fn until(server: &Server, what: &str, holds: impl Fn() -> bool) {
    let mut changes = server.changed.subscribe();
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            // What does not change the server, such as a replica's health, is looked for often enough.
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

async fn served(replica: &mut Replica) {
    let first = replica.issued.wait_for(Option::is_some);
    drop(
        tokio::time::timeout(Duration::from_secs(20), first)
            .await
            .unwrap()
            .unwrap(),
    );
}

/// Whether what is published is what the Secret holds.
fn in_step(server: &Server) -> bool {
    let Some(data) = server.secret() else { return false };
    let authority = crate::certificate::Authority::from_data(&data).unwrap();
    server.bundle() == authority.bundle().as_bytes()
}

#[tokio::test]
async fn the_ca_is_made_published_and_only_then_served_from() {
    let server = Server::new();
    // The configuration cannot be written yet.
    server.set(|state| state.forbidden = Some((Method::PATCH, "weft-injector")));
    let mut one = replica(server.client(), Lives::default());
    until(&server, "a word on what is not allowed", || {
        one.health
            .answer()
            .is_err_and(|text| text.contains("not allowed to patch"))
    })
    .await;
    let text = one.health.answer().unwrap_err();
    for word in [
        "mutatingwebhookconfigurations.admissionregistration.k8s.io weft-injector",
        "ServiceAccount weft-injector",
        "weft install | kubectl apply --server-side -f -",
        "system:serviceaccount:weft-system:weft-injector",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(
        server.secret().is_some() && one.issued.borrow().is_none(),
        "nobody would trust it"
    );
    assert!(
        one.metrics
            .render()
            .contains("bundle_updates_total{outcome=\"failed\"}")
    );

    server.set(|state| state.forbidden = None);
    served(&mut one).await;
    assert!(in_step(&server));
    assert_eq!(one.health.answer().unwrap(), "ready");

    let mut two = replica(server.client(), Lives::default());
    served(&mut two).await;
    let writes = server.lock().writes.clone();
    assert_eq!(
        writes,
        [(Method::POST, SECRET), (Method::PATCH, CONFIGURATION)],
        "the second finds it all there"
    );
}

#[tokio::test]
async fn two_replicas_that_begin_at_once_agree_on_one_ca() {
    let server = Server::new();
    let mut replicas: Vec<_> = (0..4).map(|_| replica(server.client(), Lives::default())).collect();
    for replica in &mut replicas {
        served(replica).await;
    }
    until(&server, "what is published is the Secret's", || in_step(&server)).await;
    let writes = server.lock().writes.clone();
    assert_eq!(
        writes.iter().filter(|write| **write == (Method::POST, SECRET)).count(),
        1,
        "{writes:?}"
    );
    assert!(writes.len() <= 2 + replicas.len(), "{writes:?}");
}

#[tokio::test]
async fn t42_what_is_deleted_or_reset_is_put_back_with_the_same_ca() {
    let server = Server::new();
    let mut one = replica(server.client(), Lives::default());
    let mut two = replica(server.client(), Lives::default());
    served(&mut one).await;
    served(&mut two).await;
    let (before, bundle) = (server.secret().unwrap(), server.bundle());

    server.set(|state| drop(state.objects.remove(SECRET)));
    until(&server, "the Secret is back", || {
        server.secret().as_ref() == Some(&before)
    })
    .await;

    let mut configuration = server.object(CONFIGURATION).unwrap();
    configuration["webhooks"][1]["clientConfig"]["caBundle"] = json!("");
    configuration["webhooks"][0]["clientConfig"]
        .as_object_mut()
        .unwrap()
        .remove("caBundle");
    server.put(CONFIGURATION, configuration.clone());
    until(&server, "the bundle is back", || server.bundle() == bundle).await;

    server.set(|state| drop(state.objects.remove(CONFIGURATION)));
    until(&server, "a word on the missing configuration", || {
        one.health
            .answer()
            .unwrap()
            .contains("there is no MutatingWebhookConfiguration weft-injector")
    })
    .await;
    server.put(CONFIGURATION, configuration);
    until(&server, "the bundle is back", || server.bundle() == bundle).await;
    until(&server, "all is well", || one.health.answer().as_deref() == Ok("ready")).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_made_anew() {
    let server = Server::new();
    server.put(
        SECRET,
        json!({"metadata": {"name": "weft-injector-webhook"}, "data": {"ca.crt": "eA==", "other": "eA=="}}),
    );
    let mut one = replica(server.client(), Lives::default());
    served(&mut one).await;
    assert!(in_step(&server));
    assert_eq!(server.secret().unwrap().len(), 2, "what is nobody's is gone");
}

#[tokio::test]
async fn f14_without_the_api_server_what_is_known_goes_on_and_renews_itself() {
    let server = Server::new();
    server.set(|state| state.away = true);
    let lives = Lives {
        serving: Duration::from_secs(3),
        ..Lives::default()
    };
    let mut one = replica(server.client(), lives);
    until(&server, "a word on the API server", || {
        one.health
            .answer()
            .is_err_and(|text| text.contains("cannot be reached"))
    })
    .await;
    server.set(|state| state.away = false);
    served(&mut one).await;
    server.set(|state| state.away = true);
    let first = one.issued.borrow_and_update().as_ref().unwrap().not_after;
    let renewed = one
        .issued
        .wait_for(|issued| issued.as_ref().is_some_and(|issued| issued.not_after > first));
    drop(
        tokio::time::timeout(Duration::from_secs(20), renewed)
            .await
            .unwrap()
            .unwrap(),
    );
    until(&server, "it says so, and stays ready", || {
        one.health.answer().unwrap().contains("cannot be reached")
    })
    .await;
    server.set(|state| state.away = false);
    until(&server, "it is over", || one.health.answer().as_deref() == Ok("ready")).await;
}

/// CAs of a few seconds, three of them one after the other, kept by two replicas: at no moment does one of them serve from a
/// CA that is not published, and nobody writes what another has just written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_rotate_a_short_lived_ca_and_never_fight() {
    let server = Server::new();
    let lives = Lives {
        ca: Duration::from_secs(6),
        ca_left: Duration::from_secs(3),
        settle: Duration::from_secs(1),
        serving: Duration::from_secs(2),
    };
    let mut replicas = [replica(server.client(), lives), replica(server.client(), lives)];
    for replica in &mut replicas {
        served(replica).await;
    }
    let mut cas = Vec::new();
    let end = SystemTime::now() + Duration::from_secs(13);
    let mut changes = server.changed.subscribe();
    while SystemTime::now() < end {
        let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        // Read in the order in which they are written: what is served now was published before.
        let served = replicas.each_ref().map(|replica| {
            let issued = replica.issued.borrow();
            let issued = issued.as_ref().unwrap();
            assert!(issued.not_after > SystemTime::now(), "an old certificate is served");
            issued.ca.clone()
        });
        let bundle = server.bundle();
        for ca in served {
            assert!(
                authority::holds(&bundle, &ca),
                "a certificate of a CA that is not published"
            );
            if !cas.contains(&ca) {
                cas.push(ca);
            }
        }
    }
    assert!(cas.len() >= 3, "{} CAs", cas.len());
    until(&server, "what is published is the Secret's", || in_step(&server)).await;
    let writes = server.lock().writes.clone();
    // For each CA: it is made, it signs, the one before it goes; and the configuration follows each time.
    let most = 6 * (cas.len() + 2);
    assert!(writes.len() <= most, "{} writes for {} CAs", writes.len(), cas.len());
}
