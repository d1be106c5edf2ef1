//! Pods that should be meshed and are not are named, with the repair; pods that opted out are left in peace.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::{
    kube::{APPS, Namespace, SYSTEM},
    objects::{App, ready_when_open},
};

use crate::{Test, tests};

tests![a_namespace_labelled_later_is_told_how_to_be_repaired];

const MINUTE: Duration = Duration::from_secs(120);
/// Within which an un-meshed pod is counted and told of (RELIABILITY T41).
const TOLD: Duration = Duration::from_secs(10);
/// Port of the controller's metrics.
const ADMIN: u16 = 15021;

fn app(namespace: &Namespace<'_>, name: &str) -> String {
    let container = format!(
        "image: '{APPS}', args: [http, --listen, '8080'], {}",
        ready_when_open(8080)
    );
    App {
        namespace: namespace.name(),
        name,
        replicas: 1,
        container,
        port: 0,
    }
    .yaml()
}

/// What every replica of the controller counts in this namespace.
fn counted(namespace: &Namespace<'_>) -> Result<Vec<f64>> {
    let cluster = namespace.cluster();
    let pods = cluster.list(&[
        "-n",
        SYSTEM,
        "pods",
        "-l",
        "app.kubernetes.io/name=weft-routes",
        "--field-selector=status.phase=Running",
    ])?;
    let names = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    names
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .map(|pod| {
            Ok(cluster
                .metrics_of(SYSTEM, pod, ADMIN)?
                .sum("weft_unmeshed_pods", &[("namespace", namespace.name())]))
        })
        .collect()
}

fn a_namespace_labelled_later_is_told_how_to_be_repaired(test: &Test) -> Result<()> {
    let namespace = test.namespace("")?;
    let apart = app(&namespace, "apart").replace(
        "labels: {app: apart}}",
        "labels: {app: apart}, annotations: {weft.dev/inject: disabled}}",
    );
    namespace.apply(&(app(&namespace, "late") + &apart))?;
    namespace.rolled_out(MINUTE)?;
    let labelled = Instant::now();
    test.cluster()
        .kubectl(&["label", "namespace", namespace.name(), "weft.dev/inject=enabled"])?
        .ok()?;
    let message = namespace.event("NotMeshed", TOLD)?;
    test.cluster().eventually(
        "every replica to count the pod",
        TOLD.saturating_sub(labelled.elapsed()),
        || {
            let counts = counted(&namespace)?;
            ensure!(
                !counts.is_empty() && counts.iter().all(|count| *count == 1.0),
                "{counts:?}"
            );
            Ok(true)
        },
    )?;
    let every = format!("kubectl -n {} rollout restart deployment", namespace.name());
    ensure!(message.contains(&every), "no '{every}' in the event: {message}");
    let told = namespace
        .events()?
        .iter()
        .filter(|event| event["reason"] == "NotMeshed")
        .count();
    ensure!(told == 1, "{told} events of one pod");
    let repair = format!("kubectl -n {} rollout restart deployment/late", namespace.name());
    let check = test.cluster().weft(&["check", "-n", namespace.name()])?;
    let said = format!("{}{}", check.stdout, check.stderr);
    ensure!(
        !check.success && said.contains(&repair),
        "weft check does not say '{repair}':\n{said}"
    );
    ensure!(
        !said.contains("rollout restart deployment/apart"),
        "who opted out is not to be repaired:\n{said}"
    );

    // The repair, as it was said.
    namespace.kubectl(&["rollout", "restart", "deployment/late"])?.ok()?;
    namespace.rolled_out(MINUTE)?;
    let pod = namespace.get(&format!("pod/{}", namespace.pod("late")?))?;
    ensure!(
        pod["spec"]["initContainers"][0]["name"] == "weft-proxy",
        "{}",
        pod["spec"]
    );
    let pod = namespace.get(&format!("pod/{}", namespace.pod("apart")?))?;
    ensure!(pod["spec"]["initContainers"].is_null(), "{}", pod["spec"]);
    test.cluster().eventually("the count to end", TOLD + TOLD, || {
        Ok(counted(&namespace)?.iter().all(|count| *count == 0.0))
    })?;
    test.cluster().eventually("weft check to be content", TOLD, || {
        let check = test.cluster().weft(&["check", "-n", namespace.name()])?;
        let said = format!("{}{}", check.stdout, check.stderr);
        ensure!(!said.contains("rollout restart"), "{said}");
        Ok(true)
    })
}
