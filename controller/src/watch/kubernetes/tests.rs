//! An API server that has a script for each kind: a list, then one watch with a few events, then silence.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    sync::Mutex,
};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// What one kind answers: each list and each watch once, in turn; then silence for ever.
#[derive(Default)]
struct Script {
    lists: Vec<Result<Vec<Value>, u16>>,
    watches: Vec<Vec<Value>>,
}

fn named(name: &str, more: Value) -> Value {
    let mut object = json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": "1",
        "managedFields": [{"manager": "someone", "fieldsV1": {"f:spec": {}}}]}});
    object
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    object
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn client(scripts: HashMap<&'static str, Script>) -> Client {
    let scripts = Arc::new(Mutex::new(scripts));
    let service = tower::service_fn(move |request: Request<Body>| {
        let resource = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let mut scripts = scripts.lock().unwrap();
        let script = scripts.entry(Box::leak(resource.into_boxed_str())).or_default();
        let answer = if watch {
            let next = (!script.watches.is_empty()).then(|| script.watches.remove(0));
            next.map(|events| {
                let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
                (200, lines.concat())
            })
        } else {
            let next = if script.lists.is_empty() {
                Ok(Vec::new())
            } else {
                script.lists.remove(0)
            };
            Some(match next {
                Ok(items) => (
                    200,
                    json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string(),
                ),
                Err(code) => (
                    code,
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "x"})
                        .to_string(),
                ),
            })
        };
        async move {
            let Some((code, body)) = answer else {
                std::future::pending().await
            };
            let response = Response::builder()
                .status(code)
                .header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Body::from(body.into_bytes())).unwrap())
        }
    });
    Client::new(service, "default")
}

/// Applies batches until nothing is left to wait for: `enough` says when.
async fn until(
    batches: &mut mpsc::Receiver<Batch>,
    told: &mut BTreeSet<String>,
    enough: impl Fn(&BTreeSet<String>, bool) -> bool,
) {
    let mut synced = false;
    while !enough(told, synced) {
        let batch = batches.recv().await.expect("the source goes on");
        synced |= batch.synced;
        for change in batch.changes {
            match change {
                Change::Apply(object) => drop(told.insert(object.key().to_string())),
                Change::Delete(key) => drop(told.remove(&key.to_string())),
            }
        }
    }
}

fn start(scripts: HashMap<&'static str, Script>) -> mpsc::Receiver<Batch> {
    weft_service::tls::install_provider();
    let (sink, batches) = mpsc::channel(16);
    tokio::spawn(
        Box::new(Kubernetes {
            client: client(scripts),
        })
        .follow(sink),
    );
    batches
}

fn service(port: Value) -> Value {
    json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]}})
}

#[tokio::test]
async fn everything_is_listed_then_followed() {
    let route = json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}]}});
    let pod = || json!({"spec": {"containers": []}, "status": {"podIP": "10.1.0.1"}});
    let scripts = HashMap::from([
        (
            "services",
            Script {
                lists: vec![Ok(vec![named("cart", service(json!(80)))])],
                watches: vec![],
            },
        ),
        (
            "httproutes",
            Script {
                lists: vec![Ok(vec![named("split", route)])],
                watches: vec![],
            },
        ),
        // Not installed.
        (
            "grpcroutes",
            Script {
                lists: vec![Err(404)],
                watches: vec![],
            },
        ),
        (
            "pods",
            Script {
                lists: vec![Ok(vec![named("old", pod())])],
                watches: vec![vec![
                    event("ADDED", named("new", pod())),
                    event("DELETED", named("old", pod())),
                ]],
            },
        ),
    ]);
    let mut batches = start(scripts);
    let mut told = BTreeSet::new();
    until(&mut batches, &mut told, |_, synced| synced).await;
    assert!(
        told.contains("Service shop/cart") && told.contains("HTTPRoute shop/split"),
        "{told:?}"
    );
    until(&mut batches, &mut told, |told, _| {
        told.contains("Pod shop/new") && !told.contains("Pod shop/old")
    })
    .await;
}

#[tokio::test]
async fn after_a_broken_watch_what_has_gone_is_told() {
    let gone = event(
        "ERROR",
        json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}),
    );
    let all = vec![named("a", service(json!(80))), named("b", service(json!(80)))];
    let scripts = HashMap::from([(
        "services",
        Script {
            lists: vec![
                Ok(all),
                Ok(vec![named("b", service(json!(80))), named("c", service(json!(80)))]),
            ],
            watches: vec![vec![gone]],
        },
    )]);
    let mut batches = start(scripts);
    let mut told = BTreeSet::new();
    until(&mut batches, &mut told, |told, _| told.contains("Service shop/c")).await;
    assert_eq!(
        told.iter().map(String::as_str).collect::<Vec<_>>(),
        ["Service shop/b", "Service shop/c"]
    );
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_its_last_good_version() {
    let scripts = HashMap::from([(
        "services",
        Script {
            lists: vec![Ok(vec![named("cart", service(json!(80)))])],
            watches: vec![vec![
                event("MODIFIED", named("cart", service(json!(0)))),
                event("ADDED", named("other", service(json!(80)))),
            ]],
        },
    )]);
    let mut batches = start(scripts);
    let mut told = BTreeSet::new();
    until(&mut batches, &mut told, |told, _| told.contains("Service shop/other")).await;
    assert!(told.contains("Service shop/cart"));
}
