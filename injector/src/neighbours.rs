//! Sidecars of other meshes in a pod that is to be meshed, and what a pod shares with its neighbours: allowed, but said.
//!
//! Two meshes in one pod both redirect its TCP. weft's rules come first and take what the other proxy sends, too; the
//! other's rules then take what weft sends. So connections go in a circle, unless the other's user is skipped.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};
use weft_proto::names::label;

/// How another mesh is recognised, and what helps.
struct Mesh {
    name: &'static str,
    /// Names of its containers.
    containers: &'static [&'static str],
    /// The last part of its images' names.
    images: &'static [&'static str],
    /// Annotations that it sets on the pods that it has changed.
    annotations: &'static [&'static str],
    /// The user whose traffic its rules let through.
    uid: Option<u32>,
    /// Why weft's proxy and its own cannot both start.
    clash: Option<&'static str>,
}

const MESHES: [Mesh; 5] = [
    Mesh {
        name: "Istio",
        containers: &["istio-proxy", "istio-init", "istio-validation"],
        images: &["proxyv2"],
        annotations: &["sidecar.istio.io/status"],
        uid: Some(1337),
        clash: Some("both listen on 15001, 15006 and 15020, so one of them cannot start"),
    },
    Mesh {
        name: "Linkerd",
        containers: &["linkerd-proxy", "linkerd-init", "linkerd-network-validator"],
        images: &["linkerd/proxy", "linkerd/proxy-init"],
        annotations: &["linkerd.io/proxy-version"],
        uid: Some(2102),
        clash: None,
    },
    Mesh {
        name: "Consul",
        containers: &["consul-dataplane", "consul-connect-inject-init"],
        images: &["consul-dataplane"],
        annotations: &["consul.hashicorp.com/connect-inject-status"],
        uid: Some(5995),
        clash: None,
    },
    Mesh {
        name: "Kuma",
        containers: &["kuma-sidecar", "kuma-init"],
        images: &["kuma-dp"],
        annotations: &["kuma.io/sidecar-injected"],
        uid: Some(5678),
        clash: Some("both listen on 15001 and 15006, so one of them cannot start"),
    },
    Mesh {
        name: "another mesh",
        containers: &["envoy-sidecar", "osm-init"],
        images: &[],
        annotations: &[],
        uid: None,
        clash: None,
    },
];

impl Mesh {
    fn is_in(&self, pod: &Pod) -> bool {
        let annotated = |key: &&str| pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(*key));
        let spec = pod.spec.as_ref();
        let init = spec
            .and_then(|spec| spec.init_containers.as_ref())
            .into_iter()
            .flatten();
        let mut containers = init.chain(spec.into_iter().flat_map(|spec| &spec.containers));
        self.annotations.iter().any(annotated) || containers.any(|container| self.is(container))
    }

    fn is(&self, container: &Container) -> bool {
        // Neither tag nor digest: registry.example:5000/linkerd/proxy:stable@sha256:… is linkerd/proxy.
        let image = container.image.as_deref().unwrap_or_default();
        let image = image.split('@').next().unwrap_or_default();
        let image = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => image,
        };
        let ends = |suffix: &&str| {
            image
                .strip_suffix(*suffix)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        self.containers.contains(&container.name.as_str()) || self.images.iter().any(ends)
    }

    /// At most 256 characters with the prefix that it gets: API servers may cut what is longer.
    fn warning(&self) -> String {
        let Self { name, uid, clash, .. } = self;
        let what = clash.map_or_else(
            || "each redirects what the other sends, so connections can go in circles".to_owned(),
            str::to_owned,
        );
        let also = uid.map_or(String::new(), |uid| {
            format!(
                " (or, at your own risk, skip its user: {}: \"{uid}\")",
                label::SKIP_UIDS
            )
        });
        format!(
            "the pod has a sidecar of {name}: {what}; leave one out, for example with {}: disabled{}",
            label::INJECT,
            if clash.is_some() { String::new() } else { also }
        )
    }
}

/// One warning for each other mesh in the pod, and one where its containers see each other's processes.
pub fn warnings(pod: &Pod) -> Vec<String> {
    let mut warnings: Vec<String> = MESHES
        .iter()
        .filter(|mesh| mesh.is_in(pod))
        .map(Mesh::warning)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.share_process_namespace == Some(true))
    {
        warnings.push(
            "shareProcessNamespace: the pod's containers see the proxy's process, and root in one of them can read its \
             key or end it"
                .into(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod: Value) -> Vec<String> {
        warnings(&serde_json::from_value(pod).unwrap())
    }

    fn containers(value: Value) -> Value {
        json!({"spec": {"containers": [{"name": "app", "image": "example/proxy:1"}, value]}})
    }

    #[test]
    fn a_second_meshs_sidecar_is_known_by_name_image_or_annotation() {
        for (mesh, pod) in [
            ("Istio", containers(json!({"name": "istio-proxy", "image": "x"}))),
            (
                "Istio",
                containers(json!({"name": "x", "image": "docker.io/istio/proxyv2:1.27.0"})),
            ),
            (
                "Istio",
                json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}, "spec": {"containers": []}}),
            ),
            (
                "Istio",
                json!({"spec": {"containers": [], "initContainers": [{"name": "istio-init"}]}}),
            ),
            (
                "Linkerd",
                containers(json!({"name": "x", "image": "cr.l5d.io:443/linkerd/proxy@sha256:00"})),
            ),
            (
                "Linkerd",
                json!({"metadata": {"annotations": {"linkerd.io/proxy-version": "2"}}, "spec": {"containers": []}}),
            ),
            (
                "Consul",
                containers(json!({"name": "x", "image": "hashicorp/consul-dataplane:1"})),
            ),
            ("Kuma", containers(json!({"name": "kuma-sidecar"}))),
            ("another mesh", containers(json!({"name": "envoy-sidecar"}))),
        ] {
            let warnings = of(pod);
            assert!(
                warnings.len() == 1 && warnings[0].contains(&format!("a sidecar of {mesh}:")),
                "{warnings:?}"
            );
            assert!(warnings[0].contains("weft.dev/inject: disabled"), "{warnings:?}");
        }
        for plain in [
            json!({}),
            containers(json!({"name": "proxy", "image": "envoyproxy/envoy:v1"})),
            containers(json!({"name": "x", "image": "myproxyv2"})),
            containers(json!({"name": "x", "image": ":"})),
        ] {
            assert_eq!(of(plain), Vec::<String>::new());
        }
    }

    #[test]
    fn a_pod_whose_processes_see_each_other_is_told_what_that_weakens() {
        let warnings = of(json!({"spec": {"containers": [], "shareProcessNamespace": true}}));
        assert!(
            warnings.len() == 1 && warnings[0].contains("read its key"),
            "{warnings:?}"
        );
    }

    #[test]
    fn no_warning_is_so_long_that_it_is_cut() {
        for mesh in MESHES {
            let warning = format!("weft: {}", mesh.warning());
            assert!(warning.len() <= 256, "{} {warning}", warning.len());
        }
    }
}
