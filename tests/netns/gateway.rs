//! A Gateway of the sandbox: its proxies, its Service and its address are made by the controller, and real clients reach applications through
//! it: from a pod, from the node, and from the machine.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Mesh, Ran};

use crate::{cluster::fixtures, tests};

tests![
    a_gateway_carries_every_protocol,
    listeners_come_and_go_and_drop_nothing,
    a_certificate_is_followed_live,
    what_cannot_be_is_said_and_the_rest_serves
];

/// Time for a change to reach a gateway's proxies.
const SOON: Duration = Duration::from_secs(30);

fn gateway(name: &str, listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: mesh}}\n\
         spec:\n  gatewayClassName: weft\n  listeners:\n{listeners}---\n"
    )
}

fn http(name: &str, port: u16) -> String {
    format!("  - {{name: {name}, port: {port}, protocol: HTTP}}\n")
}

fn https(name: &str, port: u16, secret: &str) -> String {
    format!("  - {{name: {name}, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: {secret}}}]}}}}\n")
}

fn secret(name: &str, folder: &std::path::Path) -> Result<String> {
    let entry = |file: &str| -> Result<String> {
        let text = std::fs::read_to_string(folder.join(file))?;
        Ok(text.lines().map(|line| format!("    {line}\n")).collect())
    };
    Ok(format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: mesh}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        entry("tls.crt")?,
        entry("tls.key")?
    ))
}

fn route(name: &str, gateway: &str, path: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: mesh}}\n\
         spec:\n  parentRefs: [{{name: {gateway}}}]\n  rules:\n  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n    backendRefs: [{backend}]\n---\n"
    )
}

fn condition(object: &serde_json::Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    let text = |field: &str| {
        found
            .as_ref()
            .and_then(|found| found[field].as_str())
            .unwrap_or("-")
            .to_owned()
    };
    format!("{}/{}", text("status"), text("reason"))
}

/// The IPv4 address of a Gateway, once it is programmed.
fn programmed(mesh: &Mesh, name: &str) -> Result<String> {
    let mut address = String::new();
    mesh.eventually(
        &format!("the Gateway {name} to be programmed"),
        Duration::from_secs(60),
        || {
            let gateway = mesh.get("gateways", "mesh", name)?;
            let addresses = gateway["status"]["addresses"].as_array().cloned().unwrap_or_default();
            let texts = addresses.iter().filter_map(|address| address["value"].as_str());
            address = texts
                .into_iter()
                .find(|text| !text.contains(':'))
                .unwrap_or_default()
                .to_owned();
            let current = gateway["status"]["conditions"][0]["observedGeneration"] == gateway["metadata"]["generation"];
            Ok(condition(&gateway, "Programmed").starts_with("True") && current && !address.is_empty())
        },
    )?;
    Ok(address)
}

fn curl(mesh: &Mesh, from: &str, arguments: &[&str]) -> Result<String> {
    let mut command = vec!["curl", "-sS", "--max-time", "8"];
    command.extend(arguments);
    if from == "machine" {
        let ran: Ran = Command::new(command[0]).args(&command[1..]).output()?.into();
        return ran.ok();
    }
    mesh.exec(from, &command)?.ok()
}

fn a_gateway_carries_every_protocol(mesh: &Mesh) -> Result<()> {
    let folder = fixtures();
    let objects = secret("front", &folder)?
        + &gateway(
            "front",
            &(http("http", 80) + &https("https", 443, "front") + &http("grpc", 50051)),
        )
        + &route(
            "front-web",
            "front, sectionName: http}, {name: front, sectionName: https",
            "/",
            "{name: web, port: 8080}",
        )
        + &route(
            "front-echo",
            "front, sectionName: http",
            "/echo",
            "{name: websocket, port: 8090}",
        )
        + "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: front-grpc, namespace: mesh}\nspec:\n  parentRefs: [{name: front, sectionName: grpc}]\n  \
           rules: [{matches: [{method: {service: weft.sample.v1.Sample}}], backendRefs: [{name: grpc, port: 50051}]}]\n---\n";
    mesh.apply(&objects)?;
    let address = programmed(mesh, "front")?;
    let plain = format!("http://{address}/");
    mesh.eventually("the route to act", SOON, || {
        Ok(curl(mesh, "client.plain", &[&plain])?.contains("v1"))
    })?;
    for from in ["client.plain", "client.mesh", "node", "machine"] {
        ensure!(curl(mesh, from, &[&plain])?.contains("v1"), "HTTP from {from}");
        let authority = folder.join("tls.crt");
        let over_tls = curl(
            mesh,
            from,
            &[
                "--cacert",
                &authority.to_string_lossy(),
                "--resolve",
                &format!("secure:443:{address}"),
                "-w",
                " over HTTP/%{http_version}",
                "https://secure/",
            ],
        )
        .with_context(|| format!("HTTPS from {from}"))?;
        ensure!(
            over_tls.contains("v1") && over_tls.ends_with("over HTTP/2"),
            "{from}: {over_tls}"
        );
    }
    let who = mesh.script("client.plain", "grpc_who.py", &[&format!("{address}:50051")])?;
    ensure!(
        who.contains("unary grpc-") && who.contains("server_stream grpc-"),
        "{who}"
    );
    mesh.script(
        "client.plain",
        "websocket_client.py",
        &[&format!("ws://{address}/echo")],
    )?;

    let told = mesh.get("httproutes", "mesh", "front-web")?;
    ensure!(
        told["status"]["parents"][0]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().all(|condition| condition["status"] == "True")),
        "{told}"
    );
    let table = mesh
        .weft(&["sandbox", "get", "gateways", "--name", mesh.name(), "-n", "mesh"])?
        .ok()?;
    ensure!(table.contains("PROGRAMMED") && table.contains(&address), "{table}");
    // The gateway's own identity is what the application's proxy sees.
    let pod = mesh.pods("mesh", "web")?.remove(0);
    let log = mesh.logs(
        &format!("{}.mesh", pod["metadata"]["name"].as_str().unwrap_or_default()),
        "weft-proxy",
    )?;
    ensure!(log.contains("/ns/mesh/sa/front-weft"), "the mesh hop of a gateway");
    mesh.delete(&objects)?;
    mesh.eventually("the gateway's pods to go", SOON, || {
        Ok(mesh.pods("mesh", "front-weft")?.is_empty())
    })
}

