//! Probes that would lie behind a redirect. Capture accepts every connection, so a `tcpSocket` probe of a dead
//! application would succeed; it becomes an `httpGet` on weft's own port, which dials the application. So does an `httpGet` over HTTPS:
//! what the kubelet asks within its TLS cannot be seen at inbound, and a strict pod would have to refuse it.
//!
//! Everything else passes as it is: `httpGet` over HTTP and `grpc` go through inbound and fail with the application, `exec` and
//! lifecycle hooks do not cross the redirect, or are answered the same way. The kubelet has no certificate of the mesh,
//! so a strict proxy is told of the `httpGet` and `grpc` probes, and lets these in.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use weft_proto::{
    names::{path, port},
    probes::{self, Probes},
    skip::Ports,
};

use crate::refuse::{Refusals, is_reserved, reserved};

/// What the proxy is told of a pod's probes.
#[derive(Debug, Default)]
pub struct Found {
    /// Ports that rewritten probes dial through weft.
    pub dialled: BTreeSet<u16>,
    /// Probes that stay as they are and go through inbound, and those over HTTPS, which weft makes itself.
    pub kept: Probes,
}

/// Rewrites the probes of one container, and adds what was found to `found`.
pub fn rewrite(container: &mut Container, skipped: &Ports, found: &mut Found, refusals: &mut Refusals) {
    let mut probes = [
        ("livenessProbe", container.liveness_probe.take()),
        ("readinessProbe", container.readiness_probe.take()),
        ("startupProbe", container.startup_probe.take()),
    ];
    for (field, probe) in &mut probes {
        let Some(probe) = probe else { continue };
        match already_rewritten(probe) {
            Some(Before::Tcp(port)) => drop(found.dialled.insert(port)),
            Some(Before::Https(https)) => found.kept.add(https),
            None => {}
        }
        if let Some((port, https)) = over_https(probe, container).filter(|(port, _)| !skipped.contains(*port))
            && let Some(get) = &mut probe.http_get
        {
            let path = get.path.as_deref().unwrap_or_default();
            let slash = if path.starts_with('/') { "" } else { "/" };
            get.path = Some(format!("{}{port}{slash}{path}", path::HTTPS_PROBE_PREFIX));
            get.port = IntOrString::Int(i32::from(port::METRICS));
            get.scheme = Some("HTTP".into());
            found.kept.add(https);
            continue;
        }
        if let Some(kept) = passes(probe, container).filter(|(port, _)| !skipped.contains(*port)) {
            found.kept.add(kept.1);
        }
        let Some(socket) = probe.tcp_socket.as_ref() else {
            continue;
        };
        // With a host it does not dial this pod, so it does not meet the redirect.
        if socket.host.as_deref().is_some_and(|host| !host.is_empty()) {
            continue;
        }
        match resolve(&socket.port, container) {
            Ok(port) if skipped.contains(port) => {}
            Ok(port) => {
                found.dialled.insert(port);
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

/// A probe that the kubelet sends to the application through inbound, in plaintext, and its port. One whose port cannot be
/// resolved is none: the kubelet says so itself.
fn passes(probe: &Probe, container: &Container) -> Option<(u16, probes::Probe)> {
    if let Some(get) = &probe.http_get {
        let is_plain = get.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP");
        // With a host it dials that, as a tcpSocket probe does.
        let is_here = get.host.as_deref().is_none_or(str::is_empty);
        let port = resolve(&get.port, container).ok().filter(|_| is_plain && is_here)?;
        return Some((port, probes::Probe::http(port, get.path.as_deref().unwrap_or_default())));
    }
    let port = resolve(&IntOrString::Int(probe.grpc.as_ref()?.port), container).ok()?;
    Some((port, probes::Probe::Grpc { port }))
}

/// An `httpGet` probe of the pod over HTTPS, and its port.
fn over_https(probe: &Probe, container: &Container) -> Option<(u16, probes::Probe)> {
    let get = probe.http_get.as_ref()?;
    let is_here = get.host.as_deref().is_none_or(str::is_empty);
    let is_https = get.scheme.as_deref() == Some("HTTPS");
    let port = resolve(&get.port, container).ok().filter(|_| is_https && is_here)?;
    Some((
        port,
        probes::Probe::https(port, get.path.as_deref().unwrap_or_default()),
    ))
}

fn stand_in(port: u16) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(format!("{}{port}", path::TCP_PROBE_PREFIX)),
        port: IntOrString::Int(i32::from(port::METRICS)),
        scheme: Some("HTTP".into()),
        ..HTTPGetAction::default()
    }
}

/// What a probe was before it was rewritten.
enum Before {
    /// `tcpSocket` of this port.
    Tcp(u16),
    /// `httpGet` over HTTPS.
    Https(probes::Probe),
}

/// What a probe asks of the application through weft, when it was rewritten before: injection must find the same again.
fn already_rewritten(probe: &Probe) -> Option<Before> {
    let get = probe.http_get.as_ref()?;
    if get.port != IntOrString::Int(i32::from(port::METRICS)) {
        return None;
    }
    let path = get.path.as_deref()?;
    if let Some(port) = path.strip_prefix(path::TCP_PROBE_PREFIX) {
        return port.parse().ok().map(Before::Tcp);
    }
    let rest = path.strip_prefix(path::HTTPS_PROBE_PREFIX)?;
    let (port, path) = rest.split_at(rest.find('/')?);
    Some(Before::Https(probes::Probe::https(port.parse().ok()?, path)))
}

/// As the kubelet does it: a name is looked up among the container's own ports, then read as a number.
fn resolve(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
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
