//! Where the tests' cluster comes from: kind, the project's own one-node Kubernetes, or one that runs already.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Ran, repository};

/// What runs the cluster.
#[derive(Debug)]
pub(super) enum Node {
    /// tests/kube-node, with its state in this folder.
    Own(PathBuf),
    /// kind, in Docker, under this name; kubeconfig and the configuration lie in this folder.
    Kind(String, tempfile::TempDir),
    /// The one of `KUBECONFIG`, and the command that imports an image archive, from `WEFT_E2E_LOAD`.
    Existing(PathBuf, String),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(_) => f.write_str("a one-node Kubernetes (tests/kube-node)"),
            Self::Kind(name, _) => write!(f, "a Kubernetes in Docker (kind {name})"),
            Self::Existing(kubeconfig, _) => write!(f, "the Kubernetes of {}", kubeconfig.display()),
        }
    }
}

impl Node {
    /// Chooses, as [`super::Cluster::up`] says.
    pub(super) fn chosen() -> Result<Self> {
        match env::var("WEFT_E2E_CLUSTER").as_deref() {
            Ok("existing") => Self::existing(),
            Ok("kind") => Self::kind(),
            Ok("node") => Ok(Self::own()),
            Ok("") | Err(_) if docker_answers() && is_there("kind") && is_there("kubectl") => Self::kind(),
            Ok("") | Err(_) => Ok(Self::own()),
            Ok(other) => bail!("WEFT_E2E_CLUSTER: '{other}' is not node, kind or existing"),
        }
    }

    fn own() -> Self {
        Self::Own(env::var_os("WEFT_KUBE_STATE").map_or_else(|| "/tmp/weft-kube".into(), PathBuf::from))
    }

    fn kind() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-kind-").tempdir()?;
        Ok(Self::Kind(format!("weft-{}", std::process::id()), folder))
    }

    fn existing() -> Result<Self> {
        let kubeconfig = env::var_os("KUBECONFIG").context("WEFT_E2E_CLUSTER=existing needs KUBECONFIG")?;
        let load = env::var("WEFT_E2E_LOAD").context(
            "WEFT_E2E_CLUSTER=existing needs WEFT_E2E_LOAD, the command that imports the image archives that follow, as \
             `tests/kube-node/load` or `kind load image-archive --name NAME`",
        )?;
        Ok(Self::Existing(kubeconfig.into(), load))
    }

    /// Whether the cluster outlives the tests.
    pub(super) fn was_there(&self) -> bool {
        matches!(self, Self::Existing(..))
    }

    /// Starts it; the kubeconfig.
    pub(super) fn up(&self) -> Result<PathBuf> {
        match self {
            Self::Own(state) => {
                let mut command = Command::new(repository().join("tests/kube-node/up"));
                // What it builds, and why it refuses, is told as it goes.
                told(command.env("WEFT_KUBE_STATE", state).stdout(Stdio::null()))?;
                Ok(state.join("kubeconfig"))
            }
            Self::Kind(name, folder) => {
                let kubeconfig = folder.path().join("kubeconfig");
                let configuration = folder.path().join("kind.yaml");
                std::fs::write(
                    &configuration,
                    "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {ipFamily: dual}\nnodes: [{role: control-plane}]\n",
                )?;
                let mut command = Command::new("kind");
                command.args(["create", "cluster", "--wait", "120s", "--name", name]);
                told(
                    command
                        .arg("--config")
                        .arg(configuration)
                        .arg("--kubeconfig")
                        .arg(&kubeconfig),
                )?;
                Ok(kubeconfig)
            }
            Self::Existing(kubeconfig, _) => Ok(kubeconfig.clone()),
        }
    }

    /// Imports image archives.
    pub(super) fn load(&self, archives: &[PathBuf]) -> Result<()> {
        match self {
            Self::Own(state) => {
                let mut command = Command::new(repository().join("tests/kube-node/load"));
                quiet(command.env("WEFT_KUBE_STATE", state).args(archives))
            }
            Self::Kind(name, _) => archives.iter().try_for_each(|archive| {
                let mut command = Command::new("kind");
                quiet(command.args(["load", "image-archive", "--name", name]).arg(archive))
            }),
            Self::Existing(_, load) => {
                let mut command = Command::new("bash");
                quiet(command.args(["-c", &format!("{load} \"$@\""), "load"]).args(archives))
            }
        }
    }

    /// Ends it, unless it was there before.
    pub(super) fn down(&self) -> Result<()> {
        match self {
            Self::Own(state) => {
                let mut command = Command::new(repository().join("tests/kube-node/down"));
                told(command.env("WEFT_KUBE_STATE", state))
            }
            Self::Kind(name, _) => quiet(Command::new("kind").args(["delete", "cluster", "--name", name])),
            Self::Existing(..) => Ok(()),
        }
    }

    /// The folder that has the node's `kubectl`.
    pub(super) fn programs(&self) -> Option<PathBuf> {
        match self {
            Self::Own(state) => Some(state.join("bin")),
            Self::Kind(..) | Self::Existing(..) => None,
        }
    }

    /// See [`super::Cluster::node_state`].
    pub(super) fn state(&self) -> Option<PathBuf> {
        match self {
            Self::Own(state) => Some(state.clone()),
            Self::Kind(..) => None,
            Self::Existing(..) => env::var_os("WEFT_KUBE_STATE").map(PathBuf::from),
        }
    }
}

fn docker_answers() -> bool {
    let mut command = Command::new("timeout");
    command
        .args(["10", "docker", "info"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}

/// Runs a command whose messages the person should see.
fn told(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}; the reason is above");
    Ok(())
}

/// Runs a command whose messages matter only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    Ran::from(output).ok().with_context(|| format!("{command:?}"))?;
    Ok(())
}
