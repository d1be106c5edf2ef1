//! Which fields the sandbox acts on. A field that is right but not acted on is named once as ignored; nothing is dropped
//! in silence.

use crate::object::{Kind, Object};
use serde_json::Value;
use std::collections::BTreeSet;

/// A pattern of a path: names, `[]` for each element of a list, `*` for any name, and `**` for everything below.
const METADATA: &str =
    "apiVersion kind metadata.name metadata.namespace metadata.uid metadata.labels.* metadata.annotations.*
    metadata.creationTimestamp metadata.resourceVersion metadata.generation status.**";

/// Below the place where a pod's spec stands.
const POD_SPEC: &str = "restartPolicy serviceAccountName hostname subdomain hostNetwork terminationGracePeriodSeconds
    hostAliases[].**
    securityContext.runAsUser securityContext.runAsGroup securityContext.runAsNonRoot securityContext.fsGroup
    volumes[].name volumes[].emptyDir.medium volumes[].emptyDir volumes[].hostPath.path volumes[].hostPath.type
    volumes[].configMap.** volumes[].secret.** volumes[].downwardAPI.** volumes[].persistentVolumeClaim.claimName
    volumes[].projected.**";

/// Below the place where a container stands.
const CONTAINER: &str = "name image command[] args[] workingDir restartPolicy imagePullPolicy
    env[].name env[].value env[].valueFrom.fieldRef.** env[].valueFrom.configMapKeyRef.** env[].valueFrom.secretKeyRef.**
    envFrom[].** ports[].name ports[].containerPort ports[].protocol
    volumeMounts[].name volumeMounts[].mountPath volumeMounts[].subPath volumeMounts[].readOnly
    livenessProbe.** readinessProbe.** startupProbe.** lifecycle.postStart.exec.**
    lifecycle.preStop.exec.** lifecycle.preStop.httpGet.** lifecycle.preStop.sleep.**
    securityContext.runAsUser securityContext.runAsGroup securityContext.runAsNonRoot securityContext.readOnlyRootFilesystem
    securityContext.privileged securityContext.allowPrivilegeEscalation
    securityContext.capabilities.add[] securityContext.capabilities.drop[]";

/// The paths of an object that are well-formed and that nothing here acts on, such as `spec.template.spec.affinity`.
pub fn ignored(kind: Kind, object: &Object) -> BTreeSet<String> {
    let patterns = patterns(kind);
    let mut found = BTreeSet::new();
    walk(object, &mut Vec::new(), &mut |path, leaf| {
        if !patterns.iter().any(|p| takes(p, path, leaf)) {
            found.insert(shown(path, &patterns));
        }
    });
    found
}

fn patterns(kind: Kind) -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = words(METADATA, &[]);
    match kind {
        Kind::Namespace => {}
        Kind::ServiceAccount => all.extend(words("imagePullSecrets[].** automountServiceAccountToken secrets[].**", &[])),
        Kind::ConfigMap => all.extend(words("data.* binaryData.* immutable", &[])),
        Kind::Secret => all.extend(words("data.* stringData.* type immutable", &[])),
        Kind::Service => all.extend(words(
            "spec.selector.* spec.ports[].name spec.ports[].port spec.ports[].targetPort spec.ports[].protocol spec.ports[].appProtocol
             spec.clusterIP spec.clusterIPs[] spec.ipFamilies[] spec.ipFamilyPolicy spec.type spec.externalName
             spec.loadBalancerIP spec.externalIPs[] spec.publishNotReadyAddresses spec.sessionAffinity spec.sessionAffinityConfig.**",
            &[],
        )),
        Kind::EndpointSlice => all.extend(words("**", &[])),
        kind if kind.is_gateway_api() => all.extend(words("**", &[])),
        Kind::Deployment => all.extend(words("spec.replicas spec.selector.** spec.strategy.** spec.template.metadata.**", &[])),
        Kind::StatefulSet => all.extend(words(
            "spec.replicas spec.selector.** spec.serviceName spec.podManagementPolicy spec.template.metadata.**
             spec.volumeClaimTemplates[].**",
            &[],
        )),
        Kind::Job => all.extend(words("spec.completions spec.parallelism spec.backoffLimit spec.template.metadata.**", &[])),
        _ => {}
    }
    let spec: &[&str] = match kind {
        Kind::Pod => &["spec"],
        Kind::Deployment | Kind::StatefulSet | Kind::Job => &["spec", "template", "spec"],
        _ => return all,
    };
    all.extend(words(POD_SPEC, spec));
    for list in ["containers", "initContainers"] {
        let prefix: Vec<&str> = spec.iter().copied().chain([list, "[]"]).collect();
        all.extend(words(CONTAINER, &prefix));
    }
    all
}

fn words<'a>(text: &'a str, prefix: &[&'a str]) -> Vec<Vec<&'a str>> {
    let parts = |word: &'a str| {
        let own = word.split('.').flat_map(|name| match name.strip_suffix("[]") {
            Some(list) => vec![list, "[]"],
            None => vec![name],
        });
        prefix.iter().copied().chain(own).collect()
    };
    text.split_whitespace().map(parts).collect()
}

fn takes(pattern: &[&str], path: &[&str], leaf: &Value) -> bool {
    for (i, part) in pattern.iter().enumerate() {
        match (*part, path.get(i)) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (part, Some(got)) if part == *got => {}
            // An empty object or list stands where the pattern goes on: nothing is lost.
            (_, None) => return leaf.is_object() || leaf.is_array(),
            _ => return false,
        }
    }
    pattern.len() == path.len()
}

/// The shortest beginning of the path that no pattern shares: `spec.affinity` rather than each leaf below.
fn shown(path: &[&str], patterns: &[Vec<&str>]) -> String {
    let known = |length: usize| {
        let shares =
            |p: &Vec<&str>| p.len() > length && p.iter().zip(&path[..=length]).all(|(p, got)| p == got || *p == "*");
        patterns.iter().any(shares)
    };
    let length = (0..path.len()).find(|i| !known(*i)).unwrap_or(path.len() - 1);
    let mut text = String::new();
    for part in &path[..=length] {
        if *part != "[]" && !text.is_empty() {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

fn walk<'a>(value: &'a Value, path: &mut Vec<&'a str>, found: &mut impl FnMut(&[&str], &Value)) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(key);
                walk(value, path, found);
                path.pop();
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                path.push("[]");
                walk(value, path, found);
                path.pop();
            }
        }
        Value::Null => {}
        leaf => found(path, leaf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_that_nothing_acts_on_are_named_once_by_their_shortest_path() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}, "finalizers": ["f"]},
            "spec": {
                "affinity": {"nodeAffinity": {"a": 1, "b": 2}},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}}, "tty": true},
                    {"name": "d", "image": "i", "resources": {"limits": {"cpu": "1"}}, "env": [{"name": "E", "value": "1"}]},
                ],
            },
        });
        let ignored: Vec<String> = ignored(Kind::Pod, &pod).into_iter().collect();
        let expected = [
            "metadata.finalizers",
            "spec.affinity",
            "spec.containers[].resources",
            "spec.containers[].tty",
        ];
        assert_eq!(ignored, expected);
    }

    #[test]
    fn a_route_is_the_controllers_to_judge() {
        let route = json!({"apiVersion": "x/v1", "kind": "HTTPRoute", "spec": {"rules": [{"anything": 1}]}});
        assert!(ignored(Kind::HttpRoute, &route).is_empty());
    }
}
