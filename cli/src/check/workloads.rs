//! Other people's pods: which should be meshed and are not, which are of another version, which could not start. Pure.

use super::{
    finding::Finding,
    gather::{Seen, Tried},
    system,
};
use crate::{
    install,
    owner::{Groups, Owner, pods},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Event, Namespace, Pod},
    },
    jiff::Timestamp,
};
use std::collections::BTreeMap;
use weft_injector::{Namespace as Context, audit, neighbours, pod, pod_security};
use weft_proto::{
    limits,
    names::{INJECTOR_SERVICE_ACCOUNT as INJECTOR, container, kubernetes, label},
};

/// Labels and annotations by which other meshes take a namespace, with the values that say so; no value: any.
const OTHER_MESHES: [(&str, &str, &[&str]); 5] = [
    ("Istio", "istio-injection", &["enabled"]),
    ("Istio", "istio.io/rev", &[]),
    ("Istio", "istio.io/dataplane-mode", &["ambient"]),
    ("Linkerd", "linkerd.io/inject", &["enabled", "ingress"]),
    ("Kuma", "kuma.io/sidecar-injection", &["enabled", "true"]),
];

/// Whether a namespace is labelled for injection, and not one in which nothing is ever injected.
pub fn is_labelled(namespace: &Namespace) -> bool {
    label_of(namespace, label::INJECT) == Some("enabled") && !is_excluded(namespace)
}

/// The Pod Security Standard by which a namespace forbids what weft adds.
pub fn forbids(namespace: &Namespace) -> Option<&str> {
    label_of(namespace, pod_security::ENFORCE).filter(|level| pod_security::FORBIDDING.contains(level))
}

fn is_excluded(namespace: &Namespace) -> bool {
    kubernetes::EXCLUDED_NAMESPACES.contains(&name_of(namespace))
}

fn label_of<'a>(namespace: &'a Namespace, key: &str) -> Option<&'a str> {
    namespace.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn name_of(namespace: &Namespace) -> &str {
    namespace.metadata.name.as_deref().unwrap_or_default()
}

/// Everything about namespaces and pods.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    let there = match &seen.namespaces {
        Ok(there) => there,
        Err(why) => return vec![Finding::fail("namespaces", format!("cannot be looked at: {why}"))],
    };
    let mut findings = namespaces(there);
    findings.extend(tried(&seen.tried));
    match &seen.pods {
        Ok(pods) => findings.extend(judge_pods(pods, there, seen.deployments.as_deref().unwrap_or_default())),
        Err(why) => findings.push(Finding::fail("pods", format!("cannot be looked at: {why}"))),
    }
    if let Ok(events) = &seen.refusals {
        findings.extend(refused(events, seen.pods.as_deref().unwrap_or_default()));
    }
    findings
}

fn namespaces(there: &[Namespace]) -> Vec<Finding> {
    let labelled: Vec<&str> = there.iter().filter(|one| is_labelled(one)).map(name_of).collect();
    let mut findings = vec![if labelled.is_empty() {
        Finding::warn(
            "namespaces",
            format!(
                "none is in the mesh; put one in with: kubectl label namespace NAME {}=enabled",
                label::INJECT
            ),
        )
    } else {
        Finding::ok("namespaces", format!("in the mesh: {}", labelled.join(", ")))
    }];
    for one in there {
        let (name, what) = (name_of(one), format!("namespace {}", name_of(one)));
        match label_of(one, label::INJECT) {
            Some("enabled") if is_excluded(one) => findings.push(Finding::warn(
                what,
                format!(
                    "is labelled {}=enabled, but nothing is ever meshed in it",
                    label::INJECT
                ),
            )),
            Some("enabled") => {
                if let Some(level) = forbids(one) {
                    findings.push(Finding::fail(
                        &what,
                        format!(
                            "enforces the Pod Security Standard {level}, which forbids the capability NET_ADMIN that weft-init needs: no pod \
                             that would be meshed starts; kubectl label namespace {name} {}=privileged --overwrite, or take it out of \
                             the mesh: kubectl label namespace {name} {}-",
                            pod_security::ENFORCE,
                            label::INJECT
                        ),
                    ));
                }
                findings.extend(other_meshes(one).map(|text| Finding::warn(&what, text)));
            }
            Some("disabled") | None => {}
            Some(other) => findings.push(Finding::warn(
                what,
                format!(
                    "{}={other} is neither enabled nor disabled; kubectl label namespace {name} {}=enabled --overwrite",
                    label::INJECT,
                    label::INJECT
                ),
            )),
        }
    }
    findings
}

