//! A Kubernetes to test against, driven through `kubectl` as a person would.
//!
//! [`Cluster`] is the whole of it; [`Namespace`] is what a test works in. Where the cluster comes from, how images get into it
//! and how it ends is [`node`]'s matter. What tests look at is in `tests/kube`.

mod namespace;
mod node;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Ran, metrics::Metrics, repository};

pub use namespace::Namespace;

/// Namespace of weft's own components.
pub const SYSTEM: &str = weft_proto::names::SYSTEM_NAMESPACE;
/// Image of the sample applications: the program is the entrypoint.
pub const APPS: &str = "weft.dev/sample/apps:1";
/// Image to call from: a shell, curl, openssl, Python with grpcio and websockets, busybox; the sample clients lie in /clients.
pub const CLIENT: &str = "weft.dev/sample/client:1";
/// Longest time that one command may take.
const COMMAND_SECONDS: u32 = 300;

/// A running Kubernetes with weft installed. It ends when this is dropped, unless it was there before.
#[derive(Debug)]
pub struct Cluster {
    node: node::Node,
    binaries: PathBuf,
    kubeconfig: PathBuf,
    /// A word of this run, in the names of its namespaces.
    run: String,
    number: AtomicU32,
    /// Namespaces that several tests use: deleted at the end.
    shared: Mutex<Vec<String>>,
    installed: bool,
}

