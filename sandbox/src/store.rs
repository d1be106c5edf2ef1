//! The API's storage: every object in memory, and each as a file of its own for the controller that follows the directory.

use crate::object::{self, Key, Kind, Object, now};
use anyhow::Context as _;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// All objects of a sandbox.
#[derive(Debug)]
pub struct Store {
    objects: BTreeMap<Key, Object>,
    revision: u64,
    directory: PathBuf,
}

impl Store {
    /// An empty store over a directory that exists.
    pub fn new(directory: &Path) -> Store {
        Store {
            objects: BTreeMap::new(),
            revision: 0,
            directory: directory.to_path_buf(),
        }
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Every object of a kind, by namespace and name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects
            .range(Key::new(kind, "", "")..)
            .take_while(move |(key, _)| key.kind == kind)
    }

    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.iter()
    }

    /// How often anything has changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Stores an object; uid, creation time and status of the one it takes the place of are kept. False when nothing changed.
    pub fn put(&mut self, mut object: Object) -> anyhow::Result<bool> {
        let key = Key::of(&object).context("an object of an unknown kind")?;
        let old = self.objects.get(&key);
        let kept = |field: &str| old.map(|o| o["metadata"][field].clone()).filter(|v| !v.is_null());
        object["apiVersion"] = key.kind.api_version().into();
        object["metadata"]["uid"] = kept("uid").unwrap_or_else(|| object::new_uid().into());
        object["metadata"]["creationTimestamp"] = kept("creationTimestamp").unwrap_or_else(|| now().into());
        if key.kind.is_gateway_api() {
            // Statuses say of which version of the specification they are.
            let before = old.and_then(|old| old["metadata"]["generation"].as_i64()).unwrap_or(0);
            let same = old.is_some_and(|old| old["spec"] == object["spec"]);
            object["metadata"]["generation"] = (before + i64::from(!same)).into();
        }
        if let Some(old) = old {
            if object["status"].is_null() && !old["status"].is_null() {
                object["status"] = old["status"].clone();
            }
            object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if *old == object {
                return Ok(false);
            }
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.write(&key, &object)?;
        self.objects.insert(key, object);
        Ok(true)
    }

    /// Changes an object in place. False when it is not there or stays as it was.
    pub fn change(&mut self, key: &Key, edit: impl FnOnce(&mut Object)) -> anyhow::Result<bool> {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return Ok(false);
        };
        edit(&mut object);
        self.put(object)
    }

    /// Removes an object.
    pub fn remove(&mut self, key: &Key) -> anyhow::Result<Option<Object>> {
        let Some(object) = self.objects.remove(key) else {
            return Ok(None);
        };
        self.revision += 1;
        let path = self.path(key);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        Ok(Some(object))
    }

    fn path(&self, key: &Key) -> PathBuf {
        let parts = [
            key.kind.name().to_ascii_lowercase(),
            key.namespace.clone(),
            key.name.clone(),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        self.directory.join(format!("{}.yaml", parts.join("_")))
    }

    /// Whole files appear at once: a follower never sees half of one.
    fn write(&self, key: &Key, object: &Object) -> anyhow::Result<()> {
        let path = self.path(key);
        let text = yaml(object)?;
        let new = self.directory.join(".new");
        fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
    }
}

/// An object as YAML text.
pub fn yaml(object: &Object) -> anyhow::Result<String> {
    serde_saphyr::to_string(object).with_context(|| format!("{} {} as YAML", object["kind"], object::name(object)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_file_that_says_the_same_and_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::new(directory.path());
        let text = "multi\nline: {x}\n\ttab \"quoted\" 'and' # not a comment\n";
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a.b", "namespace": "shop"},
            "data": {"x": text, "yes": "yes", "number": "0123", "empty": "", "time": "12:30:00", "null": "null", "f": "1e3", "n": "n", "y": "Y",
                "on": "on", "octal": "0o17", "hex": "0x1f", "under": "1_000", "tilde": "~", "minus": "-", "colon": "a: b", "inf": ".inf"},
        });
        assert!(store.put(object.clone()).unwrap());
        let file = directory.path().join("configmap_shop_a.b.yaml");
        let read: Object = crate::manifest::parse(&fs::read_to_string(&file).unwrap()).unwrap();
        let key = Key::of(&object).unwrap();
        assert_eq!(Some(&read), store.get(&key));
        assert_eq!(read["data"], object["data"]);
        assert!(!store.put(object.clone()).unwrap(), "nothing changed");
        let uid = object::uid(&read).to_string();
        assert!(store.change(&key, |o| o["data"]["x"] = "y".into()).unwrap());
        assert_eq!(object::uid(store.get(&key).unwrap()), uid);
        store.remove(&key).unwrap();
        assert!(!file.exists() && store.list(Kind::ConfigMap).next().is_none());
    }

    #[test]
    fn a_generation_counts_the_changes_of_a_specification() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::new(directory.path());
        let mut route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a"}, "spec": {}});
        let key = Key::of(&route).unwrap();
        let generation = |store: &Store| store.get(&key).unwrap()["metadata"]["generation"].as_i64();
        store.put(route.clone()).unwrap();
        store
            .change(&key, |route| route["status"] = json!({"parents": []}))
            .unwrap();
        assert_eq!(generation(&store), Some(1));
        route["spec"]["rules"] = json!([]);
        store.put(route).unwrap();
        assert_eq!(generation(&store), Some(2));
    }

    #[test]
    fn a_new_manifest_does_not_take_the_status_away() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::new(directory.path());
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}});
        store.put(pod.clone()).unwrap();
        let key = Key::of(&pod).unwrap();
        store
            .change(&key, |o| o["status"] = json!({"phase": "Running"}))
            .unwrap();
        store.put(pod).unwrap();
        assert_eq!(store.get(&key).unwrap()["status"]["phase"], "Running");
    }
}
