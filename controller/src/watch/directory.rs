//! The source of a cluster without Kubernetes: every YAML and JSON file below a directory, followed live.
//!
//! Files are looked at ten times a second: inotify would tell sooner, and would not tell of directories that appear, nor on
//! every file system. A file that is being written must not delete objects, so a file that changes in place is read when
//! it has kept still for one look, and what can no longer be read keeps its last good version until it can, or is removed.

mod files;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use super::{Batch, Sink, Source, parse};
use crate::cluster::{
    Change,
    types::{Key, Object},
};
use files::Stamp;

const INTERVAL: Duration = Duration::from_millis(100);

/// Follows a directory.
pub struct Directory {
    scanner: Scanner,
}

impl Directory {
    /// Fails when the directory cannot be listed.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        std::fs::read_dir(root)?;
        Ok(Self {
            scanner: Scanner::new(root.to_owned()),
        })
    }
}

impl Source for Directory {
    fn follow(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut scanner = self.scanner;
            let mut first = true;
            loop {
                let scanned = tokio::task::spawn_blocking(move || {
                    let changes = scanner.scan();
                    (scanner, changes)
                });
                let Ok((next, changes)) = scanned.await else {
                    tracing::error!("reading the directory panicked; the objects stay as they are");
                    return;
                };
                scanner = next;
                let news = first || !changes.is_empty();
                if news && sink.send(Batch { changes, synced: first }).await.is_err() {
                    return;
                }
                first = false;
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = sink.closed() => return,
                }
            }
        })
    }
}

/// What is known of the files, and what was told of them.
struct Scanner {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    told: HashMap<Key, Object>,
    /// Objects that stand in two files, so that each is said once.
    doubles: BTreeSet<(Key, PathBuf)>,
    unreadable: BTreeSet<PathBuf>,
    started: bool,
}

#[derive(Default)]
struct File {
    /// As it was when it was last read.
    stamp: Option<Stamp>,
    /// As it was at the last look, where it was not read because it may be half-written.
    pending: Option<Stamp>,
    objects: BTreeMap<Key, Object>,
}

/// One file, read.
#[derive(Default)]
struct Reading {
    objects: BTreeMap<Key, Object>,
    /// Objects that are there and cannot be read.
    refused: BTreeSet<Key>,
    /// A part of which it is unknown what it is.
    unknown: bool,
    /// Lines for the log.
    complaints: Vec<String>,
    notes: Vec<String>,
}

impl Scanner {
    fn new(root: PathBuf) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            told: HashMap::new(),
            doubles: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            started: false,
        }
    }

    /// Looks at all files and tells what changed since the last time.
    fn scan(&mut self) -> Vec<Change> {
        let listing = files::list(&self.root);
        for (path, error) in &listing.errors {
            if self.unreadable.insert(path.clone()) {
                tracing::warn!(path = %path.display(), %error, "cannot be read; what was known of it stays");
            }
        }
        self.unreadable
            .retain(|path| listing.errors.iter().any(|(other, _)| other == path));
        let mut changed = false;
        self.files.retain(|path, _| {
            let keep = listing.files.contains_key(path)
                || listing
                    .errors
                    .iter()
                    .any(|(unreadable, _)| path.starts_with(unreadable));
            changed |= !keep;
            keep
        });
        for (path, stamp) in listing.files {
            changed |= self.look(path, stamp);
        }
        self.started = true;
        if changed { self.differences() } else { Vec::new() }
    }

    /// Reads a file if it is new or changed. Whether its objects may have changed.
    fn look(&mut self, path: PathBuf, stamp: Stamp) -> bool {
        let file = self.files.entry(path.clone()).or_default();
        if file.stamp == Some(stamp) {
            file.pending = None;
            return false;
        }
        let still = file.pending == Some(stamp);
        let in_place = file.stamp.is_some_and(|old| old.same_file(&stamp));
        if in_place && !still {
            file.pending = Some(stamp);
            return false;
        }
        let reading = match files::read(&path, &stamp) {
            Ok(Some(text)) => read(&text),
            // It changed while it was read, or is gone.
            Ok(None) => return false,
            Err(error) => Reading {
                unknown: true,
                complaints: vec![error],
                ..Reading::default()
            },
        };
        if !reading.complaints.is_empty() && !still && self.started {
            // A new file that cannot be read may be half-written.
            file.pending = Some(stamp);
            return false;
        }
        for complaint in &reading.complaints {
            tracing::warn!("{}: {complaint}", path.display());
        }
        for note in &reading.notes {
            tracing::warn!("{}: {note}", path.display());
        }
        let mut objects = reading.objects;
        for (key, object) in std::mem::take(&mut file.objects) {
            if (reading.refused.contains(&key) || reading.unknown) && !objects.contains_key(&key) {
                objects.insert(key, object);
            }
        }
        file.objects = objects;
        file.stamp = Some(stamp);
        file.pending = None;
        true
    }

    /// All files together against what was told.
    fn differences(&mut self) -> Vec<Change> {
        let mut all: BTreeMap<&Key, (&PathBuf, &Object)> = BTreeMap::new();
        let mut doubles = BTreeSet::new();
        for (path, file) in &self.files {
            for (key, object) in &file.objects {
                match all.get(key) {
                    Some((first, _)) => {
                        let double = (key.clone(), path.clone());
                        if !self.doubles.contains(&double) {
                            let (path, first) = (path.display(), first.display());
                            tracing::warn!("{path}: {key} is also in {first}, which counts; remove one of them");
                        }
                        doubles.insert(double);
                    }
                    None => {
                        all.insert(key, (path, object));
                    }
                }
            }
        }
        let gone = self.told.keys().filter(|key| !all.contains_key(key)).cloned();
        let mut changes: Vec<Change> = gone.map(Change::Delete).collect();
        for (key, (_, object)) in all {
            if self.told.get(key) != Some(object) {
                changes.push(Change::Apply(Box::new(object.clone())));
            }
        }
        for change in &changes {
            match change {
                Change::Apply(object) => self.told.insert(object.key(), (**object).clone()),
                Change::Delete(key) => self.told.remove(key),
            };
        }
        self.doubles = doubles;
        changes
    }
}

fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    for document in parse::documents(text) {
        let place = format!("document {} (line {})", document.number, document.line);
        let value = match document.value {
            Ok(value) => value,
            Err(error) => {
                reading.unknown = true;
                reading.complaints.push(format!("{place}: {error}"));
                continue;
            }
        };
        for parsed in parse::objects(value) {
            let name = parsed.key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
            if !parsed.notes.is_empty() {
                reading
                    .notes
                    .push(format!("{place}{name}: {}", parsed.notes.join("; ")));
            }
            if !parsed.mistakes.is_empty() {
                reading
                    .complaints
                    .push(format!("{place}{name}: {}", parsed.mistakes.join("; ")));
                match parsed.key {
                    Some(key) => drop(reading.refused.insert(key)),
                    None => reading.unknown = true,
                }
            } else if let (Some(key), Some(object)) = (parsed.key, parsed.object) {
                match reading.objects.entry(key) {
                    Entry::Vacant(free) => drop(free.insert(object)),
                    Entry::Occupied(_) => {
                        let complaint = "the object is in this file twice; the first counts";
                        reading.complaints.push(format!("{place}{name}: {complaint}"));
                    }
                }
            }
        }
    }
    reading
}

#[cfg(test)]
mod tests;
