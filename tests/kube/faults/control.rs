//! The controller away, silent, or without its rights.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_proto::names::container;
use weft_tests::kube::{Namespace, SYSTEM};

use super::{
    After, Load, MESHED, READY, app, client, figures, name_of, outage, processes, ready, scale, signal, stage, summary,
    system_pods, unharmed,
};
use crate::{Test, alone};

alone![
    f10_known_traffic_outlives_the_controller,
    f12_a_silent_controller_is_left_for_the_other,
    a_strict_pod_that_starts_without_a_controller_is_closed,
    a_controller_without_its_rights_says_so_and_recovers,
];

/// Waits until a Service answers the meshed client: the seconds that took.
fn answers(namespace: &Namespace<'static>, service: &str, limit: Duration) -> Result<f64> {
    let start = Instant::now();
    let client = namespace.pod("client")?;
    let script = format!("curl -s --max-time 2 -o /dev/null -w '%{{http_code}}' http://{service}:8080/ || true");
    namespace
        .cluster()
        .eventually(&format!("{service} to answer"), limit, || {
            Ok(namespace.shell(&client, &script)? == "200")
        })?;
    Ok(start.elapsed().as_secs_f64())
}

fn f10_known_traffic_outlives_the_controller(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let namespace = stage(test, MESHED, 2)?;
    // Nobody has asked for these before.
    namespace.apply(&(app("unknown", "http", 8080, 1) + &app("late", "http", 8080, 0)))?;
    namespace.rolled_out(READY)?;
    let client = namespace.pod("client")?;
    let load = Load::start(&namespace, "--http-rate 50 --grpc-rate 50 --websockets 10")?;
    cluster.eventually("load", READY, || Ok(load.seconds() > 3.0))?;
    let replicas = system_pods(cluster, "weft-routes")?.len();
    let _back = After(|| scale(cluster, "weft-routes", replicas));
    scale(cluster, "weft-routes", 0)?;
    let cpu = || Ok::<_, anyhow::Error>(namespace.metrics(&client)?.sum("weft_process_cpu_seconds_total", &[]));
    let words = || -> Result<usize> {
        let log = namespace.logs(&client, container::PROXY)?;
        Ok(log.lines().filter(|line| line.contains("\"level\"")).count())
    };
    let (away, used, said) = (Instant::now(), cpu()?, words()?);
    let length = outage(20);

    let asked = Instant::now();
    let unknown = namespace.shell(
        &client,
        "curl -s --max-time 8 -D - -o /dev/null http://unknown:8080/ || true",
    )?;
    let failed_after = asked.elapsed();
    let reason = unknown
        .lines()
        .find(|line| line.starts_with("weft-error"))
        .unwrap_or("none")
        .trim()
        .to_owned();
    // New connections to what is known.
    let new = Load::from(&namespace, "apart", "--http http://web:8080/ --http-rate 5 --close")?;
    cluster.eventually("the outage to end", length + READY, || Ok(away.elapsed() > length))?;
    unharmed(&new.stop()?).context("from a client without weft")?;
    let fresh = namespace.shell(
        &client,
        "for i in $(seq 20); do curl -s --max-time 5 -o /dev/null -w '%{http_code}\\n' http://web:8080/; done | sort | uniq -c",
    )?;
    let seconds = away.elapsed().as_secs_f64();
    let share = (cpu()? - used) / seconds;
    let lines = words()? - said;

    cluster
        .kubectl(&[
            "-n",
            SYSTEM,
            "scale",
            "deployment",
            "weft-routes",
            &format!("--replicas={replicas}"),
        ])?
        .ok()?;
    let back = Instant::now();
    namespace.kubectl(&["scale", "deployment/late", "--replicas=1"])?.ok()?;
    answers(&namespace, "late", Duration::from_secs(60))?;
    let converged = back.elapsed();
    let result = load.stop()?;
    figures(
        "f10",
        &format!(
            "{seconds:.0} s without a controller; {}; unknown Service: '{reason}' after {:.1} s; the client's proxy said {lines} lines and \
             used {:.1} % of a core; a new pod reached {:.1} s after the controller was wanted back",
            summary(&result),
            failed_after.as_secs_f64(),
            share * 100.0,
            converged.as_secs_f64()
        ),
    );
    unharmed(&result)?;
    ensure!(fresh.trim() == "20 200", "new connections: {fresh}");
    ensure!(
        unknown.starts_with("HTTP/1.1 503") && reason != "none",
        "the unknown Service: {unknown}"
    );
    ensure!(
        failed_after < Duration::from_secs(5),
        "the unknown Service hung for {failed_after:?}"
    );
    ensure!(
        (lines as f64) < 10.0 + seconds,
        "{lines} lines of log in {seconds:.0} s"
    );
    ensure!(share < 0.3, "{share:.2} of a core");
    ensure!(converged < Duration::from_secs(30), "converged after {converged:?}");
    Ok(())
}

