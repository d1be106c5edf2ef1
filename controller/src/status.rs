//! What is to be said of every object of the Gateway API, in its own `.status`. Pure: the cluster in, the statuses out; who writes them,
//! and that only what is new is written, is for others.
//!
//! The parts of a status that are weft's are made whole: a condition of [`CONDITIONS`] that is not among those of a place is to be taken
//! away there.

mod conditions;
mod gateway;
pub mod merge;
mod policy;
mod route;
mod service;
pub mod write;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use weft_proto::names::gateway_api::CONTROLLER;

pub use conditions::{CONDITIONS, Conditions};

use crate::{
    cluster::{
        Cluster,
        types::{Key, Kind, ObjectKey},
    },
    gateway::{attach::Attached, listeners::View, ours},
    plan::Settings,
};

/// Features of the Gateway API that a GatewayClass of weft's supports, in the order of their names (`pkg/features` of v1.6.3, those of
/// meshes left out).
pub const FEATURES: [&str; 47] = [
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
];

/// The part of an object's `.status` that is weft's, without times: conditions have `type`, `status`, `reason`, `message` and
/// `observedGeneration`. Of a route: `parents`, of a BackendTLSPolicy `ancestors`, each with `controllerName`; of others the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired(pub Value);

impl Desired {
    /// In words what does not act as written, each with its reason; empty where all does.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        conditions::problems(&self.0, &mut problems);
        problems.sort();
        problems.dedup();
        problems
    }
}

/// What is known of every Gateway of weft's, looked at once.
struct Looked<'a> {
    cluster: &'a Cluster,
    gateways: BTreeMap<&'a ObjectKey, OfGateway<'a>>,
}

struct OfGateway<'a> {
    view: View<'a>,
    attached: Attached<'a>,
    /// Rules that never decide anything, by route and listener.
    shadowed: HashMap<&'a Key, Vec<String>>,
}

/// What is to be said of every object that is weft's to speak of.
pub fn statuses(cluster: &Cluster, _settings: &Settings) -> BTreeMap<Key, Desired> {
    let gateways = ours(cluster).map(|gateway| {
        let view = View::new(cluster, gateway);
        let attached = Attached::new(cluster, &view);
        let shadowed = route::shadowed_at_gateway(&view, &attached);
        let of = OfGateway {
            view,
            attached,
            shadowed,
        };
        (&gateway.key, of)
    });
    let looked = Looked {
        cluster,
        gateways: gateways.collect(),
    };
    let mut statuses = BTreeMap::new();
    for class in cluster.gateway_classes() {
        if class.spec.controller_name == CONTROLLER {
            let key = key(Kind::GatewayClass, ObjectKey::new("", &class.name));
            let status = gateway::class(class, looked.generation(&key));
            statuses.insert(key, Desired(status));
        }
    }
    for (name, of) in &looked.gateways {
        let key = key(Kind::Gateway, (*name).clone());
        let status = gateway::gateway(cluster, of, looked.generation(&key));
        statuses.insert(key, Desired(status));
        for (index, set) in of.view.sets.iter().enumerate() {
            let key = self::key(Kind::ListenerSet, set.set.key.clone());
            let status = gateway::listener_set(cluster, of, index, looked.generation(&key));
            statuses.insert(key, Desired(status));
        }
    }
    let services = service::Looked::new(cluster);
    for route in cluster.routes() {
        let parents = route::parents(&looked, &services, route);
        statuses.insert(route.key.clone(), Desired(json!({ "parents": parents })));
    }
    let ancestors = policy::Ancestors::new(&looked);
    for policy in cluster.policies() {
        let key = key(Kind::BackendTlsPolicy, policy.key.clone());
        let ancestors = ancestors.of(cluster, policy, looked.generation(&key));
        statuses.insert(key, Desired(json!({ "ancestors": ancestors })));
    }
    statuses
}

fn key(kind: Kind, object: ObjectKey) -> Key {
    Key { kind, object }
}

impl Looked<'_> {
    fn generation(&self, key: &Key) -> i64 {
        self.cluster
            .observed(key)
            .map(|observed| observed.generation)
            .unwrap_or_default()
    }
}
