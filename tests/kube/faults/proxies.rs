//! Proxies that die or stop. Their processes are found on this machine, which is the node, or holds it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_proto::names::container;

use super::{After, Load, MESHED, READY, count, figures, number, processes, ready, restarts, signal, stage, summary};
use crate::{Test, alone};

alone![
    f06_a_killed_proxy_is_never_bypassed,
    f07_a_proxy_that_stops_is_left_alone_and_taken_back,
];

fn f06_a_killed_proxy_is_never_bypassed(test: &Test) -> Result<()> {
    // Strict, so that anything that got round a proxy would be told from what it let in: it would be answered 200.
    let namespace = stage(test, "weft.dev/inject: enabled, weft.dev/mtls: strict", 3)?;
    let victim = namespace.pod("web")?;
    let address = namespace.get(&format!("pod/{victim}"))?["status"]["podIP"]
        .as_str()
        .context("podIP")?
        .to_owned();
    let load = Load::start(&namespace, "--http-rate 100 --grpc-rate 100 --websockets 6")?;
    // The prober dials the pod itself, without weft, many times a second.
    let prober = namespace.pod("apart")?;
    namespace.shell(
        &prober,
        &format!(
            "setsid bash -c 'for i in $(seq 400); do curl -s -o /dev/null --max-time 1 -w \"%{{http_code}} %{{exitcode}}\\n\" \
             http://{address}:8080/; sleep 0.03; done >/tmp/probes; touch /tmp/probed' >/dev/null 2>&1 </dev/null &"
        ),
    )?;
    test.cluster().eventually("load", READY, || Ok(load.seconds() > 3.0))?;
    let before = restarts(&namespace.get(&format!("pod/{victim}"))?);
    let killed = Instant::now();
    signal("KILL", &processes(container::PROXY, &victim)?)?;
    test.cluster().eventually("the proxy to be started again", READY, || {
        Ok(restarts(&namespace.get(&format!("pod/{victim}"))?) > before)
    })?;
    let started = killed.elapsed();
    test.cluster().eventually("the pod to be ready again", READY, || {
        Ok(ready(&namespace.get(&format!("pod/{victim}"))?))
    })?;
    let again = killed.elapsed();
    let at = load.seconds();
    test.cluster()
        .eventually("load", READY, || Ok(load.seconds() > at + 5.0))?;
    let result = load.stop()?;
    let probes = namespace.shell(
        &prober,
        "for i in $(seq 300); do [ -e /tmp/probed ] && break; sleep 0.1; done; sort /tmp/probes | uniq -c",
    )?;
    let told: Vec<_> = probes.lines().map(str::trim).collect();
    figures(
        "f06",
        &format!(
            "started again after {:.1} s, ready after {:.1} s; {}; probes round the proxy (code, curl's exit): {}",
            started.as_secs_f64(),
            again.as_secs_f64(),
            summary(&result),
            told.join(", ")
        ),
    );
    ensure!(!probes.contains(" 200 "), "a connection got round the proxy: {probes}");
    ensure!(
        probes.contains(" 000 7"),
        "no connection was refused while the proxy was dead: {probes}"
    );
    ensure!(started < Duration::from_secs(5), "started again only after {started:?}");
    // What was under way in that pod: a few of 200 a second.
    for protocol in ["http", "grpc"] {
        ensure!(
            count(&result[protocol]["failed"]) <= 20,
            "{protocol}: {}",
            result[protocol]
        );
    }
    ensure!(count(&result["websocket"]["failed"]) == 0, "{}", result["websocket"]);

    // The client's own: its application is refused until the proxy is back, and never gets out without it.
    let client = namespace.pod("client")?;
    let load = Load::from(&namespace, "client", "--http http://web:8080/ --http-rate 50 --close")?;
    test.cluster().eventually("load", READY, || Ok(load.seconds() > 2.0))?;
    signal("KILL", &processes(container::PROXY, &client)?)?;
    let at = load.seconds();
    test.cluster()
        .eventually("load", READY, || Ok(load.seconds() > at + 8.0))?;
    let result = load.stop()?;
    figures("f06", &format!("the client's proxy killed: {}", summary(&result)));
    let web = &result["http"];
    ensure!(
        web["last_failure"].as_f64().unwrap_or(0.0) < at + 6.0,
        "still failing: {web}"
    );
    // Plaintext that got out would have been refused by the server's proxy with 403.
    let reasons = web["reasons"].to_string();
    ensure!(!reasons.contains("403"), "plaintext left the pod: {web}");
    Ok(())
}

fn f07_a_proxy_that_stops_is_left_alone_and_taken_back(test: &Test) -> Result<()> {
    let namespace = stage(test, MESHED, 3)?;
    let victim = namespace.pod("web")?;
    let pods = processes(container::PROXY, &victim)?;
    let seconds = number("WEFT_STOP_SECONDS", 30);
    let load = Load::from(
        &namespace,
        "client",
        "--http http://web:8080/ --http-rate 100 --timeout 20000",
    )?;
    test.cluster().eventually("load", READY, || Ok(load.seconds() > 3.0))?;
    let _again = After(|| signal("CONT", &pods));
    signal("STOP", &pods)?;
    let stopped = load.seconds();
    let pod = || namespace.get(&format!("pod/{victim}"));
    test.cluster()
        .eventually("the pod to be not ready", READY, || Ok(!ready(&pod()?)))?;
    let unready = load.seconds() - stopped;
    test.cluster()
        .eventually("the stop to end", Duration::from_secs(seconds + 5), || {
            Ok(load.seconds() > stopped + seconds as f64)
        })?;
    signal("CONT", &pods)?;
    let continued = load.seconds();
    test.cluster()
        .eventually("the pod to be ready again", READY, || Ok(ready(&pod()?)))?;
    let again = load.seconds() - continued;
    let result = load.stop()?;
    let web = &result["http"];
    let last = web["last_failure"].as_f64().map_or(0.0, |at| at - stopped);
    figures(
        "f07",
        &format!(
            "stopped {seconds} s; last failure {last:.1} s after the stop; not ready after {unready:.1} s, ready {again:.1} s after SIGCONT; {}",
            summary(&result)
        ),
    );
    ensure!(last < 16.0, "failures after the PING's time: {web}");
    ensure!(count(&web["failed"]) <= 400, "{web}");
    let load = Load::from(&namespace, "client", "--http http://web:8080/ --http-rate 100")?;
    test.cluster().eventually("load", READY, || Ok(load.seconds() > 5.0))?;
    let result = load.stop()?;
    ensure!(count(&result["http"]["failed"]) == 0, "{result}");
    ensure!(
        count(&result["http"]["pods"][&victim]) > 0,
        "the pod was not taken back: {result}"
    );
    Ok(())
}
