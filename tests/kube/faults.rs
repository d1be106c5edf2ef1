//! Faults on the cluster, by the ids of RELIABILITY.md. Each prints a line `ID: figures`, from which docs/reliability.md is written.
//!
//! The load runs in a pod, apart from `kubectl`, so that it goes on while the API server is away. Times are short enough for a run of
//! everything; the environment makes them as long as the promise: `WEFT_OUTAGE_SECONDS` (f10, f12, f14), `WEFT_ROTATION_SECONDS` (f20),
//! `WEFT_RESTARTS` (f02), `WEFT_RATE` (requests in a second of each protocol).

mod api_server;
mod control;
mod hostile;
mod identity;
mod proxies;
mod restarts;
mod webhook;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{
    Ran,
    kube::{APPS, CLIENT, Cluster, Namespace, SYSTEM},
};

use crate::{Named, Test};

/// Every test of faults.
pub(crate) fn all() -> Vec<Named> {
    let mut all = hostile::tests();
    for some in [
        restarts::alone(),
        proxies::alone(),
        control::alone(),
        api_server::alone(),
        webhook::alone(),
        identity::alone(),
    ] {
        all.extend(some);
    }
    all
}

const MESHED: &str = "weft.dev/inject: enabled";
/// Time in which pods of a test have to be ready.
const READY: Duration = Duration::from_secs(120);

/// A number that the environment may set.
fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Seconds for which something is away.
fn outage(default: u64) -> Duration {
    Duration::from_secs(number("WEFT_OUTAGE_SECONDS", default))
}

/// What stays undone until the end of a test, however it ends.
struct After<F: FnMut() -> Result<()>>(F);

impl<F: FnMut() -> Result<()>> Drop for After<F> {
    fn drop(&mut self) {
        if let Err(error) = (self.0)() {
            eprintln!("e2e: the cluster is not as it was before: {error:#}");
        }
    }
}

/// A Deployment of one of the sample applications with its Service and ServiceAccount.
fn app(name: &str, arguments: &str, port: u16, replicas: u32) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: main, port: {port}}}]}}\n---\napiVersion: apps/v1\nkind: Deployment\n\
         metadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
         metadata: {{labels: {{app: {name}}}}}\n    spec:\n      serviceAccountName: {name}\n      terminationGracePeriodSeconds: 10\n      \
         containers: [{{name: app, image: '{APPS}', args: [{arguments}, --listen, '{port}'], ports: [{{containerPort: {port}}}], \
         readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}}}]\n---\n"
    )
}

/// A pod to call from; meshed as its namespace says, unless `apart`.
fn client(name: &str, apart: bool) -> String {
    let annotations = if apart { "weft.dev/inject: disabled" } else { "" };
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n    \
         spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: app, image: '{CLIENT}'}}]}}\n---\n"
    )
}

/// A namespace with the three services, so many replicas of each, a meshed client and one apart from the mesh.
fn stage(test: &Test, labels: &str, replicas: u32) -> Result<Namespace<'static>> {
    let namespace = test.namespace(labels)?;
    let objects = app("web", "http", 8080, replicas)
        + &app("grpc", "grpc", 50051, replicas)
        + &app("websocket", "websocket", 8090, replicas)
        + &client("client", false)
        + &client("apart", true);
    namespace.apply(&objects)?;
    namespace.rolled_out(READY)?;
    Ok(namespace)
}

/// The load generator, running in a pod.
struct Load<'a> {
    namespace: &'a Namespace<'static>,
    pod: String,
    started: Instant,
}

impl<'a> Load<'a> {
    /// Load of all three services from the meshed client: `--http-rate` and so on may follow.
    fn start(namespace: &'a Namespace<'static>, more: &str) -> Result<Self> {
        let all = "--http http://web:8080/ --grpc http://grpc:50051 --websocket ws://websocket:8090/echo";
        Self::from(namespace, "client", &format!("{all} {more}"))
    }

    /// Any load, from the pod of a client.
    fn from(namespace: &'a Namespace<'static>, client: &str, arguments: &str) -> Result<Self> {
        let pod = namespace.pod(client)?;
        // A shell that stays waits for it, since nothing else in the pod does, and says by the file's name that it is whole.
        let script = format!(
            "rm -f /tmp/load.*; setsid bash -c 'weft-apps client load --seconds 3600 {arguments} >/tmp/load.out 2>/tmp/load.err & \
             echo $! >/tmp/load.pid; wait; mv /tmp/load.out /tmp/load.done' >/dev/null 2>&1 </dev/null &\n\
             until [ -s /tmp/load.pid ]; do sleep 0.1; done"
        );
        namespace.shell(&pod, &script)?;
        Ok(Self {
            namespace,
            pod,
            started: Instant::now(),
        })
    }

