//! What `kubectl apply` is told: mistakes all together, warnings, Pod Security; and what injection changes in a pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{
    Ran,
    kube::{APPS, Namespace},
};

use crate::{Test, tests};

tests![
    mistakes_are_refused_all_together,
    t35_the_proxys_user_and_ports_are_refused,
    a_second_meshs_sidecar_is_warned_of,
    t44_pod_security_says_why_and_what_to_do,
    t44_the_proxy_itself_is_restricted,
    t45_injection_touches_only_what_it_lists,
];

const MESHED: &str = "weft.dev/inject: enabled";

/// What the API server makes of a pod, without keeping it.
fn dry_run(namespace: &Namespace<'_>, metadata: &Value, spec: &Value) -> Result<Ran> {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    pod["metadata"]["name"] = "tried".into();
    namespace.try_pod(&pod)
}

fn app(more: Value) -> Value {
    let mut container = json!({"name": "app", "image": APPS, "args": ["http"]});
    if let (Some(container), Value::Object(more)) = (container.as_object_mut(), more) {
        container.extend(more);
    }
    json!({"containers": [container]})
}

fn refused(ran: &Ran, words: &[&str]) -> Result<()> {
    ensure!(!ran.success, "it was let in: {}", ran.stdout);
    for word in words {
        ensure!(ran.stderr.contains(word), "no '{word}' in: {}", ran.stderr);
    }
    Ok(())
}

fn mistakes_are_refused_all_together(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let annotations = json!({
        "weft.dev/skip-inbound-ports": "80,abc",
        "weft.dev/skip-outbound-cidrs": "10.0.0.0/99",
        "weft.dev/skip-uids": "root",
        "weft.dev/mtls": "loose",
    });
    let ran = dry_run(&namespace, &json!({"annotations": annotations}), &app(json!({})))?;
    refused(&ran, &["'abc'", "10.0.0.0/99", "'root'", "'loose'", "weft.dev/mtls"])
}

fn t35_the_proxys_user_and_ports_are_refused(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let spec = app(json!({"securityContext": {"runAsUser": 2717}, "ports": [{"containerPort": 15006}]}));
    refused(
        &dry_run(&namespace, &json!({}), &spec)?,
        &["container app", "runAsUser 2717", "containerPort 15006"],
    )?;
    let mut spec = app(json!({}));
    spec["securityContext"] = json!({"fsGroup": 2717});
    refused(
        &dry_run(&namespace, &json!({}), &spec)?,
        &["fsGroup 2717", "choose another number"],
    )
}

fn a_second_meshs_sidecar_is_warned_of(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let mut spec = app(json!({}));
    let sidecar = json!({"name": "linkerd-proxy", "image": "cr.l5d.io/linkerd/proxy:stable"});
    if let Some(containers) = spec["containers"].as_array_mut() {
        containers.push(sidecar);
    }
    spec["shareProcessNamespace"] = true.into();
    let ran = dry_run(&namespace, &json!({}), &spec)?;
    ensure!(ran.success, "{}", ran.stderr);
    for words in ["Warning: weft: ", "a sidecar of Linkerd", "shareProcessNamespace"] {
        ensure!(ran.stderr.contains(words), "no '{words}' in: {}", ran.stderr);
    }
    Ok(())
}

