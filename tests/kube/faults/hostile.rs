//! Those who may create pods, or dial the webhook, and mean ill.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{MESHED, READY, client, figures, meshes, name_of, plain_pod, restarts, system_pods};
use crate::{Test, tests};

tests![
    t35_no_container_of_any_kind_runs_as_the_proxy,
    t35_the_hosts_network_is_never_touched,
    t38_annotations_are_values_not_rules,
    t43_hostile_reviews_sent_to_the_webhook,
];

fn t35_no_container_of_any_kind_runs_as_the_proxy(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let container = json!({"name": "x", "image": weft_tests::kube::CLIENT, "securityContext": {"runAsUser": 2717}});
    for list in ["containers", "initContainers"] {
        let mut pod = plain_pod();
        pod["spec"][list] = json!([container]);
        let ran = namespace.try_pod(&pod)?;
        ensure!(
            !ran.success && ran.stderr.contains("2717"),
            "{list}: {}{}",
            ran.stdout,
            ran.stderr
        );
    }
    let mut pod = plain_pod();
    pod["spec"]["securityContext"] = json!({"runAsUser": 2717});
    let ran = namespace.try_pod(&pod)?;
    ensure!(
        !ran.success && ran.stderr.contains("2717"),
        "the pod's: {}{}",
        ran.stdout,
        ran.stderr
    );
    // What kubectl debug does, on a running pod.
    namespace.apply(&client("client", false))?;
    namespace.rolled_out(READY)?;
    let pod = namespace.pod("client")?;
    let debug = |container: Value| {
        let patch = json!({"spec": {"ephemeralContainers": [container]}}).to_string();
        namespace.kubectl(&["patch", "pod", &pod, "--subresource=ephemeralcontainers", "-p", &patch])
    };
    let ran = debug(container.clone())?;
    ensure!(
        !ran.success && ran.stderr.contains("2717"),
        "ephemeral: {}{}",
        ran.stdout,
        ran.stderr
    );
    let mut other = container;
    other["securityContext"]["runAsUser"] = 1000.into();
    debug(other)?.ok()?;
    figures(
        "t35",
        "user 2717 refused in containers, initContainers, the pod's securityContext and ephemeral containers; 1000 let in",
    );
    Ok(())
}

fn t35_the_hosts_network_is_never_touched(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let mut pod = plain_pod();
    pod["spec"]["hostNetwork"] = true.into();
    let made: Value = serde_json::from_str(&namespace.try_pod(&pod)?.ok()?)?;
    ensure!(made["spec"]["initContainers"].is_null(), "{}", made["spec"]);
    Ok(())
}

fn t38_annotations_are_values_not_rules(test: &Test) -> Result<()> {
    let namespace = test.namespace(MESHED)?;
    let hostile = [
        ("weft.dev/skip-inbound-ports", "80\n-A PREROUTING -j ACCEPT"),
        ("weft.dev/skip-inbound-ports", "80 -j ACCEPT"),
        ("weft.dev/skip-inbound-ports", "80,,81"),
        ("weft.dev/skip-outbound-ports", "-j"),
        ("weft.dev/skip-outbound-ports", "443;reboot"),
        ("weft.dev/skip-outbound-ports", "99999"),
        ("weft.dev/skip-outbound-cidrs", "10.0.0.0/8 -j ACCEPT"),
        ("weft.dev/skip-outbound-cidrs", "10.0.0.0/8\nCOMMIT"),
        ("weft.dev/skip-outbound-cidrs", "! 10.0.0.0/8"),
        ("weft.dev/skip-uids", "0 -j RETURN"),
        ("weft.dev/skip-uids", "$(id)"),
    ];
    for (annotation, value) in hostile {
        let mut pod = plain_pod();
        pod["metadata"]["annotations"] = json!({annotation: value});
        let ran = namespace.try_pod(&pod)?;
        ensure!(
            !ran.success && ran.stderr.contains(annotation),
            "{annotation}: {value:?} was answered: {}{}",
            ran.stdout,
            ran.stderr
        );
    }
    figures(
        "t38",
        &format!("{} hostile annotations, all refused with their names", hostile.len()),
    );
    Ok(())
}

fn t43_hostile_reviews_sent_to_the_webhook(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let (plain, labelled) = (test.namespace("")?, test.namespace(MESHED)?);
    plain.apply(&client("client", false))?;
    plain.rolled_out(READY)?;
    let state = || -> Result<Vec<(String, u64)>> {
        let pods = system_pods(cluster, "weft-injector")?;
        Ok(pods.iter().map(|pod| (name_of(pod), restarts(pod))).collect())
    };
    let before = state()?;
    let told = plain.script(
        &plain.pod("client")?,
        "reviews.py",
        &["weft-injector.weft-system.svc", "300"],
    )?;
    figures("t43", told.trim());
    ensure!(told.contains("0 unanswered"), "{told}");
    cluster.eventually("the webhook to answer", Duration::from_secs(10), || meshes(&labelled))?;
    ensure!(
        before == state()?,
        "the webhook was started again: {before:?}, {:?}",
        state()?
    );
    Ok(())
}