    /// Seconds since it was started.
    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Ends it: what it has counted.
    fn stop(self) -> Result<Value> {
        let script = "kill -TERM $(cat /tmp/load.pid); for i in $(seq 300); do [ -e /tmp/load.done ] && break; sleep 0.1; done; \
                      cat /tmp/load.done /tmp/load.err";
        let told = self.namespace.shell(&self.pod, script)?;
        serde_json::from_str(&told).with_context(|| format!("the load's result: {told}"))
    }
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// What a load counted, in a line.
fn summary(result: &Value) -> String {
    let mut line = format!("{} s", result["seconds"]);
    for protocol in ["http", "grpc", "websocket"] {
        let of = &result[protocol];
        if of.is_object() {
            line += &format!(
                "; {protocol} {} requests, {} failed, slowest {} ms",
                of["requests"], of["failed"], of["slowest_ms"]
            );
            for (what, values) in [("closed", &of["closed"]), ("reasons", &of["reasons"])] {
                if values.as_object().is_some_and(|values| !values.is_empty()) {
                    line += &format!(", {what} {values}");
                }
            }
        }
    }
    line
}

/// No request failed, there were some, and WebSockets were closed by 1001 or 1012 if at all.
fn unharmed(result: &Value) -> Result<()> {
    for protocol in ["http", "grpc", "websocket"] {
        let of = &result[protocol];
        if !of.is_object() {
            continue;
        }
        ensure!(count(&of["requests"]) > 0, "{protocol}: no load: {result}");
        ensure!(count(&of["failed"]) == 0, "{protocol}: failures: {of}");
        for (code, _) in of["closed"].as_object().into_iter().flatten() {
            ensure!(code == "1001" || code == "1012", "{protocol}: closed by {code}: {of}");
        }
    }
    Ok(())
}

/// Tells the figures of a fault.
fn figures(id: &str, text: &str) {
    eprintln!("{id}: {text}");
}

/// Processes of this name in a pod, seen from the node, which is this machine: `weft-proxy`, `weft-controller`.
fn processes(program: &str, pod: &str) -> Result<Vec<u32>> {
    // The kernel keeps 15 bytes of a name.
    let name = &program[..program.len().min(15)];
    let of_pod = format!("WEFT_POD_NAME={pod}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        let named = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let environment = || fs::read(path.join("environ")).unwrap_or_default();
        if named
            && environment()
                .split(|byte| *byte == 0)
                .any(|line| line == of_pod.as_bytes())
        {
            found.push(pid);
        }
    }
    ensure!(
        !found.is_empty(),
        "no process {program} of the pod {pod} on this machine"
    );
    Ok(found)
}

fn signal(signal: &str, processes: &[u32]) -> Result<()> {
    let mut command = Command::new("kill");
    command.arg(format!("-{signal}"));
    command.args(processes.iter().map(u32::to_string));
    Ran::from(command.output()?).ok()?;
    Ok(())
}

/// Whether a pod is ready.
fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// How often the containers of a pod were started again.
fn restarts(pod: &Value) -> u64 {
    let list = |name: &str| pod["status"][name].as_array().cloned().unwrap_or_default();
    let all = list("initContainerStatuses")
        .into_iter()
        .chain(list("containerStatuses"));
    all.map(|status| count(&status["restartCount"])).sum()
}

/// The pods of one of weft's Deployments.
fn system_pods(cluster: &Cluster, name: &str) -> Result<Vec<Value>> {
    let selector = format!("app.kubernetes.io/name={name}");
    cluster.list(&["-n", SYSTEM, "pods", "-l", &selector])
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Scales one of weft's Deployments, and waits until it is so.
fn scale(cluster: &Cluster, name: &str, replicas: usize) -> Result<()> {
    let to = format!("--replicas={replicas}");
    cluster
        .kubectl(&["-n", SYSTEM, "scale", "deployment", name, &to])?
        .ok()?;
    cluster.eventually(&format!("{name} to have {replicas} pods"), READY, || {
        let pods = system_pods(cluster, name)?;
        Ok(pods.len() == replicas && pods.iter().all(ready))
    })
}

/// A pod that every level of Pod Security lets in.
fn plain_pod() -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": {"containers": [{
        "name": "app", "image": APPS, "args": ["http"], "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]}})
}

/// Whether a pod that is created here now would be meshed.
fn meshes(namespace: &Namespace<'_>) -> Result<bool> {
    let ran = namespace.try_pod(&plain_pod())?;
    ensure!(ran.success, "{}", ran.stderr);
    let pod: Value = serde_json::from_str(&ran.stdout)?;
    Ok(pod["spec"]["initContainers"][0]["name"] == "weft-proxy")
}
