//! The types of the Gateway API know every field of its definitions: an object with all of them is read, and nothing of it is
//! left over. What is left over would be a field that someone wrote and nobody looked at.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{fs, path::Path};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_controller::objects::{
    GrpcRouteSpec, HttpRouteSpec, L4RouteSpec,
    gateway::{GatewayClassSpec, GatewaySpec, ListenerSetSpec},
    policy::{BackendTlsPolicySpec, ReferenceGrantSpec},
};

#[test]
fn every_field_of_the_definitions_is_known() {
    knows::<GatewayClassSpec>("gatewayclasses");
    knows::<GatewaySpec>("gateways");
    knows::<ListenerSetSpec>("listenersets");
    knows::<HttpRouteSpec>("httproutes");
    knows::<GrpcRouteSpec>("grpcroutes");
    knows::<L4RouteSpec>("tlsroutes");
    knows::<L4RouteSpec>("tcproutes");
    knows::<L4RouteSpec>("udproutes");
    knows::<BackendTlsPolicySpec>("backendtlspolicies");
    knows::<ReferenceGrantSpec>("referencegrants");
}

fn knows<T: DeserializeOwned>(definition: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../manifests/crds/{definition}.yaml"));
    let definition: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let v1 = versions.iter().find(|version| version["name"] == "v1").unwrap();
    let object = with_all_fields(&v1["schema"]["openAPIV3Schema"]["properties"]["spec"]);
    assert!(object.as_object().is_some_and(|fields| !fields.is_empty()));
    let mut left_over = Vec::new();
    let read: Result<T, _> = serde_ignored::deserialize(&object, |path| left_over.push(path.to_string()));
    let kind = &definition["spec"]["names"]["kind"];
    read.map(drop)
        .unwrap_or_else(|error| panic!("{kind}: {error} in {object}"));
    assert_eq!(left_over, Vec::<String>::new(), "{kind}");
}

fn with_all_fields(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            if let Some(fields) = schema["properties"].as_object() {
                let fields = fields
                    .iter()
                    .map(|(name, field)| (name.clone(), with_all_fields(field)));
                return Value::Object(fields.collect());
            }
            json!({ "key": with_all_fields(&schema["additionalProperties"]) })
        }
        Some("array") => json!([with_all_fields(&schema["items"])]),
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(1)),
        Some("boolean") => json!(true),
        _ => json!("text"),
    }
}
