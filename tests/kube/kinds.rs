//! Pods of every kind: users, read-only roots, shared processes, host ports, the host's network, sidecars of their own, short lives;
//! and a StatefulSet's pod that comes back with another address.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{
    kube::{APPS, CLIENT, Namespace},
    objects::App,
};

use crate::{Test, tests};

tests![
    users_and_privileges_of_every_kind,
    many_ports_a_host_port_and_the_hosts_network,
    a_stateful_sets_pod_is_found_again,
];

const MINUTE: Duration = Duration::from_secs(120);
const STRICT: &str = "weft.dev/inject: enabled, weft.dev/mtls: strict";

/// A server that is ready when it answers, with these more fields of its container.
fn server(more: &Value) -> Value {
    let mut container = json!({
        "name": "app", "image": APPS, "args": ["http", "--listen", "8080"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    });
    if let (Some(container), Some(more)) = (container.as_object_mut(), more.as_object()) {
        container.extend(more.clone());
    }
    container
}

fn pod(name: &str, spec: &Value) -> String {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
    format!("{pod}\n---\n")
}

fn with(container: &Value, more: &Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [server(container)]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

fn client(namespace: &Namespace<'_>) -> String {
    let container = format!("image: '{CLIENT}'");
    App {
        namespace: namespace.name(),
        name: "client",
        replicas: 1,
        container,
        port: 0,
    }
    .yaml()
}

fn addresses(namespace: &Namespace<'_>, pod: &str) -> Result<Vec<IpAddr>> {
    let pod = namespace.get(&format!("pod/{pod}"))?;
    let all = pod["status"]["podIPs"].as_array().context("podIPs")?;
    all.iter()
        .map(|one| Ok(one["ip"].as_str().context("ip")?.parse()?))
        .collect()
}

fn users_and_privileges_of_every_kind(test: &Test) -> Result<()> {
    let namespace = test.namespace(STRICT)?;
    let user = |uid: u32| json!({"securityContext": {"runAsUser": uid}});
    let locked = json!({"securityContext": {
        "runAsNonRoot": true, "runAsUser": 1000, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }});
    let limits = json!({"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}});
    let own = json!({"initContainers": [{
        "name": "own", "image": CLIENT, "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
    }]});
    let none = json!({});
    let pods = [
        ("root", with(&user(0), &none)),
        ("high", with(&user(2_000_000_000), &none)),
        ("locked", with(&locked, &none)),
        (
            "group",
            with(
                &none,
                &json!({"securityContext": {"fsGroup": 3000, "runAsUser": 1000, "supplementalGroups": [4000]}}),
            ),
        ),
        (
            "tokenless",
            with(&none, &json!({"automountServiceAccountToken": false})),
        ),
        ("shared", with(&none, &json!({"shareProcessNamespace": true}))),
        ("limited", with(&limits, &json!({"terminationGracePeriodSeconds": 0}))),
        ("sidecar", with(&none, &own)),
    ];
    let objects: String = pods.iter().map(|(name, spec)| pod(name, spec)).collect();
    namespace.apply(&(objects + &client(&namespace)))?;
    namespace.rolled_out(MINUTE)?;
    let from = namespace.pod("client")?;
    for (name, _) in &pods {
        namespace.wait(&format!("pod/{name}"), "condition=Ready", MINUTE)?;
        // The namespace is strict: what answers was called over the mesh, and its proxy has a certificate.
        let at = SocketAddr::new(*addresses(&namespace, name)?.first().context("an address")?, 8080);
        let answer = namespace.shell(&from, &format!("curl -gsS --fail --max-time 10 http://{at}/"))?;
        ensure!(answer.contains(&format!("\"pod\":\"{name}\"")), "{name}: {answer}");
    }
    Ok(())
}

/// The first line that an HTTP server sends to the node.
fn from_node(address: SocketAddr) -> Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).with_context(|| address.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn many_ports_a_host_port_and_the_hosts_network(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled")?;
    let many = json!({"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "one", "image": APPS, "args": ["http", "--listen", "8080", "--version", "one"],
         "ports": [{"containerPort": 8080, "hostPort": 28080}], "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}},
        {"name": "two", "image": APPS, "args": ["http", "--listen", "9090", "--version", "two"],
         "readinessProbe": {"tcpSocket": {"port": 9090}, "periodSeconds": 1}},
    ]});
    let host = json!({"terminationGracePeriodSeconds": 1, "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "containers": [
        {"name": "app", "image": CLIENT, "command": ["weft-apps", "http", "--listen", "28090", "--version", "host"]},
    ]});
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: many}\nspec: {selector: {app: many}, ports: [{name: a, port: 81, targetPort: 8080}, {name: b, port: 82, targetPort: 9090}]}\n---\n";
    namespace.apply(&(pod("many", &many) + &pod("host", &host) + service + &client(&namespace)))?;
    namespace.rolled_out(MINUTE)?;
    for name in ["many", "host"] {
        namespace.wait(&format!("pod/{name}"), "condition=Ready", MINUTE)?;
    }
    let host = namespace.get("pod/host")?;
    ensure!(
        host["spec"]["initContainers"].is_null(),
        "a pod on the node's network was injected"
    );
    let node = host["status"]["hostIP"].as_str().context("hostIP")?;
    let from = namespace.pod("client")?;
    for (url, version) in [
        ("http://many:81/", "one"),
        ("http://many:82/", "two"),
        (&*format!("http://{node}:28090/"), "host"),
    ] {
        let answer = namespace.shell(&from, &format!("curl -sS --fail --max-time 10 {url}"))?;
        ensure!(
            answer.contains(&format!("\"version\":\"{version}\"")),
            "{url}: {answer}"
        );
    }
    let many = *addresses(&namespace, "many")?.first().context("an address")?;
    let outward = namespace
        .exec(
            "host",
            &[
                "curl",
                "-sS",
                "--fail",
                "--max-time",
                "10",
                &format!("http://{many}:9090/"),
            ],
        )?
        .ok()?;
    ensure!(
        outward.contains("\"version\":\"two\""),
        "from the host's network: {outward}"
    );
    let line = namespace
        .exec(
            "host",
            &[
                "curl",
                "-sS",
                "-i",
                "--max-time",
                "10",
                &format!("http://{node}:28080/"),
            ],
        )?
        .ok()?;
    ensure!(line.contains("x-version: one"), "the host port: {line}");
    // Only where the tests run on the node itself.
    if test.cluster().node_state().is_some() {
        let line = from_node(SocketAddr::new(many, 8080))?;
        ensure!(line.starts_with("HTTP/1.1 200"), "from the node: {line}");
    }
    Ok(())
}

fn a_stateful_sets_pod_is_found_again(test: &Test) -> Result<()> {
    let namespace = test.namespace(STRICT)?;
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": with(&json!({}), &json!({}))});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "serviceName": "db", "replicas": 2, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "db"}}, "template": template,
    }});
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}\n---\n";
    namespace.apply(&(format!("{set}\n---\n{service}") + &client(&namespace)))?;
    namespace.rolled_out(MINUTE)?;
    let from = namespace.pod("client")?;
    let answers = || {
        namespace.exec(
            &from,
            &["curl", "-sS", "--fail", "--max-time", "5", "http://db-0.db:8080/"],
        )
    };
    let answered = |ran: weft_tests::Ran| ran.success && ran.stdout.contains("\"pod\":\"db-0\"");
    test.cluster()
        .eventually("db-0 to be found by its name", MINUTE, || Ok(answered(answers()?)))?;
    let before = addresses(&namespace, "db-0")?;
    namespace.kubectl(&["delete", "pod", "db-0"])?.ok()?;
    namespace.rolled_out(MINUTE)?;
    let after = addresses(&namespace, "db-0")?;
    ensure!(before != after, "the pod came back with the same address: {after:?}");
    // The name's old address may live in caches of the cluster's DNS, which are not weft's.
    test.cluster()
        .eventually("db-0 to be found at its new address", MINUTE, || {
            Ok(answered(answers()?))
        })
}
