//! What the tests share: settings, and pods from text.

use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use serde_json::Value;
use weft_injector::{
    Context, Namespace, Settings,
    admission::{Endpoint, Terms},
    context::RawSettings,
    pod::{Outcome, inject},
    refuse::Refusal,
};

/// A bundle with one certificate, made once and kept, so that golden files do not change.
const BUNDLE: &str = include_str!("bundle.pem");

pub fn settings() -> Settings {
    Settings::check(RawSettings {
        proxy_image: "weft.dev/proxy:0.1".into(),
        init_image: "weft.dev/init:0.1".into(),
        image_pull_policy: "IfNotPresent".into(),
        trust_domain: "cluster.local".into(),
        trust_bundle: BUNDLE.into(),
        discovery: "weft-routes.weft-system.svc:15010".into(),
        identity: "weft-identity.weft-system.svc:15012".into(),
        cluster_cidrs: "10.96.0.0/12,fd00:10::/32".into(),
        otlp_endpoint: Some("http://otel-collector.monitoring.svc:4317".into()),
        trace_sampling: Some("0.05".into()),
    })
    .unwrap()
}

/// What is asked of `/inject` in a cluster that is new enough.
pub fn terms(settings: &Settings) -> Terms<'_> {
    Terms {
        settings,
        endpoint: Endpoint::Inject,
        unsupported: None,
    }
}

/// Every golden input: its name, its text.
pub fn inputs() -> Vec<(String, String)> {
    let mut inputs: Vec<_> = std::fs::read_dir(directory())
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.strip_suffix(".in.yaml")?.to_owned();
            Some((name, std::fs::read_to_string(&path).unwrap()))
        })
        .collect();
    inputs.sort();
    inputs
}

pub fn directory() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The documents of a text: a Pod, and its Namespace where that is not simply enabled.
pub fn read(text: &str) -> (Value, Namespace) {
    let mut pod = None;
    let mut namespace = Namespace::selected("shop");
    for document in serde_saphyr::from_multiple::<Value>(text).unwrap() {
        if document["kind"] == "Namespace" {
            let object: NamespaceObject = serde_json::from_value(document).unwrap();
            namespace = Namespace::new(
                object.metadata.name.unwrap(),
                object.metadata.labels.unwrap_or_default(),
            );
        } else {
            pod = Some(document);
        }
    }
    (pod.expect("a document of kind Pod"), namespace)
}

pub fn pod(value: &Value) -> Pod {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn inject_in(pod: &Pod, namespace: &Namespace) -> Result<Outcome, Vec<Refusal>> {
    inject(
        pod,
        &Context {
            settings: &settings(),
            namespace,
        },
    )
}
