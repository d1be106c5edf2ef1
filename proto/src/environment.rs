//! The environment of a proxy's container, said once for all who write such a pod: the injector for sidecars, the controller
//! for gateways. It is given as words, not as objects: each of them holds pods in a form of its own.

use crate::names::{container, env};

/// Where a variable's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is this text, in which Kubernetes expands nothing.
    Text(String),
    /// A field of the pod, as `metadata.name`.
    Field(&'static str),
}

/// What every proxy of a mesh is told alike.
#[derive(Clone, Copy, Debug)]
pub struct Mesh<'a> {
    /// SPIFFE trust domain.
    pub trust_domain: &'a str,
    /// PEM certificates that identities must lead to.
    pub trust_bundle: &'a str,
    /// `host:port` of the discovery service.
    pub discovery: &'a str,
    /// `host:port` of the identity service.
    pub identity: &'a str,
    /// Where proxies export spans to.
    pub otlp_endpoint: Option<&'a str>,
    /// The share of traces that proxies record, from 0 to 1. `None`: the proxy's own default.
    pub trace_sampling: Option<f64>,
}

/// The variables of a proxy's container, in their order: those of the mesh, and `own` of this kind of proxy between them.
pub fn variables(mesh: &Mesh, own: impl IntoIterator<Item = (&'static str, String)>) -> Vec<(&'static str, Source)> {
    let pod = [
        (env::POD_NAME, "metadata.name"),
        (env::POD_NAMESPACE, "metadata.namespace"),
        (env::POD_UID, "metadata.uid"),
        (env::POD_IPS, "status.podIPs"),
        (env::SERVICE_ACCOUNT, "spec.serviceAccountName"),
    ];
    let token = format!("{}/{}", container::TOKEN_MOUNT, container::TOKEN_FILE);
    let before = [
        (env::TRUST_DOMAIN, mesh.trust_domain.to_owned()),
        (env::TRUST_BUNDLE, mesh.trust_bundle.to_owned()),
        (env::DISCOVERY_ADDRESS, mesh.discovery.to_owned()),
        (env::IDENTITY_ADDRESS, mesh.identity.to_owned()),
        (env::TOKEN_FILE, token),
    ];
    let sampling = mesh.trace_sampling.map(|ratio| ratio.to_string());
    let behind = [
        (env::ADMIN_SOCKET, container::ADMIN_SOCKET.to_owned()),
        (env::OTLP_ENDPOINT, mesh.otlp_endpoint.unwrap_or_default().to_owned()),
        (env::TRACE_SAMPLING, sampling.unwrap_or_default()),
    ];
    let texts = before.into_iter().chain(own).chain(behind);
    // The API server drops an empty value, and the proxy takes its absence for the default.
    let texts = texts.filter(|(_, text)| !text.is_empty());
    // Kubernetes expands $(NAME) in values; none of ours means that.
    let texts = texts.map(|(name, text)| (name, Source::Text(text.replace("$(", "$$("))));
    let fields = pod.into_iter().map(|(name, path)| (name, Source::Field(path)));
    fields.chain(texts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out_and_nothing_is_expanded() {
        let mesh = Mesh {
            trust_domain: "a.example",
            trust_bundle: "",
            discovery: "d:1",
            identity: "i:1",
            otlp_endpoint: None,
            trace_sampling: Some(0.5),
        };
        let all = variables(
            &mesh,
            [(env::GATEWAY, "shop/$(WEB)".into()), (env::PROBES, String::new())],
        );
        let text = |name: &str| {
            all.iter()
                .find(|(own, _)| *own == name)
                .map(|(_, source)| source.clone())
        };
        assert_eq!(text(env::GATEWAY), Some(Source::Text("shop/$$(WEB)".into())));
        assert_eq!(text(env::TRACE_SAMPLING), Some(Source::Text("0.5".into())));
        assert_eq!(text(env::POD_UID), Some(Source::Field("metadata.uid")));
        for absent in [env::TRUST_BUNDLE, env::PROBES, env::OTLP_ENDPOINT] {
            assert_eq!(text(absent), None, "{absent}");
        }
    }
}
