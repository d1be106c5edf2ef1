//! What an injection needs to know besides the pod: the injector's settings and the pod's namespace.
//!
//! Settings are checked once, all mistakes together, so that nothing behind this file has to doubt them.

use std::collections::BTreeMap;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use weft_proto::{names, skip::Cidrs};

/// Everything that one call of [`crate::pod::inject`] takes besides the pod.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The same for all pods.
    pub settings: &'a Settings,
    /// The namespace that the pod is created in.
    pub namespace: &'a Namespace,
}

/// What the injector writes into every pod. Made by [`Settings::check`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Image of the proxy.
    pub proxy_image: String,
    /// Image of weft-init.
    pub init_image: String,
    /// `imagePullPolicy` of both.
    pub image_pull_policy: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// PEM certificates that identities must lead to.
    pub trust_bundle: String,
    /// `host:port` of the discovery service.
    pub discovery: String,
    /// `host:port` of the identity service.
    pub identity: String,
    /// Ranges of the cluster's pods and Services.
    pub cluster_cidrs: Cidrs,
    /// Where proxies export spans to.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that proxies record, from 0 to 1. `None`: the proxy's own default.
    pub trace_sampling: Option<f64>,
}

/// Settings as they were given, not checked yet.
#[derive(Clone, Debug, Default)]
pub struct RawSettings {
    /// `--proxy-image`
    pub proxy_image: String,
    /// `--init-image`
    pub init_image: String,
    /// `--image-pull-policy`
    pub image_pull_policy: String,
    /// `--trust-domain`
    pub trust_domain: String,
    /// Content of the file that `--trust-bundle` names.
    pub trust_bundle: String,
    /// `--discovery`
    pub discovery: String,
    /// `--identity`
    pub identity: String,
    /// `--cluster-cidrs`, or the content of the file that `--cluster-cidrs-file` names.
    pub cluster_cidrs: String,
    /// `--otlp-endpoint`
    pub otlp_endpoint: Option<String>,
    /// `--trace-sampling`
    pub trace_sampling: Option<String>,
}

impl Settings {
    /// Checks what was given. The error lists every mistake, each with the flag that it came from and what would be right.
    pub fn check(raw: RawSettings) -> Result<Self, Vec<String>> {
        let RawSettings {
            proxy_image,
            init_image,
            image_pull_policy,
            trust_domain,
            trust_bundle,
            discovery,
            identity,
            cluster_cidrs,
            otlp_endpoint,
            trace_sampling,
        } = raw;
        let mut mistakes = Vec::new();
        for (flag, image) in [("--proxy-image", &proxy_image), ("--init-image", &init_image)] {
            if image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
                mistakes.push(format!(
                    "{flag}: '{image}' is not an image, such as registry.example/weft/proxy:0.1"
                ));
            }
        }
        if !["Always", "IfNotPresent", "Never"].contains(&image_pull_policy.as_str()) {
            mistakes.push(format!(
                "--image-pull-policy: '{image_pull_policy}' is not Always, IfNotPresent or Never"
            ));
        }
        // SPIFFE-ID 2.1: lower-case letters, digits, dots, dashes and underscores.
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.bytes().all(fits) {
            mistakes.push(format!(
                "--trust-domain: '{trust_domain}' is not a SPIFFE trust domain, such as {}",
                names::DEFAULT_TRUST_DOMAIN
            ));
        }
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(trust_bundle.as_bytes()).collect();
        if !certificates.is_ok_and(|certificates| !certificates.is_empty()) {
            mistakes.push("--trust-bundle: the file holds no PEM certificate; give it the mesh's ca.crt".into());
        }
        for (flag, address) in [("--discovery", &discovery), ("--identity", &identity)] {
            if !is_host_port(address) {
                mistakes.push(format!(
                    "{flag}: '{address}' is not host:port, such as weft-routes.weft-system.svc:15010"
                ));
            }
        }
        let cluster_cidrs = cluster_cidrs.parse().unwrap_or_else(|error| {
            mistakes.push(format!("--cluster-cidrs: {error}"));
            Cidrs::default()
        });
        if let Some(endpoint) = &otlp_endpoint
            && !endpoint.strip_prefix("http://").is_some_and(is_host_port)
        {
            mistakes.push(format!(
                "--otlp-endpoint: '{endpoint}' is not http://host:port, such as http://otel-collector.monitoring.svc:4317; TLS is not spoken there"
            ));
        }
        let trace_sampling = trace_sampling.and_then(|text| {
            let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            if ratio.is_none() {
                mistakes.push(format!(
                    "--trace-sampling: '{text}' is not a number from 0 to 1, such as 0.01"
                ));
            }
            ratio
        });
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            proxy_image,
            init_image,
            image_pull_policy,
            trust_domain,
            trust_bundle,
            discovery,
            identity,
            cluster_cidrs,
            otlp_endpoint,
            trace_sampling,
        })
    }
}

