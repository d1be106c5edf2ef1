//! What is wrong with a pod's spec, as far as the spec and the mapping of images tell. All mistakes together.

use crate::images::Images;
use serde_json::Value;
use std::collections::BTreeSet;

/// Mistakes of a pod's spec that stands at `path` in the object `owner`.
pub fn spec(spec: &Value, path: &str, owner: &str, images: &Images) -> Vec<String> {
    let mut mistakes = Vec::new();
    let containers = list(&spec["containers"]);
    if containers.is_empty() {
        mistakes.push(format!("{path}.containers is empty; name at least one container"));
    }
    let volumes: BTreeSet<&str> = list(&spec["volumes"])
        .iter()
        .filter_map(|v| v["name"].as_str())
        .collect();
    let mut names = BTreeSet::new();
    for (of, index, container) in all(spec) {
        let at = format!("{path}.{of}[{index}]");
        let Some(name) = container["name"].as_str().filter(|n| !n.is_empty()) else {
            mistakes.push(format!("{at} has no name; give it one"));
            continue;
        };
        if !names.insert(name) {
            mistakes.push(format!("{at}: two containers are called '{name}'; rename one"));
        }
        let image = container["image"].as_str().unwrap_or_default();
        let words = |field: &str| {
            list(&container[field])
                .iter()
                .filter_map(Value::as_str)
                .map(String::from)
                .collect::<Vec<_>>()
        };
        if images.resolve(image, &words("command"), &words("args")).is_none() {
            mistakes.push(format!(
                "pod '{owner}', container '{name}', image '{image}': neither a 'command' nor a mapping; map the image to a \
                 command of this machine in images.yaml ('{image}: COMMAND') or with --image '{image}=COMMAND'"
            ));
        }
        for mount in list(&container["volumeMounts"]) {
            let volume = mount["name"].as_str().unwrap_or_default();
            if !volumes.contains(volume) {
                mistakes.push(format!(
                    "{at}.volumeMounts names the volume '{volume}', which is not in {path}.volumes; add it there"
                ));
            }
            if !mount["mountPath"].as_str().is_some_and(|p| p.starts_with('/')) {
                mistakes.push(format!(
                    "{at}.volumeMounts of '{volume}': mountPath must be an absolute path; begin it with '/'"
                ));
            }
        }
        mistakes.extend(ports(container, &at));
    }
    mistakes
}

fn ports(container: &Value, at: &str) -> Vec<String> {
    let named: BTreeSet<&str> = list(&container["ports"])
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    let mut mistakes = Vec::new();
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe_value = &container[probe];
        let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
        if probe_value.is_object() && handlers.iter().filter(|h| probe_value[**h].is_object()).count() != 1 {
            mistakes.push(format!(
                "{at}.{probe} must have exactly one of {}; keep one",
                handlers.join(", ")
            ));
        }
        for handler in ["httpGet", "tcpSocket"] {
            let port = &probe_value[handler]["port"];
            if port
                .as_str()
                .is_some_and(|name| !named.contains(name) && name.parse::<u16>().is_err())
            {
                mistakes.push(format!("{at}.{probe}.{handler}.port {port} is not the name of one of the container's ports; name or number one"));
            }
        }
    }
    mistakes
}

/// Every container of a pod: the list's name, the position in it, and the container.
pub fn all(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    let of = |field: &'static str| list(&spec[field]).iter().enumerate().map(move |(i, c)| (field, i, c));
    of("initContainers").chain(of("containers"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_mistake_of_a_pod_is_said_with_its_path() {
        let pod = json!({"containers": [
            {"name": "a", "image": "i", "command": ["x"], "volumeMounts": [{"name": "v", "mountPath": "tmp"}]},
            {"name": "a", "image": "i", "command": ["x"], "readinessProbe": {"httpGet": {"port": "web"}}, "livenessProbe": {}},
        ]});
        let said = spec(&pod, "spec", "p", &Images::default());
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(said[0].starts_with("spec.containers[0].volumeMounts names the volume 'v'"));
    }
}
