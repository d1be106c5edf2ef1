//! Whether weft itself is whole in a cluster: version, definitions, Deployments, webhook, rights. Pure.

use super::{finding::Finding, gather::Seen, rights::Right};
use crate::install::{self, CRDS};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        core::v1::{ContainerStatus, Pod},
    },
    apimachinery::pkg::version::Info,
};
use std::collections::BTreeSet;
use weft_injector::kubernetes::version::refusal;
use weft_proto::names::{
    IDENTITY_SERVICE_ACCOUNT as IDENTITY, INJECTOR_SERVICE_ACCOUNT as INJECTOR, ROUTES_SERVICE_ACCOUNT as ROUTES,
    SYSTEM_NAMESPACE, kubernetes,
};

/// The command that repairs weft's own objects.
const INSTALL: &str = "weft install | kubectl apply --server-side -f -";
/// Kinds whose watch the controller cannot do without, once a route is to be read.
const NEEDED: [&str; 2] = ["httproutes", "grpcroutes"];

/// The cluster's version.
pub fn version(version: &Info) -> Finding {
    match refusal(version) {
        None => Finding::ok("Kubernetes", version.git_version.clone()),
        Some(old) => Finding::fail("Kubernetes", old),
    }
}

/// Everything else about weft itself.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = vec![definitions(seen)];
    if is_absent(seen) {
        findings.push(Finding::fail(
            SYSTEM_NAMESPACE,
            format!("weft is not installed here; {INSTALL}"),
        ));
        return findings;
    }
    findings.extend(deployments(seen));
    findings.push(webhook(seen));
    findings.extend(rights(&seen.rights));
    findings
}

/// Whether there is neither a Deployment of weft nor its webhook.
fn is_absent(seen: &Seen) -> bool {
    seen.deployments.as_ref().is_ok_and(Vec::is_empty) && seen.webhook.as_ref().is_ok_and(Option::is_none)
}

fn definitions(seen: &Seen) -> Finding {
    let what = "Gateway API";
    let (there, served) = match (&seen.definitions, &seen.served) {
        (Ok(there), Ok(served)) => (there, served),
        (Err(why), _) | (_, Err(why)) => return Finding::warn(what, format!("cannot be looked at: {why}")),
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|kind| !served.contains(*kind)).collect();
    if !missing.is_empty() {
        let text = format!(
            "{} not there in version v1; {INSTALL} adds what is missing",
            missing.join(" and ")
        );
        return Finding::fail(what, text);
    }
    let versions: BTreeSet<&str> = there.values().map(String::as_str).collect();
    let versions = versions.into_iter().collect::<Vec<_>>().join("; ");
    let others: Vec<&str> = CRDS
        .iter()
        .map(|crd| crd.name)
        .filter(|name| !there.contains_key(*name))
        .collect();
    if others.is_empty() {
        Finding::ok(what, versions)
    } else {
        Finding::warn(
            what,
            format!(
                "{versions}; not there: {}; {INSTALL} adds what is missing",
                others.join(", ")
            ),
        )
    }
}

fn deployments(seen: &Seen) -> Vec<Finding> {
    let there = match &seen.deployments {
        Ok(there) => there,
        Err(why) => return vec![Finding::warn(SYSTEM_NAMESPACE, format!("cannot be looked at: {why}"))],
    };
    let own = |name: &str| {
        there
            .iter()
            .find(|deployment| deployment.metadata.name.as_deref() == Some(name))
    };
    let parts = [IDENTITY, ROUTES, INJECTOR];
    let pods = seen.system_pods.as_deref().unwrap_or_default();
    let judge = |name: &str| match own(name) {
        None => Finding::fail(name, format!("its Deployment is not there; {INSTALL}")),
        Some(deployment) => deployed(name, deployment, pods),
    };
    parts.iter().map(|name| judge(name)).collect()
}

fn deployed(name: &str, deployment: &Deployment, pods: &[Pod]) -> Finding {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let (available, updated) = (
        status.available_replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
    );
    let image = container_image(deployment).unwrap_or_default();
    let text = format!("{available} of {wanted} available, {image}");
    let trouble: Vec<String> = pods
        .iter()
        .filter(|pod| {
            pod.metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(kubernetes::NAME))
                .is_some_and(|of| of == name)
        })
        .filter_map(trouble)
        .collect();
    let told = |text: String| {
        if trouble.is_empty() {
            text
        } else {
            format!("{text}\n{}", trouble.join("\n"))
        }
    };
    if available == 0 {
        let look = format!(
            "look at: kubectl -n {SYSTEM_NAMESPACE} describe pods -l {}={name}",
            kubernetes::NAME
        );
        Finding::fail(name, told(format!("{text}; {look}")))
    } else if available < wanted || updated < wanted {
        Finding::warn(name, told(format!("{text}, {updated} of them as it is now")))
    } else {
        Finding::ok(name, text)
    }
}

/// The image of a Deployment's first container.
fn container_image(deployment: &Deployment) -> Option<&str> {
    deployment
        .spec
        .as_ref()?
        .template
        .spec
        .as_ref()?
        .containers
        .first()?
        .image
        .as_deref()
}

