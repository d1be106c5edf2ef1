//! What is said in a namespace whose Pod Security Standard forbids what weft adds to a pod (RELIABILITY T44).
//!
//! `weft-init` needs the capability NET_ADMIN, and the standards `baseline` and `restricted` forbid it. Without this the
//! pod's owner would read of a container that nobody wrote. Labels of the namespace are not in a review: that this webhook
//! was called says that one of both standards is enforced.

use k8s_openapi::api::core::v1::Pod;
use weft_proto::names::label;

use crate::{
    context::Namespace,
    decide::{self, Decision, Why},
    refuse::{self, Refusal, Refusals},
};

/// The label of a namespace that says which standard is enforced.
pub const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// Its values that forbid what weft needs.
pub const FORBIDDING: [&str; 2] = ["baseline", "restricted"];

/// Lets a pod through that is not to be meshed, and says why; any other is refused.
pub fn check(pod: &Pod, namespace: &Namespace) -> Result<Why, Vec<Refusal>> {
    let mut refusals = Refusals::of(refuse::pod_name(pod, &namespace.name));
    match decide::decide(pod, namespace, &mut refusals) {
        Decision::Skip(why) => refusals.into_result().map(|()| why),
        Decision::Inject => {
            let name = &namespace.name;
            refusals.pod(
                format!(
                    "it cannot be meshed: namespace {name} enforces the Pod Security Standard {} or {}, which forbids \
                     the capability NET_ADMIN that weft-init needs to redirect the pod's traffic",
                    FORBIDDING[0], FORBIDDING[1]
                ),
                format!(
                    "allow it with: kubectl label namespace {name} {ENFORCE}=privileged --overwrite; or keep this pod out \
                     of the mesh with the annotation {}: disabled (weft has no CNI plugin yet, which would do without \
                     NET_ADMIN in pods)",
                    label::INJECT
                ),
            );
            match refusals.into_result() {
                Err(refusals) => Err(refusals),
                Ok(()) => unreachable!("one was just added"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ask(pod: Value) -> Result<Why, String> {
        let pod = serde_json::from_value(pod).unwrap();
        check(&pod, &Namespace::selected("shop")).map_err(|refusals| refuse::summary(&refusals))
    }

    #[test]
    fn t44_a_pod_that_would_be_meshed_is_told_why_it_cannot_and_what_to_do() {
        let text = ask(json!({"metadata": {"generateName": "web-"}, "spec": {"containers": []}})).unwrap_err();
        for words in [
            "pod shop/web-*: it cannot be meshed",
            "namespace shop enforces",
            "baseline or restricted",
            "NET_ADMIN",
            "kubectl label namespace shop pod-security.kubernetes.io/enforce=privileged --overwrite",
            "weft.dev/inject: disabled",
            "no CNI plugin yet",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn t44_a_pod_that_stays_out_of_the_mesh_passes() {
        let annotated =
            |value: &str| json!({"metadata": {"annotations": {"weft.dev/inject": value}}, "spec": {"containers": []}});
        assert_eq!(ask(annotated("disabled")), Ok(Why::PodDisabled));
        assert_eq!(
            ask(json!({"spec": {"hostNetwork": true, "containers": []}})),
            Ok(Why::HostNetwork)
        );
        let text = ask(annotated("maybe")).unwrap_err();
        assert!(text.contains("'maybe' is neither enabled nor disabled"), "{text}");
    }
}
