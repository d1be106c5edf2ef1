//! `weft sandbox`: the words of its commands.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    env,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};
use weft_sandbox::{
    client::{self, Sandbox, Up},
    enter, launch, manifest,
    object::Object,
    paths::{DEFAULT_NAME, DEFAULT_ROOT, Paths},
    store,
    supervisor::{
        self,
        control::{Request, Target},
    },
};

/// The name that stands for the node in `exec`.
const NODE: &str = "node";

/// Which sandbox.
#[derive(Args, Clone)]
pub struct Which {
    /// Name of the sandbox.
    #[arg(long, default_value = DEFAULT_NAME, env = "WEFT_SANDBOX")]
    name: String,
    /// Directory with the sandboxes' state.
    #[arg(long, default_value = DEFAULT_ROOT)]
    state_dir: PathBuf,
}

/// The commands of `weft sandbox`.
#[derive(Subcommand)]
pub enum Command {
    /// Starts a sandbox with the manifests of a directory, and waits until everything is ready.
    Up {
        /// Directory with YAML manifests, and with images.yaml where images need commands.
        directory: PathBuf,
        #[command(flatten)]
        which: Which,
        /// The command that stands for an image, as web="python3 -m http.server 8080"; may be given several times.
        #[arg(long = "image", value_name = "NAME=COMMAND")]
        images: Vec<String>,
        /// Directory with weft's programs; the one of this program by default.
        #[arg(long, value_name = "DIR")]
        bin_dir: Option<PathBuf>,
        /// Without weft: no controller, no injector, nothing is meshed.
        #[arg(long)]
        no_mesh: bool,
        /// Where the proxies export spans to, as http://collector.observe:4317: OTLP over gRPC, without TLS.
        #[arg(long, value_name = "URL")]
        otlp_endpoint: Option<String>,
        /// The share of traces that begin at a proxy and are recorded, from 0 to 1.
        #[arg(long, value_name = "RATIO", requires = "otlp_endpoint")]
        trace_sampling: Option<String>,
        /// How long to wait until everything is ready, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 180)]
        wait: u64,
    },
    /// Runs a command as an application inside a pod; `node` runs it on the node, outside of every pod and of the mesh.
    Exec {
        /// POD or POD.NAMESPACE; a workload's name means its first ready pod; `node` means the node.
        pod: String,
        #[command(flatten)]
        which: Which,
        /// The container; the first application by default.
        #[arg(short, long)]
        container: Option<String>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
    /// Creates or changes the objects of files.
    Apply {
        #[command(flatten)]
        which: Which,
        /// A file, a directory, or - for standard input; may be given several times.
        #[arg(short, long = "file", required = true)]
        files: Vec<PathBuf>,
        /// Wait until everything is ready, for at most so many seconds; 0 does not wait.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Removes the objects of files, or one object.
    Delete {
        #[command(flatten)]
        which: Which,
        /// A file, a directory, or - for standard input; may be given several times.
        #[arg(short, long = "file")]
        files: Vec<PathBuf>,
        /// KIND NAME of one object.
        #[arg(num_args = 2, value_names = ["KIND", "NAME"], conflicts_with = "files", required_unless_present = "files")]
        object: Vec<String>,
        /// Namespace of the one object.
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Shows objects: pods, services, deployments, endpointslices, httproutes, ...
    Get {
        /// The kind, as pods, pod or po.
        kind: String,
        #[command(flatten)]
        which: Which,
        /// One object.
        object: Option<String>,
        /// One namespace; all by default.
        #[arg(short, long)]
        namespace: Option<String>,
        /// `yaml` or `json` instead of a table.
        #[arg(short, long, value_parser = ["yaml", "json"])]
        output: Option<String>,
    },
    /// Shows what a container wrote.
    Logs {
        /// POD or POD.NAMESPACE; a workload's name means its first ready pod.
        pod: String,
        #[command(flatten)]
        which: Which,
        /// The container; the first application by default.
        #[arg(short, long)]
        container: Option<String>,
        /// Goes on as it grows.
        #[arg(short, long)]
        follow: bool,
    },
    /// Sets the number of pods of a deployment or a statefulset.
    Scale {
        /// As deployment or statefulset.
        kind: String,
        /// Its name.
        object: String,
        /// How many pods.
        replicas: u32,
        #[command(flatten)]
        which: Which,
        /// Its namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Waits until everything is ready.
    Wait {
        #[command(flatten)]
        which: Which,
        /// At most so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 180)]
        seconds: u64,
    },
    /// Ends a sandbox and removes everything that it made.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// The process behind a sandbox.
    #[command(name = "__supervise", hide = true)]
    Supervise {
        #[command(flatten)]
        which: Which,
    },
    /// A container's first steps.
    #[command(name = "__launch", hide = true)]
    Launch,
    /// Joining a container.
    #[command(name = "__enter", hide = true)]
    Enter,
}

impl Command {
    /// Does it; the exit code.
    pub fn run(self) -> anyhow::Result<i32> {
        match self {
            Command::Up {
                directory,
                which,
                images,
                bin_dir,
                no_mesh,
                otlp_endpoint,
                trace_sampling,
                wait,
            } => {
                let tracing = [("--otlp-endpoint", otlp_endpoint), ("--trace-sampling", trace_sampling)];
                let tracing = tracing
                    .into_iter()
                    .filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
                let up = Up {
                    directory,
                    images,
                    programs: bin_dir,
                    mesh: !no_mesh,
                    injector: tracing.flatten().collect(),
                    wait: Duration::from_secs(wait),
                };
                which.up(&up)?;
            }
            Command::Exec { pod, which, words, .. } if pod == NODE => drop(which.sandbox()?.exec_on_node(&words)?),
            Command::Exec {
                pod,
                which,
                container,
                words,
            } => return which.sandbox()?.exec(target(&pod, container), words),
            Command::Apply { which, files, wait } => {
                let sandbox = which.sandbox()?;
                say_all(&sandbox.ask(&Request::Apply(sources(&files)?))?);
                if wait > 0 {
                    sandbox.wait(Duration::from_secs(wait), &mut |line| println!("{line}"))?;
                }
            }
            Command::Delete {
                which,
                files,
                object,
                namespace,
            } => {
                let request = match object.as_slice() {
                    [kind, name] => Request::DeleteOne {
                        kind: kind.clone(),
                        namespace,
                        name: name.clone(),
                    },
                    _ => Request::Delete(sources(&files)?),
                };
                say_all(&which.sandbox()?.ask(&request)?);
            }
            Command::Get {
                kind,
                which,
                object,
                namespace,
                output,
            } => {
                let sandbox = which.sandbox()?;
                let (namespace, object) = (namespace.as_deref(), object.as_deref());
                match output.as_deref() {
                    None => print!("{}", sandbox.table(&kind, namespace, object)?),
                    Some(format) => print!(
                        "{}",
                        listed(&sandbox.get(&kind, namespace, object)?, object.is_some(), format)?
                    ),
                }
            }
            Command::Logs {
                pod,
                which,
                container,
                follow,
            } => which.sandbox()?.logs(target(&pod, container), follow)?,
            Command::Scale {
                kind,
                object,
                replicas,
                which,
                namespace,
            } => {
                which.sandbox()?.ask(&Request::Scale {
                    kind,
                    namespace,
                    name: object,
                    replicas,
                })?;
            }
            Command::Wait { which, seconds } => {
                which
                    .sandbox()?
                    .wait(Duration::from_secs(seconds), &mut |line| println!("{line}"))?;
            }
            Command::Down { which } => {
                let found = which.sandbox()?.down()?;
                println!(
                    "sandbox '{}' {}",
                    which.name,
                    if found { "is gone" } else { "was not up" }
                );
            }
            Command::Supervise { which } => supervisor::main(&which.state_dir, &which.name)?,
            Command::Launch => launch::main()?,
            Command::Enter => return enter::main(),
        }
        Ok(0)
    }
}

impl Which {
    fn sandbox(&self) -> anyhow::Result<Sandbox> {
        Sandbox::new(&self.state_dir, &self.name)
    }

    /// What to write after `weft sandbox COMMAND` to mean this one.
    fn words(&self) -> String {
        let name = if self.name == DEFAULT_NAME {
            String::new()
        } else {
            format!(" --name {}", self.name)
        };
        let state = if self.state_dir == Path::new(DEFAULT_ROOT) {
            String::new()
        } else {
            format!(" --state-dir {}", self.state_dir.display())
        };
        name + &state
    }

    fn up(&self, up: &Up) -> anyhow::Result<()> {
        let sandbox = self.sandbox()?;
        let words = self.words();
        let result = sandbox.up(up, &mut |line| println!("{line}"));
        if result.is_ok() || sandbox.ask(&Request::Progress).is_ok() {
            println!("\n{}", sandbox.table("pods", None, None)?);
            println!("Look further:");
            println!(
                "  weft sandbox get pods{words}                    also services, endpointslices, httproutes, ...; -o yaml"
            );
            println!(
                "  weft sandbox exec POD.NAMESPACE{words} -- CMD   as an application of that pod; `exec node` is outside of the mesh"
            );
            println!("  weft sandbox logs POD.NAMESPACE{words}          -c weft-proxy shows the mesh's own access log");
            println!("  weft sandbox apply{words} -f FILE               changes things; `delete -f FILE` removes them");
            println!("  weft sandbox down{words}                        ends it and leaves nothing behind");
        }
        result
    }
}

/// Runs a command in a container of a sandbox's pod; the exit code.
pub fn exec_in(
    name: &str,
    pod: &str,
    namespace: Option<String>,
    container: &str,
    words: Vec<String>,
) -> anyhow::Result<i32> {
    let target = Target {
        pod: pod.into(),
        namespace,
        container: Some(container.into()),
    };
    Sandbox::new(Path::new(DEFAULT_ROOT), name)?.exec(target, words)
}

/// Where a program of weft lies for the containers of the sandbox of this name.
pub fn program(name: &str, program: &str) -> anyhow::Result<String> {
    let paths = Paths::new(Path::new(DEFAULT_ROOT), name)?;
    Ok(paths.programs().join(program).display().to_string())
}

/// `POD[.NAMESPACE]`. A namespace has no dot; a pod's name may have.
fn target(pod: &str, container: Option<String>) -> Target {
    match pod.rsplit_once('.') {
        Some((pod, namespace)) => Target {
            pod: pod.into(),
            namespace: Some(namespace.into()),
            container,
        },
        None => Target {
            pod: pod.into(),
            namespace: None,
            container,
        },
    }
}

fn sources(files: &[PathBuf]) -> anyhow::Result<Vec<manifest::Source>> {
    let mut sources = Vec::new();
    for path in files {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(weft_proto::limits::OBJECT_FILE as u64)
                .read_to_string(&mut text)?;
            sources.push(manifest::Source {
                file: "standard input".into(),
                text,
            });
        } else if path.is_dir() {
            sources.extend(manifest::directory(path)?);
        } else {
            sources.push(manifest::file(path).context("give -f a file or a directory that exists")?);
        }
    }
    if sources.is_empty() {
        bail!(
            "no manifests there (in {}); name files that have some",
            env::current_dir().unwrap_or_default().display()
        );
    }
    Ok(sources)
}

fn say_all(answer: &serde_json::Value) {
    client::lines(answer).iter().for_each(|line| println!("{line}"));
}

/// As kubectl: one object by itself when it was named, else all of them.
fn listed(objects: &[Object], named: bool, format: &str) -> anyhow::Result<String> {
    let list = || json!({"apiVersion": "v1", "kind": "List", "items": objects});
    match (format, objects) {
        ("json", [one]) if named => Ok(serde_json::to_string_pretty(one)? + "\n"),
        ("json", _) => Ok(serde_json::to_string_pretty(&list())? + "\n"),
        _ => Ok(objects
            .iter()
            .map(store::yaml)
            .collect::<anyhow::Result<Vec<_>>>()?
            .join("---\n")),
    }
}