fn listeners_come_and_go_and_drop_nothing(mesh: &Mesh) -> Result<()> {
    let (one, two) = (http("one", 8081), http("two", 8082));
    let routes = route("doors", "doors", "/", "{name: web, port: 8080}");
    mesh.apply(&(gateway("doors", &one) + &routes))?;
    let address = programmed(mesh, "doors")?;
    let url = |port: u16| format!("http://{address}:{port}/");
    mesh.eventually("the route to act", SOON, || {
        Ok(curl(mesh, "client.plain", &[&url(8081)])?.contains("v1"))
    })?;
    let pods = mesh.pods("mesh", "doors-weft")?;
    // One connection, which goes on while the other port comes and goes.
    let slow = mesh.spawn(
        "client.plain",
        &[
            "curl",
            "-sS",
            "--max-time",
            "60",
            &format!("http://{address}:8081/delay/8000"),
        ],
    )?;
    mesh.apply(&gateway("doors", &(one.clone() + &two)))?;
    mesh.eventually("the second port to serve", SOON, || {
        Ok(curl(mesh, "client.plain", &[&url(8082)]).is_ok_and(|text| text.contains("v1")))
    })?;
    mesh.apply(&gateway("doors", &one))?;
    mesh.eventually("the second port to close", SOON, || {
        Ok(curl(mesh, "client.plain", &[&url(8082)]).is_err())
    })?;
    let ended = Ran::from(slow.wait_with_output()?);
    ensure!(ended.success, "the request that was under way: {}", ended.stderr);
    let uids = |pods: &[serde_json::Value]| -> Vec<String> {
        pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect()
    };
    ensure!(
        uids(&pods) == uids(&mesh.pods("mesh", "doors-weft")?),
        "no pod was replaced"
    );
    mesh.delete(&(gateway("doors", &one) + &routes))
}

fn a_certificate_is_followed_live(mesh: &Mesh) -> Result<()> {
    let make = |name: &str| -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir()?;
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '))
            .args([
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                &format!("subjectAltName=DNS:{name}"),
            ])
            .args([
                "-keyout",
                &folder.path().join("tls.key").to_string_lossy(),
                "-out",
                &folder.path().join("tls.crt").to_string_lossy(),
            ])
            .output()?;
        Ran::from(made).ok()?;
        Ok(folder)
    };
    let (old, new) = (make("old.example")?, make("new.example")?);
    let objects = gateway("turning", &https("https", 8443, "turning"))
        + &route("turning", "turning", "/", "{name: web, port: 8080}");
    mesh.apply(&(secret("turning", old.path())? + &objects))?;
    let address = programmed(mesh, "turning")?;
    let subject = || -> Result<String> {
        let shown = format!(
            "openssl s_client -connect {address}:8443 -servername any.example </dev/null 2>/dev/null | openssl x509 -noout -subject"
        );
        Ok(mesh.exec("client.plain", &["bash", "-c", &shown])?.stdout)
    };
    mesh.eventually("the first certificate", SOON, || Ok(subject()?.contains("old.example")))?;
    mesh.apply(&secret("turning", new.path())?)?;
    mesh.eventually(
        "the second certificate",
        SOON,
        || Ok(subject()?.contains("new.example")),
    )?;
    mesh.delete(&(secret("turning", new.path())? + &objects))
}

fn what_cannot_be_is_said_and_the_rest_serves(mesh: &Mesh) -> Result<()> {
    let listeners = http("good", 8083) + &https("bad", 8444, "missing");
    let objects = gateway("half", &listeners) + &route("half", "half", "/", "{name: web, port: 8080}");
    mesh.apply(&objects)?;
    let address = programmed(mesh, "half")?;
    mesh.eventually("the good listener to serve", SOON, || {
        Ok(curl(mesh, "client.plain", &[&format!("http://{address}:8083/")])?.contains("v1"))
    })?;
    let told = mesh.get("gateways", "mesh", "half")?;
    let bad = told["status"]["listeners"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "bad"));
    let bad = bad.context("the bad listener's status")?;
    let resolved = bad["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] == "ResolvedRefs"));
    ensure!(
        resolved.is_some_and(|one| one["reason"] == "InvalidCertificateRef"),
        "{told}"
    );
    mesh.delete(&objects)
}
