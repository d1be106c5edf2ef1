//! Probes that would lie behind a redirect. Capture accepts every connection, so a `tcpSocket` probe of a dead
//! application would succeed; it becomes an `httpGet` on weft's own port, which dials the application.
//!
//! Everything else passes as it is: `httpGet` and `grpc` go through inbound and fail with the application, `exec` and
//! lifecycle hooks do not cross the redirect, or are answered the same way.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use weft_proto::{
    names::{path, port},
    skip::Ports,
};

use crate::refuse::{Refusals, is_reserved, reserved};

/// Rewrites the probes of one container, and adds the ports that they dial to `dialled`.
pub fn rewrite(container: &mut Container, skipped: &Ports, dialled: &mut BTreeSet<u16>, refusals: &mut Refusals) {
    let mut probes = [
        ("livenessProbe", container.liveness_probe.take()),
        ("readinessProbe", container.readiness_probe.take()),
        ("startupProbe", container.startup_probe.take()),
    ];
    for (field, probe) in &mut probes {
        let Some(probe) = probe else { continue };
        if let Some(port) = already_rewritten(probe) {
            dialled.insert(port);
        }
        let Some(socket) = probe.tcp_socket.as_ref() else {
            continue;
        };
        // With a host it does not dial this pod, so it does not meet the redirect.
        if socket.host.as_deref().is_some_and(|host| !host.is_empty()) {
            continue;
        }
        match resolve(socket, container) {
            Ok(port) if skipped.contains(port) => {}
            Ok(port) => {
                dialled.insert(port);
                probe.tcp_socket = None;
                probe.http_get = Some(stand_in(port));
            }
            Err(what) => refusals.container(
                &container.name,
                format!("{field}.tcpSocket.port {what}"),
                "name a port that the container declares, or write its number",
            ),
        }
    }
    let [(_, liveness), (_, readiness), (_, startup)] = probes;
    container.liveness_probe = liveness;
    container.readiness_probe = readiness;
    container.startup_probe = startup;
}

fn stand_in(port: u16) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(format!("{}{port}", path::TCP_PROBE_PREFIX)),
        port: IntOrString::Int(i32::from(port::METRICS)),
        scheme: Some("HTTP".into()),
        ..HTTPGetAction::default()
    }
}

/// The port that a probe dials through weft, when it was rewritten before: injection must find the same ports again.
fn already_rewritten(probe: &Probe) -> Option<u16> {
    let get = probe.http_get.as_ref()?;
    if get.port != IntOrString::Int(i32::from(port::METRICS)) {
        return None;
    }
    get.path.as_deref()?.strip_prefix(path::TCP_PROBE_PREFIX)?.parse().ok()
}

/// As the kubelet does it: a name is looked up among the container's own ports, then read as a number.
fn resolve(socket: &TCPSocketAction, container: &Container) -> Result<u16, String> {
    let number = match &socket.port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())
            .ok_or_else(|| format!("'{name}' is not the name of a port of this container"))?,
    };
    if is_reserved(number) {
        return Err(format!("{number} is one of weft's own ({})", reserved()));
    }
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{number} is not a port"))
}
