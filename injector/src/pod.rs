//! The injection itself: a pod in, a meshed pod out. Pure, and idempotent by construction.
//!
//! A pod that carries our annotation is first stripped of everything that is ours, then injected again, and compared
//! with what came in. So a second call changes nothing, a container that another webhook added in between is checked
//! and its probes rewritten, and nobody's own idea of `weft-proxy` gets through by carrying the annotation.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use weft_proto::names::{container, label};

use crate::{
    annotations, containers,
    context::Context,
    decide::{self, Decision, Why},
    neighbours, probes,
    refuse::{self, Refusal, Refusals},
    volumes,
};

/// The value of `weft.dev/injected`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The pod as it is to be created.
    Injected(Box<Pod>),
    /// Left alone, and why.
    Skipped(Why),
    /// Nothing to change: it was injected before, with these settings.
    AlreadyInjected,
}

/// Makes a meshed pod of `pod`, or says why not. Refusals are all that were found, not the first.
pub fn inject(pod: &Pod, context: &Context) -> Result<Outcome, Vec<Refusal>> {
    let name = refuse::pod_name(pod, &context.namespace.name);
    let mut refusals = Refusals::of(name);
    let decision = decide::decide(pod, context.namespace, &mut refusals);
    if let Decision::Skip(why) = decision {
        return refusals.into_result().map(|()| Outcome::Skipped(why));
    }
    let mut meshed = stripped(pod);
    let skips = annotations::read(meshed.metadata.annotations.as_ref(), context.namespace, &mut refusals);
    let strict = annotations::is_strict(meshed.metadata.annotations.as_ref(), context.namespace);
    let spec = meshed.spec.get_or_insert_default();
    refuse::check(spec, &mut refusals);
    let mut probes = probes::Found::default();
    let sidecars = spec.init_containers.iter_mut().flatten();
    for container in sidecars.chain(&mut spec.containers) {
        probes::rewrite(container, &skips.inbound_ports, &mut probes, &mut refusals);
    }
    refusals.into_result()?;

    let ours = [
        containers::proxy(context.settings, &skips, &probes, strict),
        containers::init(context.settings, &skips),
    ];
    spec.init_containers.get_or_insert_default().splice(0..0, ours);
    spec.volumes.get_or_insert_default().extend(volumes::volumes());
    meshed
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(label::INJECTED.into(), VERSION.into());
    Ok(if meshed == *pod {
        Outcome::AlreadyInjected
    } else {
        Outcome::Injected(Box::new(meshed))
    })
}

/// Checks the ephemeral containers of a pod that is being debugged. A pod without a proxy may have any.
pub fn check_ephemeral(pod: &Pod, namespace: &str) -> Result<(), Vec<Refusal>> {
    let mut refusals = Refusals::of(refuse::pod_name(pod, namespace));
    if is_meshed(pod) {
        refuse::check_ephemeral(pod.spec.as_ref().unwrap_or(&PodSpec::default()), &mut refusals);
    }
    refusals.into_result()
}

/// Words for the person who creates the pod; they do not keep it out.
pub fn warnings(pod: &Pod, context: &Context) -> Vec<String> {
    let mut warnings = annotations::warnings(pod.metadata.annotations.as_ref(), context.namespace);
    let stripped = stripped(pod);
    warnings.extend(neighbours::warnings(&stripped));
    warnings.extend(stripped.spec.as_ref().map(refuse::warnings).unwrap_or_default());
    warnings
}

/// Whether weft's proxy runs in a pod, by its specification: annotations and labels can change after admission.
pub fn is_meshed(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.init_containers.as_ref())
        .is_some_and(|list| list.iter().any(containers::is_proxy))
}

/// The pod as it was before, when it carries our annotation. Rewritten probes stay: they find their ports again.
fn stripped(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    let carried = pod
        .metadata
        .annotations
        .as_mut()
        .and_then(|annotations| annotations.remove(label::INJECTED));
    if carried.is_none() {
        return pod;
    }
    if let Some(spec) = &mut pod.spec {
        if let Some(list) = &mut spec.init_containers {
            list.retain(|c| c.name != container::PROXY && c.name != container::INIT);
        }
        if let Some(list) = &mut spec.volumes {
            list.retain(|v| v.name != container::TOKEN_VOLUME && v.name != container::RUN_VOLUME);
        }
    }
    pod
}
