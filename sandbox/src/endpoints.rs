//! Service and pods → EndpointSlices, as the cluster's own controller computes them. Pure.

use crate::object::{self, Object, is_terminating, label, name, namespace, owner_reference, uid};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, net::IpAddr};

/// The label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Whether a slice is one of ours, rather than one that a user wrote.
pub fn is_managed(slice: &Object) -> bool {
    label(slice, MANAGED_BY) == Some("weft-sandbox")
}

/// The slices of a Service with a selector: one for each family and each set of resolved ports.
pub fn slices(service: &Object, pods: &[&Object], node: &str) -> Vec<Object> {
    let selector = &service["spec"]["selector"];
    if selector.as_object().is_none_or(Map::is_empty) || service["spec"]["type"] == "ExternalName" {
        return Vec::new();
    }
    let chosen = |pod: &&&Object| {
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let ours = namespace(pod) == namespace(service) && !ended;
        ours && object::selects(&json!({ "matchLabels": selector }), &pod["metadata"]["labels"])
    };
    let families = families(service);
    let mut groups: BTreeMap<(&str, String), (Value, Vec<Value>)> = BTreeMap::new();
    for pod in pods.iter().filter(chosen) {
        let ports = ports(service, pod);
        for family in &families {
            let Some(address) = address(pod, family) else { continue };
            let group = groups
                .entry((family, ports.to_string()))
                .or_insert_with(|| (ports.clone(), Vec::new()));
            group.1.push(endpoint(service, pod, &address, node));
        }
    }
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let slice = |((family, _), (ports, endpoints)): ((&'static str, String), (Value, Vec<Value>))| {
        let number = numbers.entry(family).or_default();
        *number += 1;
        let suffix = if *number == 1 {
            String::new()
        } else {
            format!("-{number}")
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("{}-{}{suffix}", name(service), family.to_ascii_lowercase()), "namespace": namespace(service),
                "labels": {SERVICE_NAME: name(service), MANAGED_BY: "weft-sandbox"},
                "ownerReferences": [owner_reference(service)],
            },
            "ports": ports, "endpoints": endpoints,
        })
    };
    groups.into_iter().map(slice).collect()
}

fn families(service: &Object) -> Vec<&'static str> {
    let listed = service["spec"]["ipFamilies"].as_array();
    let all = ["IPv4", "IPv6"];
    all.into_iter()
        .filter(|f| listed.is_none_or(|l| l.iter().any(|v| v == f)))
        .collect()
}

fn address(pod: &Object, family: &str) -> Option<String> {
    let ips = pod["status"]["podIPs"].as_array()?;
    let of_family = |ip: &&str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == (family == "IPv4"));
    ips.iter()
        .filter_map(|ip| ip["ip"].as_str())
        .find(of_family)
        .map(String::from)
}

fn ports(service: &Object, pod: &Object) -> Value {
    let list = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let resolved = list.iter().filter_map(|port| {
        let target = match &port["targetPort"] {
            Value::Null => port["port"].as_u64()?,
            Value::String(name) => named_port(pod, name)?,
            number => number.as_u64()?,
        };
        let mut entry = json!({ "port": target, "protocol": port["protocol"].as_str().unwrap_or("TCP") });
        entry["name"] = port["name"].as_str().unwrap_or_default().into();
        if let Some(protocol) = port["appProtocol"].as_str() {
            entry["appProtocol"] = protocol.into();
        }
        Some(entry)
    });
    resolved.collect()
}

/// The number behind the name of a container's port.
pub fn named_port(pod: &Object, name: &str) -> Option<u64> {
    let containers = crate::pod_check::all(&pod["spec"]).map(|(_, _, c)| c);
    let ports = containers.flat_map(|c| c["ports"].as_array().map_or(&[][..], Vec::as_slice));
    let found = ports
        .into_iter()
        .find(|p| p["name"] == name)
        .and_then(|p| p["containerPort"].as_u64());
    found.or_else(|| name.parse().ok())
}

/// Whether a pod has the condition `Ready`.
pub fn is_ready(pod: &Object) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn endpoint(service: &Object, pod: &Object, address: &str, node: &str) -> Value {
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    let always = service["spec"]["publishNotReadyAddresses"] == true;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": always || (serving && !terminating), "serving": serving, "terminating": terminating},
        "nodeName": node,
        "targetRef": {"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)},
    });
    if let Some(hostname) = pod["spec"]["hostname"].as_str()
        && pod["spec"]["subdomain"] == service["metadata"]["name"]
    {
        endpoint["hostname"] = hostname.into();
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, port: u16) -> Object {
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}},
            "spec": {"hostname": name, "subdomain": "web", "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
            "status": {
                "phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        })
    }

    fn service() -> Object {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop", "uid": "s"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c"}]},
        })
    }

    #[test]
    fn each_family_has_its_slice_with_conditions_hostname_and_resolved_port() {
        let (ready, unready) = (pod("a", true, 8080), pod("b", false, 8080));
        let mut gone = pod("c", true, 8080);
        gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let slices = slices(&service(), &[&ready, &unready, &gone], "node");
        assert_eq!(slices.iter().map(name).collect::<Vec<_>>(), ["web-ipv4", "web-ipv6"]);
        assert_eq!(
            slices[0]["ports"],
            json!([{"name": "", "port": 8080, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"}])
        );
        let conditions: Vec<String> = slices[1]["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["conditions"].to_string())
            .collect();
        assert_eq!(
            conditions,
            [
                r#"{"ready":true,"serving":true,"terminating":false}"#,
                r#"{"ready":false,"serving":false,"terminating":false}"#,
                r#"{"ready":false,"serving":true,"terminating":true}"#,
            ]
        );
        assert_eq!(slices[1]["endpoints"][0]["addresses"][0], "fd00::1");
        assert_eq!(slices[1]["endpoints"][0]["hostname"], "a");
    }

    #[test]
    fn pods_whose_named_port_differs_are_in_slices_of_their_own() {
        let (one, other) = (pod("a", true, 8080), pod("b", true, 9090));
        assert_eq!(slices(&service(), &[&one, &other], "node").len(), 4);
    }

    #[test]
    fn ended_pods_and_other_namespaces_are_left_out() {
        let mut done = pod("a", true, 8080);
        done["status"]["phase"] = "Succeeded".into();
        let mut elsewhere = pod("b", true, 8080);
        elsewhere["metadata"]["namespace"] = "other".into();
        assert!(slices(&service(), &[&done, &elsewhere], "node").is_empty());
    }
}
