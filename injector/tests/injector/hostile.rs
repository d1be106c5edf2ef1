//! AdmissionReviews from somebody who wishes the webhook ill (RELIABILITY T43): an answer or an error, never a panic,
//! and nothing that grows out of proportion.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_injector::admission::{Endpoint, Terms, Verdict, review};
use weft_proto::limits;

use crate::common;

pub fn review_of(pod: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "",
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": {"weft.dev/skip-uids": "7"}},
        "spec": {
            "securityContext": {"runAsUser": 1},
            "initContainers": [{"name": "i", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 80}], "livenessProbe": {"tcpSocket": {"port": "web"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

fn ask(value: &Value) -> Option<Verdict> {
    let answer = review(value.to_string().as_bytes(), &common::terms(&common::settings())).ok()?;
    let parsed: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(parsed["response"]["uid"], value["request"]["uid"]);
    assert_eq!(
        parsed["response"]["allowed"],
        !matches!(answer.verdict, Verdict::Refused(_))
    );
    Some(answer.verdict)
}

#[test]
fn t43_what_is_no_review_is_an_error_and_what_is_no_pod_is_kept_out() {
    let settings = common::settings();
    for bytes in [&b""[..], b"{", b"[]", b"null", b"{}", b"\xff\xfe", &[b'['; 100_000]] {
        assert!(review(bytes, &common::terms(&settings)).is_err());
    }
    let mut value = review_of(pod());
    value["apiVersion"] = "admission.k8s.io/v1beta1".into();
    assert!(ask(&value).is_none());
    let mut value = review_of(pod());
    value["request"]["uid"] = "".into();
    assert!(ask(&value).is_none());
    assert!(ask(&review_of(Value::Null)).is_none());

    for broken in [
        json!([]),
        json!({"spec": {"containers": "x"}}),
        json!({"spec": {"containers": [{"name": 7}]}}),
    ] {
        let Some(Verdict::Refused(why)) = ask(&review_of(broken.clone())) else {
            panic!("{broken} was let in")
        };
        assert!(why.contains("cannot be read"), "{why}");
    }
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let text = review_of(pod()).to_string().replace("\"v\"", &deep);
    assert!(review(text.as_bytes(), &common::terms(&settings)).is_err());
}

#[test]
fn t43_an_uid_comes_back_as_it_was_or_there_is_no_answer() {
    for uid in ["x", "0c9a8d74", "\u{0}\n\"é", &"u".repeat(100_000)] {
        let mut value = review_of(pod());
        value["request"]["uid"] = uid.into();
        assert_eq!(ask(&value), Some(Verdict::Injected));
    }
    for uid in [Value::Null, json!(7), json!({}), json!([])] {
        let mut value = review_of(pod());
        value["request"]["uid"] = uid;
        assert_eq!(ask(&value), None);
    }
}

#[test]
fn t43_other_kinds_and_operations_pass_untouched() {
    for (field, other) in [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("operation", json!("")),
        ("kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"})),
        ("kind", json!({"group": "", "version": "v1", "kind": "PodList"})),
        ("kind", json!({"group": "", "version": "v1", "kind": "Namespace"})),
        ("kind", json!({"group": "policy", "version": "v1", "kind": "Eviction"})),
        ("kind", json!({})),
        ("subResource", json!("status")),
        ("subResource", json!("eviction")),
        ("subResource", json!("binding")),
    ] {
        let mut value = review_of(pod());
        value["request"][field] = other;
        assert!(matches!(ask(&value), Some(Verdict::Unchanged(_))), "{field}");
    }
    // A deletion carries no object, and neither does a connection to a pod.
    for operation in ["DELETE", "CONNECT"] {
        let mut value = review_of(Value::Null);
        value["request"]["operation"] = operation.into();
        assert!(matches!(ask(&value), Some(Verdict::Unchanged(_))), "{operation}");
    }
    let mut value = review_of(pod());
    value["request"]["dryRun"] = true.into();
    assert_eq!(
        ask(&value),
        Some(Verdict::Injected),
        "a dry run is answered like any other"
    );
}

#[test]
fn t43_the_largest_pods_are_answered_in_proportion() {
    let room = limits::ADMISSION - 4096;
    let containers = |one: &dyn Fn(usize) -> Value| {
        let mut list = Vec::new();
        let mut size = 0;
        while size < room {
            let next = one(list.len());
            size += next.to_string().len() + 1;
            list.push(next);
        }
        list.into_iter().collect::<Value>()
    };
    let many_names = containers(&|n| json!({"name": format!("c{n}")}));
    let one_name = containers(&|_| json!({"name": "c", "x": 1}));
    let bad_users = containers(&|_| json!({"name": "", "securityContext": {"runAsUser": 2717}}));
    let bad_list = "x,".repeat(room / 2);
    for pod in [
        json!({"spec": {"containers": [], "initContainers": many_names}}),
        json!({"spec": {"containers": [], "initContainers": one_name}}),
        json!({"spec": {"containers": bad_users}}),
        json!({"spec": {"containers": [{"name": "c", "env": containers(&|_| json!({}))}]}}),
        json!({"spec": {"containers": [], "initContainers": (0..9999).map(|n| json!({"name": format!("c{n}{}", "x".repeat(280))})).collect::<Value>()}}),
        json!({"spec": {"containers": [], "volumes": (0..9999).map(|_| json!({"name": "v".repeat(280)})).collect::<Value>()}}),
        json!({"metadata": {"annotations": {"weft.dev/skip-uids": bad_list}}, "spec": {"containers": []}}),
    ] {
        let text = review_of(pod).to_string();
        assert!(text.len() <= limits::ADMISSION && text.len() > limits::ADMISSION / 2);
        let start = Instant::now();
        let answer = review(text.as_bytes(), &common::terms(&common::settings())).unwrap();
        assert!(start.elapsed() < limits::ADMISSION_TIME, "{:?}", start.elapsed());
        println!(
            "{:?} for {} bytes, {} back",
            start.elapsed(),
            text.len(),
            answer.body.len()
        );
        assert!(answer.body.len() < 16 * text.len());
        if let Verdict::Refused(why) = answer.verdict {
            assert!(why.len() < 32 << 10, "{}", why.len());
        }
    }
}

/// Replaces, removes or adds something somewhere.
fn mutate(value: &mut Value, path: &[usize], with: &Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = with.clone();
        return;
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(first % map.len()).cloned().unwrap_or_default();
            if rest.is_empty() && first % 3 == 0 {
                map.remove(&key);
            } else if let Some(inner) = map.get_mut(&key) {
                mutate(inner, rest, with);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let place = first % list.len();
            if first % 5 == 0 {
                list.push(with.clone());
            }
            mutate(&mut list[place], rest, with);
        }
        other => *other = with.clone(),
    }
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop_oneof![
            Just("weft-proxy"),
            Just("weft-init"),
            Just("weft-token"),
            Just("enabled"),
            Just("Always"),
            Just("sidecar"),
            Just("CREATE"),
            Just("UPDATE"),
            Just("ephemeralcontainers"),
            Just("Pod"),
            Just("0.1.0"),
        ]
        .prop_map(Value::from),
        Just(json!({"weft.dev/injected": "0.1.0", "weft.dev/inject": "enabled"})),
        Just(json!([{"name": "weft-proxy", "args": ["sidecar"], "restartPolicy": "Always"}])),
        Just(json!({"tcpSocket": {"port": 70000}})),
        Just(json!({"httpGet": {"port": 15020, "path": "/probe/tcp/99999"}})),
        Just(json!(2717)),
    ]
}