/// That another mesh takes the same namespace.
fn other_meshes(namespace: &Namespace) -> Option<String> {
    let metadata = &namespace.metadata;
    let said = |key: &str| {
        let maps = [&metadata.labels, &metadata.annotations];
        maps.into_iter().flatten().find_map(|map| map.get(key).cloned())
    };
    let found: Vec<String> = OTHER_MESHES
        .iter()
        .filter_map(|(mesh, key, values)| {
            let value = said(key).filter(|value| values.is_empty() || values.contains(&value.as_str()))?;
            Some(format!("{mesh} takes it too ({key}={value})"))
        })
        .collect();
    (!found.is_empty()).then(|| {
        format!(
            "{}: two meshes in one pod redirect each other's connections; take one of the labels away",
            found.join("; ")
        )
    })
}

fn tried(tried: &BTreeMap<String, Tried>) -> Vec<Finding> {
    let what = "webhook's answer";
    let mut findings = Vec::new();
    let of = |wanted: &Tried| -> Vec<&str> {
        tried
            .iter()
            .filter(|(_, tried)| *tried == wanted)
            .map(|(name, _)| name.as_str())
            .collect()
    };
    let meshed = of(&Tried::Meshed);
    if !meshed.is_empty() {
        findings.push(Finding::ok(
            what,
            format!(
                "a pod that was created on trial came back with the proxy: {}",
                meshed.join(", ")
            ),
        ));
    }
    let left = of(&Tried::Left);
    if !left.is_empty() {
        findings.push(Finding::fail(
            what,
            format!(
                "a pod that was created on trial came back without the proxy: {}; see the webhook above",
                left.join(", ")
            ),
        ));
    }
    let forbidden = of(&Tried::Forbidden);
    if !forbidden.is_empty() {
        findings.push(Finding::warn(
            what,
            format!("not tried, since you may not create pods: {}", forbidden.join(", ")),
        ));
    }
    for (name, tried) in tried {
        if let Tried::Refused(why) = tried {
            let fix = if tried.is_unanswered() {
                format!("; nobody answers for it: kubectl -n weft-system logs deployment/{INJECTOR}")
            } else {
                String::new()
            };
            findings.push(Finding::fail(
                what,
                format!("a pod that was created on trial in {name} was refused: {why}{fix}"),
            ));
        }
    }
    findings
}

fn judge_pods(all: &[Pod], namespaces: &[Namespace], deployments: &[Deployment]) -> Vec<Finding> {
    let contexts: BTreeMap<&str, Context> = namespaces
        .iter()
        .map(|one| {
            (
                name_of(one),
                Context::new(name_of(one), one.metadata.labels.clone().unwrap_or_default()),
            )
        })
        .collect();
    let installed = proxy_image(deployments);
    let (mut missed, mut meant, mut outdated, mut failed, mut shared) =
        <(Groups, Groups, Groups, Groups, Groups)>::default();
    let mut meshed = 0;
    for one in all {
        let Some(context) = one.metadata.namespace.as_deref().and_then(|name| contexts.get(name)) else {
            continue;
        };
        if let Some(finding) = audit::missed(one, context) {
            match finding.fix {
                Some(fix) => missed.add(one, format!("{}\u{0}{fix}", finding.why)),
                None => meant.add(one, finding.why),
            }
        }
        if !pod::is_meshed(one) || audit::is_over(one) {
            continue;
        }
        meshed += 1;
        if let Some(image) =
            proxy_of(one).filter(|image| installed.as_deref().is_some_and(|installed| installed != *image))
        {
            outdated.add(one, image);
        }
        if let Some(why) = own_trouble(one) {
            failed.add(one, why);
        }
        neighbours::warnings(one)
            .into_iter()
            .take(1)
            .for_each(|warning| shared.add(one, warning));
    }
    let mut findings = Vec::new();
    if !missed.is_empty() {
        let lines = lines(&missed, |owner, said| {
            let (why, fix) = said.split_once('\u{0}').unwrap_or((said, ""));
            // Creating it again is what the owner's command does.
            if fix.contains("create the pod again") && !fix.starts_with("label namespace") {
                format!("{why}; {}", owner.restart())
            } else {
                format!("{why}; {fix}")
            }
        });
        findings.push(Finding::fail(
            "pods not meshed",
            format!(
                "{} should be and {} not:\n{lines}",
                pods(missed.pods()),
                if missed.pods() == 1 { "is" } else { "are" }
            ),
        ));
    }
    if !failed.is_empty() {
        findings.push(Finding::fail(
            "pods that do not start",
            lines(&failed, |_, said| said.to_owned()),
        ));
    }
    if !outdated.is_empty() {
        let installed = installed.unwrap_or_default();
        findings.push(Finding::warn(
            "pods of another version",
            format!(
                "{installed} is installed:\n{}",
                lines(&outdated, |owner, said| format!("{said}; {}", owner.restart()))
            ),
        ));
    }
    if !shared.is_empty() {
        findings.push(Finding::warn(
            "pods with neighbours",
            lines(&shared, |_, said| said.to_owned()),
        ));
    }
    if !meant.is_empty() {
        findings.push(Finding::ok(
            "pods kept out",
            format!(
                "{}, as they ask for:\n{}",
                meant.pods(),
                lines(&meant, |_, said| said.to_owned())
            ),
        ));
    }
    findings.push(Finding::ok("pods meshed", meshed.to_string()));
    findings
}

