//! What is there against what is wanted, and a scripted API server that holds both.

use serde_json::json;

use super::*;
use crate::infrastructure::{Front, Parameters};

fn front(name: &str, ports: &[u16]) -> Want {
    let front = Front {
        gateway: ObjectKey::new("shop", name),
        class: "weft".into(),
        uid: format!("uid-of-{name}"),
        name: format!("{name}-weft"),
        ports: ports.iter().copied().collect(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    Want::Front(Box::new(front), Parameters::default())
}

fn wants(entries: Vec<(&str, Want)>) -> BTreeMap<ObjectKey, Want> {
    entries
        .into_iter()
        .map(|(name, want)| (ObjectKey::new("shop", name), want))
        .collect()
}

/// Everything is as it was wanted, with what an API server adds.
fn settled(wants: &BTreeMap<ObjectKey, Want>) -> Kept {
    let mut kept = Kept::default();
    for action in kept.actions(wants, &Settings::default()) {
        let Action::Write(id, wanted, _) = action else {
            panic!("nothing is there to be deleted")
        };
        let mut made = wanted.clone();
        made["metadata"]["uid"] = format!("{}-{}", id.0.name(), id.1.name).into();
        made["spec"]["clusterIP"] = "10.0.0.1".into();
        kept.known.insert(id.clone(), made.clone());
        kept.written.insert(id, Written { wanted, made });
    }
    kept
}

fn said(actions: &[Action]) -> Vec<String> {
    let say = |action: &Action| match action {
        Action::Write(id, _, uid) => format!("write {} {} {uid:?}", id.0.name(), id.1),
        Action::Delete(id, uid) => format!("delete {} {} {uid}", id.0.name(), id.1),
    };
    actions.iter().map(say).collect()
}

#[test]
fn what_is_as_it_should_be_is_left_alone_whatever_others_add() {
    let wants = wants(vec![("web", front("web", &[80]))]);
    let mut kept = settled(&wants);
    assert_eq!(kept.actions(&wants, &Settings::default()), []);
    let service = (Kind::Service, ObjectKey::new("shop", "web-weft"));
    let known = kept.known.get_mut(&service).unwrap();
    known["metadata"]["annotations"]["other"] = "x".into();
    known["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    assert_eq!(kept.actions(&wants, &Settings::default()), []);
    kept.known.get_mut(&service).unwrap()["spec"]["ports"][0]["targetPort"] = 1.into();
    let actions = said(&kept.actions(&wants, &Settings::default()));
    assert_eq!(actions, [r#"write Service shop/web-weft Some("Service-web-weft")"#]);
}

#[test]
fn what_no_gateway_wants_goes_and_what_is_not_known_stays() {
    let all = wants(vec![
        ("a", front("a", &[80])),
        ("b", front("b", &[80])),
        ("c", front("c", &[80])),
    ]);
    let kept = settled(&all);
    // `a` is another's now, of `b` nothing can be told, and `c` is gone: its objects go with it.
    let now = wants(vec![("a", Want::Nothing), ("b", Want::AsItIs)]);
    let mut actions = said(&kept.actions(&now, &Settings::default()));
    actions.sort();
    assert_eq!(
        actions,
        [
            "delete Deployment shop/a-weft Deployment-a-weft",
            "delete Service shop/a-weft Service-a-weft",
            "delete ServiceAccount shop/a-weft ServiceAccount-a-weft",
        ]
    );
}

#[test]
fn a_service_without_ports_is_taken_away() {
    let kept = settled(&wants(vec![("a", front("a", &[80]))]));
    let actions = kept.actions(&wants(vec![("a", front("a", &[]))]), &Settings::default());
    assert_eq!(said(&actions), ["delete Service shop/a-weft Service-a-weft"]);
}

mod against_a_server {
    use std::time::Duration;

    use super::*;
    use crate::{
        api::scripted::{Fault, Server},
        watch::{Batch, parse},
    };

    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web-weft";
    const SERVICE: &str = "/api/v1/namespaces/shop/services/web-weft";

    fn text(class: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: weft}}\nspec: {{controllerName: weft.dev/gateway-controller}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: other}}\nspec: {{controllerName: example.com/other}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop, uid: g}}\n\
             spec: {{gatewayClassName: {class}, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}\n"
        )
    }

    fn tell(answers: &Answers, text: &str) {
        let parsed = parse::documents(text).into_iter();
        let parsed = parsed.flat_map(|document| parse::objects(document.value.unwrap()));
        let changes = parsed.map(|one| crate::cluster::Change::Apply(Box::new(one.object.unwrap())));
        answers.apply(Batch {
            changes: changes.collect(),
            synced: true,
        });
    }

    fn start(server: &Server) -> (Arc<Answers>, watch::Sender<bool>) {
        let answers = Answers::new(crate::plan::Settings::new("cluster.local"));
        let (leads, leading) = watch::channel(true);
        let (told, settings) = watch::channel(Some(Settings::default()));
        let kept = keep(server.client(), answers.clone(), settings, leading);
        tokio::spawn(async move {
            kept.await;
            drop(told);
        });
        (answers, leads)
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_gets_its_objects_and_they_are_put_right_when_somebody_changes_them() {
        let server = Server::default();
        let (answers, _leads) = start(&server);
        tell(&answers, &text("weft"));
        let service = server.until(SERVICE, |service| !service.is_null()).await;
        assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "g");
        server.until(DEPLOYMENT, |deployment| !deployment.is_null()).await;
        let mut changed = service.clone();
        changed["spec"]["type"] = "ClusterIP".into();
        server.put(SERVICE, changed);
        server
            .until(SERVICE, |service| service["spec"]["type"] == "LoadBalancer")
            .await;
        server.delete(SERVICE);
        server.until(SERVICE, |service| !service.is_null()).await;
        tell(&answers, &text("other"));
        server.until(SERVICE, Value::is_null).await;
        server.until(DEPLOYMENT, Value::is_null).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        server.requests();
        tokio::time::sleep(Duration::from_secs(100)).await;
        let writes = server
            .requests()
            .into_iter()
            .filter(|request| !request.starts_with("WATCH"))
            .count();
        assert_eq!(writes, 0, "what is right costs nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_made_under_the_name_is_left_alone() {
        let server = Server::default();
        server.put(SERVICE, json!({"spec": {"mine": true}}));
        let (answers, _leads) = start(&server);
        tell(&answers, &text("weft"));
        server.until(DEPLOYMENT, |deployment| !deployment.is_null()).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        let service = server.until(SERVICE, |_| true).await;
        assert_eq!(service["spec"], json!({"mine": true}));
        server.delete(SERVICE);
        server
            .until(SERVICE, |service| service["spec"]["type"] == "LoadBalancer")
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_lead_writes_nothing_and_what_fails_is_tried_again() {
        let server = Server::default();
        let (answers, leads) = start(&server);
        leads.send_replace(false);
        tell(&answers, &text("weft"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(server.until(SERVICE, |_| true).await.is_null());
        server.faults(|request| request.starts_with("PATCH").then_some(Fault::Status(500)));
        leads.send_replace(true);
        tokio::time::sleep(Duration::from_secs(300)).await;
        let tries = server
            .requests()
            .into_iter()
            .filter(|request| request.starts_with("PATCH"))
            .count();
        assert!(
            (6..150).contains(&tries),
            "{tries} tries of three objects in five minutes"
        );
        server.heal();
        server.until(SERVICE, |service| !service.is_null()).await;
    }
}
