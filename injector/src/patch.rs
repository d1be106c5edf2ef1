//! The difference between a pod as it came in and as it is to be, as a JSON patch of the object that was really sent.
//!
//! The typed Pod knows the fields of one Kubernetes version. A field that it does not know must still come through
//! unchanged, wherever it stands (RELIABILITY T45): so the changes are carried over to the sent object first, and the
//! patch is the difference of the two whole objects. (A patch that adds to `/…/-` would fail where the list is absent.)

use std::collections::HashMap;

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// The patch that turns `sent`, which was read as `before`, into `after`.
pub fn patch(sent: &Value, before: &Pod, after: &Pod) -> Result<Patch, serde_json::Error> {
    let before = serde_json::to_value(before)?;
    let after = serde_json::to_value(after)?;
    Ok(json_patch::diff(sent, &carry_over(sent, &before, &after)))
}

/// `sent` with the changes that lead from `before` to `after`, and with everything that neither of them knows.
fn carry_over(sent: &Value, before: &Value, after: &Value) -> Value {
    if before == after {
        return sent.clone();
    }
    match (sent, before, after) {
        (Value::Object(sent), Value::Object(before), Value::Object(after)) => {
            let mut merged = sent.clone();
            merged.retain(|key, _| after.contains_key(key) || !before.contains_key(key));
            for (key, after) in after {
                let value = match (sent.get(key), before.get(key)) {
                    (Some(sent), Some(before)) => carry_over(sent, before, after),
                    // Reading alone has added it, as it does with kind and apiVersion.
                    (None, Some(before)) if before == after => continue,
                    _ => after.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(sent), Value::Array(before), Value::Array(after)) if sent.len() == before.len() => {
            // Containers and volumes are known by their names, wherever they have moved to.
            let mut places = HashMap::new();
            for (place, name) in before
                .iter()
                .enumerate()
                .filter_map(|(place, item)| Some((place, name(item)?)))
            {
                places.entry(name).or_insert(place);
            }
            let place = |item| name(item).and_then(|name| places.get(name)).copied();
            let carried = after.iter().map(|item| match place(item) {
                Some(place) => carry_over(&sent[place], &before[place], item),
                None => item.clone(),
            });
            Value::Array(carried.collect())
        }
        _ => after.clone(),
    }
}

fn name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_the_typed_pod_does_not_know_comes_through() {
        let sent = json!({
            "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {
                "futureField": {"x": 1},
                "initContainers": [{"name": "first", "futureField": 7}],
                "containers": [{"name": "app", "futureField": [1, 2], "livenessProbe": {"tcpSocket": {"port": 80}, "futureField": true}}],
            },
            "status": {},
        });
        let before: Pod = serde_json::from_value(sent.clone()).unwrap();
        let mut after = before.clone();
        let spec = after.spec.as_mut().unwrap();
        spec.init_containers.as_mut().unwrap().insert(
            0,
            k8s_openapi::api::core::v1::Container {
                name: "weft-proxy".into(),
                ..Default::default()
            },
        );
        let probe = spec.containers[0].liveness_probe.as_mut().unwrap();
        probe.tcp_socket = None;
        probe.period_seconds = Some(3);

        let mut patched = sent.clone();
        json_patch::patch(&mut patched, &patch(&sent, &before, &after).unwrap()).unwrap();
        let mut expected = sent;
        expected["spec"]["initContainers"] = json!([{"name": "weft-proxy"}, {"name": "first", "futureField": 7}]);
        expected["spec"]["containers"][0]["livenessProbe"] = json!({"futureField": true, "periodSeconds": 3});
        assert_eq!(patched, expected);
    }

    #[test]
    fn no_change_is_an_empty_patch() {
        let sent = json!({"metadata": {"creationTimestamp": null}, "spec": {"containers": [], "unknown": null}});
        let pod: Pod = serde_json::from_value(sent.clone()).unwrap();
        assert!(patch(&sent, &pod, &pod).unwrap().0.is_empty());
    }
}
