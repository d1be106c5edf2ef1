//! The API server away. On the project's own node its process is ended and started again as it was; elsewhere this is left out.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Ran, kube::SYSTEM};

use super::{
    After, Load, MESHED, READY, app, figures, meshes, name_of, outage, restarts, signal, stage, summary, unharmed,
};
use crate::{Test, alone};

alone![f14_traffic_outlives_the_api_server];

/// A process of the node, and how it was started.
struct Process {
    pid: u32,
    /// Whether its moment of starting is recorded too.
    dated: bool,
    arguments: Vec<String>,
}

impl Process {
    fn of(state: &Path, name: &str) -> Result<Self> {
        let file = state.join(format!("run/{name}.pid"));
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let first = text.split_whitespace().next().context("a pid")?;
        let line = fs::read_to_string(format!("/proc/{first}/cmdline"))?;
        Ok(Self {
            pid: first.parse()?,
            dated: text.split_whitespace().count() > 1,
            arguments: line.split_terminator('\0').map(str::to_owned).collect(),
        })
    }

    fn alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| !line.is_empty())
    }

    /// Starts it as it was started, and records it as tests/kube-node does: the pid, and the moment at which it began.
    fn start(&self, state: &Path, name: &str) -> Result<()> {
        let path = format!(
            "{}:{}",
            state.join("bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let script = "file=$1; log=$2; dated=$3; shift 3; setsid \"$@\" >>\"$log\" 2>&1 </dev/null & \
                      sleep 0.2; [ \"$dated\" = true ] && at=$(sed 's/.*) //' /proc/$!/stat | cut -d' ' -f20); \
                      echo $! $at >\"$file\"";
        let run = Command::new("bash")
            .args(["-c", script, "start"])
            .arg(state.join(format!("run/{name}.pid")))
            .arg(state.join(format!("log/{name}.log")))
            .arg(self.dated.to_string())
            .args(&self.arguments)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()?;
        Ran::from(run).ok()?;
        Ok(())
    }
}

fn f14_traffic_outlives_the_api_server(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let Some(state) = cluster.node_state() else {
        eprintln!(
            "f14: left out: this cluster's API server is not a process of ours (WEFT_KUBE_STATE names a node's folder)"
        );
        return Ok(());
    };
    let namespace = stage(test, MESHED, 2)?;
    let of_weft = || -> Result<Vec<(String, u64)>> {
        let pods = cluster.list(&["-n", SYSTEM, "pods"])?;
        let mut all: Vec<_> = pods.iter().map(|pod| (name_of(pod), restarts(pod))).collect();
        all.sort();
        Ok(all)
    };
    let before = of_weft()?;
    let server = Process::of(&state, "apiserver")?;
    let load = Load::start(&namespace, "--http-rate 50 --grpc-rate 50 --websockets 10")?;
    cluster.eventually("load", READY, || Ok(load.seconds() > 3.0))?;

    let mut started = false;
    let mut back = After(|| {
        if started {
            return Ok(());
        }
        started = true;
        server.start(&state, "apiserver")?;
        cluster.eventually("the API server to answer", READY, || {
            Ok(cluster.kubectl(&["get", "--raw", "/readyz"])?.success)
        })
    });
    // Asked first, it would wait for its watches for a minute; the end without a word is the harder case.
    signal("KILL", &[server.pid])?;
    cluster.eventually("the API server to end", Duration::from_secs(90), || Ok(!server.alive()))?;
    let (away, length) = (Instant::now(), outage(20));
    cluster.eventually("the outage to end", length + READY, || Ok(away.elapsed() > length))?;
    let seconds = away.elapsed().as_secs_f64();
    (back.0)()?;
    let answering = Instant::now();
    cluster.eventually("a new pod to be meshed", READY, || meshes(&namespace))?;
    let meshed = answering.elapsed();
    namespace.apply(&app("late", "http", 8080, 1))?;
    namespace.rolled_out(READY)?;
    let client = namespace.pod("client")?;
    let get = "curl -s --max-time 2 -o /dev/null -w '%{http_code}' http://late:8080/ || true";
    cluster.eventually("a new pod to answer", READY, || {
        Ok(namespace.shell(&client, get)? == "200")
    })?;
    let reached = answering.elapsed();
    let result = load.stop()?;
    let after = of_weft()?;
    figures(
        "f14",
        &format!(
            "{seconds:.0} s without an API server; {}; a new pod meshed {:.1} s, and reached {:.1} s, after it answered; restarts of weft's pods: {}",
            summary(&result),
            meshed.as_secs_f64(),
            reached.as_secs_f64(),
            after.iter().map(|(_, restarts)| restarts).sum::<u64>()
                - before.iter().map(|(_, restarts)| restarts).sum::<u64>(),
        ),
    );
    unharmed(&result)?;
    ensure!(before == after, "weft's pods are not the same: {before:?} {after:?}");
    let nodes: Vec<Value> = cluster.list(&["nodes"])?;
    ensure!(!nodes.is_empty(), "no node");
    ensure!(meshed < Duration::from_secs(30), "meshed after {meshed:?}");
    Ok(())
}
