//! Probes of every kind tell the truth about the application, in a strict namespace too, where the kubelet has no certificate.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::kube::{CLIENT, Namespace};

use crate::{Test, tests};

tests![
    readiness_of_every_kind_is_the_applications,
    readiness_of_every_kind_in_a_strict_namespace,
    a_strict_pod_lets_nobody_in_over_tls_but_its_https_probe_is_told_the_truth,
    liveness_restarts_what_does_not_answer_and_startup_waits,
];

const SOON: Duration = Duration::from_secs(90);

/// A container whose application can end without it, so that there is something to be not ready.
fn container(name: &str, application: &str, more: &str) -> String {
    let health = serde_json::Value::from(include_str!("scripts/health.py"));
    format!(
        "  - {{name: {name}, image: '{CLIENT}', command: [bash, -c, '({application}) & sleep infinity'], env: [{{name: HEALTH, value: {health}}}], {more}}}\n"
    )
}

fn pod(containers: &[String]) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: probed}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n{}",
        containers.concat()
    )
}

/// What the kubelet says of a container.
fn status(namespace: &Namespace<'_>, name: &str) -> Result<Value> {
    let pod = namespace.get("pod/probed")?;
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    Ok(statuses
        .into_iter()
        .find(|status| status["name"] == name)
        .cloned()
        .unwrap_or_default())
}

fn becomes(namespace: &Namespace<'_>, name: &str, ready: bool) -> Result<()> {
    let what = format!(
        "the container {name} to be {}",
        if ready { "ready" } else { "not ready" }
    );
    namespace
        .cluster()
        .eventually(&what, SOON, || Ok(status(namespace, name)?["ready"] == ready))
}

/// Ends or starts the application of a container.
fn shell(namespace: &Namespace<'_>, name: &str, script: &str) -> Result<()> {
    namespace
        .kubectl(&["exec", "probed", "-c", name, "--", "bash", "-c", script])?
        .ok()?;
    Ok(())
}

fn readiness(test: &Test, labels: &str) -> Result<()> {
    let namespace = test.namespace(labels)?;
    let often = "periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 2";
    let kinds = [
        (
            "http",
            "weft-apps http --listen 8080",
            8080,
            "httpGet: {path: /status/200, port: main}",
        ),
        (
            "https",
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/key -out /tmp/crt -subj /CN=x -days 2; \
             weft-apps http --listen 8443 --tls-cert /tmp/crt --tls-key /tmp/key",
            8443,
            "httpGet: {scheme: HTTPS, path: /status/200, port: main}",
        ),
        ("tcp", "weft-apps echo --listen 7000", 7000, "tcpSocket: {port: main}"),
        ("grpc", "python3 -c \"$HEALTH\" 50051", 50051, "grpc: {port: 50051}"),
        (
            "exec",
            "weft-apps http --listen 8090",
            8090,
            "exec: {command: [curl, -sS, --fail, 'http://127.0.0.1:8090/']}",
        ),
    ];
    let containers: Vec<_> = kinds
        .iter()
        .map(|(name, application, port, probe)| {
            let more = format!("ports: [{{name: main, containerPort: {port}}}], readinessProbe: {{{probe}, {often}}}");
            // Names of ports are looked up among the container's own.
            container(name, application, &more)
        })
        .collect();
    namespace.apply(&pod(&containers))?;
    namespace.wait("pod/probed", "condition=Ready", SOON)?;
    for (name, ..) in kinds {
        shell(&namespace, name, "killall weft-apps || killall python3")?;
    }
    for (name, ..) in kinds {
        becomes(&namespace, name, false)?;
    }
    for (name, application, ..) in kinds {
        shell(
            &namespace,
            name,
            &format!("({application}) >/dev/null 2>&1 </dev/null &"),
        )?;
    }
    for (name, ..) in kinds {
        becomes(&namespace, name, true)?;
    }
    let pod = namespace.get("pod/probed")?;
    let restarts = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    ensure!(
        restarts.into_iter().all(|one| one["restartCount"] == 0),
        "{}",
        pod["status"]
    );
    Ok(())
}

