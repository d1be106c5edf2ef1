//! Who makes a pod anew, and the command that asks for it. Pure.

use k8s_openapi::api::core::v1::Pod;
use std::{collections::BTreeMap, fmt};

/// Label of a Deployment's pods with the hash that its ReplicaSets' names end with.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What made a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The pod's namespace.
    pub namespace: String,
    /// Kind, as `Deployment`; `Pod` for a pod that nobody owns.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl Owner {
    /// Of a pod. A Deployment is known by the name of its ReplicaSet and the pod's template hash, without asking for either.
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let references = metadata.owner_references.iter().flatten();
        let Some(controller) = references
            .into_iter()
            .find(|reference| reference.controller == Some(true))
        else {
            return Self {
                namespace,
                kind: "Pod".into(),
                name: metadata.name.clone().unwrap_or_default(),
            };
        };
        let hash = metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
        let deployment = hash
            .filter(|_| controller.kind == "ReplicaSet" && controller.api_version.starts_with("apps/"))
            .and_then(|hash| controller.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        let (kind, name) = match deployment {
            Some(name) => ("Deployment", name),
            None => (controller.kind.as_str(), controller.name.as_str()),
        };
        Self {
            namespace,
            kind: kind.into(),
            name: name.into(),
        }
    }

    /// What makes its pods anew: a command, or what will happen by itself.
    pub fn restart(&self) -> String {
        let Self { namespace, kind, name } = self;
        match kind.as_str() {
            "Deployment" | "StatefulSet" | "DaemonSet" => {
                format!("kubectl -n {namespace} rollout restart {}/{name}", kind.to_lowercase())
            }
            "Job" => format!(
                "kubectl -n {namespace} delete job {name}, and create it again; a CronJob's next one comes by itself"
            ),
            "Pod" => format!("kubectl -n {namespace} delete pod {name}, and create it again"),
            _ => format!("delete the pods of {kind} {name} in namespace {namespace}; their owner makes them anew"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Pods by their owners, each with what is said of the first of them.
#[derive(Debug, Default)]
pub struct Groups(BTreeMap<Owner, (usize, String)>);

impl Groups {
    /// Adds one pod.
    pub fn add(&mut self, pod: &Pod, said: impl Into<String>) {
        self.0.entry(Owner::of(pod)).or_insert_with(|| (0, said.into())).0 += 1;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of pods.
    pub fn pods(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// The owners, each with its number of pods and what was said.
    pub fn iter(&self) -> impl Iterator<Item = (&Owner, usize, &str)> {
        self.0
            .iter()
            .map(|(owner, (count, said))| (owner, *count, said.as_str()))
    }
}

/// `1 pod`, `2 pods`.
pub fn pods(count: usize) -> String {
    format!("{count} pod{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(owner: Value, labels: Value) -> Pod {
        let owners = if owner.is_null() { json!([]) } else { json!([owner]) };
        serde_json::from_value(
            json!({"metadata": {"namespace": "shop", "name": "web-1", "labels": labels, "ownerReferences": owners}}),
        )
        .unwrap()
    }

    #[test]
    fn the_command_that_makes_a_pod_anew_names_what_made_it() {
        let owner = |version: &str, kind: &str, name: &str| json!({"apiVersion": version, "kind": kind, "name": name, "uid": "u", "controller": true});
        let hash = json!({"pod-template-hash": "5d9"});
        let cases = [
            (
                owner("apps/v1", "ReplicaSet", "web-a-5d9"),
                hash.clone(),
                "Deployment shop/web-a",
                "kubectl -n shop rollout restart deployment/web-a",
            ),
            (
                owner("apps/v1", "ReplicaSet", "web"),
                json!({}),
                "ReplicaSet shop/web",
                "delete the pods of ReplicaSet web",
            ),
            (
                owner("argoproj.io/v1", "ReplicaSet", "web-5d9"),
                hash,
                "ReplicaSet shop/web-5d9",
                "delete the pods",
            ),
            (
                owner("apps/v1", "StatefulSet", "db"),
                json!({}),
                "StatefulSet shop/db",
                "kubectl -n shop rollout restart statefulset/db",
            ),
            (
                owner("apps/v1", "DaemonSet", "log"),
                json!({}),
                "DaemonSet shop/log",
                "kubectl -n shop rollout restart daemonset/log",
            ),
            (
                owner("batch/v1", "Job", "once"),
                json!({}),
                "Job shop/once",
                "kubectl -n shop delete job once",
            ),
            (
                Value::Null,
                json!({}),
                "Pod shop/web-1",
                "kubectl -n shop delete pod web-1",
            ),
        ];
        for (owner, labels, name, command) in cases {
            let owner = Owner::of(&pod(owner, labels));
            assert_eq!(owner.to_string(), name);
            assert!(owner.restart().starts_with(command), "{}", owner.restart());
        }
    }
}
