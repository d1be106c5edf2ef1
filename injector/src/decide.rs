//! Whether a pod is to be meshed, and why not. It looks at the pod and its namespace only, and changes nothing.
//!
//! The namespace's label decides; the pod's annotation of the same key overrides it. A pod on the host's network is
//! never meshed: the redirects would take the node's own traffic.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use weft_proto::names::{kubernetes::EXCLUDED_NAMESPACES, label};

use crate::{context::Namespace, refuse::Refusals};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To be meshed.
    Inject,
    /// Left alone.
    Skip(Why),
}

/// Why a pod is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// One of [`EXCLUDED_NAMESPACES`]: the mesh must not be in the way of what it starts on (RELIABILITY T41, T42).
    SystemNamespace(String),
    /// The namespace does not say anything, or `disabled`.
    NamespaceNotEnabled(String),
    /// The pod's annotation says `disabled`.
    PodDisabled,
    /// The pod uses the node's network.
    HostNetwork,
    /// The pod's containers are not for Linux.
    NotLinux(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemNamespace(name) => write!(f, "namespace {name} is never meshed"),
            Self::NamespaceNotEnabled(name) => {
                write!(f, "namespace {name} is not labelled {}=enabled", label::INJECT)
            }
            Self::PodDisabled => write!(f, "the pod is annotated {}=disabled", label::INJECT),
            Self::HostNetwork => {
                f.write_str("the pod uses the node's network (hostNetwork), which is never redirected")
            }
            Self::NotLinux(os) => write!(
                f,
                "the pod's spec.os.name is {os}; weft redirects traffic on Linux only"
            ),
        }
    }
}

/// Decides. A label or annotation with a value that weft does not know is a mistake, and told as one.
pub fn decide(pod: &Pod, namespace: &Namespace, refusals: &mut Refusals) -> Decision {
    if EXCLUDED_NAMESPACES.contains(&namespace.name.as_str()) {
        return Decision::Skip(Why::SystemNamespace(namespace.name.clone()));
    }
    let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(label::INJECT));
    let wanted = match annotation {
        Some(value) => read(value).unwrap_or_else(|| {
            refusals.pod(
                format!(
                    "annotation {}: '{value}' is neither enabled nor disabled",
                    label::INJECT
                ),
                "write enabled or disabled, or remove the annotation",
            );
            true
        }),
        None => namespace.inject().is_some_and(|value| {
            read(value).unwrap_or_else(|| {
                refusals.pod(
                    format!(
                        "label {}={value} of namespace {} is neither enabled nor disabled",
                        label::INJECT,
                        namespace.name
                    ),
                    "label the namespace enabled or disabled, or remove the label",
                );
                false
            })
        }),
    };
    let spec = pod.spec.as_ref();
    let os = spec.and_then(|spec| spec.os.as_ref()).map(|os| os.name.as_str());
    match () {
        () if !wanted && annotation.is_some() => Decision::Skip(Why::PodDisabled),
        () if !wanted => Decision::Skip(Why::NamespaceNotEnabled(namespace.name.clone())),
        () if spec.is_some_and(|spec| spec.host_network == Some(true)) => Decision::Skip(Why::HostNetwork),
        () => match os {
            Some(os) if os != "linux" => Decision::Skip(Why::NotLinux(os.to_owned())),
            _ => Decision::Inject,
        },
    }
}

fn read(value: &str) -> Option<bool> {
    match value {
        "enabled" => Some(true),
        "disabled" => Some(false),
        _ => None,
    }
}