/// Whether `WEFT_KEEP` asks for everything to be left as it is.
pub fn keep() -> bool {
    std::env::var_os("WEFT_KEEP").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Runs a step of the set-up and tells how long it took.
fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    eprintln!("e2e: {what} ...");
    let done = run().with_context(|| what.to_owned())?;
    eprintln!("e2e: {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(done)
}

impl Cluster {
    /// A cluster with weft installed and available.
    ///
    /// `WEFT_E2E_CLUSTER` says which: `node` (tests/kube-node), `kind`, `existing` (the one of `KUBECONFIG`), or, unset, kind where a
    /// Docker daemon answers and the node otherwise. `WEFT_E2E_INSTALL=keep` leaves the weft of an existing cluster as it is.
    pub fn up() -> Result<Self> {
        let binaries = crate::binaries()?;
        let node = node::Node::chosen()?;
        let kubeconfig = step(&format!("{node}"), || node.up())?;
        let mut cluster = Self {
            node,
            binaries,
            kubeconfig,
            run: format!("{:04x}", std::process::id() & 0xffff),
            number: AtomicU32::new(0),
            shared: Mutex::default(),
            installed: false,
        };
        let images = step("images", images)?;
        step("images into the cluster", || cluster.node.load(&images))?;
        if cluster.node.was_there() && std::env::var("WEFT_E2E_INSTALL").is_ok_and(|value| value == "keep") {
            eprintln!("e2e: weft stays as it is");
            return Ok(cluster);
        }
        // From here on there is something of weft's to take away.
        cluster.installed = true;
        step("weft install", || cluster.install(&[]))?;
        Ok(cluster)
    }

    /// `weft install` with these arguments, applied; returns when every Deployment of weft's is available.
    pub fn install(&self, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["install", "--image-pull-policy", "IfNotPresent"];
        all.extend(arguments);
        let objects = self.weft(&all)?.ok().context("weft install")?;
        self.kubectl_with(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            objects.as_bytes(),
        )?
        .ok()
        .context("kubectl apply of what weft install printed")?;
        if self.node.was_there() {
            // The image has the same name as the one before: its pods have to be made anew.
            self.kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment"])?
                .ok()?;
        }
        self.available()
    }

    /// Waits until every Deployment of weft's is rolled out; the error has what the namespace says of itself.
    pub fn available(&self) -> Result<()> {
        for deployment in ["weft-identity", "weft-routes", "weft-injector"] {
            let name = format!("deployment/{deployment}");
            let done = self.kubectl(&["-n", SYSTEM, "rollout", "status", &name, "--timeout=120s"])?;
            if !done.success {
                let folder = self.keep_namespace("install", SYSTEM)?;
                done.ok()
                    .with_context(|| format!("{name} is not available; its logs are kept in {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// Runs the `weft` command against the cluster.
    pub fn weft(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.limited(&self.binaries.join("weft"));
        Ok(command.args(arguments).stdin(Stdio::null()).output()?.into())
    }

    /// Runs `kubectl`.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Ran> {
        self.kubectl_with(arguments, b"")
    }

    /// Runs `kubectl` with text on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &[u8]) -> Result<Ran> {
        let mut child = self
            .limited(Path::new("kubectl"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has a standard input")?;
        let output: Output = std::thread::scope(|threads| {
            // A command that does not read its input is no failure of ours.
            threads.spawn(move || stdin.write_all(input));
            child.wait_with_output()
        })?;
        Ok(output.into())
    }

    /// Starts `kubectl` and leaves it running, as for `port-forward` or `logs -f`; the caller ends it.
    pub fn kubectl_spawn(&self, arguments: &[&str]) -> Result<std::process::Child> {
        let mut command = Command::new("kubectl");
        self.surround(&mut command);
        Ok(command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    /// Applies objects that say their namespaces themselves, or have none.
    pub fn apply(&self, objects: &str) -> Result<()> {
        self.kubectl_with(&["apply", "-f", "-"], objects.as_bytes())?.ok()?;
        Ok(())
    }

    /// Deletes such objects and waits until they are gone; those that are not there are no failure.
    pub fn delete(&self, objects: &str) -> Result<()> {
        let arguments = ["delete", "--ignore-not-found", "-f", "-"];
        self.kubectl_with(&arguments, objects.as_bytes())?.ok()?;
        Ok(())
    }

    /// Objects as JSON: `list(&["-n", "x", "pods", "-l", "app=web"])`.
    pub fn list(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        let text = self.kubectl(&all)?.ok()?;
        let found: Value = serde_json::from_str(&text).context("kubectl get -o json")?;
        Ok(match found["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![found],
        })
    }

    /// The metrics of a pod of weft's own components, through the API server; `port` is that of its admin listener.
    pub fn metrics_of(&self, namespace: &str, pod: &str, port: u16) -> Result<Metrics> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics");
        Metrics::read(&self.kubectl(&["get", "--raw", &path])?.ok()?)
    }

    /// Waits until a condition holds; the error says what was waited for and what the last look saw.
    pub fn eventually(&self, what: &str, limit: Duration, look: impl FnMut() -> Result<bool>) -> Result<()> {
        crate::eventually(what, limit, Duration::from_millis(300), look)
    }

    /// A namespace of its own for a test, with these labels (YAML's flow style, as `weft.dev/inject: enabled`).
    ///
    /// A test takes one through its `Test`, which keeps its logs when the test fails, and deletes it.
    pub fn namespace(&self, word: &str, labels: &str) -> Result<Namespace<'_>> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{word}-{}-{number}", self.run);
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
        ))?;
        Ok(Namespace::new(self, name))
    }

    /// Deletes this namespace at the end of the run rather than of a test: several tests use it.
    pub fn share(&self, namespace: &Namespace<'_>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.push(namespace.name().to_owned());
    }

    /// Deletes namespaces without waiting.
    pub fn drop_namespaces(&self, names: &[String]) {
        if keep() || names.is_empty() {
            return;
        }
        let mut arguments = vec!["delete", "namespace", "--wait=false", "--ignore-not-found"];
        arguments.extend(names.iter().map(String::as_str));
        if let Err(error) = self.kubectl(&arguments).and_then(Ran::ok) {
            eprintln!("e2e: namespaces were not deleted: {error:#}");
        }
    }

    /// Keeps what a namespace has to say in target/e2e/TEST/NAMESPACE: events, descriptions, the logs of every container.
    pub fn keep_namespace(&self, test: &str, namespace: &str) -> Result<PathBuf> {
        let folder = kept(test).join(namespace);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let write = |name: &str, arguments: &[&str]| -> Result<()> {
            let mut all = vec!["-n", namespace];
            all.extend(arguments);
            let ran = self.kubectl(&all)?;
            if !(ran.stdout.is_empty() && ran.stderr.is_empty()) {
                fs::write(folder.join(name), ran.stdout + &ran.stderr)?;
            }
            Ok(())
        };
        write(
            "events.txt",
            &["get", "events", "--sort-by=.lastTimestamp", "-o", "wide"],
        )?;
        write("pods.txt", &["get", "pods,services,endpointslices", "-o", "wide"])?;
        write("describe.txt", &["describe", "pods"])?;
        for pod in self.list(&["-n", namespace, "pods"])? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            for list in [
                "initContainerStatuses",
                "containerStatuses",
                "ephemeralContainerStatuses",
            ] {
                for status in pod["status"][list].as_array().into_iter().flatten() {
                    let container = status["name"].as_str().unwrap_or_default();
                    let log = format!("{name}.{container}.log");
                    write(&log, &["logs", name, "-c", container])?;
                    if status["restartCount"].as_u64() > Some(0) {
                        let log = format!("{name}.{container}.before.log");
                        write(&log, &["logs", name, "-c", container, "--previous"])?;
                    }
                }
            }
        }
        Ok(folder)
    }

    /// The folder in which the node keeps its state and logs, for tests that break it: that of tests/kube-node, or, of an
    /// existing cluster, what `WEFT_KUBE_STATE` says.
    pub fn node_state(&self) -> Option<PathBuf> {
        self.node.state()
    }

    /// A command that gives up after a while, with the cluster in its environment.
    fn limited(&self, program: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_SECONDS.to_string()).arg(program);
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(folder) = self.node.programs() {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", folder.display()));
        }
    }

    /// Ends what this started: the node, or, of a cluster that was there before, the shared namespaces and weft.
    pub fn end(&self) {
        if keep() {
            eprintln!("e2e: left running: export KUBECONFIG={}", self.kubeconfig.display());
            return;
        }
        let down = step("the end", || {
            if !self.node.was_there() {
                return self.node.down();
            }
            let shared = std::mem::take(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner));
            self.drop_namespaces(&shared);
            if self.installed {
                self.weft(&["uninstall", "--yes"])?.ok()?;
            }
            Ok(())
        });
        if let Err(error) = down {
            eprintln!("e2e: {error:#}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where what a failed test leaves is kept.
pub fn kept(test: &str) -> PathBuf {
    repository().join("target/e2e").join(test.replace("::", "/"))
}

/// Makes the image archives, from the programs that the tests run with.
fn images() -> Result<Vec<PathBuf>> {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let made = Command::new(repository().join("scripts/images"))
        .arg(profile)
        .output()?;
    let told = Ran::from(made).ok().context("scripts/images")?;
    eprint!("{told}");
    let mut found: Vec<_> = fs::read_dir(repository().join("target/images"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    found.sort();
    ensure!(!found.is_empty(), "scripts/images made nothing");
    Ok(found)
}
