//! BackendTLSPolicy: TLS that weft originates towards the ports of a Service, at gateways and in pods alike. A policy that cannot be
//! carried out leaves its port without traffic: nothing is ever sent in plaintext instead.

use std::sync::Arc;

use weft_proto::rpc::discovery as wire;

use super::{
    objects::BackendTlsPolicy,
    references::{Bad, From, Why},
};
use crate::{
    cluster::{
        Cluster,
        types::{Kind, ObjectKey, Service, ServicePort},
    },
    objects::policy::TargetRef,
    translate::{Problem, Reason},
};

/// What a policy amounts to.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Another policy has one of its targets: an older one, or the first by name.
    pub conflict: Option<ObjectKey>,
    /// What is wrong with its references.
    pub references: Vec<Bad>,
    /// What else is wrong with it.
    pub mistakes: Vec<String>,
}

impl Judged {
    /// Whether it can be carried out where it is the one that counts.
    fn is_usable(&self) -> bool {
        self.references.is_empty() && self.mistakes.is_empty()
    }
}

/// The TLS that is originated to a Service's port. `None`: no policy is about it.
pub fn of_port(cluster: &Cluster, service: &Service, port: &ServicePort) -> Option<Result<wire::BackendTls, Problem>> {
    let policy = policy_of(cluster, service, port)?;
    let (tls, judged) = read(cluster, policy);
    if judged.is_usable() {
        return Some(Ok(tls));
    }
    let references = judged.references.iter().map(|bad| &bad.message);
    let why: Vec<&str> = references.chain(&judged.mistakes).map(String::as_str).collect();
    Some(Err(Problem {
        reason: Reason::InvalidPolicy,
        message: format!(
            "the BackendTLSPolicy {} cannot be carried out: {}",
            policy.key,
            why.join("; ")
        ),
    }))
}

/// The policy that counts for a port: of those that name the port, else of those that name the Service, the oldest.
fn policy_of<'a>(cluster: &'a Cluster, service: &Service, port: &ServicePort) -> Option<&'a Arc<BackendTlsPolicy>> {
    let of = |section: Option<&str>| {
        let about = |policy: &&Arc<BackendTlsPolicy>| targets(policy, service, section).next().is_some();
        let policies = cluster.policies_of(&service.key).filter(about);
        policies.min_by_key(|policy| rank(policy))
    };
    let by_name = if port.name.is_empty() {
        None
    } else {
        of(Some(&port.name))
    };
    by_name.or_else(|| of(None))
}

fn targets<'a>(
    policy: &'a BackendTlsPolicy,
    service: &'a Service,
    section: Option<&'a str>,
) -> impl Iterator<Item = &'a TargetRef> {
    let named = |target: &&TargetRef| is_service(target) && target.name == *service.key.name;
    let targets = policy.spec.target_refs.iter().filter(named);
    targets.filter(move |target| target.section_name.as_deref() == section)
}

fn is_service(target: &TargetRef) -> bool {
    (target.group.as_str(), target.kind.as_str()) == ("", "Service")
}

fn rank(policy: &BackendTlsPolicy) -> (i64, &ObjectKey) {
    (policy.created, &policy.key)
}

/// What is to be said of a policy.
pub fn judge(cluster: &Cluster, policy: &BackendTlsPolicy) -> Judged {
    let mut judged = read(cluster, policy).1;
    for target in policy.spec.target_refs.iter().filter(|target| is_service(target)) {
        let service = ObjectKey::new(&policy.key.namespace, &target.name);
        let same = |other: &&Arc<BackendTlsPolicy>| {
            other
                .spec
                .target_refs
                .iter()
                .any(|one| is_service(one) && one.name == target.name && one.section_name == target.section_name)
        };
        let first = cluster
            .policies_of(&service)
            .filter(same)
            .min_by_key(|other| rank(other));
        if let Some(first) = first.filter(|first| first.key != policy.key) {
            judged.conflict.get_or_insert(first.key.clone());
        }
    }
    judged
}

fn read(cluster: &Cluster, policy: &BackendTlsPolicy) -> (wire::BackendTls, Judged) {
    let mut judged = Judged::default();
    let given = &policy.spec.validation;
    let from = From {
        kind: Kind::BackendTlsPolicy,
        namespace: &policy.key.namespace,
    };
    let mut tls = wire::BackendTls {
        server_name: given.hostname.clone(),
        ..wire::BackendTls::default()
    };
    for reference in &given.ca_certificate_refs {
        match from.roots(cluster, &reference.into()) {
            Ok(roots) => {
                tls.roots.push_str(roots.trim_end());
                tls.roots.push('\n');
            }
            Err(bad) => judged.references.push(bad),
        }
    }
    match (
        given.well_known_ca_certificates.as_deref(),
        given.ca_certificate_refs.is_empty(),
    ) {
        (Some("System"), true) | (None | Some(""), false) => {}
        (None | Some(""), true) => judged.references.push(Bad {
            why: Why::Invalid,
            message: "neither caCertificateRefs nor wellKnownCACertificates say whom to trust".into(),
        }),
        (Some(_), false) => judged
            .mistakes
            .push("caCertificateRefs and wellKnownCACertificates exclude each other".into()),
        (Some(other), true) => judged.mistakes.push(format!(
            "wellKnownCACertificates '{other}' is not supported; it can be System"
        )),
    }
    if given.hostname.is_empty() {
        judged.mistakes.push("validation.hostname is missing".into());
    }
    for name in &given.subject_alt_names {
        match name.kind.as_str() {
            "Hostname" if !name.hostname.is_empty() => tls.dns_names.push(name.hostname.to_ascii_lowercase()),
            "URI" if !name.uri.is_empty() => tls.uris.push(name.uri.clone()),
            other => judged.mistakes.push(format!(
                "subjectAltNames: one of type '{other}' has no value; it can be Hostname or URI"
            )),
        }
    }
    if let Some(list) = policy.spec.options.get(ALPN) {
        let offered = list.split(',').map(str::trim);
        tls.alpn = offered.filter(|one| !one.is_empty()).map(str::to_owned).collect();
        if tls.alpn.is_empty() || tls.alpn.iter().any(|one| !matches!(one.as_str(), "h2" | "http/1.1")) {
            judged
                .mistakes
                .push(format!("the option {ALPN} is '{list}'; it can hold h2 and http/1.1"));
        }
    }
    for option in policy.spec.options.keys().filter(|option| *option != ALPN) {
        // Whoever wrote it relies on what it says.
        if option.starts_with("weft.dev/") {
            judged
                .mistakes
                .push(format!("the option {option} is not one of weft's"));
        }
    }
    (tls, judged)
}

/// Option of a policy: what is offered to servers by ALPN, as `h2,http/1.1`.
pub const ALPN: &str = "weft.dev/alpn";