/// `WEFT_FUZZ=1000000` for a long run; the default keeps `make test` short.
fn cases() -> u32 {
    std::env::var("WEFT_FUZZ")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn t43_a_review_with_anything_anywhere_never_panics(
        changes in proptest::collection::vec((proptest::collection::vec(0usize..32, 1..9), anything()), 1..5)
    ) {
        let mut value = review_of(pod());
        for (path, with) in &changes {
            mutate(&mut value, path, with);
        }
        let settings = common::settings();
        let other = Terms { endpoint: Endpoint::PodSecurity, unsupported: Some("too old"), ..common::terms(&settings) };
        if let Ok(answer) = review(value.to_string().as_bytes(), &other) {
            prop_assert!(answer.verdict != Verdict::Injected);
        }
        if let Ok(answer) = review(value.to_string().as_bytes(), &common::terms(&settings)) {
            let parsed: Value = serde_json::from_slice(&answer.body).unwrap();
            prop_assert!(parsed["response"]["allowed"].is_boolean());
            if answer.verdict == Verdict::Injected {
                // What is let in patched is meshed, whatever it was.
                let patch = parsed["response"]["patch"].as_str().unwrap();
                let patch: json_patch::Patch = serde_json::from_slice(&serde_json::from_value::<k8s_openapi::ByteString>(patch.into()).unwrap().0).unwrap();
                let mut object = value["request"]["object"].clone();
                json_patch::patch(&mut object, &patch).unwrap();
                prop_assert!(weft_injector::pod::is_meshed(&common::pod(&object)));
            }
        }
    }

    #[test]
    fn t43_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = review(&bytes, &common::terms(&common::settings()));
    }
}
