//! The CA's Secret and the ConfigMap of its roots, against a scripted API server.

use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::*;
use crate::api::scripted::{Fault, Server};

const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const TRUST: &str = "/api/v1/namespaces/weft-system/configmaps/weft-trust";

fn start(server: &Server) -> Arc<CaSecret> {
    weft_service::tls::install_provider();
    let secret = CaSecret::new(server.client(), "weft-system", "weft-ca", "cluster.local");
    tokio::spawn(secret.clone().follow());
    let keeper = Keeper {
        client: server.client(),
        namespace: "weft-system".into(),
        name: "weft-trust".into(),
        key: BUNDLE,
        component: IDENTITY_SERVICE_ACCOUNT,
    };
    tokio::spawn(secret.clone().tell(keeper));
    secret
}

fn roots(secret: &CaSecret) -> String {
    secret.authority().current().unwrap().bundle_pem()
}

fn data(texts: &Texts) -> Value {
    let value = |bytes: &[u8]| serde_json::to_value(ByteString(bytes.to_vec())).unwrap();
    json!({"data": {CERTIFICATE: value(&texts.certificate), KEY: value(&texts.key)}})
}

async fn told(server: &Server, roots: &str) {
    server.until(TRUST, |map| map["data"][BUNDLE] == roots).await;
}

#[tokio::test(start_paused = true)]
async fn replicas_make_one_ca_together_and_tell_its_roots() {
    let server = Server::default();
    let replicas: Vec<_> = (0..3).map(|_| start(&server)).collect();
    for replica in &replicas {
        replica.authority().loaded().await;
    }
    let known = roots(&replicas[0]);
    assert!(replicas.iter().all(|replica| roots(replica) == known));
    told(&server, &known).await;
    assert_eq!(
        weft_service::tls::certificates(known.as_bytes()).unwrap().len(),
        1,
        "what is told can be read"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_or_spoilt_is_put_right_with_the_ca_in_memory() {
    let server = Server::default();
    let secret = start(&server);
    secret.authority().loaded().await;
    let known = roots(&secret);
    told(&server, &known).await;
    let before = server.until(SECRET, |secret| !secret.is_null()).await["data"].clone();
    server.delete(SECRET);
    server.delete(TRUST);
    assert_eq!(
        server.until(SECRET, |secret| !secret.is_null()).await["data"],
        before,
        "no new root"
    );
    told(&server, &known).await;
    server.put(TRUST, json!({"data": {BUNDLE: "x", "mine": "stays"}}));
    told(&server, &known).await;
    assert_eq!(server.until(TRUST, |_| true).await["data"]["mine"], "stays");
    server.put(SECRET, json!({"data": {CERTIFICATE: "eHh4", KEY: "eHh4"}}));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(roots(&secret), known, "the last good stays");
}

#[tokio::test(start_paused = true)]
async fn f22_another_ca_is_taken_and_told() {
    let server = Server::default();
    let replicas = [start(&server), start(&server)];
    replicas[0].authority().loaded().await;
    let next = Texts::generate("cluster.local").unwrap();
    server.put(SECRET, data(&next));
    let wanted = Ca::read(&next, str::to_owned, "cluster.local").unwrap().bundle_pem();
    told(&server, &wanted).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    server.requests();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        server.requests().iter().all(|request| request.starts_with("WATCH")),
        "nobody fights"
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_is_never_replaced_and_may_be_repaired() {
    let server = Server::default();
    server.put(SECRET, json!({"data": {CERTIFICATE: "eHh4"}}));
    let secret = start(&server);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(secret.authority().current().is_none());
    server.put(SECRET, data(&Texts::generate("cluster.local").unwrap()));
    secret.authority().loaded().await;
}

#[tokio::test(start_paused = true)]
async fn f14_without_an_api_server_the_ca_is_waited_for_and_then_kept() {
    let server = Server::default();
    server.faults(|_| Some(Fault::Silent));
    let secret = start(&server);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(secret.authority().current().is_none());
    server.heal();
    secret.authority().loaded().await;
    let known = roots(&secret);
    server.faults(|_| Some(Fault::Status(500)));
    server.cut();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(roots(&secret), known);
}
