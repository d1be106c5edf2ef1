//! An API server for tests: it keeps objects with versions, tells watches, and fails as it is told to.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What goes wrong with a request.
pub enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// It is never answered.
    Silent,
}

type Faults = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// The server. Clones are the same one.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// Watches from before this version are too old.
    oldest: u64,
    /// Objects of one page; 0: no pages.
    page: usize,
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, String, Value)>,
    watches: Vec<(String, String, mpsc::UnboundedSender<String>)>,
    faults: Option<Faults>,
    requests: Vec<String>,
}

fn refusal(code: u16) -> (u16, Value) {
    let message = format!("scripted {code}");
    // kube goes by the reason.
    let reason = if code == 404 { "NotFound" } else { "Scripted" };
    let status = json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": message});
    (code, status)
}

fn matches(path: &str, collection: &str, name: &str) -> bool {
    let everywhere = |own: &str| {
        let (api, rest) = own.split_once("/namespaces/")?;
        Some(format!("{api}/{}", rest.split_once('/')?.1))
    };
    path.rsplit_once('/').is_some_and(|(own, last)| {
        let is_there = own == collection || everywhere(own).as_deref() == Some(collection);
        is_there && (name.is_empty() || last == name)
    })
}

impl State {
    fn put(&mut self, path: &str, mut object: Value, kind: &str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if kind == "DELETED" {
            self.objects.remove(path);
        } else {
            self.objects.insert(path.to_owned(), object.clone());
        }
        let event = json!({"type": kind, "object": object});
        self.history.push((self.version, path.to_owned(), event.clone()));
        let line = format!("{event}\n");
        self.watches
            .retain(|(collection, name, watch)| !matches(path, collection, name) || watch.send(line.clone()).is_ok());
        object
    }

    fn list(&self, collection: &str, name: &str, from: usize) -> Value {
        let all = self.objects.iter().filter(|(path, _)| matches(path, collection, name));
        let all: Vec<&Value> = all.map(|(_, object)| object).collect();
        let end = if self.page == 0 {
            all.len()
        } else {
            (from + self.page).min(all.len())
        };
        let next = if end < all.len() {
            end.to_string()
        } else {
            String::new()
        };
        json!({"metadata": {"resourceVersion": self.version.to_string(), "continue": next}, "items": all[from..end]})
    }

    fn watch(&mut self, collection: &str, name: &str, after: u64) -> mpsc::UnboundedReceiver<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if after < self.oldest {
            let _ = sender.send(format!("{}\n", json!({"type": "ERROR", "object": refusal(410).1})));
            return receiver;
        }
        for (version, path, event) in &self.history {
            if *version > after && matches(path, collection, name) {
                let _ = sender.send(format!("{event}\n"));
            }
        }
        self.watches.push((collection.to_owned(), name.to_owned(), sender));
        receiver
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let object = || serde_json::from_slice::<Value>(body).unwrap();
        match *method {
            Method::GET => self
                .objects
                .get(path)
                .map_or(refusal(404), |object| (200, object.clone())),
            Method::POST => {
                let object = object();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    refusal(409)
                } else {
                    (201, self.put(&path, object, "ADDED"))
                }
            }
            Method::PUT => {
                let object = object();
                match self.objects.get(path).map(|old| &old["metadata"]["resourceVersion"]) {
                    None => refusal(404),
                    Some(version) if *version != object["metadata"]["resourceVersion"] => refusal(409),
                    Some(_) => (200, self.put(path, object, "MODIFIED")),
                }
            }
            // Enough of server-side apply and of merge patches for what weft sends.
            Method::PATCH => {
                let patch = object();
                let (path, part) = match path.strip_suffix("/status") {
                    Some(path) => (path, true),
                    None => (path, false),
                };
                let old = self.objects.get(path).cloned();
                if part && old.is_none() {
                    return refusal(404);
                }
                let mut object = old.clone().unwrap_or_else(|| json!({}));
                for (field, refused) in [("uid", 409), ("resourceVersion", 409)] {
                    let wanted = &patch["metadata"][field];
                    if !wanted.is_null() && *wanted != object["metadata"][field] {
                        return refusal(refused);
                    }
                }
                merge(&mut object, &patch);
                if object["metadata"]["uid"].is_null() {
                    object["metadata"]["uid"] = format!("uid-{}", self.version).into();
                }
                // What changes nothing makes no new version.
                if old.as_ref() == Some(&object) {
                    return (200, object);
                }
                let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
                (200, self.put(path, object, kind))
            }
            Method::DELETE => {
                let Some(object) = self.objects.get(path).cloned() else {
                    return refusal(404);
                };
                let options: Value = serde_json::from_slice(body).unwrap_or_default();
                let uid = &options["preconditions"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return refusal(409);
                }
                (200, self.put(path, object, "DELETED"))
            }
            _ => refusal(405),
        }
    }
}

