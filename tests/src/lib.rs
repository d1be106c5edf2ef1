//! A mesh to test against: the real programs in the sandbox, driven through the `weft` command as a person would.
//!
//! The objects are in [`objects`]; what each test looks at is in `tests/netns`. The same on a real Kubernetes is [`kube`].

pub mod kube;
pub mod objects;
pub mod metrics;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// A running sandbox. It is taken down when this is dropped.
pub struct Mesh {
    name: String,
    weft: PathBuf,
    directory: tempfile::TempDir,
    python: PathBuf,
}

/// What a command in a pod printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Whether it ended with 0.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The standard output of a command that has to succeed.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.success,
            "the command failed\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }
}

/// The folder in which cargo puts programs: the parent of the one in which it puts tests.
pub fn binaries() -> Result<PathBuf> {
    let test = std::env::current_exe().context("where is this program?")?;
    let folder = test
        .parent()
        .and_then(Path::parent)
        .context("the test is not in cargo's target folder")?;
    for program in [
        "weft",
        "weft-proxy",
        "weft-init",
        "weft-injector",
        "weft-controller",
        "weft-apps",
    ] {
        ensure!(
            folder.join(program).is_file(),
            "{program} is not built: run `cargo build --workspace --bins` first (`make test` does)"
        );
    }
    Ok(folder.to_owned())
}

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the repository")
}

/// Looks at intervals until a condition holds; the error says what was waited for and what the last look saw.
fn eventually(what: &str, limit: Duration, interval: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let seen = look();
        if matches!(seen, Ok(true)) {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?} (the last look: {seen:?})");
        }
        std::thread::sleep(interval);
    }
}

impl Mesh {
    /// Starts a sandbox with these objects and waits until every pod is ready.
    pub fn up(name: &str, objects: &str) -> Result<Self> {
        Self::up_with(name, objects, &[])
    }

    /// The same with further arguments of `weft sandbox up`.
    pub fn up_with(name: &str, objects: &str, more: &[&str]) -> Result<Self> {
        let binaries = binaries()?;
        let directory = tempfile::Builder::new().prefix("weft-test-").tempdir()?;
        std::fs::write(directory.path().join("objects.yaml"), objects)?;
        std::fs::write(
            directory.path().join("images.yaml"),
            format!("apps: {}\n", binaries.join("weft-apps").display()),
        )?;
        let python = Command::new(repository().join("scripts/python"))
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .map(Ran::from)
            .context("scripts/python")?
            .ok()
            .context("the Python clients are not set up: run `scripts/setup test` (`make test` does)")?;
        let mesh = Self {
            // Two runs on one machine do not meet.
            name: format!("{name}-{}", std::process::id()),
            weft: binaries.join("weft"),
            directory,
            python: python.trim().into(),
        };
        let folder = mesh.directory.path().to_string_lossy().into_owned();
        let mut arguments = vec!["sandbox", "up", &folder, "--name", &mesh.name];
        arguments.extend(more);
        let up = mesh.weft(&arguments)?;
        ensure!(up.success, "the sandbox did not come up\n{}\n{}", up.stdout, up.stderr);
        Ok(mesh)
    }

    /// Runs the `weft` command.
    pub fn weft(&self, arguments: &[&str]) -> Result<Ran> {
        let run = Command::new(&self.weft)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{}", self.weft.display()))?;
        Ok(run.into())
    }

