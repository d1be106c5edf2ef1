//! Leaving nothing behind: whatever a sandbox has made, found without the help of its supervisor, which may have been killed.

use crate::{
    address::Ranges,
    netns::{self, Netns},
    network::outside_link,
    paths::Paths,
    supervisor::Settings,
};
use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    thread::sleep,
    time::{Duration, Instant},
};

/// Time for killed processes to vanish.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every process that lives in one of the sandbox's network namespaces. That is all of them: what a container starts stays in.
pub fn processes(paths: &Paths) -> Vec<i32> {
    let names = Netns::list(&paths.netns_prefix());
    let inodes: BTreeSet<u64> = names
        .iter()
        .filter_map(|n| Some(fs::metadata(format!("/run/netns/{n}")).ok()?.ino()))
        .collect();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| inodes.contains(&m.ino()));
    numbers.filter(inside).collect()
}

/// Whether a process runs; one that has ended and was not reaped does not.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Ends every process of a sandbox but `except`, and removes its namespaces and files.
pub fn remove(paths: &Paths, except: Option<u32>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<i32> = processes(paths)
            .into_iter()
            .filter(|pid| u32::try_from(*pid).ok() != except)
            .collect();
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            anyhow::bail!(
                "processes {left:?} of sandbox '{}' do not end; look at them, then run `weft sandbox down` again",
                paths.name()
            );
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        sleep(Duration::from_millis(20));
    }
    for name in Netns::list(&paths.netns_prefix()) {
        Netns::open(&name)
            .and_then(Netns::delete)
            .with_context(|| format!("removing the network namespace {name}"))?;
    }
    // The wire to the machine goes with the node's namespace, which the kernel takes away when it likes; two of one name must not meet.
    if let Ok(settings) = Settings::read(paths) {
        let link = outside_link(Ranges { index: settings.index });
        let _ = netns::batch(&[], &[format!("link delete {link}")]);
    }
    for directory in [paths.programs(), paths.directory()] {
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
        }
    }
    // The last one turns off the light; others keep it, which is fine.
    let _ = fs::remove_file(paths.root().join(".lock"));
    let _ = fs::remove_dir(paths.root());
    let _ = paths.programs().parent().map(fs::remove_dir);
    Ok(())
}
