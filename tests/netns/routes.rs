//! Rules of HTTPRoutes and GRPCRoutes on Services act between pods: match, weight, edit, redirect, time out.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{
    Mesh,
    objects::{App, ready_when_open},
};

use crate::tests;

tests![
    http_rules_act_between_pods,
    a_route_that_names_nothing_harms_nobody_else,
    grpc_rules_act_between_pods
];

/// Objects of a Service `name` in `mesh` with two versions behind it.
fn two_versions(name: &str) -> String {
    ["v1", "v2"]
        .map(|version| {
            let container = format!(
                "image: apps, args: [http, --listen, '8080', --version, {version}], {}",
                ready_when_open(8080)
            );
            App {
                namespace: "mesh",
                name: &format!("{name}-{version}"),
                replicas: 1,
                container,
                port: 8080,
            }
            .yaml()
        })
        .concat()
        + &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\nspec: {{selector: {{app: {name}-v1}}, ports: [{{name: main, port: 80, targetPort: 8080}}]}}\n---\n"
        )
}

fn route(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: mesh}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: {name}, port: 80}}]\n  rules:\n{rules}---\n"
    )
}

fn curl(mesh: &Mesh, arguments: &[&str]) -> Result<String> {
    let mut command = vec!["curl", "-sS", "--max-time", "8"];
    command.extend(arguments);
    mesh.exec("client.mesh", &command)?.ok()
}