fn is_host_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)),
    };
    host_fits && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A namespace, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    labels: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Labels {
    Known(BTreeMap<String, String>),
    /// An AdmissionReview does not carry them. But the webhook is called for labelled namespaces only (its
    /// `namespaceSelector`), so the call itself says `weft.dev/inject=enabled`.
    /// With `strict`, by the webhook for namespaces that are labelled `weft.dev/mtls=strict`.
    Selected {
        strict: bool,
    },
}

impl Namespace {
    /// A namespace whose object is at hand.
    pub fn new(name: impl Into<String>, labels: BTreeMap<String, String>) -> Self {
        Self {
            name: name.into(),
            labels: Labels::Known(labels),
        }
    }

    /// A namespace that the webhook was called for: enabled; its other labels are not known.
    pub fn selected(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: Labels::Selected { strict: false },
        }
    }

    /// A namespace that the webhook for strict ones was called for.
    pub fn selected_strict(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: Labels::Selected { strict: true },
        }
    }

    /// The value of `weft.dev/inject`.
    pub fn inject(&self) -> Option<&str> {
        match &self.labels {
            Labels::Known(labels) => labels.get(names::label::INJECT).map(String::as_str),
            Labels::Selected { .. } => Some("enabled"),
        }
    }

    /// The value of `weft.dev/mtls`, when it is known and set.
    pub fn mtls(&self) -> Option<&str> {
        match &self.labels {
            Labels::Known(labels) => labels.get(names::label::MTLS).map(String::as_str),
            Labels::Selected { strict } => strict.then_some("strict"),
        }
    }

    /// Whether the labels are at hand.
    pub fn labels_are_known(&self) -> bool {
        matches!(self.labels, Labels::Known(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_in_the_settings_is_told_at_once() {
        let raw = RawSettings {
            proxy_image: "weft proxy".into(),
            trust_domain: "Cluster.local".into(),
            discovery: "weft-routes".into(),
            identity: "[::1]:0".into(),
            cluster_cidrs: "10.0.0.0/33".into(),
            image_pull_policy: "Sometimes".into(),
            otlp_endpoint: Some("https://collector:4317/v1".into()),
            trace_sampling: Some("1.5".into()),
            ..RawSettings::default()
        };
        let mistakes = Settings::check(raw).unwrap_err();
        for flag in [
            "--proxy-image",
            "--init-image",
            "--image-pull-policy",
            "--trust-domain",
            "--trust-bundle",
            "--discovery",
            "--identity",
            "--cluster-cidrs",
            "--otlp-endpoint",
            "--trace-sampling",
        ] {
            assert_eq!(
                mistakes.iter().filter(|m| m.starts_with(&format!("{flag}:"))).count(),
                1,
                "{flag}: {mistakes:?}"
            );
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["weft.weft-system.svc:15010", "10.0.0.1:1", "[fd00::1]:15010"] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in [
            "",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "fd00::1:15010",
            "[x]:1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(!is_host_port(bad), "{bad}");
        }
    }
}