fn f12_a_silent_controller_is_left_for_the_other(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let namespace = stage(test, MESHED, 2)?;
    for service in ["first", "second", "third"] {
        namespace.apply(&app(service, "http", 8080, 0))?;
    }
    let pods: Vec<_> = system_pods(cluster, "weft-routes")?.iter().map(name_of).collect();
    ensure!(pods.len() == 2, "two replicas: {pods:?}");
    let mut all = Vec::new();
    for pod in &pods {
        all.push(processes("weft-controller", pod)?);
    }
    let everything = all.concat();
    // One whose pod was replaced meanwhile is gone, which is no failure.
    let _again = After(|| {
        let _ = signal("CONT", &everything);
        cluster.available()
    });
    let load = Load::start(&namespace, "--http-rate 50 --grpc-rate 50 --websockets 10")?;
    cluster.eventually("load", READY, || Ok(load.seconds() > 3.0))?;

    // One of two, and then the other, since nobody knows which one the client's proxy follows: it goes to the one that answers.
    let mut moved = Vec::new();
    for (silent, service) in all.iter().zip(["first", "second"]) {
        signal("STOP", silent)?;
        let stopped = Instant::now();
        namespace
            .kubectl(&["scale", &format!("deployment/{service}"), "--replicas=1"])?
            .ok()?;
        answers(&namespace, service, Duration::from_secs(60))?;
        moved.push(stopped.elapsed().as_secs_f64());
        signal("CONT", silent)?;
        cluster.eventually("both controllers to be ready", READY, || {
            Ok(system_pods(cluster, "weft-routes")?.iter().all(ready))
        })?;
    }

    // Both.
    signal("STOP", &everything)?;
    let stopped = Instant::now();
    let length = outage(20);
    cluster.eventually("the silence to end", length + READY, || Ok(stopped.elapsed() > length))?;
    namespace
        .kubectl(&["scale", "deployment/third", "--replicas=1"])?
        .ok()?;
    let _ = signal("CONT", &everything);
    let continued = Instant::now();
    answers(&namespace, "third", Duration::from_secs(60))?;
    let converged = continued.elapsed();
    let result = load.stop()?;
    figures(
        "f12",
        &format!(
            "one of two silent: a new pod reached after {:.1} s, the other one: after {:.1} s; both silent for {:.0} s: a new pod reached {:.1} s after SIGCONT; {}",
            moved[0],
            moved[1],
            length.as_secs_f64(),
            converged.as_secs_f64(),
            summary(&result)
        ),
    );
    unharmed(&result)?;
    ensure!(moved.iter().all(|seconds| *seconds < 25.0), "moved after {moved:?} s");
    ensure!(converged < Duration::from_secs(30), "converged after {converged:?}");
    Ok(())
}

fn a_strict_pod_that_starts_without_a_controller_is_closed(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let strict = test.namespace("weft.dev/inject: enabled, weft.dev/mtls: strict")?;
    let plain = test.namespace("")?;
    plain.apply(&client("client", true))?;
    plain.rolled_out(READY)?;
    let prober = plain.pod("client")?;
    let replicas = system_pods(cluster, "weft-routes")?.len();
    let mut back = After(|| scale(cluster, "weft-routes", replicas));
    scale(cluster, "weft-routes", 0)?;
    strict.apply(&app("web", "http", 8080, 1))?;
    strict.rolled_out(READY)?;
    let ask = || -> Result<String> {
        let pod = strict.pod("web")?;
        let address = strict.get(&format!("pod/{pod}"))?["status"]["podIP"]
            .as_str()
            .context("podIP")?
            .to_owned();
        // For longer than a proxy waits for the controller's word.
        plain.shell(
            &prober,
            &format!(
                "for i in $(seq 12); do curl -s -o /dev/null --max-time 5 -w '%{{http_code}}\\n' http://{address}:8080/ || true; sleep 0.5; done"
            ),
        )
    };
    let fresh = ask()?;
    // Started again in the same pod it remembers what it was.
    let pod = strict.pod("web")?;
    let before = super::restarts(&strict.get(&format!("pod/{pod}"))?);
    signal("KILL", &processes(container::PROXY, &pod)?)?;
    cluster.eventually("the proxy to be started again", READY, || {
        let pod = strict.get(&format!("pod/{pod}"))?;
        Ok(super::restarts(&pod) > before && ready(&pod))
    })?;
    let again = ask()?;
    (back.0)()?;
    figures(
        "strict without a controller",
        &format!(
            "a fresh pod answered {}; after a restart of its proxy {}",
            fresh.split_whitespace().collect::<Vec<_>>().join(" "),
            again.split_whitespace().collect::<Vec<_>>().join(" ")
        ),
    );
    for told in [fresh, again] {
        ensure!(!told.contains("200"), "plaintext got in: {told}");
        ensure!(
            told.contains("403") || told.contains("000"),
            "nothing was refused: {told}"
        );
    }
    Ok(())
}