fn readiness_of_every_kind_is_the_applications(test: &Test) -> Result<()> {
    readiness(test, "weft.dev/inject: enabled")
}

fn a_strict_pod_lets_nobody_in_over_tls_but_its_https_probe_is_told_the_truth(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled, weft.dev/mtls: strict")?;
    let plain = test.namespace("")?;
    plain.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: apart}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{{name: app, image: '{CLIENT}'}}]}}\n"
    ))?;
    let application = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/key -out /tmp/crt -subj /CN=x -days 2; \
                       weft-apps http --listen 8443 --tls-cert /tmp/crt --tls-key /tmp/key";
    let often = "periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 2";
    let probe = |path: &str| {
        format!(
            "ports: [{{name: main, containerPort: 8443}}], readinessProbe: {{httpGet: {{scheme: HTTPS, path: {path}, port: main}}, {often}}}"
        )
    };
    namespace.apply(&pod(&[container("good", application, &probe("/status/200"))]))?;
    namespace.wait("pod/probed", "condition=Ready", SOON)?;
    plain.wait("pod/apart", "condition=Ready", SOON)?;
    let address = namespace.get("pod/probed")?["status"]["podIP"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let ask = |url: String| {
        let script = format!("curl -sk --max-time 5 -o /dev/null -w '%{{http_code}}' {url} || true");
        plain.kubectl(&["exec", "apart", "--", "bash", "-c", &script])?.ok()
    };
    // The application itself is closed; of weft's own port nothing but the probe is to be had.
    for (url, expected) in [
        (format!("https://{address}:8443/status/200"), "000"),
        (format!("http://{address}:15020/probe/https/8443/status/200"), "200"),
        (format!("http://{address}:15020/probe/https/8443/"), "404"),
        (format!("http://{address}:15020/probe/https/8080/status/200"), "404"),
    ] {
        let seen = ask(url.clone())?;
        ensure!(seen == expected, "{url}: {seen}");
    }
    // What the application answers is what the kubelet hears.
    namespace.kubectl(&["delete", "pod/probed"])?.ok()?;
    namespace.apply(&pod(&[container("bad", application, &probe("/status/500"))]))?;
    namespace
        .cluster()
        .eventually("the probe's failure to be told", SOON, || {
            let events = namespace
                .kubectl(&["get", "events", "--field-selector", "reason=Unhealthy"])?
                .ok()?;
            Ok(events.contains("statuscode: 500"))
        })?;
    ensure!(status(&namespace, "bad")?["ready"] == false);
    Ok(())
}

fn readiness_of_every_kind_in_a_strict_namespace(test: &Test) -> Result<()> {
    readiness(test, "weft.dev/inject: enabled, weft.dev/mtls: strict")
}

fn liveness_restarts_what_does_not_answer_and_startup_waits(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled")?;
    let often = "periodSeconds: 1, timeoutSeconds: 2";
    let live = |port: u16, probe: &str| {
        format!(
            "ports: [{{name: main, containerPort: {port}}}], startupProbe: {{{probe}, {often}, failureThreshold: 30}}, \
             livenessProbe: {{{probe}, {often}, failureThreshold: 1}}"
        )
    };
    // Without the startup probe, liveness would end these two before they listen.
    let containers = [
        container(
            "tcp",
            "sleep 3; weft-apps echo --listen 7000",
            &live(7000, "tcpSocket: {port: main}"),
        ),
        container(
            "http",
            "sleep 3; weft-apps http --listen 8080",
            &live(8080, "httpGet: {path: /, port: main}"),
        ),
    ];
    namespace.apply(&pod(&containers))?;
    namespace.wait("pod/probed", "condition=Ready", SOON)?;
    for name in ["tcp", "http"] {
        ensure!(
            status(&namespace, name)?["restartCount"] == 0,
            "{name} was restarted before it had started"
        );
        shell(&namespace, name, "killall weft-apps || killall python3")?;
    }
    for name in ["tcp", "http"] {
        namespace
            .cluster()
            .eventually(&format!("liveness to restart {name}"), SOON, || {
                Ok(status(&namespace, name)?["restartCount"].as_u64() >= Some(1))
            })?;
        becomes(&namespace, name, true)?;
    }
    Ok(())
}
