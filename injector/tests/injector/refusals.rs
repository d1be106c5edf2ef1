//! What a pod may not do beside the proxy, and what the refusal says.

use serde_json::{Value, json};
use weft_injector::{Context, Namespace, Outcome, pod, refuse::summary};

use crate::common;

/// The refusal of a pod with these fields merged in, or the empty text.
fn refusal(changes: Value) -> String {
    let mut value = json!({
        "metadata": {"name": "web-1", "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "a"}]},
    });
    json_patch::merge(&mut value, &changes);
    match common::inject_in(&common::pod(&value), &Namespace::selected("shop")) {
        Ok(outcome) => {
            assert!(matches!(outcome, Outcome::Injected(_)), "{outcome:?}");
            String::new()
        }
        Err(refusals) => summary(&refusals),
    }
}

#[test]
fn t35_nobody_else_runs_as_the_proxys_user_or_group() {
    let ours = json!({"runAsUser": 2717});
    let container = |name: &str, security: &Value| json!([{"name": name, "securityContext": security}]);
    for (changes, named) in [
        (json!({"containers": container("app", &ours)}), "container app"),
        (
            json!({"initContainers": container("prepare", &ours)}),
            "container prepare",
        ),
        (
            json!({"ephemeralContainers": container("debug", &ours)}),
            "container debug",
        ),
        (
            json!({"containers": container("app", &json!({"runAsGroup": 2717}))}),
            "runAsGroup 2717",
        ),
        (
            json!({"securityContext": ours}),
            "the pod's securityContext.runAsUser 2717",
        ),
        (json!({"securityContext": {"runAsGroup": 2717}}), "runAsGroup 2717"),
        (json!({"securityContext": {"fsGroup": 2717}}), "fsGroup 2717"),
        (
            json!({"securityContext": {"supplementalGroups": [1, 2717]}}),
            "supplementalGroups 2717",
        ),
    ] {
        let text = refusal(json!({"spec": changes}));
        assert!(
            text.starts_with("pod shop/web-1") && text.contains(named),
            "{changes}: {text}"
        );
        assert!(text.contains("choose another number"), "{text}");
    }
    assert_eq!(
        refusal(json!({"spec": {"containers": container("app", &json!({"runAsUser": 2718}))}})),
        ""
    );
}

#[test]
fn t35_an_ephemeral_container_joins_a_meshed_pod_only_as_somebody_else() {
    let mut value = json!({
        "metadata": {"name": "web-1", "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "a"}]},
    });
    value["spec"]["ephemeralContainers"] = json!([{"name": "debug", "securityContext": {"runAsUser": 2717}}]);
    assert!(
        pod::check_ephemeral(&common::pod(&value), "shop").is_ok(),
        "a pod without a proxy may have any"
    );
    value["spec"]["initContainers"] = json!([{"name": "weft-proxy", "restartPolicy": "Always", "args": ["sidecar"]}]);
    let refusals = pod::check_ephemeral(&common::pod(&value), "shop").unwrap_err();
    assert!(summary(&refusals).contains("container debug"), "{refusals:?}");
    value["spec"]["ephemeralContainers"] = json!([{"name": "debug", "targetContainerName": "weft-proxy"}]);
    let refusals = pod::check_ephemeral(&common::pod(&value), "shop").unwrap_err();
    assert!(
        summary(&refusals).contains("targets the proxy's container"),
        "{refusals:?}"
    );
    value["spec"]["ephemeralContainers"] = json!([{"name": "debug", "targetContainerName": "app"}]);
    assert!(pod::check_ephemeral(&common::pod(&value), "shop").is_ok());
}

#[test]
fn t35_a_container_that_may_change_the_network_is_warned_about() {
    for security in [
        json!({"capabilities": {"add": ["NET_ADMIN"]}}),
        json!({"privileged": true}),
    ] {
        let value = json!({"spec": {"containers": [{"name": "tool", "securityContext": security}]}});
        let settings = common::settings();
        let namespace = Namespace::selected("shop");
        let warnings = pod::warnings(
            &common::pod(&value),
            &Context {
                settings: &settings,
                namespace: &namespace,
            },
        );
        assert!(
            warnings.len() == 1 && warnings[0].contains("container tool"),
            "{warnings:?}"
        );
    }
}

#[test]
fn nobody_else_listens_on_wefts_ports_or_takes_its_names() {
    for port in [15001, 15006, 15020] {
        let text = refusal(json!({"spec": {"containers": [{"name": "app", "ports": [{"containerPort": port}]}]}}));
        assert!(text.contains(&format!("container app: containerPort {port}")), "{text}");
        let text =
            refusal(json!({"spec": {"containers": [{"name": "app", "livenessProbe": {"tcpSocket": {"port": port}}}]}}));
        assert!(text.contains(&format!("livenessProbe.tcpSocket.port {port}")), "{text}");
    }
    for (changes, words) in [
        (
            json!({"containers": [{"name": "weft-proxy"}]}),
            "container weft-proxy: the name is taken",
        ),
        (
            json!({"initContainers": [{"name": "weft-init"}]}),
            "container weft-init: the name is taken",
        ),
        (json!({"volumes": [{"name": "weft-run"}]}), "the volume name weft-run"),
        (
            json!({"containers": [{"name": "app", "volumeMounts": [{"name": "weft-token", "mountPath": "/x"}]}]}),
            "weft-token",
        ),
    ] {
        let text = refusal(json!({"spec": changes}));
        assert!(text.contains(words), "{text}");
    }
    let udp = json!([{"name": "app", "ports": [{"containerPort": 15001, "protocol": "UDP"}]}]);
    assert_eq!(refusal(json!({"spec": {"containers": udp}})), "");
}

#[test]
fn t38_a_bad_annotation_is_told_with_the_entry_and_the_fix() {
    let text = refusal(json!({"metadata": {"annotations": {"weft.dev/skip-inbound-ports": "80,abc"}}}));
    let expected = "pod shop/web-1: annotation weft.dev/skip-inbound-ports: 'abc' is not a port from 1 to 65535 or a range \
                    such as 8000-8010; write it as 80,8000-8010";
    assert_eq!(text, expected);
    let text = refusal(
        json!({"metadata": {"annotations": {"weft.dev/skip-inbound-ports": "x,y", "weft.dev/skip-uids": "z"}}}),
    );
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("none of 'x', 'y' is a port"), "{text}");
    let text = refusal(json!({"metadata": {"annotations": {"weft.dev/skip-uids": "a,b,c,d,e,f,g"}}}));
    assert!(
        text.contains("none of 'a', 'b', 'c', 'd', 'e' (and 2 more) is a numeric user id"),
        "{text}"
    );
    let text = refusal(json!({"metadata": {"annotations": {"weft.dev/skip-uids": "1,"}}}));
    assert!(text.contains("'' is not a numeric user id"), "{text}");
}

#[test]
fn a_mode_that_loosens_is_refused_where_the_namespace_is_known() {
    let value = json!({"metadata": {"annotations": {"weft.dev/mtls": "permissive"}}, "spec": {"containers": []}});
    let labels = |mtls: &str| {
        [("weft.dev/inject", "enabled"), ("weft.dev/mtls", mtls)]
            .map(|(k, v)| (k.into(), v.into()))
            .into()
    };
    let refused = common::inject_in(&common::pod(&value), &Namespace::new("vault", labels("strict"))).unwrap_err();
    assert!(
        refused[0]
            .to_string()
            .contains("would loosen the mode of namespace vault"),
        "{refused:?}"
    );
    assert!(common::inject_in(&common::pod(&value), &Namespace::new("vault", labels("permissive"))).is_ok());
    let unknown = common::inject_in(&common::pod(&json!({})), &Namespace::new("vault", labels("tight"))).unwrap_err();
    assert!(
        unknown[0]
            .to_string()
            .contains("label weft.dev/mtls=tight of namespace vault"),
        "{unknown:?}"
    );
}