    /// Runs a command as an application inside a pod, `pod.namespace`.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<Ran> {
        let mut arguments = vec!["sandbox", "exec", "--name", &self.name, pod, "--"];
        arguments.extend(command);
        self.weft(&arguments)
    }

    /// Starts a command inside a pod and leaves it running.
    pub fn spawn(&self, pod: &str, command: &[&str]) -> Result<std::process::Child> {
        let mut arguments = vec!["sandbox", "exec", "--name", &self.name, pod, "--"];
        arguments.extend(command);
        Ok(Command::new(&self.weft)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    /// Runs one of the scripts beside the tests, or of the sample clients, with the interpreter that has their libraries.
    pub fn script(&self, pod: &str, script: &str, arguments: &[&str]) -> Result<String> {
        let beside = repository().join("tests/netns/scripts").join(script);
        let path = if beside.is_file() {
            beside
        } else {
            repository().join("tests/apps/python").join(script)
        };
        let libraries = format!("PYTHONPATH={}", repository().join("tests/apps/python").display());
        let mut command = vec![
            "env",
            &libraries,
            self.python.to_str().context("path of python")?,
            path.to_str().context("path of the script")?,
        ];
        command.extend(arguments);
        self.exec(pod, &command)?
            .ok()
            .with_context(|| format!("{script} {} in {pod}", arguments.join(" ")))
    }

    /// The interpreter that has the libraries of the test clients.
    pub fn python(&self) -> String {
        self.python.to_string_lossy().into_owned()
    }

    /// Applies objects.
    pub fn apply(&self, objects: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
        std::fs::write(file.path(), objects)?;
        self.weft(&[
            "sandbox",
            "apply",
            "--name",
            &self.name,
            "-f",
            &file.path().to_string_lossy(),
        ])?
        .ok()?;
        Ok(())
    }

    /// Deletes objects.
    pub fn delete(&self, objects: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
        std::fs::write(file.path(), objects)?;
        self.weft(&[
            "sandbox",
            "delete",
            "--name",
            &self.name,
            "-f",
            &file.path().to_string_lossy(),
        ])?
        .ok()?;
        Ok(())
    }

    /// One object, as JSON.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<serde_json::Value> {
        let text = self
            .weft(&[
                "sandbox", "get", kind, "--name", &self.name, "-n", namespace, "-o", "json",
            ])?
            .ok()?;
        let list: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("get {kind}: {text:.300}"))?;
        let items = list["items"].as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
        items
            .into_iter()
            .find(|item| item["metadata"]["name"] == name)
            .with_context(|| format!("no {kind} {namespace}/{name}"))
    }

    /// Names of the pods of a Deployment or StatefulSet that are running, in order.
    pub fn pods(&self, namespace: &str, prefix: &str) -> Result<Vec<serde_json::Value>> {
        let text = self
            .weft(&[
                "sandbox", "get", "pods", "--name", &self.name, "-n", namespace, "-o", "json",
            ])?
            .ok()?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let of = |item: &serde_json::Value| {
            item["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&format!("{prefix}-")) || name == prefix)
        };
        Ok(list["items"]
            .as_array()
            .context("a list of pods")?
            .iter()
            .filter(|item| of(item))
            .cloned()
            .collect())
    }

    /// The log of a container.
    pub fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.weft(&["sandbox", "logs", "--name", &self.name, pod, "-c", container])?
            .ok()
    }

    /// The metrics of a pod's proxy, read from inside of the pod.
    pub fn metrics(&self, pod: &str) -> Result<metrics::Metrics> {
        let text = self
            .exec(
                pod,
                &["curl", "-sS", "--max-time", "5", "http://127.0.0.1:15020/metrics"],
            )?
            .ok()?;
        metrics::Metrics::read(&text)
    }

    /// Waits until a condition holds; the error says what was waited for and what the last look saw.
    pub fn eventually(&self, what: &str, limit: Duration, look: impl FnMut() -> Result<bool>) -> Result<()> {
        eventually(what, limit, Duration::from_millis(100), look)
    }

    /// The name of a pod's network namespace, for what looks at it from outside.
    pub fn network_namespace(&self, namespace: &str, pod: &str) -> Result<String> {
        let list = Ran::from(Command::new("ip").args(["netns", "list"]).output()?).ok()?;
        let prefix = format!("weft-{}.{namespace}.{pod}.", self.name);
        let names = list.lines().filter_map(|line| line.split_whitespace().next());
        names
            .into_iter()
            .find(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .with_context(|| format!("no network namespace {prefix}*"))
    }

    /// The sandbox's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of a directory that lives as long as the mesh.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::env::var_os("WEFT_KEEP").is_some() {
            eprintln!("left running: weft sandbox get pods --name {}", self.name);
            return;
        }
        match self.weft(&["sandbox", "down", "--name", &self.name]) {
            Ok(ran) if ran.success => {}
            failed => eprintln!("the sandbox was not taken down: {failed:?}"),
        }
    }
}
