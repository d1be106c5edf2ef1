//! What would be written to an API server, as files of a directory: for a sandbox, which takes them from there.
//!
//! Each object is a file `KIND.NAMESPACE.NAME.yaml` in lower case; a file whose object is not wanted any more goes. Whole files appear at
//! once: a reader never sees half of one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};
use weft_proto::limits;

use super::{Settings, Want, objects};
use crate::{answers::Answers, api::Complaint, cluster::ObjectKey};

/// Makes a directory hold what the cluster's Gateways want, for ever; from when the cluster and the settings are known.
pub async fn keep(
    directory: &Path,
    answers: Arc<Answers>,
    mut settings: watch::Receiver<Option<Settings>>,
) -> anyhow::Result<()> {
    let mut files = Files::new(directory)?;
    let mut complaint = Complaint::new("writing files of Gateways' objects");
    let mut batches = answers.batches();
    // None of them can fail: their senders live as long as the program.
    let _ = settings.wait_for(Option::is_some).await;
    answers.synced().await;
    let mut last: BTreeMap<ObjectKey, BTreeMap<String, Value>> = BTreeMap::new();
    loop {
        batches.mark_unchanged();
        let current = settings.borrow_and_update().clone().unwrap_or_default();
        let mut wanted = BTreeMap::new();
        for (gateway, want) in answers.wants() {
            let own = match want {
                Want::Front(front, parameters) => {
                    objects(&front, &parameters, &current).into_iter().map(named).collect()
                }
                Want::AsItIs => last.remove(&gateway).unwrap_or_default(),
                Want::Nothing => BTreeMap::new(),
            };
            wanted.insert(gateway, own);
        }
        last = wanted;
        let all = last
            .values()
            .flatten()
            .map(|(name, object)| (name.clone(), object.clone()));
        let mut failed = false;
        match files.hold(&all.collect()) {
            Ok(()) => complaint.works(),
            Err(error) => {
                complaint.failed(&format!("{error:#}"));
                failed = true;
            }
        }
        tokio::select! {
            _ = batches.changed() => {}
            _ = settings.changed() => {}
            // Only after a failure there is something to do again.
            () = sleep(limits::WATCH_PAUSE), if failed => {}
        }
        // Together what changes together.
        sleep(limits::GATEWAY_SETTLES).await;
    }
}

fn named(object: Value) -> (String, Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let name = file_name(
        &text(&object["kind"]),
        &text(&metadata["namespace"]),
        &text(&metadata["name"]),
    );
    (name, object)
}

/// A directory that holds what is wanted and nothing else.
pub struct Files {
    directory: PathBuf,
    /// Texts by file name, as they were written.
    written: Option<BTreeMap<String, String>>,
}

/// The name of an object's file. An empty namespace is left out.
pub fn file_name(kind: &str, namespace: &str, name: &str) -> String {
    let parts = [kind.to_ascii_lowercase(), namespace.to_owned(), name.to_owned()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}.yaml", parts.join("."))
}

impl Files {
    /// The directory is made where it is missing.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        Ok(Self {
            directory: directory.to_owned(),
            written: None,
        })
    }

    /// Makes the directory hold these, by the names of their files. What fails is tried again at the next call.
    pub fn hold(&mut self, wanted: &BTreeMap<String, Value>) -> anyhow::Result<()> {
        let mut written = match self.written.take() {
            Some(written) => written,
            // Files of a process that ran before this one.
            None => self.there()?,
        };
        let mut result = Ok(());
        for (name, object) in wanted {
            let text = serde_saphyr::to_string(object).with_context(|| name.clone())?;
            if written.get(name) == Some(&text) {
                continue;
            }
            match self.write(name, &text) {
                Ok(()) => drop(written.insert(name.clone(), text)),
                Err(error) => result = Err(error),
            }
        }
        let gone: Vec<String> = written
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            match fs::remove_file(self.directory.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    result = Err(error).with_context(|| self.directory.join(&name).display().to_string());
                }
                _ => drop(written.remove(&name)),
            }
        }
        self.written = Some(written);
        result
    }

    fn there(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut there = BTreeMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = name.filter(|name| name.ends_with(".yaml") && !name.starts_with('.')) {
                there.insert(name, fs::read_to_string(&path).unwrap_or_default());
            }
        }
        Ok(there)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!(".{name}.new"));
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_directory_holds_what_is_wanted_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("old.yaml"), "x").unwrap();
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut files = Files::new(directory.path()).unwrap();
        let (one, other) = (
            file_name("Service", "shop", "web"),
            file_name("GatewayClass", "", "weft"),
        );
        let mut wanted = BTreeMap::from([(one.clone(), json!({"a": 1})), (other.clone(), json!({}))]);
        files.hold(&wanted).unwrap();
        assert_eq!(names(), ["gatewayclass.weft.yaml", "service.shop.web.yaml"]);
        assert_eq!(fs::read_to_string(directory.path().join(&one)).unwrap(), "a: 1\n");
        wanted.remove(&one);
        files.hold(&wanted).unwrap();
        assert_eq!(names(), [other]);
    }
}
