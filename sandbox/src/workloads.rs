//! Deployments, StatefulSets and Jobs: the object and its pods → what to make, what to remove, and the object's status. Pure.

use crate::{
    endpoints::is_ready,
    object::{Key, Kind, Object, is_terminating, label, name, namespace, owner, owner_reference, random_suffix, uid},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// `status.reason` of a pod that the injector did not let in: made once, not again and again.
pub const REFUSED: &str = "Refused";
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What a controller wants.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// Pods to make.
    pub create: Vec<Object>,
    /// Pods to remove.
    pub delete: Vec<Key>,
    /// Status of the workload.
    pub status: Value,
}

/// What the controller of a workload wants, given every pod.
pub fn wanted(workload: &Object, pods: &[&Object]) -> Wanted {
    let owned: Vec<&Object> = pods
        .iter()
        .copied()
        .filter(|p| owner(p) == Some(uid(workload)))
        .collect();
    match Kind::of(workload) {
        Some(Kind::Deployment) => deployment(workload, &owned),
        Some(Kind::StatefulSet) => stateful_set(workload, &owned),
        Some(Kind::Job) => job(workload, &owned),
        _ => Wanted::default(),
    }
}

/// The hash of a workload's pod template, as a label.
fn template_hash(workload: &Object) -> String {
    let digest = Sha256::digest(workload["spec"]["template"].to_string());
    digest.iter().take(5).map(|b| format!("{b:02x}")).collect()
}

fn pod(workload: &Object, name: String) -> Object {
    let template = &workload["spec"]["template"];
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = namespace(workload).into();
    pod["metadata"]["ownerReferences"] = json!([owner_reference(workload)]);
    pod["metadata"]["labels"][TEMPLATE_HASH] = template_hash(workload).into();
    pod
}

fn key(pod: &&Object) -> Key {
    Key::new(Kind::Pod, namespace(pod), name(pod))
}

fn count(value: &Value, default: usize) -> usize {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

/// A number of pods, or a percentage of them.
fn share(value: &Value, of: usize, default: &str, round_up: bool) -> usize {
    let text = value.as_str().unwrap_or(if value.is_u64() { "" } else { default });
    match text.strip_suffix('%').and_then(|p| p.parse::<usize>().ok()) {
        Some(percent) if round_up => (of * percent).div_ceil(100),
        Some(percent) => of * percent / 100,
        None => count(value, 0),
    }
}

fn deployment(workload: &Object, owned: &[&Object]) -> Wanted {
    let hash = template_hash(workload);
    let replicas = count(&workload["spec"]["replicas"], 1);
    let is_new = |p: &&&Object| label(p, TEMPLATE_HASH) == Some(&hash);
    let live: Vec<&Object> = owned.iter().copied().filter(|p| !is_terminating(p)).collect();
    let mut new: Vec<&Object> = live.iter().filter(is_new).copied().collect();
    let mut old: Vec<&Object> = live.iter().filter(|p| !is_new(p)).copied().collect();
    // What is not ready goes first: nobody misses it.
    new.sort_by_key(|p| is_ready(p));
    old.sort_by_key(|p| is_ready(p));
    let ready = live.iter().filter(|p| is_ready(p)).count();
    let strategy = &workload["spec"]["strategy"];
    let (mut create, mut delete) = (0, Vec::new());
    if strategy["type"] == "Recreate" {
        delete.extend(old.iter().map(key));
        let gone = owned.iter().filter(|p| !is_new(p)).count() == 0;
        create = if gone { replicas.saturating_sub(new.len()) } else { 0 };
    } else {
        let surge = share(&strategy["rollingUpdate"]["maxSurge"], replicas, "25%", true);
        let missing = share(&strategy["rollingUpdate"]["maxUnavailable"], replicas, "25%", false);
        let surge = if surge == 0 && missing == 0 { 1 } else { surge };
        create += replicas
            .saturating_sub(new.len())
            .min((replicas + surge).saturating_sub(live.len()));
        let unready = old.iter().filter(|p| !is_ready(p)).count();
        let spare = ready.saturating_sub(replicas.saturating_sub(missing));
        delete.extend(old.iter().take(unready + spare.min(old.len() - unready)).map(key));
    }
    delete.extend(new.iter().take(new.len().saturating_sub(replicas)).map(key));
    let pods = (0..create).map(|_| pod(workload, format!("{}-{hash}-{}", name(workload), random_suffix())));
    let status = json!({
        "replicas": live.len(), "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": new.len(),
        "unavailableReplicas": replicas.saturating_sub(ready),
    });
    Wanted {
        create: pods.collect(),
        delete,
        status,
    }
}

fn stateful_set(workload: &Object, owned: &[&Object]) -> Wanted {
    let hash = template_hash(workload);
    let replicas = count(&workload["spec"]["replicas"], 1);
    let parallel = workload["spec"]["podManagementPolicy"] == "Parallel";
    let pod_name = |i: usize| format!("{}-{i}", name(workload));
    let of = |i: usize| owned.iter().copied().find(|p| name(p) == pod_name(i));
    let mut wanted = Wanted::default();
    for i in 0..replicas {
        match of(i) {
            None => wanted.create.push(stateful_pod(workload, pod_name(i), i)),
            Some(pod) if is_ready(pod) && !is_terminating(pod) => continue,
            Some(_) => {}
        }
        if !parallel {
            break;
        }
    }
    let ordinal = |p: &&Object| name(p).rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok());
    let mut surplus: Vec<&Object> = owned
        .iter()
        .copied()
        .filter(|p| ordinal(p).is_none_or(|n| n >= replicas))
        .collect();
    surplus.sort_by_key(|p| std::cmp::Reverse(ordinal(p)));
    let ready = (0..replicas)
        .filter_map(of)
        .filter(|p| is_ready(p) && !is_terminating(p))
        .count();
    if surplus.is_empty() && wanted.create.is_empty() {
        // An update goes from the last to the first, one at a time. A pod that is not ready does not hold its own repair up.
        let outdated = |p: &&Object| label(p, TEMPLATE_HASH) != Some(&hash) && !is_terminating(p);
        let unready = (0..replicas)
            .rev()
            .filter_map(of)
            .find(|p| !is_ready(p) || is_terminating(p));
        let next = (0..replicas).rev().filter_map(of).find(outdated);
        wanted.delete.extend(
            next.filter(|n| unready.is_none_or(|u| uid(u) == uid(n)))
                .as_ref()
                .map(key),
        );
    } else {
        let take = if parallel { surplus.len() } else { 1 };
        wanted
            .delete
            .extend(surplus.iter().take(take).filter(|p| !is_terminating(p)).map(key));
    }
    wanted.status = json!({"replicas": owned.len(), "readyReplicas": ready, "availableReplicas": ready});
    wanted
}

