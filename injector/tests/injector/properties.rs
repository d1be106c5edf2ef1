//! What holds for every pod: injecting twice is injecting once, and nothing is touched that need not be.

use json_patch::PatchOperation;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use weft_injector::{Namespace, Outcome, patch};
use weft_proto::{
    names::{container, env, label},
    skip::{Cidrs, Ports, Uids},
};

use crate::common;

fn injected(pod: &Pod, namespace: &Namespace) -> Option<Pod> {
    match common::inject_in(pod, namespace) {
        Ok(Outcome::Injected(pod)) => Some(*pod),
        _ => None,
    }
}

#[test]
fn t45_a_second_injection_changes_nothing() {
    let mut held = 0;
    for (name, text) in common::inputs() {
        let (value, namespace) = common::read(&text);
        let Some(once) = injected(&common::pod(&value), &namespace) else {
            continue;
        };
        assert_eq!(
            common::inject_in(&once, &namespace),
            Ok(Outcome::AlreadyInjected),
            "{name}"
        );
        held += 1;
    }
    assert!(held >= 10);
}

#[test]
fn t45_a_container_that_joined_after_the_first_call_is_treated_like_the_others() {
    let namespace = Namespace::selected("shop");
    let mut pod = injected(
        &common::pod(&json!({"spec": {"containers": [{"name": "app"}]}})),
        &namespace,
    )
    .unwrap();
    let late = json!({"name": "late", "livenessProbe": {"tcpSocket": {"port": 81}}});
    pod.spec
        .as_mut()
        .unwrap()
        .containers
        .push(serde_json::from_value(late).unwrap());
    let again = serde_json::to_value(injected(&pod, &namespace).unwrap()).unwrap();
    assert_eq!(
        again["spec"]["containers"][1]["livenessProbe"]["httpGet"]["path"],
        "/probe/tcp/81"
    );
    let environment = again["spec"]["initContainers"][0]["env"].as_array().unwrap();
    assert!(
        environment.contains(&json!({"name": env::PROBE_PORTS, "value": "81"})),
        "{environment:?}"
    );
    pod.spec.as_mut().unwrap().containers[1].security_context =
        Some(serde_json::from_value(json!({"runAsUser": 2717})).unwrap());
    assert!(common::inject_in(&pod, &namespace).is_err());
}

/// The user's part of a pod: what is left when everything that the injector may touch is taken away.
fn of_the_user(mut pod: Value) -> Value {
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove(label::INJECTED);
    }
    let ours = [
        container::PROXY,
        container::INIT,
        container::TOKEN_VOLUME,
        container::RUN_VOLUME,
    ];
    for list in ["initContainers", "volumes"] {
        if let Some(items) = pod["spec"][list].as_array_mut() {
            items.retain(|item| !ours.contains(&item["name"].as_str().unwrap_or_default()));
        }
    }
    for list in ["initContainers", "containers"] {
        for item in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(probe) = item.get_mut(probe).and_then(Value::as_object_mut) {
                    let https = |get: &Value| get["scheme"] == "HTTPS" && get.get("host").is_none();
                    if probe
                        .get("httpGet")
                        .is_some_and(|get| get["port"] == 15020 || https(get))
                    {
                        probe.remove("httpGet");
                    }
                    if probe
                        .get("tcpSocket")
                        .is_some_and(|socket| socket.get("host").is_none())
                    {
                        probe.remove("tcpSocket");
                    }
                }
            }
        }
    }
    // A list that the injector had to make is empty now.
    let unset = |object: &mut Value, key: &str| {
        if let Some(map) = object.as_object_mut()
            && map
                .get(key)
                .is_some_and(|v| v.is_null() || *v == json!([]) || *v == json!({}))
        {
            map.remove(key);
        }
    };
    unset(&mut pod["metadata"], "annotations");
    unset(&mut pod["spec"], "initContainers");
    unset(&mut pod["spec"], "volumes");
    pod
}

const TOUCHED: [&str; 3] = ["/metadata/annotations", "/spec/initContainers", "/spec/volumes"];

fn may_touch(path: &str) -> bool {
    let is_probe = || {
        let mut parts = path.strip_prefix("/spec/containers/")?.split('/');
        parts.next()?.parse::<usize>().ok()?;
        Some(["livenessProbe", "readinessProbe", "startupProbe"].contains(&parts.next()?))
    };
    TOUCHED.iter().any(|touched| path.starts_with(touched)) || is_probe() == Some(true)
}

/// Patches a pod as the API server would, and checks that only the listed paths were touched.
fn check_patch(sent: &Value, namespace: &Namespace) -> Option<Value> {
    let before = common::pod(sent);
    let after = injected(&before, namespace)?;
    let patch = patch::patch(sent, &before, &after).unwrap();
    for operation in &patch.0 {
        let path = operation.path().to_string();
        assert!(may_touch(&path), "{operation:?}");
        assert!(matches!(
            operation,
            PatchOperation::Add(_) | PatchOperation::Replace(_) | PatchOperation::Remove(_)
        ));
    }
    let mut patched = sent.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(common::pod(&patched), after, "the patch makes the pod that was meant");
    Some(patched)
}

