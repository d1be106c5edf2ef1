//! What a pod may not do beside the proxy, each refusal with its fix. All of a pod's mistakes are told together.
//!
//! The proxy's user is the one whose traffic is not redirected: a container that runs as it would leave the mesh
//! unseen (RELIABILITY T35). Its ports are where weft listens in the pod's own network namespace.

use std::fmt;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, Pod, PodSecurityContext, PodSpec, SecurityContext, VolumeMount,
};
use weft_proto::names::{self, container, port};

/// Refusals that one message shows; more are counted.
const SHOWN: usize = 20;

/// One reason why a pod cannot be meshed as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// The container, where it is one container's doing.
    pub container: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}", printable(&self.pod))?;
        if let Some(container) = &self.container {
            write!(f, ", container {}", printable(container))?;
        }
        write!(f, ": {}; {}", printable(&self.what), printable(&self.fix))
    }
}

impl std::error::Error for Refusal {}

/// One line for each refusal, the first [`SHOWN`] of them.
pub fn summary(refusals: &[Refusal]) -> String {
    let mut lines: Vec<_> = refusals.iter().take(SHOWN).map(Refusal::to_string).collect();
    if refusals.len() > SHOWN {
        lines.push(format!("and {} more", refusals.len() - SHOWN));
    }
    lines.join("\n")
}

/// Names come from outsiders: no line break or escape of theirs reaches a log or a terminal, and none is endless.
fn printable(text: &str) -> String {
    const LONGEST: usize = 512;
    text.chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Refusals of one pod, as they are gathered.
#[derive(Debug)]
pub struct Refusals {
    pod: String,
    found: Vec<Refusal>,
}

impl Refusals {
    /// None yet.
    pub fn of(pod: impl Into<String>) -> Self {
        Self {
            pod: pod.into(),
            found: Vec::new(),
        }
    }

    /// Adds one about the pod as a whole.
    pub fn pod(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(None, what.into(), fix.into());
    }

    /// Adds one about a container.
    pub fn container(&mut self, name: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Some(name.to_owned()), what.into(), fix.into());
    }

    /// Nothing, or everything that was found.
    pub fn into_result(self) -> Result<(), Vec<Refusal>> {
        if self.found.is_empty() { Ok(()) } else { Err(self.found) }
    }

    fn add(&mut self, container: Option<String>, what: String, fix: String) {
        self.found.push(Refusal {
            pod: self.pod.clone(),
            container,
            what,
            fix,
        });
    }
}

/// `namespace/name`, or the name that the pod's owner will complete.
pub fn pod_name(pod: &Pod, namespace: &str) -> String {
    let metadata = &pod.metadata;
    let namespace = metadata
        .namespace
        .as_deref()
        .filter(|n| !n.is_empty())
        .unwrap_or(namespace);
    match (
        metadata.name.as_deref().filter(|n| !n.is_empty()),
        metadata.generate_name.as_deref(),
    ) {
        (Some(name), _) => format!("{namespace}/{name}"),
        (None, Some(prefix)) => format!("{namespace}/{prefix}*"),
        (None, None) => format!("{namespace}/(unnamed)"),
    }
}

/// The little that all three kinds of container have in common and that matters here.
struct View<'a> {
    name: &'a str,
    ports: &'a [ContainerPort],
    security: Option<&'a SecurityContext>,
    mounts: &'a [VolumeMount],
}

impl<'a> From<&'a Container> for View<'a> {
    fn from(c: &'a Container) -> Self {
        Self {
            name: &c.name,
            ports: c.ports.as_deref().unwrap_or_default(),
            security: c.security_context.as_ref(),
            mounts: c.volume_mounts.as_deref().unwrap_or_default(),
        }
    }
}

impl<'a> From<&'a EphemeralContainer> for View<'a> {
    fn from(c: &'a EphemeralContainer) -> Self {
        Self {
            name: &c.name,
            ports: c.ports.as_deref().unwrap_or_default(),
            security: c.security_context.as_ref(),
            mounts: c.volume_mounts.as_deref().unwrap_or_default(),
        }
    }
}

fn views(spec: &PodSpec) -> impl Iterator<Item = View<'_>> {
    let init = spec.init_containers.iter().flatten().map(View::from);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(View::from);
    init.chain(spec.containers.iter().map(View::from)).chain(ephemeral)
}

