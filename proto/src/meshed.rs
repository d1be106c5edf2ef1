//! Is weft in a pod, and does the pod still count: the one reading that webhook, controller, `weft check` and sandbox share.
//!
//! It takes words, not objects: each of them holds pods in a form of its own.

use crate::names::container;

/// First argument of the proxy's container, by which a meshed pod is known.
pub const SIDECAR: &str = "sidecar";
/// What makes an init container a native sidecar. Below Kubernetes 1.29 it is dropped, and the pod would never start.
pub const ALWAYS: &str = "Always";

/// Whether an init container is weft's proxy. Read from the pod's specification alone, which cannot change after admission;
/// annotations and labels can.
pub fn is_proxy(name: &str, restart_policy: Option<&str>, first_argument: Option<&str>) -> bool {
    name == container::PROXY && restart_policy == Some(ALWAYS) && first_argument == Some(SIDECAR)
}

/// Whether a pod has ended or is about to: what it lacks is not worth telling.
pub fn is_over(phase: Option<&str>, terminating: bool) -> bool {
    terminating || matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_the_proxy_by_all_that_makes_it_work() {
        assert!(is_proxy("weft-proxy", Some("Always"), Some("sidecar")));
        for other in [
            ("proxy", Some("Always"), Some("sidecar")),
            ("weft-proxy", None, Some("sidecar")),
            ("weft-proxy", Some("Always"), Some("gateway")),
            ("weft-proxy", Some("Always"), None),
        ] {
            assert!(!is_proxy(other.0, other.1, other.2), "{other:?}");
        }
    }

    #[test]
    fn a_pod_that_ends_is_over() {
        assert!(is_over(Some("Succeeded"), false) && is_over(Some("Failed"), false) && is_over(Some("Running"), true));
        assert!(!is_over(Some("Running"), false) && !is_over(None, false));
    }
}
