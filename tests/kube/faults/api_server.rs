//! The API server away, and the kubelet silent. On the project's own node these are processes, which are ended and started again as they
//! were, or stopped; elsewhere this is left out.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::kube::SYSTEM;

use super::{
    After, Load, MESHED, READY, app, figures, meshes, name_of, outage, restarts, signal, stage, summary, unharmed,
};
use crate::{Test, alone};

alone![
    f14_traffic_outlives_the_api_server,
    f13_pods_of_a_silent_node_serve_while_there_are_no_others,
];

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

    /// Ends it without a word, and starts it after `length` as it was started, recorded as tests/kube-node does it: the pid, and the
    /// moment at which it began. All of that in a process of its own: a test that is ended meanwhile leaves the node whole.
    fn away(&self, state: &Path, name: &str, length: Duration) -> Result<()> {
        let path = format!(
            "{}:{}",
            state.join("bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let script = "pid=$1; length=$2; file=$3; log=$4; dated=$5; shift 5; kill -KILL $pid; sleep $length; \
                      setsid \"$@\" >>\"$log\" 2>&1 </dev/null & \
                      sleep 0.2; [ \"$dated\" = true ] && at=$(sed 's/.*) //' /proc/$!/stat | cut -d' ' -f20); \
                      echo $! $at >\"$file\"";
        detached(script)
            .arg(self.pid.to_string())
            .arg(length.as_secs().to_string())
            .arg(state.join(format!("run/{name}.pid")))
            .arg(state.join(format!("log/{name}.log")))
            .arg(self.dated.to_string())
            .args(&self.arguments)
            .env("PATH", path)
            .spawn()?;
        Ok(())
    }

    /// Stops it. It goes on after `longest` at the latest, whatever becomes of the test.
    fn stop(&self, longest: Duration) -> Result<()> {
        signal("STOP", &[self.pid])?;
        detached("sleep $2; kill -CONT $1")
            .arg(self.pid.to_string())
            .arg(longest.as_secs().to_string())
            .spawn()?;
        Ok(())
    }
}

/// A script that outlives this program.
fn detached(script: &str) -> Command {
    let mut command = Command::new("setsid");
    command.args(["bash", "-c", script, "detached"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn left_out(id: &str) -> Result<()> {
    eprintln!("{id}: left out: this cluster's node is not of ours (WEFT_KUBE_STATE names a node's folder)");
    Ok(())
}

/// The kubelet reports nothing for so long that Kubernetes calls every pod of its node unready, which are all there are.
fn f13_pods_of_a_silent_node_serve_while_there_are_no_others(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let Some(state) = cluster.node_state() else {
        return left_out("f13");
    };
    let namespace = stage(test, MESHED, 2)?;
    let load = Load::start(&namespace, "--http-rate 50 --grpc-rate 50 --websockets 10")?;
    cluster.eventually("load", READY, || Ok(load.seconds() > 3.0))?;
    let kubelet = Process::of(&state, "kubelet")?;
    let ready_endpoints = || -> Result<usize> {
        let slices = cluster.list(&[
            "-n",
            namespace.name(),
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
        ])?;
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        Ok(endpoints
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .count())
    };
    let _again = After(|| {
        signal("CONT", &[kubelet.pid])?;
        // Others need the node, and weft's own pods on it.
        cluster
            .kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"])?
            .ok()?;
        cluster.available()
    });
    kubelet.stop(2 * READY)?;
    let stopped = Instant::now();
    cluster.eventually("the node to be given up", READY, || Ok(ready_endpoints()? == 0))?;
    let (given_up, at) = (stopped.elapsed(), load.seconds());
    cluster.eventually(
        "load without a ready endpoint",
        READY,
        || Ok(load.seconds() > at + 10.0),
    )?;
    ensure!(
        ready_endpoints()? == 0,
        "the endpoints are ready again too early to tell anything"
    );
    signal("CONT", &[kubelet.pid])?;
    let continued = Instant::now();
    cluster.eventually("the endpoints to be ready again", READY, || Ok(ready_endpoints()? >= 2))?;
    let back = continued.elapsed();
    let at = load.seconds();
    cluster.eventually("load", READY, || Ok(load.seconds() > at + 5.0))?;
    let result = load.stop()?;
    figures(
        "f13",
        &format!(
            "no ready endpoint {:.0} s after the kubelet's stop, for at least 10 s, and again {:.1} s after SIGCONT; {}",
            given_up.as_secs_f64(),
            back.as_secs_f64(),
            summary(&result)
        ),
    );
    unharmed(&result)
}

fn f14_traffic_outlives_the_api_server(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let Some(state) = cluster.node_state() else {
        return left_out("f14");
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

    let answers = || Ok(cluster.kubectl(&["get", "--raw", "/readyz"])?.success);
    let _back = After(|| cluster.eventually("the API server to answer", READY, answers));
    let length = outage(20);
    // Asked first, it would wait for its watches for a minute; the end without a word is the harder case.
    server.away(&state, "apiserver", length)?;
    let away = Instant::now();
    cluster.eventually("the API server to end", Duration::from_secs(10), || Ok(!server.alive()))?;
    cluster.eventually("the API server to answer", length + READY, answers)?;
    let seconds = away.elapsed().as_secs_f64();
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
