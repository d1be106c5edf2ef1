//! From a process of the sandbox to a container's program: the last steps, done by a process that has one thread.
//!
//! The supervisor (or `weft sandbox exec`) starts `weft sandbox __launch` inside the namespaces that the program shall have and
//! passes a [`Launch`] in its environment. The shim builds the root (only for a container's first process), gives up what the
//! program must not have, and becomes the program. What it cannot do, it says on standard error, which is the container's log.

use crate::root::{self, Mount};
use anyhow::{Context as _, anyhow, bail};
use nix::{
    sys::signal::{SigSet, Signal},
    unistd::{Gid, Uid, setgid, setgroups, sethostname, setuid},
};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

/// Where a shim finds what to do.
pub const VARIABLE: &str = "WEFT_SANDBOX_LAUNCH";
/// Exit code when the program does not exist, as a shell's.
pub const NOT_FOUND: i32 = 127;
/// Exit code when the program could not be started for another reason.
pub const NOT_STARTED: i32 = 126;

/// What Docker and containerd leave to a root container.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The root and the names of a container that is about to come into being.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Root {
    /// An empty directory that the new root is built over.
    pub scratch: PathBuf,
    /// Host name.
    pub hostname: String,
    /// Files that the container's root has instead of the machine's.
    pub files: BTreeMap<PathBuf, String>,
    /// Volumes, in order.
    pub mounts: Vec<Mount>,
    /// Nothing but volumes can be written.
    pub read_only: bool,
}

/// A program and everything that it gets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Launch {
    /// Present for a container's first process; a program that joins a container uses the root that is there.
    pub root: Option<Root>,
    /// The program and its arguments.
    pub words: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts; `/` when empty.
    pub working_dir: PathBuf,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities that the program may come to have, by their names without `CAP_`.
    pub capabilities: BTreeSet<String>,
    /// Nothing that it starts may have more power than itself (setuid programs).
    pub no_new_privileges: bool,
    /// Ends when the process that started it ends.
    pub with_parent: bool,
}

/// The capabilities of a container: the defaults, with what its securityContext adds and drops.
pub fn capabilities(add: &[String], drop: &[String], privileged: bool) -> BTreeSet<String> {
    let plain = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
    let all = || {
        CapabilitySet::all()
            .iter_names()
            .map(|(name, _)| name.to_string())
            .collect::<BTreeSet<_>>()
    };
    if privileged || add.iter().any(|c| plain(c) == "ALL") {
        return all();
    }
    let mut set: BTreeSet<String> = DEFAULT_CAPABILITIES.iter().map(|c| c.to_string()).collect();
    let dropped: BTreeSet<String> = drop.iter().map(plain).collect();
    set.retain(|c| !dropped.contains("ALL") && !dropped.contains(c));
    set.extend(add.iter().map(plain));
    set
}

impl Launch {
    /// The command that does it: the shim, from a copy of this program that every user can run.
    pub fn command(&self, shim: &std::path::Path) -> anyhow::Result<Command> {
        let mut command = Command::new(shim);
        command
            .args(["sandbox", "__launch"])
            .env_clear()
            .env(VARIABLE, serde_json::to_string(self)?)
            .current_dir("/");
        Ok(command)
    }

    fn run(self) -> anyhow::Result<std::convert::Infallible> {
        if let Some(root) = &self.root {
            root::build(root)?;
            sethostname(&root.hostname).context("setting the host name")?;
        }
        let directory = if self.working_dir.as_os_str().is_empty() {
            "/".into()
        } else {
            self.working_dir.clone()
        };
        if self.root.is_some() && !directory.exists() {
            // As a container runtime does for an image's WORKDIR.
            let _ = std::fs::create_dir_all(&directory);
        }
        env::set_current_dir(&directory).with_context(|| format!("workingDir {}", directory.display()))?;
        if self.root.as_ref().is_some_and(|r| r.read_only) {
            root::seal()?;
        }
        self.drop_privileges()?;
        // Whoever started the shim may have held signals back for itself.
        SigSet::empty().thread_set_mask().context("taking signals again")?;
        let Some((program, arguments)) = self.words.split_first() else {
            bail!("no program to run")
        };
        let error = Command::new(program).args(arguments).env_clear().envs(&self.env).exec();
        match error.kind() {
            io::ErrorKind::NotFound => {
                eprintln!(
                    "weft sandbox: '{program}' does not exist on this machine (PATH={})",
                    self.env.get("PATH").map_or("", String::as_str)
                );
                std::process::exit(NOT_FOUND)
            }
            _ => Err(anyhow!("cannot run '{program}' as user {}: {error}", self.uid)),
        }
    }

    fn drop_privileges(&self) -> anyhow::Result<()> {
        for (name, capability) in CapabilitySet::all().iter_names() {
            if !self.capabilities.contains(name) {
                // A kernel that does not know a capability cannot grant it either.
                let _ = rustix::thread::remove_capability_from_bounding_set(capability);
            }
        }
        let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        setgroups(&groups).context("setting groups")?;
        setgid(Gid::from_raw(self.gid)).context("setting the group")?;
        setuid(Uid::from_raw(self.uid)).context("setting the user")?;
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs().context("forbidding new privileges")?;
        }
        if self.with_parent {
            // After setuid, which resets it.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("tying the process to its parent")?;
        }
        Ok(())
    }
}

/// `weft sandbox __launch`: never returns when the program starts.
pub fn main() -> anyhow::Result<()> {
    let text = env::var(VARIABLE)
        .with_context(|| format!("{VARIABLE} is not set; this command is started by the sandbox only"))?;
    let launch: Launch = serde_json::from_str(&text)?;
    let Err(error) = launch.run();
    eprintln!("weft sandbox: {error:#}");
    std::process::exit(NOT_STARTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_container_has_what_a_runtime_leaves_it_and_no_more() {
        let names = |add: &[&str], drop: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|c| c.to_string()).collect::<Vec<_>>();
            capabilities(&own(add), &own(drop), false)
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[], &[]).len(), 14);
        assert!(!names(&[], &[]).contains(&"NET_ADMIN".to_string()));
        assert_eq!(names(&["NET_ADMIN", "CAP_NET_RAW"], &["ALL"]), ["NET_ADMIN", "NET_RAW"]);
        assert!(!names(&[], &["CHOWN"]).contains(&"CHOWN".to_string()));
        assert!(capabilities(&[], &[], true).contains("SYS_ADMIN"));
    }
}
