//! Files as people write them.

use super::*;

fn numbers(text: &str) -> Vec<(usize, usize, bool)> {
    documents(text)
        .into_iter()
        .map(|document| (document.number, document.line, document.value.is_ok()))
        .collect()
}

#[test]
fn documents_are_split_and_counted_as_people_do() {
    assert_eq!(numbers("a: 1\n---\nb: 2\n"), [(1, 1, true), (2, 2, true)]);
    assert_eq!(
        numbers("---\na: 1\n---\n# nothing\n---\nb: 2"),
        [(1, 1, true), (2, 5, true)]
    );
    assert_eq!(numbers("{\"a\": 1}"), [(1, 1, true)]);
    assert_eq!(numbers("a: |\n  ---\n  x\n--- \nb: 2\n"), [(1, 1, true), (2, 4, true)]);
    assert_eq!(numbers(""), []);
    assert_eq!(numbers("# only a comment\n---\n"), []);
    let crlf = documents("a: 1\r\n---\r\nb: 2\r\n");
    assert_eq!(crlf.len(), 2);
    assert_eq!(crlf[1].value.as_ref().unwrap()["b"], 2);
}

#[test]
fn one_bad_document_leaves_the_others_and_is_named_by_its_line() {
    let documents = documents("a: 1\n---\nb: [1, 2\nc: }\n---\nd: 4\n");
    assert!(documents[0].value.is_ok() && documents[2].value.is_ok());
    let error = documents[1].value.as_ref().unwrap_err();
    assert!(
        error.contains("line 4") || error.contains("line 3") || error.contains("4:") || error.contains("3:"),
        "{error}"
    );
    assert!(!error.contains('\n'));
}

fn parsed(text: &str) -> Vec<Parsed> {
    documents(text)
        .into_iter()
        .flat_map(|document| objects(document.value.unwrap()))
        .collect()
}

#[test]
fn mistakes_name_the_field_and_all_come_together() {
    let one = &parsed("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: many}]}")[0];
    assert_eq!(one.key.as_ref().unwrap().to_string(), "Service default/web");
    assert!(one.mistakes[0].contains("spec.ports[0].port"), "{:?}", one.mistakes);
    let one = &parsed(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: x, ports: [{port: 0}, {port: 99999}]}",
    )[0];
    assert_eq!(one.mistakes.len(), 3, "{:?}", one.mistakes);
    let one = &parsed("kind: Service\nmetadata: {name: web}")[0];
    assert!(one.key.is_none() && one.mistakes[0].contains("apiVersion"));
    let one = &parsed("apiVersion: v1\nkind: Pod\nmetadata: {namespace: x}")[0];
    assert!(one.mistakes[0].contains("metadata.name"), "{:?}", one.mistakes);
    let old = &parsed("apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: GRPCRoute\nmetadata: {name: x}")[0];
    assert!(
        old.mistakes[0].contains("gateway.networking.k8s.io/v1"),
        "{:?}",
        old.mistakes
    );
}

