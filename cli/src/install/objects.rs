//! The files of `manifests/`, carried in the program. A test holds that they are those that its kustomizations name.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use weft_sandbox::manifest;

/// A definition of the Gateway API.
#[derive(Debug)]
pub struct Crd {
    /// Its name, as `httproutes.gateway.networking.k8s.io`.
    pub name: &'static str,
    /// Its file, printed as it is.
    pub text: &'static str,
}

macro_rules! crds {
    ($($plural:literal),+ $(,)?) => {
        &[$(Crd {
            name: concat!($plural, ".gateway.networking.k8s.io"),
            text: include_str!(concat!("../../../manifests/crds/", $plural, ".yaml")),
        }),+]
    };
}

/// The Gateway API's definitions.
pub const CRDS: &[Crd] = crds![
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "referencegrants",
    "tcproutes",
    "tlsroutes",
    "udproutes",
];

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../manifests/weft/", $name)))),+]
    };
}

/// weft's own files, in the order in which they are applied: name and text.
pub(super) const FILES: &[(&str, &str)] = files![
    "namespace.yaml",
    "rbac-routes.yaml",
    "rbac-identity.yaml",
    "rbac-injector.yaml",
    "services.yaml",
    "network-policies.yaml",
    "disruption-budgets.yaml",
    "identity.yaml",
    "routes.yaml",
    "gateway-class.yaml",
    "injector.yaml",
    "webhook.yaml",
];

/// weft's own objects as the files have them, in their order.
pub fn system() -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (file, text) in FILES {
        for (number, document) in manifest::documents(text) {
            let object =
                manifest::parse(document).map_err(|what| anyhow::anyhow!("{file}, document {number}: {what}"))?;
            objects.push(object);
        }
    }
    Ok(objects)
}

/// Edits an object as the type that it is.
pub(super) fn edit(object: Value, change: impl FnOnce(&mut Deployment)) -> anyhow::Result<Value> {
    let name = object["metadata"]["name"].to_string();
    let place = || format!("Deployment {name}");
    let mut typed = serde_json::from_value(object).with_context(place)?;
    change(&mut typed);
    serde_json::to_value(typed).with_context(place)
}
