//! `fieldRef`: what a container may know of its own pod.

use crate::object::Object;
use serde_json::Value;

/// The value of a field path, as Kubernetes writes it.
pub fn value(pod: &Object, path: &str) -> Result<String, String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['"))
        && ["metadata.labels", "metadata.annotations"].contains(&map)
    {
        return Ok(pod["metadata"][&map[9..]]
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string());
    }
    let ips = |list: &Value| {
        let ips = list.as_array().into_iter().flatten().filter_map(|ip| ip["ip"].as_str());
        ips.collect::<Vec<_>>().join(",")
    };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    Ok(match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => text(&pod["metadata"][&path[9..]]),
        "metadata.labels" | "metadata.annotations" => lines(&pod["metadata"][&path[9..]]),
        "spec.nodeName" | "spec.serviceAccountName" => text(&pod["spec"][&path[5..]]),
        "status.podIP" | "status.hostIP" => text(&pod["status"][&path[7..]]),
        "status.podIPs" | "status.hostIPs" => ips(&pod["status"][&path[7..]]),
        _ => {
            return Err(format!(
                "fieldRef '{path}' is not a field that a container may know; see the documentation of fieldRef"
            ));
        }
    })
}

fn lines(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| format!("{key}={}\n", Value::from(value.as_str().unwrap_or_default())))
        .collect()
}
