//! Which pods are not meshed, and why: what `weft check` shows. Pure: pods and namespaces in, findings out.
//!
//! A pod that is created while the webhook is away or before its namespace was labelled stays as it is; nobody else
//! would notice (RELIABILITY T41).

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use weft_proto::{meshed, names::label};

use crate::{
    context::Namespace,
    decide::{self, Decision, Why},
    pod,
    refuse::{self, Refusals},
};

/// One pod that is not meshed although its namespace, or the pod itself, asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `namespace/name`.
    pub pod: String,
    /// Why it is not meshed.
    pub why: String,
    /// What to do. `None` where it is meant so, or cannot be otherwise.
    pub fix: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}: {}", self.pod, self.why)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

/// Lists them, in the order of the pods. Pods of namespaces that do not ask, and pods that have ended, are not listed.
pub fn audit<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    namespaces: impl IntoIterator<Item = &'a NamespaceObject>,
) -> Vec<Finding> {
    let namespaces: BTreeMap<_, _> = namespaces
        .into_iter()
        .map(|n| (n.metadata.name.as_deref(), n))
        .collect();
    pods.into_iter()
        .filter_map(|pod| {
            let name = pod.metadata.namespace.as_deref().unwrap_or("default");
            let labels = namespaces
                .get(&Some(name))
                .and_then(|n| n.metadata.labels.clone())
                .unwrap_or_default();
            missed(pod, &Namespace::new(name, labels))
        })
        .collect()
}

/// Why one pod is not meshed; `None` when it is, when nobody asks for it, or when it has ended.
pub fn missed(pod: &Pod, namespace: &Namespace) -> Option<Finding> {
    if is_over(pod) || pod::is_meshed(pod) {
        return None;
    }
    let name = refuse::pod_name(pod, &namespace.name);
    let mut refusals = Refusals::of(name.clone());
    let decision = decide::decide(pod, namespace, &mut refusals);
    if let Err(refusals) = refusals.into_result() {
        let first = refusals.into_iter().next()?;
        return Some(Finding {
            pod: name,
            why: first.what,
            fix: Some(first.fix),
        });
    }
    let is_selected = namespace.inject() == Some("enabled");
    let (why, fix) = match decision {
        Decision::Skip(Why::NamespaceNotEnabled(_)) => return None,
        Decision::Skip(Why::SystemNamespace(_)) if !is_selected => return None,
        Decision::Skip(why) => (why.to_string(), None),
        Decision::Inject if !is_selected => (
            format!(
                "it is annotated {}=enabled, but the webhook is called for labelled namespaces only",
                label::INJECT
            ),
            Some(format!(
                "label namespace {} {}=enabled, and create the pod again",
                namespace.name,
                label::INJECT
            )),
        ),
        Decision::Inject => (
            "it was created before its namespace was labelled, or while the webhook was away".to_owned(),
            Some("create the pod again, for example with kubectl rollout restart".to_owned()),
        ),
    };
    Some(Finding { pod: name, why, fix })
}

/// Whether a pod has ended or is about to.
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    meshed::is_over(phase, pod.metadata.deletion_timestamp.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(namespace: &str, name: &str, rest: Value) -> Pod {
        let mut pod = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"containers": []}});
        json_patch::merge(&mut pod, &rest);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn t41_a_pod_that_was_missed_is_listed_with_its_reason() {
        let namespace = |name: &str, value: &str| -> NamespaceObject {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {label::INJECT: value}}})).unwrap()
        };
        let namespaces = [
            namespace("shop", "enabled"),
            namespace("typo", "yes"),
            namespace("kube-system", "enabled"),
        ];
        let meshed = json!({"spec": {"initContainers": [{"name": "weft-proxy", "restartPolicy": "Always", "args": ["sidecar"]}]}});
        let pods = [
            pod("shop", "missed", json!({})),
            pod("shop", "meshed", meshed),
            pod("shop", "host", json!({"spec": {"hostNetwork": true}})),
            pod(
                "shop",
                "opted-out",
                json!({"metadata": {"annotations": {label::INJECT: "disabled"}}}),
            ),
            pod("shop", "done", json!({"status": {"phase": "Succeeded"}})),
            pod("typo", "a", json!({})),
            pod("other", "quiet", json!({})),
            pod(
                "other",
                "asks",
                json!({"metadata": {"annotations": {label::INJECT: "enabled"}}}),
            ),
            pod("kube-system", "dns", json!({})),
        ];
        let found: Vec<_> = audit(&pods, &namespaces).iter().map(Finding::to_string).collect();
        let expected = [
            ("shop/missed", "create the pod again"),
            ("shop/host", "hostNetwork"),
            ("shop/opted-out", "disabled"),
            ("typo/a", "neither enabled nor disabled"),
            ("other/asks", "label namespace other"),
            ("kube-system/dns", "never meshed"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (line, (pod, words)) in found.iter().zip(expected) {
            assert!(
                line.starts_with(&format!("pod {pod}: ")) && line.contains(words),
                "{line}"
            );
        }
    }
}
