//! Against a scripted API server: what is read when, and what it changes.

use serde_json::json;

use super::*;
use crate::{
    api::scripted::{Fault, Server},
    watch::Batch,
};

const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
                     spec: {controllerName: weft.dev/gateway-controller}\n";
const PATH: &str = "/api/v1/namespaces/shop/configmaps/parameters";

fn gateway(parameters: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{gatewayClassName: weft, infrastructure: {{parametersRef: {{group: '', kind: ConfigMap, name: {parameters}}}}}}}\n"
    )
}

fn changes(text: &str) -> Vec<Change> {
    let documents = parse::documents(text).into_iter();
    let parsed = documents.flat_map(|document| parse::objects(document.value.unwrap()));
    parsed.map(|one| Change::Apply(Box::new(one.object.unwrap()))).collect()
}

fn tell(answers: &Answers, changes: Vec<Change>) {
    answers.apply(Batch { changes, synced: true });
}

fn said(changes: &[Change]) -> Vec<String> {
    let say = |change: &Change| match change {
        Change::Apply(object) => format!("apply {}", object.key()),
        Change::Delete(key) => format!("delete {key}"),
    };
    changes.iter().map(say).collect()
}

fn start() -> (Server, Reader, Arc<Answers>) {
    let server = Server::default();
    let answers = Answers::new(crate::plan::Settings::new("cluster.local"));
    tell(&answers, changes(CLASS));
    let reader = Reader::new(server.client(), answers.clone());
    (server, reader, answers)
}

#[tokio::test(start_paused = true)]
async fn what_a_change_refers_to_is_read_before_the_change_is_taken_in() {
    let (server, mut reader, answers) = start();
    server.put(PATH, json!({"data": {"replicas": "2"}}));
    let gateway = changes(&gateway("parameters"));
    let first = reader.ahead(&gateway).await;
    assert_eq!(said(&first), ["apply ConfigMap shop/parameters"]);
    tell(&answers, first.into_iter().chain(gateway.clone()).collect());
    assert!(reader.ahead(&gateway).await.is_empty(), "it is known");
    assert_eq!(server.requests(), [format!("GET {PATH}")]);
}

#[tokio::test(start_paused = true)]
async fn a_reference_is_followed_while_it_is_one() {
    let (server, mut reader, answers) = start();
    tell(&answers, changes(&gateway("parameters")));
    let next = async |reader: &mut Reader| said(&reader.next().await);
    assert_eq!(
        next(&mut reader).await,
        ["delete ConfigMap shop/parameters"],
        "it is not there"
    );
    server.put(PATH, json!({"data": {"replicas": "2"}}));
    let before = Instant::now();
    assert_eq!(next(&mut reader).await, ["apply ConfigMap shop/parameters"]);
    assert!(before.elapsed() <= limits::REFERENCE_LOOK * 2);
    server.delete(PATH);
    assert_eq!(next(&mut reader).await, ["delete ConfigMap shop/parameters"]);
    server.put(PATH, json!({"data": {}}));
    assert_eq!(next(&mut reader).await, ["apply ConfigMap shop/parameters"]);
    tell(&answers, changes(&gateway("others")));
    assert_eq!(
        next(&mut reader).await,
        ["delete ConfigMap shop/parameters"],
        "nobody refers to it"
    );
    server.requests();
    tokio::select! {
        _ = reader.next() => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    assert!(server.requests().iter().all(|request| request.ends_with("/others")));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_changes_nothing_and_holds_nothing_up() {
    let (server, mut reader, answers) = start();
    server.put(PATH, json!({"data": {}}));
    tell(&answers, changes(&gateway("parameters")));
    assert_eq!(said(&reader.next().await), ["apply ConfigMap shop/parameters"]);
    server.faults(|_| Some(Fault::Status(403)));
    tokio::select! {
        changes = reader.next() => panic!("{:?}", said(&changes)),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    server.faults(|_| Some(Fault::Silent));
    let before = Instant::now();
    assert!(reader.ahead(&changes(&gateway("others"))).await.is_empty());
    assert!(before.elapsed() <= limits::REFERENCE_WAIT + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn many_references_do_not_make_a_flood() {
    let (server, mut reader, answers) = start();
    for n in 0..1000 {
        let text = gateway(&format!("p{n}")).replace("name: web", &format!("name: web{n}"));
        tell(&answers, changes(&text));
    }
    let all = reader.all().await;
    assert_eq!(all.len(), 1000, "none of them is there");
    tell(&answers, all);
    server.requests();
    tokio::select! {
        changes = reader.next() => panic!("{:?}", said(&changes)),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    let reads = server.requests().len();
    assert!((2000..=3100).contains(&reads), "{reads} reads in a minute");
}
