//! An API server of a few lines: two objects with versions, in memory.
//!
//! A real API server cannot be told to fail just now, to answer 403 for one verb, or to let a stranger write between a
//! read and a write; and a CA that lives for seconds would have two of them disagree about time. What a real one answers
//! is tried by the cluster's tests.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::ByteString;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(super) const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-injector-webhook";
pub(super) const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";

/// What the API server holds, and how it misbehaves.
#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<&'static str, Value>,
    version: u64,
    /// Nobody answers.
    pub(super) away: bool,
    /// A method, and the end of a path, that nobody is allowed.
    pub(super) forbidden: Option<(Method, &'static str)>,
    /// Successful writes: method and object.
    pub(super) writes: Vec<(Method, &'static str)>,
}

#[derive(Clone)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    pub(super) changed: watch::Sender<u64>,
}

impl Server {
    pub(super) fn new() -> Self {
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

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
    }

    /// Somebody else writes.
    pub(super) fn put(&self, path: &'static str, mut object: Value) {
        self.set(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.objects.insert(path, object);
        });
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    pub(super) fn secret(&self) -> Option<BTreeMap<String, ByteString>> {
        serde_json::from_value(self.object(SECRET)?["data"].clone()).ok()
    }

    /// The bundle of the first webhook; that the others have the same is checked.
    pub(super) fn bundle(&self) -> Vec<u8> {
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

    pub(super) fn client(&self) -> Client {
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

pub(super) type BoxedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

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
