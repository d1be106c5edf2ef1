//! Flags of `weft install` → checked choices → edits of the objects. Pure.

use super::{
    Install,
    objects::{self, Crd},
};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use std::collections::BTreeMap;
use weft_proto::{
    names::{self, INJECTOR_SERVICE_ACCOUNT as INJECTOR, ROUTES_SERVICE_ACCOUNT as ROUTES},
    skip::Cidrs,
};
use weft_service::spiffe;

/// More would not fit weft-system's quota of pods while they are replaced.
const MOST_REPLICAS: i32 = 40;
/// Longest tag of an image (OCI distribution specification).
const TAG_LENGTH: usize = 128;

/// Which definitions are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crds {
    /// Those that the cluster does not have.
    Missing,
    /// All.
    All,
    /// None.
    None,
}

impl Crds {
    /// Whether to print one, when `there` is what the cluster has.
    pub(super) fn wanted(self, crd: &Crd, there: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Missing => !there.contains_key(crd.name),
            Self::All => true,
            Self::None => false,
        }
    }
}

/// What was chosen, checked.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    pub(super) crds: Crds,
    image_prefix: String,
    image_tag: String,
    image_pull_policy: String,
    trust_domain: String,
    cluster_cidrs: Option<Cidrs>,
    leaf_life: String,
    otlp_endpoint: Option<String>,
    trace_sampling: Option<String>,
    replicas: i32,
}

impl Choices {
    /// Checks the flags. The error holds every mistake, each with what would be right.
    pub(super) fn new(flags: &Install) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut wrong = |is_right: bool, mistake: String| {
            if !is_right {
                mistakes.push(mistake);
            }
        };
        let crds = match flags.crds.as_str() {
            "missing" => Crds::Missing,
            "all" => Crds::All,
            "none" => Crds::None,
            other => {
                wrong(false, format!("--crds: '{other}' is none of missing, all and none"));
                Crds::None
            }
        };
        let prefix = &flags.image_prefix;
        wrong(
            is_image_prefix(prefix),
            format!(
                "--image-prefix: '{prefix}' is not where images are, such as weft.dev or registry.example:5000/weft"
            ),
        );
        let tag = &flags.image_tag;
        wrong(
            is_tag(tag),
            format!(
                "--image-tag: '{tag}' is not a tag, such as {}",
                env!("CARGO_PKG_VERSION")
            ),
        );
        let policy = &flags.image_pull_policy;
        wrong(
            ["Always", "IfNotPresent", "Never"].contains(&policy.as_str()),
            format!("--image-pull-policy: '{policy}' is none of Always, IfNotPresent and Never"),
        );
        if let Err(why) = spiffe::check_trust_domain(&flags.trust_domain) {
            wrong(false, format!("--trust-domain: '{}': {why}", flags.trust_domain));
        }
        let cidrs = flags.cluster_cidrs.as_deref().map(str::parse::<Cidrs>).transpose();
        if let Err(error) = &cidrs {
            wrong(false, format!("--cluster-cidrs: {error}"));
        }
        let life = &flags.leaf_life;
        wrong(
            weft_proto::duration::parse(life).is_some_and(|life| names::LEAF_LIFE.contains(&life)),
            format!("--leaf-life: '{life}' is not a duration from 10s to 168h, such as 24h or 60s"),
        );
        if let Some(endpoint) = &flags.otlp_endpoint {
            wrong(
                is_endpoint(endpoint),
                format!(
                    "--otlp-endpoint: '{endpoint}' is not http://HOST:PORT, such as http://collector.observability.svc:4317"
                ),
            );
        }
        if let Some(ratio) = &flags.trace_sampling {
            wrong(
                ratio.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)),
                format!("--trace-sampling: '{ratio}' is not a share from 0 to 1, such as 0.01"),
            );
            wrong(
                flags.otlp_endpoint.is_some(),
                "--trace-sampling: there is nobody to send spans to; give --otlp-endpoint URL too".into(),
            );
        }
        let replicas = flags
            .replicas
            .parse()
            .ok()
            .filter(|count| (1..=MOST_REPLICAS).contains(count));
        wrong(
            replicas.is_some(),
            format!(
                "--replicas: '{}' is not a number from 1 to {MOST_REPLICAS}",
                flags.replicas
            ),
        );
        match (cidrs, replicas, mistakes.is_empty()) {
            (Ok(cluster_cidrs), Some(replicas), true) => Ok(Self {
                crds,
                image_prefix: prefix.clone(),
                image_tag: tag.clone(),
                image_pull_policy: policy.clone(),
                trust_domain: flags.trust_domain.clone(),
                cluster_cidrs: cluster_cidrs.filter(|cidrs| !cidrs.is_empty()),
                leaf_life: life.clone(),
                otlp_endpoint: flags.otlp_endpoint.clone(),
                trace_sampling: flags.trace_sampling.clone(),
                replicas,
            }),
            _ => Err(mistakes),
        }
    }

    /// The objects as these choices want them.
    pub(super) fn edit(&self, objects: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        objects
            .into_iter()
            .map(|object| {
                if object["kind"] == "Deployment" {
                    objects::edit(object, |deployment| self.deployment(deployment))
                } else {
                    Ok(object)
                }
            })
            .collect()
    }

    fn deployment(&self, deployment: &mut Deployment) {
        let name = deployment.metadata.name.clone().unwrap_or_default();
        let Some(spec) = &mut deployment.spec else { return };
        if [ROUTES, INJECTOR].contains(&name.as_str()) {
            spec.replicas = Some(self.replicas);
        }
        for container in spec.template.spec.iter_mut().flat_map(|pod| &mut pod.containers) {
            if let Some(image) = &mut container.image {
                *image = self.image(image);
            }
            container.image_pull_policy = Some(self.image_pull_policy.clone());
            let arguments = container.args.get_or_insert_default();
            set(arguments, "--trust-domain", &self.trust_domain);
            match name.as_str() {
                INJECTOR => self.proxies(arguments, &["--proxy-image", "--init-image"]),
                ROUTES => {
                    self.proxies(arguments, &["--proxy-image"]);
                    if let Some(cidrs) = &self.cluster_cidrs {
                        set(arguments, "--cluster-cidrs", &cidrs.to_string());
                    }
                }
                _ => set(arguments, "--leaf-life", &self.leaf_life),
            }
        }
    }

    /// What is said of the pods of proxies, to those that write them.
    fn proxies(&self, arguments: &mut Vec<String>, images: &[&str]) {
        for flag in images {
            if let Some(image) = value(arguments, flag).map(|image| self.image(image)) {
                set(arguments, flag, &image);
            }
        }
        set(arguments, "--image-pull-policy", &self.image_pull_policy);
        for (flag, value) in [
            ("--otlp-endpoint", &self.otlp_endpoint),
            ("--trace-sampling", &self.trace_sampling),
        ] {
            if let Some(value) = value {
                set(arguments, flag, value);
            }
        }
    }

    /// The same program from the place, and with the tag, that were chosen.
    fn image(&self, image: &str) -> String {
        let program = image.rsplit('/').next().unwrap_or(image);
        let program = program.split([':', '@']).next().unwrap_or(program);
        format!("{}/{program}:{}", self.image_prefix, self.image_tag)
    }
}