/// A JSON merge patch (RFC 7386).
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}

impl Server {
    /// A client of it.
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.serve(request).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(&self, request: Request<Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path();
        let query = parts.uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(own, _)| *own == name)
                .map(|(_, value)| value.to_owned())
                .next()
        };
        let watch = parameter("watch").is_some();
        let version = parameter("resourceVersion").unwrap_or_default();
        let said = if watch {
            format!("WATCH {path} {version}")
        } else {
            format!("{} {path}", parts.method)
        };
        let fault = {
            let mut state = self.0.lock().unwrap();
            state.requests.push(said.clone());
            state.faults.as_mut().and_then(|faults| faults(&said))
        };
        let name = parameter("fieldSelector").unwrap_or_default();
        let name = name.rsplit(['=', 'D']).next().unwrap_or_default();
        let (status, text) = match fault {
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Status(code)) => refusal(code),
            None if watch => {
                let lines = self.0.lock().unwrap().watch(path, name, version.parse().unwrap_or(0));
                let frames = futures_util::stream::unfold(lines, |mut lines| async {
                    let line = lines.recv().await?;
                    Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), lines))
                });
                return Response::new(StreamBody::new(frames).boxed());
            }
            // Lists are asked for by pages.
            None if parameter("limit").is_some() => {
                let from = parameter("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
                (200, self.0.lock().unwrap().list(path, name, from))
            }
            None => self.0.lock().unwrap().answer(&parts.method, path, &body),
        };
        let body = http_body_util::Full::new(Bytes::from(text.to_string())).boxed();
        Response::builder().status(status).body(body).unwrap()
    }

    /// Makes or changes an object.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        let kind = if state.objects.contains_key(path) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        object["metadata"]["name"] = path.rsplit('/').next().unwrap().into();
        if let Some((_, rest)) = path.split_once("/namespaces/")
            && let Some((namespace, _)) = rest.split_once('/')
        {
            object["metadata"]["namespace"] = namespace.into();
        }
        state.put(path, object, kind);
    }

    /// The object, once it is as `wanted`.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let object = self.0.lock().unwrap().objects.get(path).cloned().unwrap_or_default();
            if wanted(&object) {
                return object;
            }
            // The clock of these tests stands still while anything else can run.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Deletes an object.
    pub fn delete(&self, path: &str) {
        let mut state = self.0.lock().unwrap();
        let object = state.objects.get(path).cloned().unwrap();
        state.put(path, object, "DELETED");
    }

    /// From now on so many objects in a page.
    pub fn pages_of(&self, count: usize) {
        self.0.lock().unwrap().page = count;
    }

    /// Sends a line to all watches.
    pub fn line(&self, line: &str) {
        for (_, _, watch) in &self.0.lock().unwrap().watches {
            let _ = watch.send(format!("{line}\n"));
        }
    }

    /// Ends all watches, as a restart does.
    pub fn cut(&self) {
        self.0.lock().unwrap().watches.clear();
    }

    /// Ends all watches and forgets the history.
    pub fn expire(&self) {
        let mut state = self.0.lock().unwrap();
        state.watches.clear();
        state.version += 1;
        state.oldest = state.version;
    }

    /// Asked about each request from now on, as `GET /path` or `WATCH /path VERSION`.
    pub fn faults(&self, faults: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        self.0.lock().unwrap().faults = Some(Box::new(faults));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.0.lock().unwrap().faults = None;
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().requests)
    }
}
