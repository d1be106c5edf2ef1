//! The certificates of listeners, how their clients are checked, and what a Gateway shows of itself to servers.

use std::sync::Arc;

use weft_proto::rpc::discovery::ListenerProtocol;

use super::{
    hosts,
    listeners::{Because, Listener},
    objects::Gateway,
    references::{Bad, From, Why},
};
use crate::{
    cluster::{
        Cluster,
        types::{Certificate, Kind},
    },
    objects::gateway::ClientValidation,
};

/// How the certificates of clients are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCheck {
    /// PEM certificates that a client's must lead to.
    pub roots: String,
    /// Clients without a certificate that holds are let in, too.
    pub insecure_fallback: bool,
}

/// Reads the certificates of a listener that ends TLS.
pub(super) fn of_listener(cluster: &Cluster, from: From<'_>, listener: &mut Listener<'_>) {
    let ends_tls = matches!(
        listener.protocol,
        Some(ListenerProtocol::ListenerHttps | ListenerProtocol::ListenerTls)
    );
    if !ends_tls {
        return;
    }
    let references = listener
        .spec
        .tls
        .as_ref()
        .map(|tls| &tls.certificate_refs[..])
        .unwrap_or_default();
    if references.is_empty() {
        let because = Because::new("InvalidCertificateRef", "tls.certificateRefs is empty");
        listener.unresolved.get_or_insert(because);
    }
    for reference in references {
        match from.certificate(cluster, reference) {
            Ok(certificate) => listener.certificates.push(certificate),
            Err(bad) => {
                let reason = match bad.why {
                    Why::NotPermitted => "RefNotPermitted",
                    Why::Kind | Why::Invalid => "InvalidCertificateRef",
                };
                listener.unresolved.get_or_insert(Because::new(reason, bad.message));
            }
        }
    }
}

/// What a Gateway asks for of clients on a port: what is said of the port, else the default.
fn validation(gateway: &Gateway, port: u16) -> Option<&ClientValidation> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let own = frontend.per_port.iter().find(|one| one.port == port);
    let tls = own.map(|one| &one.tls).or(frontend.default.as_ref());
    tls?.validation.as_ref()
}

/// Reads how clients of an HTTPS listener are checked. Without any authority the listener is not served: it would let in everyone.
pub(super) fn client_check(cluster: &Cluster, gateway: &Gateway, listener: &mut Listener<'_>) {
    let Some(validation) = validation(gateway, listener.spec.port) else {
        return;
    };
    let from = From {
        kind: Kind::Gateway,
        namespace: &gateway.key.namespace,
    };
    let mut roots = String::new();
    for reference in &validation.ca_certificate_refs {
        match from.roots(cluster, reference) {
            Ok(pem) => {
                roots.push_str(pem.trim_end());
                roots.push('\n');
            }
            Err(bad) => {
                let reason = match bad.why {
                    Why::Kind => "InvalidCACertificateKind",
                    Why::NotPermitted => "RefNotPermitted",
                    Why::Invalid => "InvalidCACertificateRef",
                };
                listener.unresolved.get_or_insert(Because::new(reason, bad.message));
            }
        }
    }
    let insecure_fallback = match validation.mode.as_deref() {
        None | Some("" | "AllowValidOnly") => false,
        Some("AllowInsecureFallback") => true,
        Some(other) => {
            let message =
                format!("tls.frontend: the mode '{other}' is neither AllowValidOnly nor AllowInsecureFallback");
            listener
                .refused
                .get_or_insert(Because::new("UnsupportedValue", message));
            return;
        }
    };
    if roots.is_empty() {
        let message = "none of the authorities that clients' certificates are checked by can be read";
        listener
            .refused
            .get_or_insert(Because::new("NoValidCACertificate", message));
        return;
    }
    listener.client_check = Some(ClientCheck {
        roots,
        insecure_fallback,
    });
}

/// Whether a Gateway lets in clients whose certificate does not hold, on any port.
pub fn is_insecure(gateway: &Gateway) -> bool {
    let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let ports = frontend.into_iter().flat_map(|frontend| {
        frontend
            .default
            .iter()
            .chain(frontend.per_port.iter().map(|one| &one.tls))
    });
    let mut modes = ports.filter_map(|tls| tls.validation.as_ref()?.mode.as_deref());
    modes.any(|mode| mode == "AllowInsecureFallback")
}

/// What a Gateway shows of itself to servers. `None`: nothing is asked for.
pub fn of_gateway(cluster: &Cluster, gateway: &Gateway) -> Option<Result<Arc<Certificate>, Bad>> {
    let reference = gateway
        .spec
        .tls
        .as_ref()?
        .backend
        .as_ref()?
        .client_certificate_ref
        .as_ref()?;
    let from = From {
        kind: Kind::Gateway,
        namespace: &gateway.key.namespace,
    };
    Some(from.certificate(cluster, reference))
}

/// Whether certificates of two listeners hold for the same hosts, or one's for hosts of the other, which has none of its own.
pub(super) fn overlap(one: &Listener<'_>, other: &Listener<'_>) -> bool {
    let meet = |names: &[Arc<str>], others: &[Arc<str>]| {
        let covers = |name: &Arc<str>| others.iter().any(|other| hosts::intersection(name, other).is_some());
        names.iter().any(covers)
    };
    let names = |listener: &Listener<'_>| -> Vec<Arc<str>> {
        let certificates = listener.certificates.iter();
        let names: Vec<_> = certificates.flat_map(|one| one.names.iter().cloned()).collect();
        if names.is_empty() {
            listener.hostname.iter().cloned().collect()
        } else {
            names
        }
    };
    if one.certificates.is_empty() && other.certificates.is_empty() {
        return false;
    }
    meet(&names(one), &names(other))
}