fn a_controller_without_its_rights_says_so_and_recovers(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let role = cluster.list(&["clusterrole", "weft-routes"])?.remove(0);
    let restored = |mut role: Value| {
        if let Some(metadata) = role["metadata"].as_object_mut() {
            metadata.retain(|key, _| key == "name" || key == "labels");
        }
        serde_json::json!({"rules": role["rules"]}).to_string()
    };
    let whole = restored(role.clone());
    let mut less = role;
    for rule in less["rules"].as_array_mut().into_iter().flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "pods");
        }
    }
    let patch = |text: &str| -> Result<()> {
        cluster
            .kubectl(&["patch", "clusterrole", "weft-routes", "--type=merge", "-p", text])?
            .ok()?;
        Ok(())
    };
    let _whole = After(|| {
        patch(&whole)?;
        cluster.available()
    });
    patch(&restored(less))?;
    let old: Vec<_> = system_pods(cluster, "weft-routes")?.iter().map(name_of).collect();
    cluster
        .kubectl(&["-n", SYSTEM, "delete", "pod", "--wait=false", &old[0]])?
        .ok()?;
    let mut pod = String::new();
    cluster.eventually("another controller to run", READY, || {
        let pods = system_pods(cluster, "weft-routes")?;
        let new = pods
            .iter()
            .find(|pod| !old.contains(&name_of(pod)) && pod["status"]["phase"] == "Running");
        pod = new.map(name_of).unwrap_or_default();
        Ok(new.is_some())
    })?;
    // From a pod: the API server's own way there hides what a 503 says.
    let plain = test.namespace("")?;
    plain.apply(&client("client", true))?;
    plain.rolled_out(READY)?;
    let address = cluster.list(&["-n", SYSTEM, "pod", &pod])?.remove(0)["status"]["podIP"]
        .as_str()
        .context("podIP")?
        .to_owned();
    let ask = format!("curl -s -g --max-time 3 http://{address}:15021/ready || true");
    let mut told = String::new();
    cluster.eventually("/ready to name what is missing", Duration::from_secs(20), || {
        told = plain.shell(&plain.pod("client")?, &ask)?;
        Ok(told.contains("pods"))
    })?;
    let log = || cluster.kubectl(&["-n", SYSTEM, "logs", &pod])?.ok();
    // Several attempts later it has said so once.
    let at = Instant::now();
    cluster.eventually("several attempts", READY, || Ok(at.elapsed() > Duration::from_secs(8)))?;
    let log = log()?;
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("forbidden") || line.contains("403"))
        .collect();
    let one = |pods: &[Value]| pods.iter().find(|one| name_of(one) == pod).is_some_and(ready);
    ensure!(
        !one(&system_pods(cluster, "weft-routes")?),
        "it is ready without its rights"
    );
    patch(&whole)?;
    let back = Instant::now();
    cluster.eventually("it to be ready", READY, || {
        Ok(one(&system_pods(cluster, "weft-routes")?))
    })?;
    figures(
        "rbac",
        &format!(
            "said {} time(s) in the log, /ready: '{}'; ready {:.1} s after the right was back",
            lines.len(),
            told.trim(),
            back.elapsed().as_secs_f64()
        ),
    );
    ensure!(
        (1..=2).contains(&lines.len()),
        "in the log {} times: {lines:?}",
        lines.len()
    );
    ensure!(back.elapsed() < Duration::from_secs(40), "after {:?}", back.elapsed());
    Ok(())
}
