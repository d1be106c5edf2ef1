//! Processes of containers: starting the first one, joining it, ending it.

use crate::{
    enter::{self, Enter},
    launch::Launch,
    netns::Netns,
};
use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, time::timeout};

/// The first process of a container. All others of the container end with it.
#[derive(Clone, Debug)]
pub struct Process {
    pid: u32,
    shim: PathBuf,
    ended: watch::Receiver<Option<i32>>,
}

impl Process {
    /// Starts a container's program in a network namespace; both of its streams go to the log.
    pub fn start(netns: &Netns, shim: &Path, launch: &Launch, log: &Path) -> anyhow::Result<Process> {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .with_context(|| format!("opening {}", log.display()))
        };
        let mut command = launch.command(shim)?;
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let mut command = tokio::process::Command::from(command);
        let runtime = Handle::current();
        let mut child = netns.spawn_isolated(move || {
            let _inside = runtime.enter();
            command.spawn()
        })?;
        let pid = child.id().context("a process that was just started has a number")?;
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            let code = child.wait().await.map_or(1, enter::code);
            end.send_replace(Some(code));
        });
        Ok(Process {
            pid,
            shim: shim.to_path_buf(),
            ended,
        })
    }

    /// Its number on the machine.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end; the exit code as a shell gives it.
    pub async fn ended(&self) -> i32 {
        let mut ended = self.ended.clone();
        // The sender lives as long as the process does.
        let code = ended.wait_for(Option::is_some).await.map(|code| *code);
        code.ok().flatten().unwrap_or(1)
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended.borrow().is_none()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// TERM, and KILL when it has not ended by then.
    pub async fn end(&self, grace: Duration) -> i32 {
        self.signal(Signal::SIGTERM);
        if let Ok(code) = timeout(grace, self.ended()).await {
            return code;
        }
        self.signal(Signal::SIGKILL);
        self.ended().await
    }

    /// Runs a command inside the container; what it said when it failed or took too long.
    pub async fn exec(&self, launch: Launch, limit: Duration) -> Result<(), String> {
        let enter = Enter {
            pid: self.pid,
            shim: self.shim.clone(),
            launch,
        };
        let mut command = tokio::process::Command::from(enter.command().map_err(|e| e.to_string())?);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let output = child.map_err(|e| e.to_string())?.wait_with_output();
        let output = timeout(limit, output)
            .await
            .map_err(|_| format!("no result after {limit:?}"))?
            .map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = if output.stderr.is_empty() {
            output.stdout
        } else {
            output.stderr
        };
        let said: String = String::from_utf8_lossy(&said).trim().chars().take(200).collect();
        Err(format!("exit code {}: {said}", enter::code(output.status)))
    }
}
