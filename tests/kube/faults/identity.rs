//! Certificates that live for seconds, and nobody who signs new ones.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use weft_tests::kube::{Cluster, SYSTEM};

use super::{After, Load, MESHED, READY, figures, name_of, number, scale, stage, summary, system_pods, unharmed};
use crate::{Test, alone};

alone![
    f20_certificates_of_seconds_rotate_unnoticed,
    f21_nobody_signs_until_certificates_have_expired,
];

/// Has certificates live so long from now on.
fn leaf_life(cluster: &Cluster, life: &str) -> Result<()> {
    let deployment = cluster.list(&["-n", SYSTEM, "deployment", "weft-identity"])?.remove(0);
    let mut arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    let argument = arguments
        .as_array_mut()
        .and_then(|all| {
            all.iter_mut()
                .find(|one| one.as_str().is_some_and(|one| one.starts_with("--leaf-life=")))
        })
        .context("weft-identity has no --leaf-life")?;
    *argument = format!("--leaf-life={life}").into();
    let patch =
        serde_json::json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]);
    cluster
        .kubectl(&[
            "-n",
            SYSTEM,
            "patch",
            "deployment",
            "weft-identity",
            "--type=json",
            "-p",
            &patch.to_string(),
        ])?
        .ok()?;
    cluster.available()?;
    // The one before has ended: nobody else signs.
    cluster.eventually("one signer", READY, || {
        Ok(system_pods(cluster, "weft-identity")?.len() == 1)
    })
}

/// The life that is installed.
fn installed(cluster: &Cluster) -> Result<String> {
    let deployment = cluster.list(&["-n", SYSTEM, "deployment", "weft-identity"])?.remove(0);
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    let mut all = arguments
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str());
    let life = all.find_map(|one| one.strip_prefix("--leaf-life="));
    Ok(life.context("weft-identity has no --leaf-life")?.to_owned())
}

fn issued(cluster: &Cluster) -> Result<f64> {
    let pod = system_pods(cluster, "weft-identity")?
        .first()
        .map(name_of)
        .context("weft-identity")?;
    Ok(cluster
        .metrics_of(SYSTEM, &pod, 15021)?
        .sum("weft_certificates_total", &[("outcome", "issued")]))
}

fn f20_certificates_of_seconds_rotate_unnoticed(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let before = installed(cluster)?;
    let life = std::env::var("WEFT_LEAF_LIFE").unwrap_or_else(|_| "20s".into());
    let length = Duration::from_secs(number("WEFT_ROTATION_SECONDS", 45));
    let _before = After(|| leaf_life(cluster, &before));
    leaf_life(cluster, &life)?;
    let namespace = stage(test, MESHED, 2)?;
    let load = Load::start(&namespace, "--http-rate 50 --grpc-rate 50 --websockets 10")?;
    let (start, first) = (Instant::now(), issued(cluster)?);
    cluster.eventually(
        "certificates to rotate",
        length + READY,
        || Ok(start.elapsed() > length),
    )?;
    let rotations = issued(cluster)? - first;
    let result = load.stop()?;
    // Six pods that serve and one that calls.
    figures(
        "f20",
        &format!(
            "certificates of {life}, {:.0} s: {rotations} issued to 7 proxies, {:.1} each; {}",
            length.as_secs_f64(),
            rotations / 7.0,
            summary(&result)
        ),
    );
    unharmed(&result)?;
    ensure!(rotations >= 14.0, "only {rotations} certificates were issued");
    Ok(())
}

fn f21_nobody_signs_until_certificates_have_expired(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let before = installed(cluster)?;
    let _before = After(|| leaf_life(cluster, &before));
    leaf_life(cluster, "40s")?;
    let namespace = stage(test, MESHED, 1)?;
    let client = namespace.pod("client")?;
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |time| time.as_secs_f64())
    };
    let load = Load::from(
        &namespace,
        "client",
        "--http http://web:8080/ --http-rate 20 --grpc http://grpc:50051 --grpc-rate 20",
    )?;
    let begun = now();
    cluster.eventually("load", READY, || Ok(load.seconds() > 3.0))?;
    scale(cluster, "weft-identity", 0)?;
    let expiry = |pod: &str| -> Result<f64> {
        Ok(namespace
            .metrics(pod)?
            .sum("weft_certificate_expiry_timestamp_seconds", &[]))
    };
    let mut first = f64::MAX;
    let mut last = 0.0_f64;
    for pod in [&client, &namespace.pod("web")?, &namespace.pod("grpc")?] {
        first = first.min(expiry(pod)?);
        last = last.max(expiry(pod)?);
    }
    let left = first - now();
    cluster.eventually("every certificate to expire", READY, || Ok(now() > last + 3.0))?;
    let answer = namespace.shell(
        &client,
        "curl -s --max-time 5 -D - -o /dev/null http://web:8080/ || echo exit $?",
    )?;
    let status = namespace.shell(
        &client,
        "curl -s --max-time 5 -w ' %{http_code}' http://127.0.0.1:15020/ready",
    )?;
    scale(cluster, "weft-identity", 1)?;
    let back = Instant::now();
    let get = "curl -s --max-time 3 -o /dev/null -w '%{http_code}' http://web:8080/ || true";
    cluster.eventually(
        "traffic to go on",
        READY,
        || Ok(namespace.shell(&client, get)? == "200"),
    )?;
    let again = back.elapsed();
    let result = load.stop()?;
    let failed = ["http", "grpc"].map(|protocol| result[protocol]["first_failures"][0][0].as_f64());
    let earliest = failed.into_iter().flatten().fold(f64::MAX, f64::min);
    figures(
        "f21",
        &format!(
            "nobody signed from {left:.0} s before the first expiry on; first failure {:.1} s after it; then '{}' and /ready '{}'; traffic \
             again {:.1} s after the signer was ready; {}",
            begun + earliest - first,
            answer
                .lines()
                .find(|line| line.starts_with("weft-error"))
                .unwrap_or(answer.trim())
                .trim(),
            status.trim(),
            again.as_secs_f64(),
            summary(&result)
        ),
    );
    // A second for the clocks' grain.
    ensure!(
        begun + earliest > first - 1.0,
        "failures before a certificate had expired: {result}"
    );
    ensure!(
        answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 502"),
        "after the expiry: {answer}"
    );
    ensure!(answer.contains("weft-error"), "no reason: {answer}");
    ensure!(status.ends_with("503"), "/ready says {status}");
    ensure!(again < Duration::from_secs(30), "{again:?}");
    Ok(())
}
