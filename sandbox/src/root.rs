//! A container's root: the machine's own files under a layer that takes every change and goes away with the container.
//!
//! All mounts are made in a mount namespace of the container's own, so there is nothing to clean up. Runs in the shim, which
//! has one thread and is the first process of its namespaces.

use crate::launch::Root;
use anyhow::{Context as _, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::pivot_root,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Where the machine's root is seen while the new one is furnished.
const OLD: &str = "/.weft-old-root";
/// Trees that are shared with the machine as they are; `/proc` is the container's own.
const SHARED: [&str; 2] = ["/dev", "/sys"];
/// Trees that belong to somebody else's containers, or to the machine's namespaces.
const OTHERS: [&str; 5] = [
    "/run/netns",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
];
/// Kinds of file systems that make no sense in a container.
const LEFT_OUT: [&str; 8] = [
    "nsfs",
    "autofs",
    "rpc_pipefs",
    "binfmt_misc",
    "tracefs",
    "debugfs",
    "bpf",
    "proc",
];

/// One volume in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// A directory or file of the machine.
    pub source: PathBuf,
    /// Where the container sees it.
    pub target: PathBuf,
    /// The container cannot write there.
    pub read_only: bool,
}

/// Makes the new root and moves into it.
pub fn build(root: &Root) -> anyhow::Result<()> {
    let none = None::<&str>;
    // Nothing that is mounted here reaches the machine; what the machine unmounts goes away here.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("leaving the machine's mounts")?;
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the machine's mounts")?;
    let scratch = &root.scratch;
    mount(
        Some("tmpfs"),
        scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .context("mounting the scratch tmpfs")?;
    let new = scratch.join("root");
    directory(&new)?;
    layer(scratch, 0, Path::new("/"), &new)
        .context("mounting overlayfs; `weft check` tells whether this kernel has it")?;
    for (number, point) in submounts(&table).into_iter().enumerate() {
        submount(scratch, number + 1, &new, &point);
    }
    for tree in SHARED {
        let target = new.join(&tree[1..]);
        mount(Some(tree), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .with_context(|| format!("binding {tree}"))?;
    }
    mount(Some("proc"), &new.join("proc"), Some("proc"), MsFlags::empty(), none).context("mounting /proc")?;
    let old = new.join(&OLD[1..]);
    directory(&old)?;
    pivot_root(&new, &old).context("changing the root")?;
    std::env::set_current_dir("/")?;
    for (path, text) in &root.files {
        // Removed first: the machine's may be a symbolic link to somewhere else.
        let _ = fs::remove_file(path);
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    for volume in &root.mounts {
        bind(volume).with_context(|| format!("mounting {}", volume.target.display()))?;
    }
    umount2(OLD, MntFlags::MNT_DETACH).context("leaving the machine's root")?;
    fs::remove_dir(OLD)?;
    Ok(())
}

/// Makes the root itself read-only; volumes stay as they are.
pub fn seal() -> anyhow::Result<()> {
    let none = None::<&str>;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, "/", none, flags, none).context("making the root read-only")
}

fn directory(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("making {}", path.display()))
}

fn layer(scratch: &Path, number: usize, lower: &Path, target: &Path) -> anyhow::Result<()> {
    let (upper, work) = (
        scratch.join(format!("upper{number}")),
        scratch.join(format!("work{number}")),
    );
    directory(&upper)?;
    directory(&work)?;
    // The upper directory's mode is what the merged one shows: /tmp must stay as open as it is.
    fs::set_permissions(&upper, fs::metadata(lower)?.permissions())?;
    if [lower, &upper, &work]
        .iter()
        .any(|p| p.to_string_lossy().contains([',', ':', '\\']))
    {
        bail!("overlayfs cannot take the path {}", lower.display());
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    Ok(())
}

/// The mounts below `/` that the container shall see, outermost first, each once.
fn submounts(table: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else {
            continue;
        };
        let point = PathBuf::from(point.replace("\\040", " "));
        let shared = SHARED
            .iter()
            .chain(&OTHERS)
            .chain(&["/proc"])
            .any(|tree| point.starts_with(tree));
        if point != Path::new("/") && !shared && !LEFT_OUT.contains(&kind) {
            found.insert(point);
        }
    }
    found
}

/// Another file system of the machine: layered like the root where the kernel can, shared where it cannot. One that is not
/// even there (hidden by another mount) is left out.
fn submount(scratch: &Path, number: usize, new: &Path, point: &Path) {
    let Ok(below) = point.strip_prefix("/") else { return };
    let target = new.join(below);
    if !target.exists() || !point.exists() {
        return;
    }
    let layered = point.is_dir() && layer(scratch, number, point, &target).is_ok();
    if !layered {
        let _ = mount(Some(point), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    }
}

fn bind(volume: &Mount) -> anyhow::Result<()> {
    let none = None::<&str>;
    let source = Path::new(OLD).join(volume.source.strip_prefix("/").unwrap_or(&volume.source));
    if source.is_dir() {
        fs::create_dir_all(&volume.target)?;
    } else if !volume.target.exists() {
        volume.target.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&volume.target, "")?;
        fs::set_permissions(&volume.target, fs::Permissions::from_mode(0o644))?;
    }
    mount(
        Some(&source),
        &volume.target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )?;
    if volume.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, &volume.target, none, flags, none)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_file_systems_are_seen_outermost_first_without_those_that_are_its_own() {
        let table = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:5 / /proc rw - proc proc rw\n\
                     30 21 8:3 / /home/a\\040b rw shared:1 - ext4 /dev/sda3 rw\n29 21 8:2 / /home rw - ext4 /dev/sda2 rw\n\
                     31 21 0:9 / /dev/shm rw - tmpfs tmpfs rw\n32 21 0:4 net:[1] /run/netns/x rw - nsfs nsfs rw\n";
        let found: Vec<String> = submounts(table).into_iter().map(|p| p.display().to_string()).collect();
        assert_eq!(found, ["/home", "/home/a b"]);
    }
}
