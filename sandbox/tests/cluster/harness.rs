//! One sandbox for a test: manifests in, the command's words and exit codes out, gone when dropped.

use nix::unistd::geteuid;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Time for what must come true by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sandbox of a test's own.
pub struct Sandbox {
    /// Its name.
    pub name: String,
    state: TempDir,
    files: TempDir,
}

/// The `weft` program that the same build has made.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("weft");
    assert!(
        path.is_file(),
        "{} is not there: build the programs first, with `cargo build --workspace --bins`",
        path.display()
    );
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Sandbox {
    /// A sandbox that is not up yet.
    pub fn new() -> Sandbox {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            geteuid().is_root(),
            "these tests make network namespaces: run them as root (sudo -E cargo test, or `make test` in a virtual machine)"
        );
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (state, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for directory in [&state, &files] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Sandbox { name, state, files }
    }

    /// A sandbox without weft's programs that is up and ready.
    pub fn up(manifests: &str) -> Sandbox {
        let sandbox = Sandbox::new();
        let output = sandbox.start(manifests, "", &["--no-mesh"]);
        assert!(
            output.status.success(),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        sandbox
    }

    /// `weft sandbox up`, however it ends.
    pub fn start(&self, manifests: &str, images: &str, more: &[&str]) -> Output {
        self.write("manifests.yaml", manifests);
        self.write("images.yaml", images);
        let directory = self.files.path().display().to_string();
        self.weft(&[&["up", &directory, "--wait", "40"], more].concat())
    }

    /// A file that containers and commands can read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A file's path.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// `weft sandbox WORDS` for this sandbox.
    pub fn weft(&self, words: &[&str]) -> Output {
        let (own, command): (Vec<&str>, &[&str]) = match words.iter().position(|w| *w == "--") {
            Some(at) => (words[..at].to_vec(), &words[at..]),
            None => (words.to_vec(), &[]),
        };
        let mut weft = Command::new(program());
        weft.arg("sandbox")
            .args(own)
            .args(["--name", &self.name, "--state-dir"])
            .arg(self.state.path())
            .args(command);
        weft.output().unwrap()
    }

    /// The same; its standard output when it succeeds, else what went wrong.
    pub fn try_run(&self, words: &[&str]) -> Result<String, String> {
        let output = self.weft(words);
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!(
            "exit code {:?}: {}{}",
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ))
    }

    /// The same; it must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        self.try_run(words).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// A shell script in a pod.
    pub fn shell(&self, pod: &str, script: &str) -> String {
        self.run(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Applies manifests and does not wait.
    pub fn apply(&self, manifests: &str) -> Result<String, String> {
        let path = self.write("apply.txt", manifests);
        self.try_run(&["apply", "-f", &path.display().to_string()])
    }

    /// Waits until a question has the answer that is expected; the answer.
    pub fn eventually(&self, what: &str, ask: impl Fn(&Sandbox) -> Option<String>) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not so after {PATIENCE:?}\n{}",
                self.run(&["get", "pods"])
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the table of a kind has a line with all of these words.
    pub fn until_line(&self, kind: &str, words: &[&str]) -> String {
        self.eventually(&format!("{kind} {words:?}"), |s| {
            let table = s.run(&["get", kind]);
            table
                .lines()
                .find(|l| words.iter().all(|w| l.contains(w)))
                .map(String::from)
        })
    }

    /// Waits until a container has written this.
    pub fn until_log(&self, pod: &str, words: &str) -> String {
        self.eventually(&format!("log of {pod}: {words}"), |s| {
            s.try_run(&["logs", pod]).ok().filter(|log| log.contains(words))
        })
    }

    /// Process id of the supervisor.
    pub fn supervisor(&self) -> i32 {
        let text = fs::read_to_string(self.state.path().join(&self.name).join("settings.json")).unwrap();
        let settings: serde_json::Value = serde_json::from_str(&text).unwrap();
        i32::try_from(settings["pid"].as_i64().unwrap()).unwrap()
    }

    /// Whether nothing of it is left on the machine.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let mark = format!("weft-{}.", self.name);
        let run = |program: &str, words: &[&str]| text(&Command::new(program).args(words).output().unwrap().stdout);
        let state = self.state.path().display().to_string();
        for (what, found) in [
            ("namespace", run("ip", &["netns", "list"])),
            ("mount", fs::read_to_string("/proc/self/mountinfo").unwrap()),
            ("process", run("ps", &["axww", "-o", "pid,args"])),
        ] {
            let ours = found
                .lines()
                .filter(|l| l.contains(&mark) || l.contains(&state))
                .filter(|l| !l.contains("ps axww"));
            traces.extend(ours.map(|l| format!("{what}: {l}")));
        }
        traces.extend(
            fs::read_dir(&state)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| format!("file: {}", e.path().display())),
        );
        traces
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let output = self.weft(&["down"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("down: {}", text(&output.stderr));
        }
    }
}

/// A deployment of Python's HTTP server that serves the pod's name, ready when it answers.
pub fn web(name: &str, replicas: u32) -> String {
    format!(
        r#"
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: python
        command: [sh, -c, "mkdir /w && cd /w && hostname > index.html && exec python3 -m http.server 8080 --bind ::"]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
"#
    )
}

/// A pod whose only container runs a script.
pub fn pod(name: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        "\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 2\n{more}  containers:\n  - name: c\n    image: sh\n    command: [sh, -c, {script}]\n"
    )
}
