//! The webhook away: closed where it was asked for, open everywhere else, and back without help.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::kube::{Namespace, SYSTEM};

use super::{
    After, Load, MESHED, READY, figures, meshes, name_of, plain_pod, ready, scale, stage, summary, system_pods,
    unharmed,
};
use crate::{Test, alone};

alone![
    f15_t41_without_the_webhook_no_pod_starts_outside_the_mesh,
    f15_t42_all_of_weft_deleted_comes_back_unaided,
];

fn f15_t41_without_the_webhook_no_pod_starts_outside_the_mesh(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let (labelled, plain) = (test.namespace(MESHED)?, test.namespace("")?);
    let replicas = system_pods(cluster, "weft-injector")?.len();
    let _back = After(|| scale(cluster, "weft-injector", replicas));
    scale(cluster, "weft-injector", 0)?;
    let asked = Instant::now();
    let refused = labelled.try_pod(&plain_pod())?;
    let took = asked.elapsed();
    ensure!(
        !refused.success,
        "a pod was let in without the mesh: {}",
        refused.stdout
    );
    ensure!(refused.stderr.contains("inject.weft.dev"), "{}", refused.stderr);
    let elsewhere = [plain.name(), "kube-system", SYSTEM];
    for name in elsewhere {
        Namespace::new(cluster, name.to_owned()).try_pod(&plain_pod())?.ok()?;
    }
    scale(cluster, "weft-injector", replicas)?;
    let back = Instant::now();
    cluster.eventually("pods to be meshed again", READY, || meshes(&labelled))?;
    figures(
        "f15 t41",
        &format!(
            "refused in {:.1} s in a labelled namespace; let in elsewhere ({}); meshed again {:.1} s after the webhook was ready",
            took.as_secs_f64(),
            elsewhere.join(", "),
            back.elapsed().as_secs_f64()
        ),
    );
    ensure!(took < Duration::from_secs(10), "refused only after {took:?}");
    ensure!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
    Ok(())
}

fn f15_t42_all_of_weft_deleted_comes_back_unaided(test: &Test) -> Result<()> {
    let cluster = test.cluster();
    let namespace = stage(test, MESHED, 2)?;
    let load = Load::start(&namespace, "--http-rate 50 --grpc-rate 50 --websockets 10")?;
    cluster.eventually("load", READY, || Ok(load.seconds() > 3.0))?;
    let old: Vec<_> = cluster.list(&["-n", SYSTEM, "pods"])?.iter().map(name_of).collect();
    // What the API server trusts, what it is made from, and every process, all at once.
    let no_bundle: serde_json::Value = (0..3)
        .map(
            |webhook| serde_json::json!({"op": "remove", "path": format!("/webhooks/{webhook}/clientConfig/caBundle")}),
        )
        .collect();
    cluster
        .kubectl(&["-n", SYSTEM, "delete", "secret", "weft-injector-webhook"])?
        .ok()?;
    cluster
        .kubectl(&[
            "patch",
            "mutatingwebhookconfiguration",
            "weft-injector",
            "--type=json",
            "-p",
            &no_bundle.to_string(),
        ])?
        .ok()?;
    cluster
        .kubectl(&["-n", SYSTEM, "delete", "pods", "--all", "--wait=false"])?
        .ok()?;
    let deleted = Instant::now();
    cluster.eventually("all of weft to be back", READY, || {
        let pods = cluster.list(&["-n", SYSTEM, "pods"])?;
        Ok(pods.len() == old.len() && pods.iter().all(|pod| !old.contains(&name_of(pod)) && ready(pod)))
    })?;
    let back = deleted.elapsed();
    cluster.eventually("a new pod to be meshed", READY, || meshes(&namespace))?;
    let meshed = deleted.elapsed();
    namespace.kubectl(&["rollout", "restart", "deployment/web"])?.ok()?;
    namespace.rolled_out(READY)?;
    let result = load.stop()?;
    figures(
        "f15 t42",
        &format!(
            "{} pods, the webhook's Secret and caBundle deleted: all ready after {:.1} s, pods meshed after {:.1} s; {}",
            old.len(),
            back.as_secs_f64(),
            meshed.as_secs_f64(),
            summary(&result)
        ),
    );
    unharmed(&result)?;
    ensure!(meshed < Duration::from_secs(60), "after {meshed:?}");
    Ok(())
}
