//! What the controller would write to an API server, it writes to files: objects of Gateways, and statuses. Here they are taken from there.
//!
//! The files are looked at often, and appear whole; one that is gone takes its object along.

use super::{Supervisor, lock};
use crate::{
    manifest,
    object::{self, Key, Kind, Object},
};
use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Below the directory of what the controller writes: objects.
pub(super) const OBJECTS: &str = "objects";
/// And statuses, each in its object.
pub(super) const STATUS: &str = "status";

/// Inode, size, and time of change.
type Stamp = (u64, u64, i64, i64);

/// Files that were read, as they were.
#[derive(Default)]
struct Seen(BTreeMap<PathBuf, (Stamp, Option<Key>)>);

impl Supervisor {
    /// Takes what the controller writes, for ever.
    pub(super) async fn follow_written(self: Arc<Self>) {
        let (mut objects, mut statuses) = (Seen::default(), Seen::default());
        loop {
            let supervisor = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let directory = supervisor.cluster.paths.written();
                // What was taken away by hand comes back.
                let there = |key: &Key| supervisor.cluster.store().get(key).is_some();
                objects.forget(|key| !there(key));
                objects.look(&directory.join(OBJECTS), |key, object| {
                    supervisor.take_object(key, object)
                });
                for key in objects.gone(&directory.join(OBJECTS)) {
                    supervisor.give_up(&key);
                }
                statuses.look(&directory.join(STATUS), |key, object| {
                    supervisor.take_status(key, object)
                });
                drop(statuses.gone(&directory.join(STATUS)));
                (objects, statuses)
            });
            let Ok(seen) = looked.await else {
                tracing::error!("reading what the controller writes panicked; it is not followed any more");
                return;
            };
            (objects, statuses) = seen;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it is done: an object that a person made is left alone, and looked at again.
    fn take_object(&self, key: &Key, object: Object) -> anyhow::Result<bool> {
        let ours = lock(&self.running).written.contains(key);
        let there = self.cluster.find(key.kind, &key.namespace, &key.name);
        if there
            .as_ref()
            .is_some_and(|there| !ours && object::owner(there) != object::owner(&object))
        {
            anyhow::bail!("{key} is there already, and the controller did not make it; rename it, or the Gateway");
        }
        self.apply_system(key.clone(), object)?;
        lock(&self.running).written.insert(key.clone());
        Ok(true)
    }

    fn give_up(&self, key: &Key) {
        if lock(&self.running).written.remove(key)
            && let Err(error) = self.delete_one(key)
        {
            tracing::error!(object = %key, error = format!("{error:#}"), "an object was not removed");
        }
    }

    /// Whether it is done: an object that is not there yet, or is another one by now, is looked at again.
    fn take_status(&self, key: &Key, object: Object) -> anyhow::Result<bool> {
        let there = self.cluster.find(key.kind, &key.namespace, &key.name);
        if there.is_none_or(|there| object::uid(&there) != object::uid(&object)) {
            return Ok(false);
        }
        self.cluster.change(key, |there| {
            if object::uid(there) == object::uid(&object) {
                there["status"] = object["status"].clone();
            }
        });
        Ok(true)
    }
}

impl Seen {
    /// Has the files of some objects handed on again.
    fn forget(&mut self, is_lost: impl Fn(&Key) -> bool) {
        for (stamp, key) in self.0.values_mut() {
            if key.as_ref().is_some_and(&is_lost) {
                *stamp = Stamp::default();
            }
        }
    }

    /// Hands each file that is new or changed on; those that are not done are handed on again the next time.
    fn look(&mut self, directory: &Path, take: impl Fn(&Key, Object) -> anyhow::Result<bool>) {
        for (path, stamp) in files(directory) {
            if self.0.get(&path).is_some_and(|(seen, _)| *seen == stamp) {
                continue;
            }
            let taken = read(&path).and_then(|read| match read {
                Some((key, object)) => Ok((take(&key, object)?, Some(key))),
                // A kind of which nothing here is kept.
                None => Ok((true, None)),
            });
            match taken {
                Ok((true, key)) => drop(self.0.insert(path, (stamp, key))),
                Ok((false, _)) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(file = %path.display(), error, "what the controller wrote is not taken");
                    self.0.insert(path, (stamp, None));
                }
            }
        }
    }

    /// What stood in files that are gone.
    fn gone(&mut self, directory: &Path) -> Vec<Key> {
        let there: BTreeMap<PathBuf, Stamp> = files(directory).collect();
        let mut gone = Vec::new();
        self.0.retain(|path, (_, key)| {
            let stays = there.contains_key(path);
            if !stays {
                gone.extend(key.take());
            }
            stays
        });
        gone
    }
}

fn files(directory: &Path) -> impl Iterator<Item = (PathBuf, Stamp)> {
    // The controller makes the directory when it starts.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let data = entry.metadata().ok().filter(|data| data.is_file() && !hidden)?;
        Some((entry.path(), (data.ino(), data.size(), data.mtime(), data.mtime_nsec())))
    })
}

fn read(path: &Path) -> anyhow::Result<Option<(Key, Object)>> {
    let object: Object = manifest::parse(&fs::read_to_string(path)?).map_err(anyhow::Error::msg)?;
    if Kind::of(&object).is_none() {
        return Ok(None);
    }
    let key = Key::of(&object).context("it has no name")?;
    Ok(Some((key, object)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_file_is_taken_once_for_each_of_its_versions_and_again_while_it_is_not_done() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("configmap.shop.a.yaml");
        let text =
            |more: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: shop}}\n{more}");
        let (mut seen, taken) = (Seen::default(), RefCell::new(Vec::new()));
        let look = |seen: &mut Seen, done: bool| {
            seen.look(directory.path(), |key, _| {
                taken.borrow_mut().push(key.to_string());
                Ok(done)
            });
            taken.take().len()
        };
        fs::write(&file, text("")).unwrap();
        fs::write(
            directory.path().join("other.yaml"),
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\n",
        )
        .unwrap();
        assert_eq!(
            (look(&mut seen, false), look(&mut seen, true), look(&mut seen, true)),
            (1, 1, 0)
        );
        fs::write(&file, text("data: {x: y}\n")).unwrap();
        assert_eq!(look(&mut seen, true), 1);
        assert!(seen.gone(directory.path()).is_empty());
        fs::remove_file(&file).unwrap();
        assert_eq!(seen.gone(directory.path()), [Key::new(Kind::ConfigMap, "shop", "a")]);
    }
}
