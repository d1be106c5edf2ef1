//! Joining a container that runs: `weft sandbox exec`, exec probes and preStop hooks.
//!
//! The process that joins must have one thread (setns(2)), and a PID namespace takes only its children in; so this is a program
//! that enters, starts the shim as its child, and ends as the child ends.

use crate::launch::Launch;
use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::File,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Command, ExitStatus},
};

/// Where the program finds what to do.
pub const VARIABLE: &str = "WEFT_SANDBOX_ENTER";

/// Which container to join, and what to run in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enter {
    /// The container's first process, as the machine numbers it.
    pub pid: u32,
    /// The shim.
    pub shim: PathBuf,
    /// What to run.
    pub launch: Launch,
}

impl Enter {
    /// The command that does it.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.shim);
        command
            .args(["sandbox", "__enter"])
            .env_clear()
            .env(VARIABLE, serde_json::to_string(self)?);
        Ok(command)
    }

    /// Joins, runs, waits. The calling process must have one thread, and stays inside.
    pub fn run(&self) -> anyhow::Result<ExitStatus> {
        let directory = PathBuf::from(format!("/proc/{}/ns", self.pid));
        let open = |name: &str| {
            File::open(directory.join(name)).with_context(|| format!("the container has ended (process {})", self.pid))
        };
        let kinds = [
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("net", CloneFlags::CLONE_NEWNET),
            ("pid", CloneFlags::CLONE_NEWPID),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let files = kinds
            .iter()
            .map(|(name, flag)| open(name).map(|file| (file, *flag)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for (file, flag) in files {
            setns(file, flag).context("joining the container's namespaces")?;
        }
        let mut child = self
            .launch
            .command(&self.shim)?
            .spawn()
            .context("starting in the container")?;
        child.wait().context("waiting for the command")
    }
}

/// The exit code that a shell would give.
pub fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// `weft sandbox __enter`.
pub fn main() -> anyhow::Result<i32> {
    let text = env::var(VARIABLE)
        .with_context(|| format!("{VARIABLE} is not set; this command is started by the sandbox only"))?;
    let mut enter: Enter = serde_json::from_str(&text)?;
    // Whoever gives up on this process gives up on what it started, too.
    enter.launch.with_parent = true;
    Ok(code(enter.run()?))
}