/// Why a pod is not ready, in the kubelet's and the container's own words.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    containers
        .into_iter()
        .find_map(|container| said(container).map(|said| format!("pod {name}: {}: {said}", container.name)))
}

/// What a container that does not run says: why it waits, and how it ended last.
pub fn said(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let ended = [&container.state, &container.last_state]
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated.as_ref().filter(|ended| ended.exit_code != 0));
    let ended = ended.map(|ended| {
        match ended
            .message
            .as_deref()
            .map(str::trim)
            .filter(|message| !message.is_empty())
        {
            Some(message) => message.to_owned(),
            None => format!("ended with exit code {}", ended.exit_code),
        }
    });
    let waits = waiting.and_then(|waiting| {
        let reason = waiting
            .reason
            .clone()
            .filter(|reason| !["PodInitializing", "ContainerCreating"].contains(&reason.as_str()))?;
        // A crash is told by what the container said.
        let message = waiting.message.as_ref().filter(|_| ended.is_none());
        Some(message.map_or(reason.clone(), |message| format!("{reason}: {message}")))
    });
    match (waits, ended) {
        (None, None) => None,
        (Some(waits), None) => Some(waits),
        (Some(waits), Some(ended)) => Some(format!("{waits}: {ended}")),
        // It runs again.
        (None, Some(_)) if container.state.as_ref().is_some_and(|state| state.running.is_some()) => None,
        (None, Some(ended)) => Some(ended),
    }
}

fn webhook(seen: &Seen) -> Finding {
    let what = "webhook";
    let configuration = match &seen.webhook {
        Ok(Some(configuration)) => configuration,
        Ok(None) => {
            let text = format!(
                "MutatingWebhookConfiguration {} is not there: no new pod is meshed; {INSTALL}",
                kubernetes::WEBHOOK
            );
            return Finding::fail(what, text);
        }
        Err(why) => return Finding::warn(what, format!("cannot be looked at: {why}")),
    };
    let problems = configured(configuration);
    if problems.is_empty() {
        Finding::ok(
            what,
            "configured, closed when nobody answers, and the API server has its CA",
        )
    } else {
        Finding::fail(what, problems.join("\n"))
    }
}

/// How a configuration differs from ours. `caBundle` is the injector's.
fn configured(there: &MutatingWebhookConfiguration) -> Vec<String> {
    let ours = install::system().unwrap_or_default().into_iter();
    let ours = ours.filter(|object| object["kind"] == "MutatingWebhookConfiguration");
    let ours = ours.filter_map(|object| serde_json::from_value::<MutatingWebhookConfiguration>(object).ok());
    let mut problems = Vec::new();
    for ours in ours.flat_map(|configuration| configuration.webhooks.unwrap_or_default()) {
        let name = &ours.name;
        let Some(found) = there.webhooks.iter().flatten().find(|webhook| webhook.name == *name) else {
            problems.push(format!("{name} is missing; {INSTALL}"));
            continue;
        };
        if found
            .client_config
            .ca_bundle
            .as_ref()
            .is_none_or(|bundle| bundle.0.is_empty())
        {
            problems.push(format!(
                "{name} has no caBundle, so that the API server cannot call it and no pod starts in labelled namespaces; {INJECTOR} sets \
                 it as soon as it runs: kubectl -n {SYSTEM_NAMESPACE} logs deployment/{INJECTOR}"
            ));
        }
        let parts = [
            ("failurePolicy", ours.failure_policy == found.failure_policy),
            ("namespaceSelector", ours.namespace_selector == found.namespace_selector),
            ("rules", ours.rules == found.rules),
            (
                "clientConfig.service",
                ours.client_config.service == found.client_config.service,
            ),
        ];
        let changed: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(part, _)| *part).collect();
        if !changed.is_empty() {
            problems.push(format!(
                "{name}: {} changed since it was installed; {INSTALL}",
                changed.join(", ")
            ));
        }
    }
    problems
}

fn rights(asked: &[(Right, Result<bool, String>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for account in [IDENTITY, ROUTES, INJECTOR] {
        let what = format!("rights of {account}");
        let own: Vec<_> = asked.iter().filter(|(right, _)| right.account == account).collect();
        if let Some(why) = own.iter().find_map(|(_, answer)| answer.as_ref().err()) {
            findings.push(Finding::warn(what, format!("cannot be asked for: {why}")));
            continue;
        }
        let of = |needed: bool, allowed: bool| {
            let kept = own
                .iter()
                .filter(|(right, answer)| right.needed == needed && *answer == Ok(allowed));
            kept.map(|(right, _)| right.to_string()).collect::<Vec<_>>()
        };
        let (missing, excess) = (of(true, false), of(false, true));
        if !missing.is_empty() {
            findings.push(Finding::fail(what, format!("it may not {}; {INSTALL}", few(&missing))));
        } else if !excess.is_empty() {
            let text = format!(
                "it may {}, which weft does not need; find the role binding that allows it",
                few(&excess)
            );
            findings.push(Finding::warn(what, text));
        } else {
            findings.push(Finding::ok(
                what,
                format!("all {}, and no list of secrets", of(true, true).len()),
            ));
        }
    }
    findings
}

/// The first of them, and how many more there are.
fn few(all: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = all
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} things more"),
    }
}