#[test]
fn t45_only_listed_paths_are_touched() {
    for (name, text) in common::inputs() {
        if name == "injected-before" {
            continue; // What carries our names in it is not the user's.
        }
        let (mut sent, namespace) = common::read(&text);
        sent["spec"]["fieldOfTomorrow"] = json!({"deep": [{"name": "x", "value": null}]});
        sent["spec"]["containers"][0]["fieldOfTomorrow"] = json!(["kept"]);
        if let Some(patched) = check_patch(&sent, &namespace) {
            assert_eq!(of_the_user(patched), of_the_user(sent), "{name}");
        }
    }
}

fn probe() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1u16..15000).prop_map(|port| json!({"tcpSocket": {"port": port}})),
        (1u16..15000, "/?[a-z%,]{0,8}")
            .prop_map(|(port, path)| json!({"httpGet": {"scheme": "HTTPS", "port": port, "path": path}})),
        Just(json!({"tcpSocket": {"port": "web"}, "periodSeconds": 3})),
        Just(json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}})),
        Just(json!({"httpGet": {"path": "/x", "port": "web"}, "future": 1})),
        Just(json!({"grpc": {"port": 9}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ]
}

fn container_like(prefix: &'static str) -> impl Strategy<Value = Value> {
    let probes = proptest::collection::btree_map(
        prop_oneof![Just("livenessProbe"), Just("readinessProbe"), Just("startupProbe")],
        probe(),
        0..3,
    );
    let extra = proptest::option::of(prop_oneof![
        Just(json!({"securityContext": {"runAsUser": 1000}})),
        Just(json!({"env": [], "resources": {}})),
        Just(json!({"newField": {"name": "x"}})),
        Just(json!({"restartPolicy": "Always"})),
    ]);
    (0u32..100_000, probes, extra).prop_map(move |(number, probes, extra)| {
        let mut value =
            json!({"name": format!("{prefix}-{number}"), "ports": [{"name": "web", "containerPort": 8080}]});
        json_patch::merge(&mut value, &serde_json::to_value(probes).unwrap());
        extra.iter().for_each(|extra| json_patch::merge(&mut value, extra));
        value
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    (
        proptest::collection::vec(container_like("app"), 1..4),
        proptest::option::of(proptest::collection::vec(container_like("init"), 0..3)),
        proptest::option::of(proptest::collection::vec(
            (0u32..100_000).prop_map(|n| json!({"name": format!("v{n}"), "emptyDir": {}})),
            0..3,
        )),
        proptest::option::of(Just(json!({"example.com/a": "b"}))),
    )
        .prop_map(|(containers, init, volumes, annotations)| {
            let mut pod =
                json!({"metadata": {"name": "p", "creationTimestamp": null}, "spec": {"containers": containers}});
            for (key, list) in [("initContainers", init), ("volumes", volumes)] {
                if let Some(list) = list {
                    pod["spec"][key] = list.into();
                }
            }
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = annotations;
            }
            pod
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn t45_any_pod_keeps_what_is_its_own(sent in any_pod()) {
        let namespace = Namespace::selected("shop");
        let patched = check_patch(&sent, &namespace).expect("such pods are injected");
        prop_assert_eq!(of_the_user(patched.clone()), of_the_user(sent));
        prop_assert_eq!(common::inject_in(&common::pod(&patched), &namespace), Ok(Outcome::AlreadyInjected));
    }

    /// Whatever an annotation says, arguments and environment hold numbers, ranges and addresses, or the pod is refused.
    #[test]
    fn t38_nothing_of_an_annotation_reaches_an_argument_unparsed(
        values in proptest::collection::vec(prop_oneof![
            "[0-9,./:a-f-]{0,24}",
            "(80|8000-8010|10\\.0\\.0\\.0/8|fd00::/8)(,| |\n|\u{0}|;|\\$\\(X\\)| -j ACCEPT)?(80)?",
            any::<String>(),
        ], 4)
    ) {
        let keys = [label::SKIP_INBOUND_PORTS, label::SKIP_OUTBOUND_PORTS, label::SKIP_OUTBOUND_CIDRS, label::SKIP_UIDS];
        let annotations: serde_json::Map<_, _> =
            keys.iter().zip(&values).map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
        let sent = json!({"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": []}});
        match common::inject_in(&common::pod(&sent), &Namespace::selected("shop")) {
            Err(refusals) => {
                for refusal in refusals {
                    prop_assert!(!refusal.to_string().chars().any(char::is_control), "{}", refusal);
                }
            }
            Ok(Outcome::Injected(pod)) => {
                let init = pod.spec.unwrap().init_containers.unwrap().remove(1);
                let arguments = init.args.unwrap();
                for pair in arguments.chunks(2) {
                    let [flag, value] = pair else { panic!("{arguments:?}") };
                    let again = match flag.as_str() {
                        "--skip-inbound-ports" | "--skip-outbound-ports" => value.parse::<Ports>().unwrap().to_string(),
                        "--skip-outbound-cidrs" => value.parse::<Cidrs>().unwrap().to_string(),
                        "--skip-uids" => value.parse::<Uids>().unwrap().to_string(),
                        _ => value.parse::<u16>().unwrap().to_string(),
                    };
                    prop_assert_eq!(&again, value);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