#[test]
fn lists_are_taken_apart_and_other_kinds_left_alone() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}
- {apiVersion: v1, kind: Service, metadata: {name: c}, spec: {clusterIP: x}}
---
apiVersion: v1
kind: PodList
items: [{metadata: {name: p}, spec: {containers: []}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
";
    let all = parsed(text);
    let objects: Vec<String> = all
        .iter()
        .filter_map(|one| one.object.as_ref())
        .map(|one| one.key().to_string())
        .collect();
    assert_eq!(objects, ["Namespace a", "ConfigMap default/b", "Pod default/p"]);
    assert_eq!(all.iter().filter(|one| !one.mistakes.is_empty()).count(), 1);
}

#[test]
fn a_label_that_is_misspelt_is_taken_for_strict_and_said() {
    let one = &parsed("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {weft.dev/mtls: Strict}}")[0];
    assert!(matches!(&one.object, Some(Object::Namespace(namespace)) if namespace.strict));
    assert!(one.notes[0].contains("'Strict'"), "{:?}", one.notes);
}

fn pod(text: &str) -> crate::cluster::types::Pod {
    let mut all = parsed(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n{text}"));
    match all.remove(0).object {
        Some(Object::Pod(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn weft_is_recognised_by_the_pod_s_specification_only() {
    let proxy = "{name: weft-proxy, restartPolicy: Always, args: [sidecar]}";
    let init = "{name: weft-init, args: [--inbound-port, '15006', --skip-inbound-ports, '80,8000-8010']}";
    let mesh = |init_containers: &str| pod(&format!("spec: {{initContainers: [{init_containers}]}}")).mesh;
    let skipped = mesh(&format!("{proxy}, {init}")).unwrap().skip_inbound_ports;
    assert!(skipped.contains(80) && skipped.contains(8005) && !skipped.contains(81));
    assert!(mesh(proxy).unwrap().skip_inbound_ports.is_empty());
    let equals = format!("{proxy}, {{name: weft-init, args: ['--skip-inbound-ports=81']}}");
    assert!(mesh(&equals).unwrap().skip_inbound_ports.contains(81));
    for other in [
        "",
        init,
        "{name: weft-proxy, args: [sidecar]}",
        "{name: weft-proxy, restartPolicy: Always, args: [gateway]}",
        "{name: weft-proxy, restartPolicy: Always}",
        "{name: other, restartPolicy: Always, args: [sidecar]}",
    ] {
        assert_eq!(mesh(other), None, "{other}");
    }
    let outside = pod("spec: {containers: [{name: weft-proxy, args: [sidecar]}]}");
    assert_eq!(outside.mesh, None);
    assert_eq!(
        pod(&format!("spec: {{hostNetwork: true, initContainers: [{proxy}]}}")).mesh,
        None
    );
}

#[test]
fn a_pod_has_addresses_of_its_own_while_it_runs() {
    let ips = |text: &str| pod(text).ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let both = "status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}";
    assert_eq!(ips(both), ["10.0.0.1", "fd00::1"]);
    assert!(ips(&format!("spec: {{hostNetwork: true}}\n{both}")).is_empty());
    assert!(ips("status: {phase: Succeeded, podIP: 10.0.0.1}").is_empty());
    assert!(ips("status: {phase: Failed, podIP: 10.0.0.1}").is_empty());
    assert_eq!(ips("status: {phase: Pending, podIP: 10.0.0.1}"), ["10.0.0.1"]);
}

#[test]
fn app_protocol_is_read_as_the_table_says() {
    use weft_proto::rpc::discovery::Protocol;
    for (text, protocol) in [
        (Some("http"), Protocol::Http1),
        (Some("kubernetes.io/ws"), Protocol::Http1),
        (Some("kubernetes.io/h2c"), Protocol::H2c),
        (Some("grpc"), Protocol::H2c),
        (Some("https"), Protocol::Tls),
        (Some("tls"), Protocol::Tls),
        (Some("weft.dev/opaque"), Protocol::Opaque),
        (Some("mysql"), Protocol::Opaque),
        (Some("redis"), Protocol::Opaque),
        (Some("tcp"), Protocol::Opaque),
        (Some("example.com/custom"), Protocol::Detect),
        (None, Protocol::Detect),
    ] {
        assert_eq!(compact::app_protocol(text), protocol, "{text:?}");
    }
}

#[test]
fn what_an_api_server_lets_pass_is_said_in_the_status_and_a_file_is_refused() {
    let route = |origin| {
        let spec = serde_json::json!({"rules": [
            {"matches": [{"path": {"value": "/a"}}], "sessionPersistence": {"sessionName": "no name"}},
            {"matches": [{"path": {"value": "/b"}}]},
        ]});
        let object = core::Custom {
            metadata: core::Meta {
                name: Some("r".into()),
                ..core::Meta::default()
            },
            spec,
            ..core::Custom::default()
        };
        custom(Kind::HttpRoute, object, origin)
    };
    assert_eq!(route(Origin::File).unwrap_err().len(), 1);
    let Ok(Some(Object::Route(_, route))) = route(Origin::ApiServer) else {
        panic!("it is a route")
    };
    let refused: Vec<bool> = route.rules.iter().map(|rule| rule.refused.is_some()).collect();
    assert_eq!((refused, route.refused), (vec![true, false], None));
}