/// The value of `--flag=value`.
pub fn value<'a>(arguments: &'a [String], flag: &str) -> Option<&'a str> {
    arguments
        .iter()
        .find_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='))
}

/// Sets `--flag=value`, in its place or at the end.
fn set(arguments: &mut Vec<String>, flag: &str, value: &str) {
    let text = format!("{flag}={value}");
    let is_it = |argument: &&mut String| argument.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='));
    match arguments.iter_mut().find(is_it) {
        Some(argument) => *argument = text,
        None => arguments.push(text),
    }
}

/// `HOST[:PORT][/PATH]` as image references have it.
fn is_image_prefix(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let (host, port) = host
        .split_once(':')
        .map_or((host, None), |(host, port)| (host, Some(port)));
    let is_part = |part: &str| {
        part.bytes().all(fits)
            && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && part.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
    };
    is_part(host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) && parts.all(is_part)
}

fn is_tag(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    text.len() <= TAG_LENGTH && text.bytes().all(fits) && !text.is_empty() && !text.starts_with(['.', '-'])
}

/// `http://HOST:PORT`, as the proxies dial it.
fn is_endpoint(text: &str) -> bool {
    let Some(authority) = text.strip_prefix("http://") else {
        return false;
    };
    let Some((host, port)) = authority.trim_end_matches('/').rsplit_once(':') else {
        return false;
    };
    let is_name = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
            && !host.starts_with(['.', '-'])
    };
    let is_address = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
    };
    (is_name(host) || is_address(host)) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_tags_and_endpoints_are_read_as_their_specifications_say() {
        for good in ["weft.dev", "localhost:5000/weft", "registry.example/a/b_c", "r"] {
            assert!(is_image_prefix(good), "{good}");
        }
        for bad in [
            "",
            "weft.dev/",
            "/weft",
            "a b",
            "Weft.dev",
            "a:b",
            "a:0",
            "a//b",
            "a/-b",
            "https://weft.dev",
        ] {
            assert!(!is_image_prefix(bad), "{bad}");
        }
        for (tag, right) in [
            ("0.1.0", true),
            ("v1_x-y", true),
            ("", false),
            (".a", false),
            ("a:b", false),
            ("a b", false),
        ] {
            assert_eq!(is_tag(tag), right, "{tag}");
        }
        for good in [
            "http://a:4317",
            "http://a.b.svc:1/",
            "http://10.0.0.1:4317",
            "http://[fd00::1]:4317",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "a:4317",
            "https://a:4317",
            "http://a",
            "http://:1",
            "http://a:0",
            "http://a:1/x",
            "http://a b:1",
            "http://fd00::1:4317",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn an_argument_is_set_in_its_place_or_added() {
        let mut arguments: Vec<String> = ["--a=1", "--ab=2", "--a-b=3"].map(String::from).to_vec();
        set(&mut arguments, "--ab", "x");
        set(&mut arguments, "--c", "y");
        assert_eq!(arguments, ["--a=1", "--ab=x", "--a-b=3", "--c=y"]);
        assert_eq!(value(&arguments, "--a"), Some("1"));
        assert_eq!(value(&arguments, "--d"), None);
    }
}
