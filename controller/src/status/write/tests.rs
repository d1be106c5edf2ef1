//! Statuses against a scripted API server and a directory.

use super::*;
use crate::{
    api::scripted::{Fault, Server},
    cluster::{Change, types::Object},
    watch::{Batch, parse},
};

const CLASS: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/weft";

fn objects(text: &str) -> Vec<Object> {
    let documents = parse::documents(text).into_iter();
    let parsed = documents.flat_map(|document| parse::objects(document.value.unwrap()));
    parsed
        .map(|one| one.object.unwrap_or_else(|| panic!("{:?}", one.mistakes)))
        .collect()
}

fn tell(answers: &Answers, object: &Value) {
    let text = object.to_string();
    let changes = objects(&text).into_iter().map(|object| Change::Apply(Box::new(object)));
    answers.apply(Batch {
        changes: changes.collect(),
        synced: true,
    });
}

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "weft", "generation": 1},
        "spec": {"controllerName": "weft.dev/gateway-controller"},
    })
}

fn start(server: &Server) -> (Arc<Answers>, watch::Sender<bool>) {
    let answers = Answers::new(crate::plan::Settings::new("cluster.local"));
    let (leads, leading) = watch::channel(true);
    tokio::spawn(write(server.client(), answers.clone(), leading));
    (answers, leads)
}

fn writes(server: &Server) -> usize {
    server
        .requests()
        .into_iter()
        .filter(|request| request.starts_with("PATCH"))
        .count()
}

fn is_accepted(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Accepted" && one["status"] == "True")
    })
}

/// The server's object as it is now.
async fn current(server: &Server) -> Value {
    server.until(CLASS, |_| true).await
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_once_and_again_only_when_it_changes() {
    let server = Server::default();
    server.put(CLASS, class());
    let (answers, _leads) = start(&server);
    tell(&answers, &current(&server).await);
    let written = server.until(CLASS, is_accepted).await;
    // Before the watch tells of the write, something else changes.
    answers.apply(Batch {
        changes: Vec::new(),
        synced: false,
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    tell(&answers, &written);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(writes(&server), 1);
    let mut newer = written.clone();
    newer["metadata"]["generation"] = 2.into();
    server.put(CLASS, newer);
    tell(&answers, &current(&server).await);
    let of_two = |object: &Value| object["status"]["conditions"][0]["observedGeneration"] == 2;
    let again = server.until(CLASS, of_two).await;
    let time = |object: &Value| object["status"]["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(time(&again), time(&written));
    assert_eq!(writes(&server), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_newer_than_known_is_not_overwritten() {
    let server = Server::default();
    server.put(CLASS, class());
    let (answers, _leads) = start(&server);
    let old = current(&server).await;
    let mut newer = class();
    newer["spec"]["description"] = "x".into();
    server.put(CLASS, newer);
    tell(&answers, &old);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!is_accepted(&current(&server).await), "refused by its version");
    assert!(writes(&server) < 40, "it is not asked in a circle");
    tell(&answers, &current(&server).await);
    server.until(CLASS, is_accepted).await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_alone_writes_and_tries_again_what_failed() {
    let server = Server::default();
    server.put(CLASS, class());
    let (answers, leads) = start(&server);
    leads.send_replace(false);
    tell(&answers, &current(&server).await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(writes(&server), 0);
    server.faults(|request| request.starts_with("PATCH").then_some(Fault::Status(500)));
    leads.send_replace(true);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let tries = writes(&server);
    assert!((2..60).contains(&tries), "{tries} tries in five minutes");
    server.heal();
    server.until(CLASS, is_accepted).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_changes_is_a_trickle_of_writes() {
    let server = Server::default();
    server.put(CLASS, class());
    let (answers, _leads) = start(&server);
    for generation in 1..=1000 {
        let mut object = current(&server).await;
        object["metadata"]["generation"] = generation.into();
        server.put(CLASS, object);
        tell(&answers, &current(&server).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let last = |object: &Value| object["status"]["conditions"][0]["observedGeneration"] == 1000;
    server.until(CLASS, last).await;
    let writes = writes(&server);
    assert!(writes <= 120, "{writes} writes in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn files_say_the_same_and_go_with_their_objects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let answers = Answers::new(crate::plan::Settings::new("cluster.local"));
    let task = {
        let answers = answers.clone();
        tokio::spawn(async move { write_files(&path, answers).await })
    };
    let mut object = class();
    object["metadata"]["uid"] = "u".into();
    tell(&answers, &object);
    let file = directory.path().join("gatewayclass.weft.yaml");
    let text = loop {
        match std::fs::read_to_string(&file) {
            Ok(text) => break text,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let written: Value = serde_saphyr::from_str(&text).unwrap();
    assert!(is_accepted(&written) && written["metadata"]["uid"] == "u", "{text}");
    let key = objects(&object.to_string())[0].key();
    answers.apply(Batch {
        changes: vec![Change::Delete(key)],
        synced: false,
    });
    while file.exists() {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!task.is_finished());
}