/// A line for each owner, and how many more there are.
fn lines(groups: &Groups, text: impl Fn(&Owner, &str) -> String) -> String {
    let line =
        |(owner, count, said): (&Owner, usize, &str)| format!("{owner} ({}): {}", pods(count), text(owner, said));
    let mut lines: Vec<String> = groups.iter().take(limits::CHECK_LINES).map(line).collect();
    let more = groups.iter().count().saturating_sub(limits::CHECK_LINES);
    if more > 0 {
        lines.push(format!("and {more} more; -n NAMESPACE shows one namespace"));
    }
    lines.join("\n")
}

/// The image that the installed injector gives to pods.
fn proxy_image(deployments: &[Deployment]) -> Option<String> {
    let injector = deployments
        .iter()
        .find(|one| one.metadata.name.as_deref() == Some(INJECTOR))?;
    let pod = injector.spec.as_ref()?.template.spec.as_ref()?;
    let arguments = pod.containers.first()?.args.as_deref()?;
    install::value(arguments, "--proxy-image").map(str::to_owned)
}

fn proxy_of(pod: &Pod) -> Option<&str> {
    let init = pod.spec.as_ref()?.init_containers.as_ref()?;
    init.iter().find(|one| one.name == container::PROXY)?.image.as_deref()
}

/// What weft's own containers in a pod say when they do not run.
fn own_trouble(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    let own = statuses
        .iter()
        .filter(|status| [container::PROXY, container::INIT].contains(&status.name.as_str()));
    own.into_iter()
        .find_map(|status| system::said(status).map(|said| format!("{}: {said}", status.name)))
}

/// Pods that somebody could not make, because weft refused them. Only the last word about each owner, and only while the owner
/// has none that runs: events stay for an hour.
fn refused(events: &[Event], all: &[Pod]) -> Option<Finding> {
    let webhooks = [
        kubernetes::INJECT_WEBHOOK,
        kubernetes::STRICT_WEBHOOK,
        kubernetes::POD_SECURITY_WEBHOOK,
    ];
    let mut last: BTreeMap<(String, String, String), &Event> = BTreeMap::new();
    for event in events {
        let about = &event.involved_object;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = (part(&about.namespace), part(&about.kind), part(&about.name));
        let newer = last.get(&key).is_none_or(|known| when(known) <= when(event));
        if newer {
            last.insert(key, event);
        }
    }
    let has_pods = |namespace: &str, kind: &str, name: &str| {
        all.iter().any(|pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            pod.metadata.namespace.as_deref() == Some(namespace)
                && owners.into_iter().any(|owner| owner.kind == kind && owner.name == name)
        })
    };
    let lines: Vec<String> = last
        .iter()
        .filter(|((namespace, kind, name), _)| !has_pods(namespace, kind, name))
        .filter_map(|((namespace, kind, name), event)| {
            let message = event.message.as_deref()?;
            webhooks
                .iter()
                .any(|webhook| message.contains(webhook))
                .then(|| format!("{kind} {namespace}/{name}: {message}"))
        })
        .take(limits::CHECK_LINES)
        .collect();
    (!lines.is_empty()).then(|| Finding::warn("pods refused", format!("in the last hour:\n{}", lines.join("\n"))))
}

/// When an event was seen last.
fn when(event: &Event) -> Option<Timestamp> {
    let observed = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    observed.or(event.event_time.as_ref()).map(|time| time.0).max(
        event
            .last_timestamp
            .as_ref()
            .or(event.metadata.creation_timestamp.as_ref())
            .map(|time| time.0),
    )
}