fn stateful_pod(workload: &Object, pod_name: String, ordinal: usize) -> Object {
    let mut pod = pod(workload, pod_name.clone());
    pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = pod_name.clone().into();
    pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = ordinal.to_string().into();
    pod["spec"]["hostname"] = pod_name.clone().into();
    if let Some(service) = workload["spec"]["serviceName"].as_str() {
        pod["spec"]["subdomain"] = service.into();
    }
    for template in workload["spec"]["volumeClaimTemplates"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let claim = format!("{}-{pod_name}", name(template));
        let volume = json!({"name": name(template), "persistentVolumeClaim": {"claimName": claim}});
        match pod["spec"]["volumes"].as_array_mut() {
            Some(volumes) => volumes.push(volume),
            None => pod["spec"]["volumes"] = json!([volume]),
        }
    }
    pod
}

fn job(workload: &Object, owned: &[&Object]) -> Wanted {
    let spec = &workload["spec"];
    let parallelism = count(&spec["parallelism"], 1);
    let completions = count(&spec["completions"], 1);
    let phase = |p: &Object, phase: &str| p["status"]["phase"] == phase;
    let succeeded = owned.iter().filter(|p| phase(p, "Succeeded")).count();
    let failed = owned
        .iter()
        .filter(|p| phase(p, "Failed") && p["status"]["reason"] != REFUSED)
        .count();
    let active: Vec<&Object> = owned
        .iter()
        .copied()
        .filter(|p| !phase(p, "Succeeded") && (!phase(p, "Failed") || p["status"]["reason"] == REFUSED))
        .collect();
    let complete = succeeded >= completions;
    let given_up = failed > count(&spec["backoffLimit"], 6);
    let mut wanted = Wanted {
        status: json!({"active": active.len(), "succeeded": succeeded, "failed": failed}),
        ..Wanted::default()
    };
    if complete || given_up {
        let condition = if complete { "Complete" } else { "Failed" };
        wanted.status["conditions"] = json!([{"type": condition, "status": "True"}]);
        wanted
            .delete
            .extend(active.iter().filter(|p| !is_terminating(p)).map(key));
        return wanted;
    }
    let missing = parallelism.min(completions - succeeded).saturating_sub(active.len());
    for _ in 0..missing {
        let mut pod = pod(workload, format!("{}-{}", name(workload), random_suffix()));
        for key in ["job-name", "batch.kubernetes.io/job-name"] {
            pod["metadata"]["labels"][key] = name(workload).into();
        }
        wanted.create.push(pod);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(kind: &str, spec: Value) -> Object {
        let api = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "web", "namespace": "shop", "uid": "w"}, "spec": spec});
        if object["spec"]["template"].is_null() {
            object["spec"]["template"] = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}});
        }
        object
    }

    fn with_status(mut pod: Object, phase: &str, ready: bool) -> Object {
        pod["status"] =
            json!({"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
        pod
    }

    /// Applies what is wanted until nothing changes; pods become ready at once. The largest and smallest number of ready pods.
    fn settle(workload: &Object, pods: &mut Vec<Object>) -> (usize, usize) {
        let (mut most, mut least) = (pods.len(), pods.len());
        for _ in 0..100 {
            let wanted = wanted(workload, &pods.iter().collect::<Vec<_>>());
            if wanted.create.is_empty() && wanted.delete.is_empty() {
                return (most, least);
            }
            pods.retain(|p| !wanted.delete.contains(&key(&p)));
            least = least.min(pods.len());
            pods.extend(wanted.create.into_iter().map(|p| with_status(p, "Running", true)));
            most = most.max(pods.len());
        }
        panic!("it never settles");
    }

    #[test]
    fn a_deployment_rolls_over_within_its_bounds() {
        let mut pods = Vec::new();
        let mut web = workload("Deployment", json!({"replicas": 4}));
        settle(&web, &mut pods);
        assert_eq!(pods.len(), 4);
        let old: Vec<String> = pods.iter().map(|p| name(p).to_string()).collect();
        web["spec"]["template"]["spec"]["containers"] = json!([{"name": "new"}]);
        let (most, least) = settle(&web, &mut pods);
        assert!(most <= 5 && least >= 3, "{most} {least}");
        assert!(pods.len() == 4 && pods.iter().all(|p| !old.contains(&name(p).to_string())));
        web["spec"]["replicas"] = 1.into();
        settle(&web, &mut pods);
        assert_eq!(pods.len(), 1);
    }

    #[test]
    fn recreate_waits_until_the_old_pods_are_gone() {
        let mut web = workload("Deployment", json!({"replicas": 2, "strategy": {"type": "Recreate"}}));
        let mut pods = Vec::new();
        settle(&web, &mut pods);
        web["spec"]["template"]["spec"]["containers"] = json!([{"name": "new"}]);
        let first = wanted(&web, &pods.iter().collect::<Vec<_>>());
        assert_eq!((first.create.len(), first.delete.len()), (0, 2));
        for pod in &mut pods {
            pod["metadata"]["deletionTimestamp"] = "now".into();
        }
        assert!(wanted(&web, &pods.iter().collect::<Vec<_>>()).create.is_empty());
        assert_eq!(wanted(&web, &[]).create.len(), 2);
    }

    #[test]
    fn a_pod_that_was_refused_is_not_made_again_and_again() {
        for kind in ["Deployment", "StatefulSet", "Job"] {
            let web = workload(kind, json!({}));
            let mut pod = with_status(wanted(&web, &[]).create.remove(0), "Failed", false);
            pod["status"]["reason"] = REFUSED.into();
            assert_eq!(wanted(&web, &[&pod]).create, Vec::<Object>::new(), "{kind}");
        }
    }

    #[test]
    fn a_stateful_set_has_names_and_goes_one_by_one() {
        let set = workload(
            "StatefulSet",
            json!({"replicas": 3, "serviceName": "db", "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
        );
        let first = wanted(&set, &[]).create;
        assert_eq!(first.iter().map(name).collect::<Vec<_>>(), ["web-0"]);
        assert_eq!(first[0]["spec"]["hostname"], "web-0");
        assert_eq!(first[0]["spec"]["subdomain"], "db");
        assert_eq!(
            first[0]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
            "data-web-0"
        );
        let unready = with_status(first[0].clone(), "Running", false);
        assert!(wanted(&set, &[&unready]).create.is_empty());
        let mut pods = vec![with_status(first[0].clone(), "Running", true)];
        settle(&set, &mut pods);
        assert_eq!(pods.iter().map(name).collect::<Vec<_>>(), ["web-0", "web-1", "web-2"]);
        let mut fewer = set.clone();
        fewer["spec"]["replicas"] = 1.into();
        assert_eq!(wanted(&fewer, &pods.iter().collect::<Vec<_>>()).delete[0].name, "web-2");
        let mut changed = set;
        changed["spec"]["template"]["spec"]["containers"] = json!([{"name": "new"}]);
        let update = wanted(&changed, &pods.iter().collect::<Vec<_>>());
        assert_eq!(
            update.delete.iter().map(|k| k.name.as_str()).collect::<Vec<_>>(),
            ["web-2"]
        );
    }

    #[test]
    fn a_job_runs_to_its_completions_and_gives_up_at_its_limit() {
        let job = workload("Job", json!({"completions": 3, "parallelism": 2, "backoffLimit": 1}));
        let mut first = wanted(&job, &[]).create;
        assert_eq!(first.len(), 2);
        let (one, other) = (first.remove(0), first.remove(0));
        let done = with_status(one.clone(), "Succeeded", false);
        let failed = |pod: &Object| with_status(pod.clone(), "Failed", false);
        assert_eq!(wanted(&job, &[&done, &failed(&other)]).create.len(), 2);
        let given_up = wanted(&job, &[&failed(&one), &failed(&other)]);
        assert!(given_up.create.is_empty());
        assert_eq!(given_up.status["conditions"][0]["type"], "Failed");
        let single = workload("Job", json!({}));
        let complete = wanted(&single, &[&done]);
        assert!(complete.create.is_empty() && complete.status["conditions"][0]["type"] == "Complete");
    }
}
