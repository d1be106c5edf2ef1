//! Events against a scripted API server.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    api::scripted::Server,
    plan::Settings,
    watch::{Health, Source, kubernetes::Kubernetes},
};

fn pod(annotation: &str) -> serde_json::Value {
    json!({"metadata": {"uid": "u", "annotations": {label::INJECT: annotation}}, "spec": {"containers": []}})
}

/// Paths of Events that were asked for.
fn events(server: &Server) -> Vec<String> {
    let asked = server.requests().into_iter();
    asked
        .filter(|request| request.starts_with("POST") && request.ends_with("/events"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn t41_each_pod_that_should_be_meshed_is_counted_and_told_once_by_the_leader() {
    let server = Server::default();
    server.put(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"labels": {label::INJECT: "enabled"}}}),
    );
    server.put(
        "/api/v1/namespaces/kube-system",
        json!({"metadata": {"labels": {label::INJECT: "enabled"}}}),
    );
    let put = |namespace: &str, name: &str, mut pod: serde_json::Value| {
        pod["metadata"]["namespace"] = namespace.into();
        server.put(&format!("/api/v1/pods/{name}"), pod);
    };
    put("shop", "old", pod("enabled"));
    put("shop", "out", pod("disabled"));
    put("kube-system", "dns", pod("enabled"));
    put("other", "free", pod("enabled"));
    let mut ended = pod("enabled");
    ended["status"] = json!({"phase": "Succeeded"});
    put("shop", "job", ended);
    let mut host = pod("enabled");
    host["spec"]["hostNetwork"] = true.into();
    put("shop", "host", host);
    let mut meshed = pod("enabled");
    meshed["spec"]["initContainers"] = json!([{"name": "weft-proxy", "restartPolicy": "Always", "args": ["sidecar"]}]);
    put("shop", "meshed", meshed);

    let answers = Answers::new(Settings {
        trust_domain: "cluster.local".into(),
        cluster_cidrs: Default::default(),
        sessions: Default::default(),
    });
    let (sink, mut batches) = tokio::sync::mpsc::channel(16);
    tokio::spawn(Box::new(Kubernetes::new(server.client(), Arc::new(Health::default()))).follow(sink));
    let fed = answers.clone();
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            fed.apply(batch);
        }
    });
    answers.synced().await;
    assert_eq!(answers.unmeshed().into_iter().collect::<Vec<_>>(), [("shop".into(), 1)]);

    let (leads, leading) = watch::channel(false);
    tokio::spawn(tell(server.client(), answers.clone(), leading.clone(), "one".into()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(events(&server).is_empty(), "only a leader speaks");
    leads.send_replace(true);
    let path = "/apis/events.k8s.io/v1/namespaces/shop/events/old.u";
    let event = server.until(path, |event| !event.is_null()).await;
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("NotMeshed"), &json!("Warning"))
    );
    assert_eq!(event["regarding"]["name"], "old");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("kubectl -n shop rollout restart") && note.len() < 1024,
        "{note}"
    );

    server.requests();
    let mut again = pod("enabled");
    again["metadata"]["namespace"] = "shop".into();
    again["status"] = json!({"podIP": "10.1.0.1"});
    server.put("/api/v1/pods/old", again);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(events(&server).is_empty(), "once");
    // Another leader asks, and is told that it has been said.
    tokio::spawn(tell(server.client(), answers.clone(), leading, "two".into()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(events(&server).len(), 1);

    // Out of the namespace's label, out of the count.
    server.put("/api/v1/namespaces/shop", json!({"metadata": {"labels": {}}}));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(answers.unmeshed().is_empty());
}