/// Checks a pod without weft's own containers.
pub fn check(spec: &PodSpec, refusals: &mut Refusals) {
    for view in views(spec) {
        check_names(&view, refusals);
        check_user(&view, refusals);
        check_ports(&view, refusals);
    }
    if let Some(context) = &spec.security_context {
        check_pod_user(context, refusals);
    }
    for volume in spec.volumes.iter().flatten() {
        if is_our_volume(&volume.name) {
            refusals.pod(
                format!("the volume name {} is weft's own", volume.name),
                "rename the volume",
            );
        }
    }
}

/// Checks the ephemeral containers that are being added to a pod that is meshed already. The pod's own containers were
/// checked when it was created, and cannot change.
pub fn check_ephemeral(spec: &PodSpec, refusals: &mut Refusals) {
    for container in spec.ephemeral_containers.iter().flatten() {
        let view = View::from(container);
        check_names(&view, refusals);
        check_user(&view, refusals);
        check_ports(&view, refusals);
        let own_user = view.security.and_then(|s| s.run_as_user);
        let target = container.target_container_name.as_deref();
        if target == Some(container::PROXY) && own_user.is_none() {
            // Without a user of its own it takes the image's; only a number that is said can be checked.
            refusals.container(
                view.name,
                "it targets the proxy's container and does not say which user it runs as",
                format!(
                    "set its securityContext.runAsUser to another user than {}",
                    names::PROXY_UID
                ),
            );
        }
    }
}

fn check_names(view: &View, refusals: &mut Refusals) {
    if view.name == container::PROXY || view.name == container::INIT {
        refusals.container(
            view.name,
            "the name is taken by weft's own container",
            "rename the container",
        );
    }
    for mount in view.mounts {
        if is_our_volume(&mount.name) {
            refusals.container(
                view.name,
                format!("it mounts the volume {}, which is for the proxy alone", mount.name),
                "remove the mount",
            );
        }
    }
}

fn is_our_volume(name: &str) -> bool {
    name == container::TOKEN_VOLUME || name == container::RUN_VOLUME
}

fn check_user(view: &View, refusals: &mut Refusals) {
    let Some(security) = view.security else { return };
    for (field, value) in [
        ("runAsUser", security.run_as_user),
        ("runAsGroup", security.run_as_group),
    ] {
        if value == Some(i64::from(names::PROXY_UID)) {
            refusals.container(
                view.name,
                format!("securityContext.{field} {} is the proxy's own", names::PROXY_UID),
                "choose another number; the traffic of that user is not redirected",
            );
        }
    }
}

fn check_pod_user(context: &PodSecurityContext, refusals: &mut Refusals) {
    let single = [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
        ("fsGroup", context.fs_group),
    ];
    let groups = context
        .supplemental_groups
        .iter()
        .flatten()
        .map(|group| ("supplementalGroups", Some(*group)));
    for (field, value) in single.into_iter().chain(groups) {
        if value == Some(i64::from(names::PROXY_UID)) {
            refusals.pod(
                format!(
                    "the pod's securityContext.{field} {} is the proxy's own",
                    names::PROXY_UID
                ),
                "choose another number; the traffic of that user is not redirected",
            );
        }
    }
}

fn check_ports(view: &View, refusals: &mut Refusals) {
    for port in view.ports {
        // UDP and SCTP pass untouched, and their ports are not ours.
        let is_tcp = port.protocol.as_deref().is_none_or(|p| p == "TCP");
        if is_tcp && is_reserved(port.container_port) {
            refusals.container(
                view.name,
                format!(
                    "containerPort {} is one of weft's own ({})",
                    port.container_port,
                    reserved()
                ),
                "let the application listen on another port",
            );
        }
    }
}

/// Whether weft listens on this port in every meshed pod.
pub fn is_reserved(port: i32) -> bool {
    port::RESERVED.iter().any(|reserved| i32::from(*reserved) == port)
}

/// The reserved ports, for messages.
pub fn reserved() -> String {
    port::RESERVED.map(|p| p.to_string()).join(", ")
}

/// What is allowed but deserves a word: a container that can undo the redirects (RELIABILITY T35).
pub fn warnings(spec: &PodSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    for view in views(spec) {
        let Some(security) = view.security else { continue };
        let added = security
            .capabilities
            .as_ref()
            .and_then(|c| c.add.as_deref())
            .unwrap_or_default();
        let can_configure = added
            .iter()
            .any(|c| matches!(c.as_str(), "NET_ADMIN" | "CAP_NET_ADMIN" | "ALL"));
        if can_configure || security.privileged == Some(true) {
            warnings.push(printable(&format!(
                "container {} may change the pod's network (NET_ADMIN), and so take its traffic out of the mesh",
                view.name
            )));
        }
    }
    warnings.truncate(SHOWN);
    warnings
}
