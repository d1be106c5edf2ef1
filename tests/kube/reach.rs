//! Who reaches whom across the mesh's edge: clients without weft, servers without weft, strict namespaces, and what lies outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{
    kube::{APPS, CLIENT, Namespace},
    objects::{App, ready_when_open},
};

use crate::{Test, tests};

tests![
    clients_without_weft_are_let_in_and_counted_or_refused_with_the_reason,
    services_and_addresses_of_both_families_are_meshed,
    t40_outside_of_the_cluster_is_reached_as_before,
];

const MESHED: &str = "weft.dev/inject: enabled";
const MINUTE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

/// A web server and a client, with these annotations of the server's pods.
fn pair(namespace: &Namespace<'_>, annotations: &str) -> Result<()> {
    let container = format!(
        "image: '{APPS}', args: [http, --listen, '8080'], {}",
        ready_when_open(8080)
    );
    let web = App {
        namespace: namespace.name(),
        name: "web",
        replicas: 1,
        container,
        port: 8080,
    }
    .yaml();
    let annotated = format!("metadata: {{labels: {{app: web}}, annotations: {{{annotations}}}}}");
    let container = format!("image: '{CLIENT}'");
    let client = App {
        namespace: namespace.name(),
        name: "client",
        replicas: 1,
        container,
        port: 0,
    }
    .yaml();
    namespace.apply(&(web.replace("metadata: {labels: {app: web}}", &annotated) + &client))
}

/// Status and body of a request, and why weft refused it.
fn ask(namespace: &Namespace<'_>, url: &str) -> Result<String> {
    let client = namespace.pod("client")?;
    namespace.shell(
        &client,
        &format!("curl -gsS --max-time 10 -w ' %{{http_code}} %header{{weft-error}}' '{url}'"),
    )
}

fn web_of(namespace: &Namespace<'_>) -> String {
    format!("http://web.{}:8080/", namespace.name())
}

/// Connections without a certificate of the mesh that the server's proxy has counted.
fn plaintext(namespace: &Namespace<'_>) -> Result<f64> {
    let labels = [("direction", "inbound"), ("security", "plaintext")];
    Ok(namespace
        .metrics(&namespace.pod("web")?)?
        .sum("weft_connections_total", &labels))
}

fn clients_without_weft_are_let_in_and_counted_or_refused_with_the_reason(test: &Test) -> Result<()> {
    let open = test.namespace(MESHED)?;
    let strict = test.namespace("weft.dev/inject: enabled, weft.dev/mtls: strict")?;
    let tightened = test.namespace(MESHED)?;
    let plain = test.namespace("")?;
    pair(&open, "")?;
    pair(&strict, "")?;
    pair(&tightened, "weft.dev/mtls: strict")?;
    pair(&plain, "")?;
    for namespace in [&open, &strict, &tightened, &plain] {
        namespace.rolled_out(MINUTE)?;
    }
    let before = plaintext(&open)?;
    let answer = ask(&plain, &web_of(&open))?;
    ensure!(answer.contains(" 200"), "unmeshed to meshed: {answer}");
    test.cluster()
        .eventually("the connection to be counted as plaintext", SOON, || {
            Ok(plaintext(&open)? > before)
        })?;
    for namespace in [&strict, &tightened] {
        // Its port is not that of an HTTP probe, so the connection is refused before a request is read.
        let client = plain.pod("client")?;
        let refused = plain.exec(&client, &["curl", "-sS", "--max-time", "10", &web_of(namespace)])?;
        ensure!(!refused.success, "plaintext to a strict pod: {}", refused.stdout);
        let server = namespace.pod("web")?;
        test.cluster()
            .eventually("the reason in the strict pod's log", SOON, || {
                let log = namespace.access_log(&server)?;
                Ok(log
                    .iter()
                    .any(|entry| entry["reason"] == "plaintext_refused" && entry["security"] == "plaintext"))
            })?;
        let faults = namespace
            .metrics(&server)?
            .sum("weft_connection_faults_total", &[("reason", "plaintext_refused")]);
        ensure!(faults >= 1.0, "the refusal is not counted");
        let answer = ask(&open, &web_of(namespace))?;
        ensure!(answer.contains(" 200"), "meshed to strict: {answer}");
    }
    let answer = ask(&open, &web_of(&plain))?;
    ensure!(answer.contains(" 200"), "meshed to unmeshed: {answer}");
    Ok(())
}

fn services_and_addresses_of_both_families_are_meshed(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled, weft.dev/mtls: strict")?;
    pair(&namespace, "")?;
    let service = |family: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web-{}}}\n\
             spec: {{selector: {{app: web}}, ipFamilyPolicy: SingleStack, ipFamilies: [{family}], ports: [{{port: 80, targetPort: 8080}}]}}\n---\n",
            family.to_lowercase()
        )
    };
    namespace.apply(&(service("IPv4") + &service("IPv6")))?;
    namespace.rolled_out(MINUTE)?;
    let client = namespace.pod("client")?;
    let over_mesh = || -> Result<f64> {
        let labels = [("direction", "outbound"), ("hop", "mesh")];
        Ok(namespace.metrics(&client)?.sum("weft_requests_total", &labels))
    };
    let sixth = namespace.get("service/web-ipv6")?["spec"]["clusterIP"].clone();
    let pod = namespace.get(&format!("pod/{}", namespace.pod("web")?))?;
    let mut urls = vec!["http://web-ipv4/".to_owned(), "http://web-ipv6/".to_owned()];
    urls.push(format!(
        "http://[{}]/",
        sixth.as_str().context("an IPv6 Service has an address")?
    ));
    for address in pod["status"]["podIPs"].as_array().context("podIPs")? {
        let address = address["ip"].as_str().context("ip")?;
        urls.push(format!("http://{}/", std::net::SocketAddr::new(address.parse()?, 8080)));
    }
    ensure!(urls.len() == 5, "a pod has both families: {urls:?}");
    for url in urls {
        let before = over_mesh()?;
        let answer = ask(&namespace, &url)?;
        ensure!(answer.contains(" 200"), "{url}: {answer}");
        test.cluster()
            .eventually(&format!("the call of {url} to be counted on the mesh"), SOON, || {
                Ok(over_mesh()? > before)
            })?;
    }
    Ok(())
}

/// What leaves the cluster passes: the mesh is no wall, neither when it should be nor by accident.
fn t40_outside_of_the_cluster_is_reached_as_before(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let container = format!("image: '{CLIENT}'");
    let client = App {
        namespace: namespace.name(),
        name: "client",
        replicas: 1,
        container,
        port: 0,
    };
    namespace.apply(&client.yaml())?;
    namespace.rolled_out(MINUTE)?;
    let slices = test.cluster().list(&[
        "-n",
        "default",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=kubernetes",
    ])?;
    let endpoint = &slices.first().context("the API server has an EndpointSlice")?;
    let address = endpoint["endpoints"][0]["addresses"][0]
        .as_str()
        .context("an address")?;
    let port = &endpoint["ports"][0]["port"];
    // The pod's own token and roots: the application's TLS arrives untouched, by the Service and by the node's address.
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    for host in ["kubernetes.default.svc", &format!("{address}:{port}")] {
        let script = format!(
            "curl -sS --fail --max-time 10 --cacert {account}/ca.crt -H \"authorization: Bearer $(cat {account}/token)\" https://{host}/version"
        );
        let answer: Value = serde_json::from_str(&namespace.shell(&namespace.pod("client")?, &script)?)?;
        ensure!(answer["major"].is_string(), "{host}: {answer}");
    }
    Ok(())
}
