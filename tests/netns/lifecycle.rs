//! A pod's life: Jobs end, init containers have the network, probes tell the truth, self-calls work, draining loses nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{
    Mesh,
    objects::{App, ready_when_open},
};

use crate::tests;

tests![
    an_app_that_never_listens_is_never_ready,
    a_pod_reaches_itself,
    a_pod_dialled_by_its_address_answers_itself,
    a_job_completes,
    an_init_container_is_meshed,
    replacing_a_pod_loses_no_request,
    check_names_what_is_not_meshed,
    metrics_are_clean,
];

fn name_of(pod: &serde_json::Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_ready(pod: &serde_json::Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

fn an_app_that_never_listens_is_never_ready(mesh: &Mesh) -> Result<()> {
    let container = format!("image: tools, command: [sleep, infinity], {}", ready_when_open(9999));
    let deaf = App {
        namespace: "mesh",
        name: "deaf",
        replicas: 1,
        container,
        port: 9999,
    }
    .yaml();
    mesh.apply(&deaf)?;
    let running = || {
        Ok(mesh
            .pods("mesh", "deaf")?
            .first()
            .is_some_and(|pod| pod["status"]["containerStatuses"][0]["state"]["running"].is_object()))
    };
    mesh.eventually("the application to run", Duration::from_secs(30), running)?;
    // Probes that were answered: the proxy counts none as its own, so look at the pod for a few of their periods.
    for _ in 0..30 {
        let pod = &mesh.pods("mesh", "deaf")?[0];
        ensure!(
            !is_ready(pod),
            "the redirect accepted for an application that does not: {}",
            pod["status"]
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // The proxy of the same pod is ready: it is the probe's answer that is false.
    let name = name_of(&mesh.pods("mesh", "deaf")?[0]);
    let ready = mesh
        .exec(
            &format!("{name}.mesh"),
            &[
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "http://127.0.0.1:15020/ready",
            ],
        )?
        .ok()?;
    ensure!(ready == "200", "{ready}");
    mesh.delete(&deaf)
}

fn a_pod_reaches_itself(mesh: &Mesh) -> Result<()> {
    let pod = &mesh.pods("mesh", "web")?[0];
    for family in [0, 1] {
        let address = pod["status"]["podIPs"][family]["ip"]
            .as_str()
            .context("a pod has both families")?;
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let out = mesh
            .exec(
                &format!("{}.mesh", name_of(pod)),
                &["curl", "-sS", "-g", "--max-time", "5", &format!("http://{host}:8080/")],
            )?
            .ok()?;
        ensure!(out.contains("v1"), "{out}");
    }
    let out = mesh
        .exec(
            &format!("{}.mesh", name_of(pod)),
            &["curl", "-sS", "--max-time", "5", "http://web.mesh:8080/"],
        )?
        .ok()?;
    ensure!(out.contains("v1"), "by the Service's name: {out}");
    Ok(())
}

fn a_pod_dialled_by_its_address_answers_itself(mesh: &Mesh) -> Result<()> {
    for pod in mesh.pods("mesh", "grpc")? {
        let target = format!("{}:50051", pod["status"]["podIP"].as_str().context("podIP")?);
        let out = mesh.script("client.mesh", "grpc_calls.py", &[&target, "20"])?;
        ensure!(out.trim() == format!("{} 20", name_of(&pod)), "{out}");
    }
    Ok(())
}

fn a_job_completes(mesh: &Mesh) -> Result<()> {
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: once, namespace: mesh}\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      \
               containers: [{name: app, image: tools, command: [curl, -sS, --fail, --max-time, '5', 'http://web.mesh:8080/']}]\n";
    mesh.apply(job)?;
    mesh.eventually("the Job to complete", Duration::from_secs(40), || {
        Ok(mesh.get("jobs", "mesh", "once")?["status"]["succeeded"] == 1)
    })?;
    mesh.delete(job)
}

fn an_init_container_is_meshed(mesh: &Mesh) -> Result<()> {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: early, namespace: mesh}\nspec:\n  terminationGracePeriodSeconds: 2\n  \
               initContainers: [{name: first, image: tools, command: [curl, -sS, --fail, --max-time, '5', 'http://web.strict:8080/']}]\n  \
               containers: [{name: app, image: tools, command: [sleep, infinity]}]\n";
    mesh.apply(pod)?;
    // `strict` takes only meshed clients: that the init container ended well says that it was one.
    mesh.eventually("the pod to run", Duration::from_secs(30), || {
        Ok(is_ready(&mesh.get("pods", "mesh", "early")?))
    })?;
    mesh.delete(pod)
}

fn replacing_a_pod_loses_no_request(mesh: &Mesh) -> Result<()> {
    let container = format!(
        "image: apps, args: [http, --listen, '8080', --version, v1], {}",
        ready_when_open(8080)
    );
    let objects = App {
        namespace: "mesh",
        name: "rolling",
        replicas: 3,
        container,
        port: 8080,
    }
    .yaml();
    mesh.apply(&objects)?;
    mesh.eventually("three pods to be ready", Duration::from_secs(40), || {
        Ok(mesh.pods("mesh", "rolling")?.iter().filter(|pod| is_ready(pod)).count() == 3)
    })?;
    let load = mesh.spawn(
        "client.mesh",
        &[
            "python3",
            &weft_tests::repository()
                .join("tests/netns/scripts/load.py")
                .to_string_lossy(),
            "rolling.mesh",
            "8080",
            "12",
        ],
    )?;
    let old: Vec<String> = mesh.pods("mesh", "rolling")?.iter().map(name_of).collect();
    for name in &old {
        mesh.delete(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: mesh}}\n"
        ))?;
        mesh.eventually("a new pod to take its place", Duration::from_secs(30), || {
            let pods = mesh.pods("mesh", "rolling")?;
            Ok(pods.iter().filter(|pod| is_ready(pod) && name_of(pod) != *name).count() == 3)
        })?;
    }
    let out = load.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    mesh.delete(&objects)?;
    ensure!(
        text.contains(" 0 failed") && out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

fn check_names_what_is_not_meshed(mesh: &Mesh) -> Result<()> {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: outsider, namespace: mesh, annotations: {weft.dev/inject: disabled}}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: tools, command: [sleep, infinity]}]}\n";
    mesh.apply(pod)?;
    mesh.eventually("weft check to name it", Duration::from_secs(20), || {
        let out = mesh.weft(&["check"])?;
        Ok(out.stdout.lines().any(|line| line.contains("outsider")))
    })?;
    mesh.delete(pod)
}

fn metrics_are_clean(mesh: &Mesh) -> Result<()> {
    let out = mesh.exec(
        "client.mesh",
        &[
            "bash",
            "-c",
            "curl -sS http://127.0.0.1:15020/metrics | promtool check metrics",
        ],
    )?;
    ensure!(out.success, "{}{}", out.stdout, out.stderr);
    Ok(())
}
