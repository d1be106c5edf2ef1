//! What the proxies of a Gateway serve: its listeners with their rules, every backend and every certificate once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use weft_proto::rpc::discovery::{self as wire, ListenerProtocol, change::Content};

use super::{
    Answer, Planned, Settings,
    backends::{Backends, Carries},
    resolved, version,
};
use crate::{
    cluster::{
        Cluster, Dependency,
        types::{Certificate, ObjectKey},
    },
    gateway::{self, attach::Attached, certificates, listeners::View},
};

/// The answer to the name of a Gateway: nothing to say of one that is not there or not weft's, so that its proxies keep what they have.
pub(super) fn answer(cluster: &Cluster, settings: &Settings, key: &ObjectKey) -> Planned {
    let mut dependencies = BTreeSet::from([Dependency::Routing]);
    let answer = cluster
        .gateway_named(key)
        .filter(|gateway| gateway::is_ours(cluster, gateway))
        .map(|gateway| {
            let content = content(cluster, settings, gateway, &mut dependencies);
            Answer {
                version: version(b"gateway", &content),
                content: Content::Gateway(content),
                only_for: Some((key.namespace.clone(), gateway::object_name(&key.name).into())),
            }
        });
    Planned {
        answer,
        consumers: BTreeMap::new(),
        dependencies,
    }
}

fn content(
    cluster: &Cluster,
    settings: &Settings,
    gateway: &Arc<gateway::objects::Gateway>,
    dependencies: &mut BTreeSet<Dependency>,
) -> wire::Gateway {
    let view = View::new(cluster, gateway);
    let attached = Attached::new(cluster, &view);
    let own = certificates::of_gateway(cluster, gateway).and_then(Result::ok);
    let mut backends = Backends::of_gateway(cluster, settings, own.map(|one| pem(&one)));
    let mut given = Certificates::default();
    let served = view.listeners.iter().zip(&attached.listeners);
    let listeners = served
        .filter(|(listener, _)| listener.is_served())
        .filter_map(|(listener, routes)| {
            let protocol = listener.protocol?;
            let carries = match protocol {
                ListenerProtocol::ListenerHttp | ListenerProtocol::ListenerHttps => Carries::Requests,
                ListenerProtocol::ListenerTls | ListenerProtocol::ListenerTcp => Carries::Bytes,
                ListenerProtocol::ListenerPassthrough => Carries::Tls,
            };
            let mut rules = Vec::new();
            for here in routes {
                for rule in &here.route.rules {
                    let mut rule = resolved(&here.route.key, rule, carries, &mut backends);
                    rule.hosts.clone_from(&here.hosts);
                    rules.push(wire::Rule::from(&rule));
                }
            }
            Some(wire::Listener {
                name: view.name(listener),
                port: listener.spec.port.into(),
                protocol: protocol.into(),
                hostname: listener.hostname.as_deref().unwrap_or_default().to_owned(),
                certificates: listener.certificates.iter().map(|one| given.index(one)).collect(),
                client_validation: listener.client_check.as_ref().map(|check| wire::ClientValidation {
                    roots: check.roots.clone(),
                    allow_insecure_fallback: check.insecure_fallback,
                }),
                rules,
            })
        });
    let listeners = listeners.collect();
    dependencies.extend(backends.services().map(|service| Dependency::Service(service.clone())));
    wire::Gateway {
        listeners,
        backends: backends.into_wire(),
        certificates: given.all.iter().map(|one| pem(one)).collect(),
    }
}

fn pem(certificate: &Certificate) -> wire::Certificate {
    wire::Certificate {
        chain: certificate.chain.to_string(),
        key: certificate.key.to_string(),
    }
}

/// Each certificate once.
#[derive(Default)]
struct Certificates {
    all: Vec<Arc<Certificate>>,
    indices: HashMap<*const Certificate, u32>,
}

impl Certificates {
    fn index(&mut self, certificate: &Arc<Certificate>) -> u32 {
        // Listeners that name one Secret share its value.
        *self.indices.entry(Arc::as_ptr(certificate)).or_insert_with(|| {
            self.all.push(certificate.clone());
            u32::try_from(self.all.len() - 1).expect("a gateway has fewer than four billion certificates")
        })
    }
}
