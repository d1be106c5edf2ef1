//! Where the files of a sandbox are.

use anyhow::Context as _;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Below this, each sandbox has a directory of its name.
pub const DEFAULT_ROOT: &str = "/run/weft-sandbox";
/// Where programs are copied to when the state's file system forbids to run them.
const PROGRAMS: &str = "/var/lib/weft-sandbox";
/// The name of a sandbox that was not given one.
pub const DEFAULT_NAME: &str = "default";

/// The files of one sandbox.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
    name: String,
}

impl Paths {
    /// The files of the sandbox `name` below `root`.
    pub fn new(root: &Path, name: &str) -> anyhow::Result<Paths> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(good) {
            anyhow::bail!("--name '{name}': use at most 32 lower-case letters, digits and '-'");
        }
        let root = std::path::absolute(root).with_context(|| format!("--state-dir {}", root.display()))?;
        Ok(Paths {
            root,
            name: name.to_string(),
        })
    }

    /// The sandbox's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What all sandboxes are in.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Everything of this one.
    pub fn directory(&self) -> PathBuf {
        self.root.join(&self.name)
    }
    /// Copies of the programs, which every user can run. Many machines forbid to run what is below /run.
    pub fn programs(&self) -> PathBuf {
        let there = self.root.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let forbidden = statvfs(there).is_ok_and(|s| s.flags().contains(FsFlags::ST_NOEXEC));
        if forbidden {
            Path::new(PROGRAMS).join(&self.name)
        } else {
            self.directory().join("bin")
        }
    }
    /// The shim: a copy of `weft`.
    pub fn shim(&self) -> PathBuf {
        self.programs().join("weft")
    }
    /// The objects, for the controller.
    pub fn objects(&self) -> PathBuf {
        self.directory().join("objects")
    }
    /// What the mesh's own programs keep: the CA, keys.
    pub fn system(&self) -> PathBuf {
        self.directory().join("system")
    }
    /// What the controller would write to an API server: below it `objects` and `status`.
    pub fn written(&self) -> PathBuf {
        self.directory().join("written")
    }
    /// Directories, volumes and logs of pods.
    pub fn pods(&self) -> PathBuf {
        self.directory().join("pods")
    }
    /// Directories of persistent volume claims.
    pub fn claims(&self) -> PathBuf {
        self.directory().join("claims")
    }
    /// Where the supervisor takes commands.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("control.sock")
    }
    /// What the supervisor says.
    pub fn log(&self) -> PathBuf {
        self.directory().join("supervisor.log")
    }
    /// `resolv.conf` for commands on the node.
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory().join("resolv.conf")
    }
    /// What the supervisor was started with.
    pub fn settings(&self) -> PathBuf {
        self.directory().join("settings.json")
    }
    /// Prefix of the names of its network namespaces.
    pub fn netns_prefix(&self) -> String {
        format!("weft-{}.", self.name)
    }
    /// The network namespace that routes between the pods.
    pub fn node_netns(&self) -> String {
        format!("{}node", self.netns_prefix())
    }
    /// The network namespace of a pod.
    pub fn pod_netns(&self, namespace: &str, pod: &str, number: u16) -> String {
        // The number keeps a pod apart from one of the same name that is still on its way out.
        format!("{}{namespace}.{pod}.{number}", self.netns_prefix())
    }

    /// Makes the directories. Secrets and tokens are below directories that only root can enter.
    pub fn create(&self) -> anyhow::Result<()> {
        let closed = |path: &&Path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
        if let Some(path) = self.root.ancestors().find(closed) {
            anyhow::bail!(
                "--state-dir {}: other users cannot enter {}, and containers run as other users; choose another directory, or chmod o+x it",
                self.root.display(),
                path.display()
            );
        }
        for (path, mode) in [
            (self.root.clone(), 0o755),
            (self.directory(), 0o755),
            (self.programs(), 0o755),
            (self.objects(), 0o700),
            (self.system(), 0o700),
            (self.written(), 0o700),
            (self.pods(), 0o700),
            (self.claims(), 0o700),
        ] {
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
            made.with_context(|| format!("making {}; run as root, or choose another --state-dir", path.display()))?;
            if path != self.root {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_paths_and_namespaces_and_one_is_no_prefix_of_another() {
        let root = Path::new("/run/x");
        for bad in ["", "../x", "A", "a/b", "a.b"] {
            assert!(Paths::new(root, bad).is_err(), "{bad}");
        }
        let paths = |name| Paths::new(root, name).unwrap();
        assert!(!paths("a-b").node_netns().starts_with(&paths("a").netns_prefix()));
    }
}
