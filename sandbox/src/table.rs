//! What `get` prints: tables as kubectl's, with what a mesh is asked about first.

use crate::{
    kubelet::status::columns,
    object::{Kind, Object, label, name, namespace},
    workloads::REFUSED,
};
use serde_json::Value;
use weft_proto::{
    meshed,
    names::{self, label as names_label},
};

/// A table of objects of one kind. `namespaces` are all Namespace objects: they say why a pod is not meshed.
pub fn table(kind: Kind, objects: &[Object], namespaces: &[Object]) -> String {
    let (head, rows): (&[&str], Vec<Vec<String>>) = match kind {
        Kind::Pod => (
            &["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "MESHED"],
            objects.iter().map(|o| pod(o, namespaces)).collect(),
        ),
        Kind::Service => (
            &["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORTS"],
            objects.iter().map(service).collect(),
        ),
        Kind::Deployment | Kind::StatefulSet => {
            (&["NAMESPACE", "NAME", "READY"], objects.iter().map(workload).collect())
        }
        Kind::Job => (
            &["NAMESPACE", "NAME", "STATUS", "COMPLETIONS"],
            objects.iter().map(job).collect(),
        ),
        Kind::EndpointSlice => (
            &["NAMESPACE", "NAME", "PORTS", "READY ENDPOINTS"],
            objects.iter().map(slice).collect(),
        ),
        Kind::GatewayClass => (
            &["NAME", "CONTROLLER", "ACCEPTED"],
            objects.iter().map(gateway_class).collect(),
        ),
        Kind::Gateway => (
            &["NAMESPACE", "NAME", "CLASS", "ADDRESS", "ACCEPTED", "PROGRAMMED"],
            objects.iter().map(gateway).collect(),
        ),
        Kind::ListenerSet => (
            &["NAMESPACE", "NAME", "ACCEPTED", "PROGRAMMED"],
            objects.iter().map(listener_set).collect(),
        ),
        kind if kind.is_route() => (
            &["NAMESPACE", "NAME", "PARENT", "ACCEPTED", "RESOLVEDREFS"],
            objects
                .iter()
                .flat_map(|o| entries(o, "parents", "parentRef"))
                .collect(),
        ),
        Kind::BackendTlsPolicy => (
            &["NAMESPACE", "NAME", "ANCESTOR", "ACCEPTED", "RESOLVEDREFS"],
            objects
                .iter()
                .flat_map(|o| entries(o, "ancestors", "ancestorRef"))
                .collect(),
        ),
        Kind::Namespace => (
            &["NAME", "INJECT"],
            objects.iter().map(|o| vec![name(o).into(), inject(o)]).collect(),
        ),
        _ => (&["NAMESPACE", "NAME"], objects.iter().map(named).collect()),
    };
    if rows.is_empty() {
        return format!("no {}\n", kind.plural());
    }
    columns_of(head, &rows)
}

fn columns_of(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|h| h.to_string()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|i| all().map(|r| r[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

fn named(object: &Object) -> Vec<String> {
    vec![namespace(object).into(), name(object).into()]
}

fn inject(namespace: &Object) -> String {
    label(namespace, names_label::INJECT).unwrap_or("-").into()
}

fn pod(pod: &Object, namespaces: &[Object]) -> Vec<String> {
    let (ready, word, restarts) = columns(pod);
    let ip = pod["status"]["podIP"].as_str().unwrap_or("-").to_string();
    let mut row = named(pod);
    row.extend([
        ready,
        word,
        restarts.to_string(),
        ip,
        meshed(pod, namespaces).map_or_else(|why| format!("no: {why}"), |()| "yes".into()),
    ]);
    row
}

/// Whether weft runs in a pod; why not. Read from the spec, as the controller reads it.
pub fn meshed(pod: &Object, namespaces: &[Object]) -> Result<(), String> {
    let init = pod["spec"]["initContainers"].as_array().map_or(&[][..], Vec::as_slice);
    let is_proxy = |c: &&Value| {
        meshed::is_proxy(
            c["name"].as_str().unwrap_or_default(),
            c["restartPolicy"].as_str(),
            c["args"][0].as_str(),
        )
    };
    if init.iter().any(|c| is_proxy(&c)) {
        return Ok(());
    }
    let own = namespaces.iter().find(|n| name(n) == namespace(pod));
    let annotation = pod["metadata"]["annotations"]
        .get(names_label::INJECT)
        .and_then(Value::as_str);
    Err(
        match (
            pod["status"]["reason"].as_str(),
            own.and_then(|n| label(n, names_label::INJECT)),
            annotation,
        ) {
            (Some(REFUSED), ..) => format!("refused: {}", pod["status"]["message"].as_str().unwrap_or_default()),
            (Some(_), ..) => pod["status"]["message"]
                .as_str()
                .unwrap_or("waits for the injector")
                .to_string(),
            _ if namespace(pod) == names::SYSTEM_NAMESPACE => "weft's own".into(),
            _ if label(pod, names::kubernetes::NAME) == Some(names::GATEWAY_COMPONENT) => "a Gateway's own".into(),
            _ if pod["spec"]["hostNetwork"] == true => "hostNetwork".into(),
            (_, _, Some("disabled")) => format!("annotation {}=disabled", names_label::INJECT),
            (_, Some("enabled"), _) => "made before its namespace was labelled".into(),
            (_, Some("disabled"), _) => format!("namespace label {}=disabled", names_label::INJECT),
            _ => format!("namespace not labelled {}=enabled", names_label::INJECT),
        },
    )
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn service(service: &Object) -> Vec<String> {
    let spec = &service["spec"];
    let addresses: Vec<&str> = list(&spec["clusterIPs"]).iter().filter_map(Value::as_str).collect();
    let port = |p: &Value| format!("{}/{}", p["port"], p["protocol"].as_str().unwrap_or("TCP"));
    let ports: Vec<String> = list(&spec["ports"]).iter().map(port).collect();
    let mut row = named(service);
    let external = spec["externalName"].as_str().unwrap_or("-").to_string();
    row.push(spec["type"].as_str().unwrap_or("ClusterIP").into());
    row.push(if addresses.is_empty() {
        external
    } else {
        addresses.join(",")
    });
    let ingress = list(&service["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|one| &one["ip"]);
    let given = ingress.chain(list(&spec["externalIPs"])).filter_map(Value::as_str);
    row.push(or_dash(given.collect::<Vec<_>>().join(",")));
    row.push(ports.join(","));
    row
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// The status of a condition, and its reason where it is not what is hoped for.
fn condition(conditions: &Value, kind: &str) -> String {
    let found = list(conditions).iter().find(|c| c["type"] == kind);
    let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_string();
    match found {
        None => "-".into(),
        Some(c) if c["status"] == "True" => "True".into(),
        Some(c) => format!("{}: {}", text(c, "status"), text(c, "reason")),
    }
}

fn gateway_class(class: &Object) -> Vec<String> {
    vec![
        name(class).into(),
        class["spec"]["controllerName"].as_str().unwrap_or_default().into(),
        condition(&class["status"]["conditions"], "Accepted"),
    ]
}

fn gateway(gateway: &Object) -> Vec<String> {
    let addresses = list(&gateway["status"]["addresses"]).iter();
    let addresses: Vec<&str> = addresses.filter_map(|a| a["value"].as_str()).collect();
    let mut row = named(gateway);
    row.push(gateway["spec"]["gatewayClassName"].as_str().unwrap_or_default().into());
    row.push(or_dash(addresses.join(",")));
    row.extend(["Accepted", "Programmed"].map(|kind| condition(&gateway["status"]["conditions"], kind)));
    row
}

fn listener_set(set: &Object) -> Vec<String> {
    let mut row = named(set);
    row.extend(["Accepted", "Programmed"].map(|kind| condition(&set["status"]["conditions"], kind)));
    row
}

/// A row for each parent that has something to say, and one where none has.
fn entries(object: &Object, field: &str, reference: &str) -> Vec<Vec<String>> {
    let said = list(&object["status"][field]);
    let row = |parent: String, conditions: &Value| {
        let mut row = named(object);
        row.push(parent);
        row.extend(["Accepted", "ResolvedRefs"].map(|kind| condition(conditions, kind)));
        row
    };
    let parent = |reference: &Value| {
        let text = |field: &str| reference[field].as_str();
        let mut shown = format!(
            "{} {}",
            text("kind").unwrap_or("Gateway"),
            text("name").unwrap_or_default()
        );
        shown.extend(text("sectionName").map(|section| format!("/{section}")));
        shown.extend(reference["port"].as_u64().map(|port| format!(":{port}")));
        shown
    };
    if said.is_empty() {
        return vec![row("-".into(), &Value::Null)];
    }
    said.iter()
        .map(|entry| row(parent(&entry[reference]), &entry["conditions"]))
        .collect()
}

fn workload(object: &Object) -> Vec<String> {
    let mut row = named(object);
    row.push(format!(
        "{}/{}",
        object["status"]["readyReplicas"].as_u64().unwrap_or(0),
        object["spec"]["replicas"].as_u64().unwrap_or(1)
    ));
    row
}

fn job(job: &Object) -> Vec<String> {
    let mut row = named(job);
    row.push(
        job["status"]["conditions"][0]["type"]
            .as_str()
            .unwrap_or("Running")
            .into(),
    );
    row.push(format!(
        "{}/{}",
        job["status"]["succeeded"].as_u64().unwrap_or(0),
        job["spec"]["completions"].as_u64().unwrap_or(1)
    ));
    row
}

fn slice(slice: &Object) -> Vec<String> {
    let ready = list(&slice["endpoints"])
        .iter()
        .filter(|e| e["conditions"]["ready"] != false);
    let addresses: Vec<&str> = ready.filter_map(|e| e["addresses"][0].as_str()).collect();
    let ports: Vec<String> = list(&slice["ports"]).iter().map(|p| p["port"].to_string()).collect();
    let mut row = named(slice);
    row.extend([
        ports.join(","),
        if addresses.is_empty() {
            "none".into()
        } else {
            addresses.join(",")
        },
    ]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn gateways_and_routes_are_shown_with_their_conditions() {
        let condition =
            |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason});
        let gateway = json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"gatewayClassName": "weft"},
            "status": {
                "addresses": [{"value": "198.18.0.1"}],
                "conditions": [condition("Accepted", "True", "Accepted"), condition("Programmed", "False", "Pending")],
            },
        });
        let expected = "\
NAMESPACE   NAME   CLASS   ADDRESS      ACCEPTED   PROGRAMMED
shop        web    weft    198.18.0.1   True       False: Pending
";
        assert_eq!(table(Kind::Gateway, &[gateway], &[]), expected);
        let routes = [
            json!({"metadata": {"name": "a", "namespace": "shop"}, "status": {"parents": [
                {"parentRef": {"name": "web", "sectionName": "http"}, "conditions": [condition("Accepted", "True", "Accepted")]},
                {"parentRef": {"kind": "Service", "name": "api", "port": 80}, "conditions": [condition("ResolvedRefs", "False", "BackendNotFound")]},
            ]}}),
            json!({"metadata": {"name": "b", "namespace": "shop"}}),
        ];
        let expected = "\
NAMESPACE   NAME   PARENT             ACCEPTED   RESOLVEDREFS
shop        a      Gateway web/http   True       -
shop        a      Service api:80     -          False: BackendNotFound
shop        b      -                  -          -
";
        assert_eq!(table(Kind::HttpRoute, &routes, &[]), expected);
    }

    #[test]
    fn pods_are_shown_as_kubectl_shows_them_and_with_why_they_are_not_meshed() {
        let namespaces = [
            json!({"metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"}}}),
            json!({"metadata": {"name": "plain"}}),
        ];
        let pod = |ns: &str, more: Value| {
            let mut pod = json!({"metadata": {"name": "a", "namespace": ns}, "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Pending"}});
            json_patch::merge(&mut pod, &more);
            pod
        };
        let proxy = json!({"spec": {"initContainers": [{"name": "weft-proxy", "restartPolicy": "Always", "args": ["sidecar"]}]}});
        let pods = [
            pod("shop", proxy),
            pod(
                "shop",
                json!({"metadata": {"annotations": {"weft.dev/inject": "disabled"}}}),
            ),
            pod(
                "shop",
                json!({"status": {"phase": "Failed", "reason": "Refused", "message": "port 15001 is weft's"}}),
            ),
            pod("plain", json!({"status": {"podIP": "10.0.0.1"}})),
        ];
        let expected = "\
NAMESPACE   NAME   READY   STATUS    RESTARTS   IP         MESHED
shop        a      0/2     Pending   0          -          yes
shop        a      0/1     Pending   0          -          no: annotation weft.dev/inject=disabled
shop        a      0/1     Refused   0          -          no: refused: port 15001 is weft's
plain       a      0/1     Pending   0          10.0.0.1   no: namespace not labelled weft.dev/inject=enabled
";
        assert_eq!(table(Kind::Pod, &pods, &namespaces), expected);
    }
}