fn ready(mesh: &Mesh, name: &str) -> Result<()> {
    mesh.eventually("both versions to be ready", Duration::from_secs(30), || {
        for version in ["v1", "v2"] {
            let out = mesh.exec(
                "client.mesh",
                &[
                    "curl",
                    "-s",
                    "--max-time",
                    "2",
                    &format!("http://{name}-{version}.mesh:8080/"),
                ],
            )?;
            if !out.stdout.contains(version) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

fn http_rules_act_between_pods(mesh: &Mesh) -> Result<()> {
    let objects = two_versions("shop")
        + &route(
            "shop",
            "  - matches: [{path: {type: Exact, value: /exact}}]\n    backendRefs: [{name: shop-v2, port: 8080}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /two}, method: GET}]\n    backendRefs: [{name: shop-v2, port: 8080}]\n\
             \x20 - matches: [{headers: [{name: x-version, value: two}]}, {queryParams: [{name: version, value: two}]}]\n    backendRefs: [{name: shop-v2, port: 8080}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /edit}}]\n    filters:\n    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: s}], add: [{name: x-add, value: a}], remove: [x-gone]}}\n    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: edited}]}}\n    backendRefs: [{name: shop-v1, port: 8080}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /old}}]\n    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /delay}}]\n    timeouts: {request: 300ms}\n    backendRefs: [{name: shop-v1, port: 8080}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /split}}]\n    backendRefs: [{name: shop-v1, port: 8080, weight: 80}, {name: shop-v2, port: 8080, weight: 20}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /nowhere}}]\n    backendRefs: [{name: missing, port: 8080}]\n\
             \x20 - matches: [{path: {type: PathPrefix, value: /plain}}]\n    backendRefs: [{name: shop-v1, port: 8080}]\n",
        );
    mesh.apply(&objects)?;
    ready(mesh, "shop")?;
    let base = "http://shop.mesh";
    mesh.eventually("the route to be followed", Duration::from_secs(15), || {
        Ok(curl(mesh, &[&format!("{base}/exact")])?.contains("v2"))
    })?;

    ensure!(
        curl(mesh, &[&format!("{base}/two/more")])?.contains("v2"),
        "path prefix"
    );
    ensure!(
        curl(
            mesh,
            &["-o", "/dev/null", "-w", "%{http_code}", &format!("{base}/twofold")]
        )? == "404",
        "a prefix matches whole segments, and what no rule takes is a 404"
    );
    ensure!(
        curl(
            mesh,
            &[
                "-X",
                "PUT",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &format!("{base}/two")
            ]
        )? == "404",
        "method"
    );
    ensure!(curl(mesh, &["-H", "x-version: two", base])?.contains("v2"), "header");
    ensure!(
        curl(mesh, &[&format!("{base}/?version=two")])?.contains("v2"),
        "query parameter"
    );
    ensure!(curl(mesh, &[&format!("{base}/plain")])?.contains("v1"), "plain");
    // What is explained is what happens.
    let explain = |path: &str| {
        let url = format!("{base}{path}");
        let asked = ["explain", &url, "--from", "client.mesh", "--sandbox", mesh.name()];
        mesh.weft(&asked)?.ok()
    };
    let taken = explain("/plain")?;
    ensure!(
        taken.contains(": taken") && taken.contains("mesh/shop-v1:8080") && !taken.contains("mesh/shop-v2:8080"),
        "{taken}"
    );
    let refused = explain("/twofold")?;
    ensure!(refused.contains("no_rule, status 404"), "{refused}");

    let edited = curl(
        mesh,
        &[
            "-i",
            "-H",
            "x-gone: 1",
            "-H",
            "x-set: mine",
            "-H",
            "x-add: mine",
            &format!("{base}/edit"),
        ],
    )?;
    let lower = edited.to_lowercase();
    ensure!(
        lower.contains("x-answer: edited") && !lower.contains("x-gone"),
        "{edited}"
    );
    ensure!(
        !lower.contains("\"x-set\":\"mine\"") && !lower.contains("\"x-set\": \"mine\""),
        "{edited}"
    );

    let moved = curl(mesh, &["-i", &format!("{base}/old/page?q=1")])?;
    ensure!(
        moved.starts_with("HTTP/1.1 301") && moved.to_lowercase().contains("location: http://shop.mesh/new/page?q=1"),
        "{moved}"
    );

    ensure!(
        curl(
            mesh,
            &["-o", "/dev/null", "-w", "%{http_code}", &format!("{base}/delay/3000")]
        )? == "504",
        "request timeout"
    );
    ensure!(
        curl(
            mesh,
            &["-o", "/dev/null", "-w", "%{http_code}", &format!("{base}/nowhere")]
        )? == "500",
        "a backend that is not there"
    );

    let loop_of = format!("for i in $(seq 300); do curl -s --max-time 5 {base}/split; echo; done");
    let answers = mesh.exec("client.mesh", &["bash", "-c", &loop_of])?.ok()?;
    let second = answers.lines().filter(|line| line.contains("v2")).count();
    let first = answers.lines().filter(|line| line.contains("v1")).count();
    ensure!(first + second == 300, "{first} + {second} answers of 300");
    // 20 % of 300 is 60, with a standard deviation of 7: five of them on each side.
    ensure!((25..=95).contains(&second), "{second} of 300 went to the 20 % side");

    // A route that is taken away: the Service's own endpoints.
    mesh.delete(&route("shop", "  - {}\n"))?;
    mesh.eventually("the route to go", Duration::from_secs(15), || {
        Ok(curl(mesh, &[&format!("{base}/exact")])?.contains("v1"))
    })?;
    mesh.delete(&two_versions("shop"))
}

fn a_route_that_names_nothing_harms_nobody_else(mesh: &Mesh) -> Result<()> {
    mesh.apply(&route("nobody", "  - backendRefs: [{name: nothing, port: 1}]\n"))?;
    let out = curl(mesh, &["http://web.mesh:8080/"])?;
    mesh.delete(&route("nobody", "  - backendRefs: [{name: nothing, port: 1}]\n"))?;
    ensure!(out.contains("v1"), "{out}");
    Ok(())
}

fn grpc_rules_act_between_pods(mesh: &Mesh) -> Result<()> {
    let grpc = |name: &str| {
        let container = format!(
            "image: apps, args: [grpc, --listen, '50051'], {}",
            ready_when_open(50051)
        );
        App {
            namespace: "mesh",
            name,
            replicas: 1,
            container,
            port: 50051,
        }
        .yaml()
    };
    let objects = grpc("rpc-unary")
        + &grpc("rpc-other")
        + "apiVersion: v1\nkind: Service\nmetadata: {name: rpc, namespace: mesh}\nspec: {selector: {app: rpc-other}, ports: [{name: main, port: 50051, targetPort: 50051}]}\n---\n\
           apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: rpc, namespace: mesh}\nspec:\n  parentRefs: [{group: '', kind: Service, name: rpc}]\n  rules:\n\
           \x20 - matches: [{method: {service: weft.sample.v1.Sample, method: Unary}}]\n    backendRefs: [{name: rpc-unary, port: 50051}]\n\
           \x20 - matches: [{method: {service: weft.sample.v1.Sample}}]\n    backendRefs: [{name: rpc-other, port: 50051}]\n---\n";
    mesh.apply(&objects)?;
    mesh.eventually("the GRPCRoute to act", Duration::from_secs(30), || {
        let out = mesh.script("client.mesh", "grpc_who.py", &["rpc.mesh:50051"])?;
        Ok(out.contains("unary rpc-unary-") && out.contains("server_stream rpc-other-"))
    })?;
    mesh.delete(&objects)
}