fn t44_pod_security_says_why_and_what_to_do(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled, pod-security.kubernetes.io/enforce: restricted")?;
    let restricted = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, \
                      seccompProfile: {type: RuntimeDefault}}";
    let deployment = |name: &str, annotations: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
             template:\n    metadata: {{labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n    \
             spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: app, image: '{APPS}', args: [http], {restricted}}}]}}\n---\n"
        )
    };
    namespace.apply(&(deployment("meshed", "") + &deployment("apart", "weft.dev/inject: disabled")))?;
    let message = namespace.event("FailedCreate", Duration::from_secs(20))?;
    for words in [
        "it cannot be meshed",
        "NET_ADMIN",
        &format!(
            "kubectl label namespace {} pod-security.kubernetes.io/enforce=privileged",
            namespace.name()
        ),
        "weft.dev/inject: disabled",
    ] {
        ensure!(message.contains(words), "no '{words}' in the event: {message}");
    }
    // A pod that stays out of the mesh is none of weft's business.
    namespace
        .kubectl(&["rollout", "status", "deployment/apart", "--timeout=60s"])?
        .ok()?;
    // The event's first advice, followed.
    let label = [
        "label",
        "namespace",
        namespace.name(),
        "pod-security.kubernetes.io/enforce=privileged",
        "--overwrite",
    ];
    test.cluster().kubectl(&label)?.ok()?;
    namespace.kubectl(&["rollout", "restart", "deployment/meshed"])?.ok()?;
    namespace
        .kubectl(&["rollout", "status", "deployment/meshed", "--timeout=60s"])?
        .ok()?;
    let pod = namespace.get(&format!("pod/{}", namespace.pod("meshed")?))?;
    ensure!(
        pod["spec"]["initContainers"][0]["name"] == "weft-proxy",
        "{}",
        pod["spec"]
    );
    Ok(())
}

fn t44_the_proxy_itself_is_restricted(test: &Test) -> Result<()> {
    let (meshed, restricted) = (
        test.namespace(MESHED)?,
        test.namespace("pod-security.kubernetes.io/enforce: restricted")?,
    );
    let injected = dry_run(&meshed, &json!({}), &app(json!({})))?.ok()?;
    let mut pod: Value = serde_json::from_str(&injected).context("the pod of a dry run")?;
    let containers = pod["spec"]["initContainers"]
        .as_array_mut()
        .context("init containers")?;
    ensure!(containers.len() == 2, "{containers:?}");
    let init = containers.pop().unwrap_or_default();
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    // The namespace is not labelled for weft: nothing is added again.
    let ran = dry_run(&restricted, &json!({}), &pod["spec"])?;
    ensure!(ran.success, "{}", ran.stderr);
    // Its neighbour is what needs more.
    if let Some(containers) = pod["spec"]["initContainers"].as_array_mut() {
        containers.push(init);
    }
    refused(
        &dry_run(&restricted, &json!({}), &pod["spec"])?,
        &["weft-init", "NET_ADMIN"],
    )
}

fn t45_injection_touches_only_what_it_lists(test: &Test) -> Result<()> {
    let (meshed, plain) = (test.namespace(MESHED)?, test.namespace("")?);
    let mut spec = app(json!({
        "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": true},
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}},
        "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
        "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
    }));
    spec["initContainers"] = json!([{"name": "mine", "image": APPS, "args": ["--version"]}]);
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    spec["automountServiceAccountToken"] = false.into();
    let metadata = json!({"labels": {"app": "x"}, "annotations": {"mine": "kept"}});
    let read = |namespace: &Namespace<'_>| -> Result<Value> {
        Ok(serde_json::from_str(&dry_run(namespace, &metadata, &spec)?.ok()?)?)
    };
    let (mut with, without) = (read(&meshed)?, read(&plain)?);
    // What weft lists is taken away again, and the rest has to be the same.
    for list in ["initContainers", "volumes"] {
        if let Some(items) = with["spec"][list].as_array_mut() {
            items.retain(|item| !item["name"].as_str().unwrap_or_default().starts_with("weft-"));
        }
    }
    let probe = &mut with["spec"]["containers"][0]["readinessProbe"];
    ensure!(probe["httpGet"]["path"] == "/probe/tcp/8080", "{probe}");
    if let Some(probe) = probe.as_object_mut() {
        probe.remove("httpGet");
        probe.insert("tcpSocket".into(), json!({"port": 8080}));
    }
    if let Some(annotations) = with["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| !key.starts_with("weft.dev/") && !key.starts_with("prometheus.io/"));
    }
    ensure!(
        with["spec"] == without["spec"],
        "{}\ninstead of\n{}",
        with["spec"],
        without["spec"]
    );
    for field in ["labels", "annotations"] {
        ensure!(
            with["metadata"][field] == without["metadata"][field],
            "{field}: {}",
            with["metadata"]
        );
    }
    Ok(())
}
