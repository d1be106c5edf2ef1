//! Pods that end and are replaced under load.

use anyhow::{Result, ensure};

use super::{Load, MESHED, READY, count, figures, number, stage, summary, unharmed};
use crate::{Test, alone};

alone![
    f01_a_pod_ends_in_the_middle_of_requests,
    f02_rolling_restarts_lose_nothing,
];

fn f01_a_pod_ends_in_the_middle_of_requests(test: &Test) -> Result<()> {
    let namespace = stage(test, MESHED, 2)?;
    // Each request and each stream takes two seconds: when its pod ends, it is in the middle.
    let load = Load::from(
        &namespace,
        "client",
        "--http http://web:8080/delay/2000 --http-rate 20 --grpc http://grpc:50051 --grpc-rate 20 --grpc-messages 10 \
         --websocket ws://websocket:8090/echo --websockets 10",
    )?;
    test.cluster()
        .eventually("answers", READY, || Ok(load.seconds() > 4.0))?;
    let mut names = Vec::new();
    for name in ["web", "grpc", "websocket"] {
        names.push(format!("pod/{}", namespace.pod(name)?));
    }
    let mut arguments = vec!["delete", "--timeout=60s"];
    arguments.extend(names.iter().map(String::as_str));
    namespace.kubectl(&arguments)?.ok()?;
    let gone = load.seconds();
    test.cluster()
        .eventually("answers", READY, || Ok(load.seconds() > gone + 3.0))?;
    let result = load.stop()?;
    figures("f01", &summary(&result));
    unharmed(&result)?;
    ensure!(
        result["websocket"]["closed"]
            .as_object()
            .is_some_and(|codes| !codes.is_empty()),
        "no WebSocket was told: {result}"
    );
    Ok(())
}

fn f02_rolling_restarts_lose_nothing(test: &Test) -> Result<()> {
    let namespace = stage(test, MESHED, 3)?;
    // The promise is 5 restarts at 500 a second of each, which two cores carry only when nothing else runs on them.
    let rate = number("WEFT_RATE", 100);
    let times = number("WEFT_RESTARTS", 2);
    let load = Load::start(
        &namespace,
        &format!("--http-rate {rate} --grpc-rate {rate} --websockets 50"),
    )?;
    // A client without weft: what it sees is the server's own proxy alone.
    let apart = Load::from(&namespace, "apart", "--http http://web:8080/ --http-rate 20")?;
    for _ in 0..times {
        let what = ["deployment/web", "deployment/grpc", "deployment/websocket"];
        namespace
            .kubectl(&[["rollout", "restart"].as_slice(), &what].concat())?
            .ok()?;
        namespace.rolled_out(READY)?;
    }
    // The last pods of the old kind are still ending.
    let last = load.seconds();
    test.cluster()
        .eventually("the last to end", READY, || Ok(load.seconds() > last + 12.0))?;
    let result = load.stop()?;
    let apart = apart.stop()?;
    figures("f02", &format!("{times} restarts at {rate}/s; {}", summary(&result)));
    figures("f02", &format!("from a client without weft: {}", summary(&apart)));
    unharmed(&result)?;
    let answered = result["http"]["pods"].as_object().map_or(0, serde_json::Map::len);
    ensure!(answered as u64 >= 3 * times, "only {answered} pods answered: {result}");
    ensure!(
        count(&result["websocket"]["closed"]["1001"]) + count(&result["websocket"]["closed"]["1012"]) >= 50 * times / 2,
        "WebSockets were not told: {result}"
    );
    // Nobody stands beside this client to take another pod when one ends at once; it is told here what that costs.
    ensure!(
        count(&apart["http"]["failed"]) * 20 < count(&apart["http"]["requests"]),
        "from a client without weft: {apart}"
    );
    Ok(())
}
