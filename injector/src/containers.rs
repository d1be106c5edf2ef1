//! weft's two containers, first among the init containers: `weft-proxy`, a native sidecar, then `weft-init`, which sets
//! the redirects and proves them through the running proxy. The user's come after, and so are meshed themselves.
//!
//! The controller recognises a meshed pod by these containers' arguments, so what is written here is a contract. Every
//! field that the API server would fill in is said, so that a pod that comes by again compares equal.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle,
        LifecycleHandler, ObjectFieldSelector, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use weft_proto::{
    environment::{self, Mesh, Source},
    meshed,
    names::{self, container, env, path, port},
};

use crate::{annotations::Skips, context::Settings, probes::Found, volumes};

pub use weft_proto::meshed::{ALWAYS, SIDECAR};

/// Seconds from the proxy's start to its first certificate, before the kubelet restarts it.
const STARTUP_SECONDS: i32 = 120;

/// Whether a pod's specification says that weft's proxy runs in it.
pub fn is_proxy(container: &Container) -> bool {
    let first = container.args.as_ref().and_then(|args| args.first());
    meshed::is_proxy(
        &container.name,
        container.restart_policy.as_deref(),
        first.map(String::as_str),
    )
}

/// The proxy's container. `strict`: it refuses plaintext from its first moment on, whether the controller is there or not.
pub fn proxy(settings: &Settings, skips: &Skips, probes: &Found, strict: bool) -> Container {
    Container {
        name: container::PROXY.into(),
        args: Some(vec![SIDECAR.into()]),
        env: Some(environment(settings, skips, probes, strict)),
        restart_policy: Some(ALWAYS.into()),
        ports: Some(vec![ContainerPort {
            name: Some("weft-metrics".into()),
            container_port: i32::from(port::METRICS),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        // The first start waits for a certificate; the containers behind this one wait with it.
        startup_probe: Some(ready_probe(1, STARTUP_SECONDS)),
        readiness_probe: Some(ready_probe(5, 3)),
        // It runs together with the application's SIGTERM; the proxy gets its own only after the application has ended.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction {
                    command: Some(vec!["weft-proxy".into(), "drain".into()]),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(resources(&[("cpu", "10m"), ("memory", "32Mi")], &[("memory", "1Gi")])),
        security_context: Some(proxy_security()),
        volume_mounts: Some(vec![volumes::token_mount(), volumes::run_mount()]),
        ..common(&settings.proxy_image, settings)
    }
}

/// The container that sets the redirects.
pub fn init(settings: &Settings, skips: &Skips) -> Container {
    Container {
        name: container::INIT.into(),
        args: Some(init_arguments(skips)),
        resources: Some(resources(&[("cpu", "10m"), ("memory", "16Mi")], &[("memory", "64Mi")])),
        security_context: Some(init_security()),
        ..common(&settings.init_image, settings)
    }
}

fn common(image: &str, settings: &Settings) -> Container {
    Container {
        image: Some(image.into()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        termination_message_path: Some("/dev/termination-log".into()),
        // A container that fails says why on its last lines; `kubectl describe pod` shows them.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

fn environment(settings: &Settings, skips: &Skips, probes: &Found, strict: bool) -> Vec<EnvVar> {
    let probe_ports: Vec<_> = probes.dialled.iter().map(u16::to_string).collect();
    let mesh = Mesh {
        trust_domain: &settings.trust_domain,
        trust_bundle: &settings.trust_bundle,
        discovery: &settings.discovery,
        identity: &settings.identity,
        otlp_endpoint: settings.otlp_endpoint.as_deref(),
        trace_sampling: settings.trace_sampling,
    };
    let own = [
        (env::CLUSTER_CIDRS, settings.cluster_cidrs.to_string()),
        (env::PROBE_PORTS, probe_ports.join(",")),
        (env::PROBES, probes.kept.to_string()),
        (env::MTLS, if strict { "strict".into() } else { String::new() }),
        (env::SKIP_INBOUND_PORTS, skips.inbound_ports.to_string()),
    ];
    let variable = |(name, source)| match source {
        Source::Text(text) => value(name, text),
        Source::Field(path) => field(name, path),
    };
    environment::variables(&mesh, own).into_iter().map(variable).collect()
}

fn init_arguments(skips: &Skips) -> Vec<String> {
    let lists = [
        ("--skip-inbound-ports", skips.inbound_ports.to_string()),
        ("--skip-outbound-ports", skips.outbound_ports.to_string()),
        ("--skip-outbound-cidrs", skips.outbound_cidrs.to_string()),
        ("--skip-uids", skips.uids.to_string()),
    ];
    let fixed = [
        ("--inbound-port", port::INBOUND.to_string()),
        ("--outbound-port", port::OUTBOUND.to_string()),
        ("--proxy-uid", names::PROXY_UID.to_string()),
    ];
    fixed
        .into_iter()
        .chain(lists.into_iter().filter(|(_, list)| !list.is_empty()))
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
}

fn ready_probe(period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path::READY.into()),
            port: IntOrString::Int(i32::from(port::METRICS)),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(1),
        success_threshold: Some(1),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// What the `restricted` Pod Security Standard asks for (RELIABILITY T44).
fn proxy_security() -> SecurityContext {
    let id = i64::from(names::PROXY_UID);
    SecurityContext {
        run_as_user: Some(id),
        run_as_group: Some(id),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: None,
        }),
        ..confined()
    }
}

fn init_security() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(0),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".into()]),
            add: Some(vec!["NET_ADMIN".into(), "NET_RAW".into()]),
        }),
        ..confined()
    }
}

fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
    let quantities = |list: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        list.iter()
            .map(|(name, amount)| ((*name).into(), Quantity((*amount).into())))
            .collect()
    };
    ResourceRequirements {
        requests: Some(quantities(requests)),
        limits: Some(quantities(limits)),
        claims: None,
    }
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value),
        value_from: None,
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: path.into(),
    };
    EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(selector),
            ..EnvVarSource::default()
        }),
    }
}
