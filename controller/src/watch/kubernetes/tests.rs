//! The source against a scripted API server, with a clock that does not wait.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::api::scripted::{Fault, Server};

struct Told {
    batches: mpsc::Receiver<Batch>,
    objects: BTreeSet<String>,
    synced: bool,
    health: Arc<Health>,
}

impl Told {
    async fn until(&mut self, enough: impl Fn(&BTreeSet<String>) -> bool) {
        while !(self.synced && enough(&self.objects)) {
            let batch = self.batches.recv().await.expect("the source goes on");
            self.synced |= batch.synced;
            for change in batch.changes {
                match change {
                    Change::Apply(object) => drop(self.objects.insert(object.key().to_string())),
                    Change::Delete(key) => drop(self.objects.remove(&key.to_string())),
                }
            }
        }
    }

    fn figures(&self, kind: Kind) -> (bool, u64) {
        let figures = self.health.figures().find(|(own, _, _)| *own == kind);
        figures.map(|(_, synced, failures)| (synced, failures)).unwrap()
    }
}

fn start(server: &Server) -> Told {
    let (sink, batches) = mpsc::channel(16);
    let health = Arc::new(Health::default());
    tokio::spawn(Box::new(Kubernetes::new(server.client(), health.clone())).follow(sink));
    Told {
        batches,
        objects: BTreeSet::new(),
        synced: false,
        health,
    }
}

fn put(server: &Server, path: &str, mut object: Value) {
    object["metadata"] = json!({"namespace": "shop", "managedFields": [{"fieldsV1": {"f:spec": {}}}]});
    server.put(path, object);
}

fn service(port: Value) -> Value {
    json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]}})
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_is_listed_then_followed_and_kinds_that_are_not_installed_are_awaited() {
    let server = Server::default();
    let route = json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}]}});
    put(&server, "/api/v1/services/cart", service(json!(80)));
    put(&server, "/apis/gateway.networking.k8s.io/v1/httproutes/split", route);
    put(&server, "/api/v1/pods/old", json!({"status": {"podIP": "10.1.0.1"}}));
    server.put(
        "/api/v1/nodes/n1",
        json!({"spec": {"podCIDRs": ["10.1.0.0/24", "fd00::/64"]}}),
    );
    server.faults(|request| request.contains("routes").then_some(Fault::Status(404)));
    let mut told = start(&server);
    told.until(|_| true).await;
    assert_eq!(told.objects, set(&["Service shop/cart", "Pod shop/old", "Node n1"]));
    assert_eq!(
        told.figures(Kind::HttpRoute),
        (true, 0),
        "what is not installed is no failure"
    );
    put(&server, "/api/v1/pods/new", json!({"status": {"podIP": "10.1.0.2"}}));
    server.delete("/api/v1/pods/old");
    told.until(|told| told.contains("Pod shop/new") && !told.contains("Pod shop/old"))
        .await;
    server.heal();
    let healed = tokio::time::Instant::now();
    told.until(|told| told.contains("HTTPRoute shop/split")).await;
    assert!(healed.elapsed() <= Duration::from_secs(30), "{:?}", healed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn f14_after_a_long_break_what_has_gone_is_told() {
    let server = Server::default();
    for name in ["a", "b"] {
        put(&server, &format!("/api/v1/services/{name}"), service(json!(80)));
    }
    let mut told = start(&server);
    told.until(|_| true).await;
    // Away for ten minutes, and its history with it.
    server.faults(|_| Some(Fault::Status(503)));
    server.cut();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(
        !told.figures(Kind::Service).0 && told.figures(Kind::Service).1 > 3,
        "{:?}",
        told.figures(Kind::Service)
    );
    server.delete("/api/v1/services/a");
    put(&server, "/api/v1/services/c", service(json!(80)));
    server.expire();
    server.heal();
    told.until(|told| *told == set(&["Service shop/b", "Service shop/c"]))
        .await;
    assert!(told.figures(Kind::Service).0);
}

#[tokio::test(start_paused = true)]
async fn a_bad_object_keeps_its_last_good_version_and_harms_no_other() {
    let server = Server::default();
    put(&server, "/api/v1/services/a", service(json!(80)));
    put(&server, "/api/v1/services/b", service(json!(99999)));
    let mut told = start(&server);
    told.until(|_| true).await;
    assert_eq!(told.objects, set(&["Service shop/a"]));
    put(&server, "/api/v1/services/a", service(json!(0)));
    put(&server, "/api/v1/services/c", service(json!(80)));
    told.until(|told| *told == set(&["Service shop/a", "Service shop/c"]))
        .await;
    server.expire();
    put(&server, "/api/v1/services/d", service(json!(80)));
    told.until(|told| *told == set(&["Service shop/a", "Service shop/c", "Service shop/d"]))
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_keeps_it_unready_and_says_why() {
    let server = Server::default();
    server.faults(|request| request.contains("/nodes").then_some(Fault::Status(403)));
    let told = start(&server);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let problems = told.health.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("Node: the API server forbids it") && problems[0].contains("weft install"));
}
