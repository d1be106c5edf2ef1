//! Statuses of GatewayClasses, Gateways and ListenerSets, with those of their listeners.

use serde_json::{Value, json};

use super::{Conditions, FEATURES, OfGateway};
use crate::{
    cluster::{Cluster, types::ObjectKey},
    gateway::{
        addresses::{self, Reached},
        certificates,
        listeners::{Because, Listener},
        objects::{Gateway, GatewayClass},
        references::Why,
    },
    infrastructure::Parameters,
    objects::GATEWAY_GROUP,
};

/// A GatewayClass of weft's.
pub(super) fn class(class: &GatewayClass, generation: i64) -> Value {
    let mut conditions = Conditions::new(generation);
    if class.spec.parameters_ref.is_some() {
        let message =
            "parametersRef of a GatewayClass is not supported; parameters stand in each Gateway's infrastructure";
        conditions.set("Accepted", false, "InvalidParameters", message);
    } else {
        conditions.set("Accepted", true, "Accepted", "weft serves the Gateways of this class");
    }
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({ "name": name })).collect();
    json!({ "conditions": conditions.into_value(), "supportedFeatures": features })
}

/// Why a Gateway as a whole is not accepted.
fn refused(cluster: &Cluster, of: &OfGateway<'_>) -> Option<Because> {
    let gateway = of.view.gateway;
    if let Err(message) = parameters(cluster, gateway) {
        return Some(Because {
            reason: "InvalidParameters",
            message,
        });
    }
    if let Some(kind) = addresses::unsupported(gateway) {
        return Some(Because {
            reason: "UnsupportedAddress",
            message: format!("an address of type '{kind}' is not supported; it can be IPAddress"),
        });
    }
    let none = of.view.of(None).all(|(_, listener)| !is_accepted(listener));
    none.then(|| Because {
        reason: "ListenersNotValid",
        message: format!("no listener can be accepted: {}", not_valid(of, None)),
    })
}

/// The parameters of a Gateway: a ConfigMap of its namespace.
fn parameters(cluster: &Cluster, gateway: &Gateway) -> Result<(), String> {
    let reference = gateway
        .spec
        .infrastructure
        .as_ref()
        .and_then(|one| one.parameters_ref.as_ref());
    let Some(reference) = reference else { return Ok(()) };
    if (reference.group.as_str(), reference.kind.as_str()) != ("", "ConfigMap") {
        return Err(format!(
            "infrastructure.parametersRef is of kind {} in group '{}'; it can be a ConfigMap of group ''",
            reference.kind, reference.group
        ));
    }
    let key = ObjectKey::new(&gateway.key.namespace, &reference.name);
    match cluster.config_map_named(&key) {
        None => Err(format!("infrastructure.parametersRef: there is no ConfigMap {key}")),
        Some(map) => match Parameters::read(&map.data) {
            Ok(_) => Ok(()),
            Err(mistakes) => Err(format!("the ConfigMap {key}: {}", mistakes.join("; "))),
        },
    }
}

fn is_accepted(listener: &Listener<'_>) -> bool {
    listener.refused.is_none() && listener.conflict.is_none()
}

/// The listeners of one object that are not accepted, with the reasons.
fn not_valid(of: &OfGateway<'_>, set: Option<usize>) -> String {
    let bad = of.view.of(set).filter_map(|(_, listener)| {
        let because = listener.refused.as_ref().or(listener.conflict.as_ref())?;
        Some(format!("'{}': {}", listener.spec.name, because.message))
    });
    bad.collect::<Vec<_>>().join("; ")
}

/// A Gateway of weft's.
pub(super) fn gateway(cluster: &Cluster, of: &OfGateway<'_>, generation: i64) -> Value {
    let gateway = of.view.gateway;
    let reached = addresses::reached(cluster, gateway);
    let refused = refused(cluster, of);
    let mut conditions = Conditions::new(generation);
    match &refused {
        Some(because) => conditions.set("Accepted", false, because.reason, &because.message),
        None => match not_valid(of, None) {
            bad if bad.is_empty() => conditions.set("Accepted", true, "Accepted", "weft serves this Gateway"),
            bad => conditions.set(
                "Accepted",
                true,
                "ListenersNotValid",
                &format!("served but for some listeners: {bad}"),
            ),
        },
    };
    match not_programmed(&reached, refused.as_ref()) {
        Some(because) => conditions.set("Programmed", false, because.reason, &because.message),
        None => conditions.set(
            "Programmed",
            true,
            "Programmed",
            "its proxies are ready and have an address",
        ),
    };
    match certificates::of_gateway(cluster, gateway) {
        Some(Err(bad)) => {
            let reason = match bad.why {
                Why::NotPermitted => "RefNotPermitted",
                Why::Kind | Why::Invalid => "InvalidClientCertificateRef",
            };
            conditions.set("ResolvedRefs", false, reason, &format!("tls.backend: {}", bad.message))
        }
        _ => conditions.set(
            "ResolvedRefs",
            true,
            "ResolvedRefs",
            "all references of the Gateway itself are good",
        ),
    };
    if certificates::is_insecure(gateway) {
        let message = "clients without a certificate that holds are let in, since tls.frontend says so";
        conditions.set("InsecureFrontendValidationMode", true, "ConfigurationChanged", message);
    }
    let programmed = refused.is_none() && reached.ready;
    let listeners = of.view.of(None);
    let listeners: Vec<Value> = listeners
        .map(|(index, listener)| self::listener(of, index, listener, programmed, generation))
        .collect();
    let addresses = reached.addresses.iter().map(|address| {
        let kind = if address.parse::<std::net::IpAddr>().is_ok() {
            "IPAddress"
        } else {
            "Hostname"
        };
        json!({ "type": kind, "value": &**address })
    });
    let sets = (0..of.view.sets.len()).filter(|index| set_refused(of, *index).is_none());
    let sets = if refused.is_some() { 0 } else { sets.count() };
    json!({
        "addresses": addresses.collect::<Vec<_>>(),
        "conditions": conditions.into_value(),
        "listeners": listeners,
        "attachedListenerSets": sets,
    })
}

/// Why a Gateway does not carry traffic yet.
fn not_programmed(reached: &Reached, refused: Option<&Because>) -> Option<Because> {
    let because = |reason, message: String| Some(Because { reason, message });
    if let Some(refused) = refused {
        return because("Invalid", format!("the Gateway is not accepted: {}", refused.message));
    }
    if !reached.missing.is_empty() {
        return because(
            "AddressNotUsable",
            format!(
                "nobody gives these addresses to the Gateway's Service: {}",
                reached.missing.join(", ")
            ),
        );
    }
    if reached.addresses.is_empty() {
        return because("AddressNotAssigned", "the Gateway's Service has no address yet".into());
    }
    if !reached.ready {
        return because("Pending", "none of the Gateway's proxies is ready".into());
    }
    None
}

/// Why a ListenerSet is not accepted.
fn set_refused(of: &OfGateway<'_>, index: usize) -> Option<Because> {
    let set = &of.view.sets[index];
    if !set.allowed {
        return Some(Because {
            reason: "NotAllowed",
            message: format!(
                "allowedListeners of the Gateway {} allow no ListenerSets of the namespace {}",
                of.view.gateway.key, set.set.key.namespace
            ),
        });
    }
    let good = |listener: &Listener<'_>| is_accepted(listener) && listener.is_served();
    let none = of.view.of(Some(index)).all(|(_, listener)| !good(listener));
    none.then(|| {
        let unresolved = of.view.of(Some(index)).filter_map(|(_, listener)| {
            let because = listener.unresolved.as_ref()?;
            Some(format!("'{}': {}", listener.spec.name, because.message))
        });
        let mut all: Vec<String> = unresolved.collect();
        let bad = not_valid(of, Some(index));
        if !bad.is_empty() {
            all.push(bad);
        }
        Because {
            reason: "ListenersNotValid",
            message: format!("no listener can be served: {}", all.join("; ")),
        }
    })
}

/// A ListenerSet of a Gateway of weft's.
pub(super) fn listener_set(cluster: &Cluster, of: &OfGateway<'_>, index: usize, generation: i64) -> Value {
    let mut conditions = Conditions::new(generation);
    let gateway = of.view.gateway;
    let parent = refused(cluster, of).map(|because| Because {
        reason: "ParentNotAccepted",
        message: format!("the Gateway {} is not accepted: {}", gateway.key, because.message),
    });
    let refused = set_refused(of, index).or(parent);
    let reached = addresses::reached(cluster, gateway);
    match &refused {
        Some(because) => {
            conditions.set("Accepted", false, because.reason, &because.message);
            conditions.set("Programmed", false, because.reason, &because.message);
        }
        None => {
            match not_valid(of, Some(index)) {
                bad if bad.is_empty() => {
                    conditions.set("Accepted", true, "Accepted", "its listeners are the Gateway's")
                }
                bad => conditions.set(
                    "Accepted",
                    true,
                    "ListenersNotValid",
                    &format!("served but for some listeners: {bad}"),
                ),
            };
            match not_programmed(&reached, None) {
                Some(because) => conditions.set("Programmed", false, "Pending", &because.message),
                None => conditions.set("Programmed", true, "Programmed", "the Gateway's proxies are ready"),
            };
        }
    }
    let programmed = refused.is_none() && reached.ready;
    let listeners = of.view.of(Some(index));
    let mut listeners: Vec<Value> = listeners
        .map(|(at, listener)| self::listener(of, at, listener, programmed, generation))
        .collect();
    if let Some(because) = refused.filter(|_| listeners.is_empty()) {
        // The Gateway does not look at them; each is told why all the same.
        listeners = of.view.sets[index]
            .set
            .spec
            .listeners
            .iter()
            .map(|spec| {
                let mut conditions = Conditions::new(generation);
                conditions.set("Accepted", false, because.reason, &because.message);
                conditions.set("Programmed", false, because.reason, &because.message);
                json!({
                    "name": spec.name,
                    "supportedKinds": [],
                    "attachedRoutes": 0,
                    "conditions": conditions.into_value(),
                })
            })
            .collect();
    }
    json!({ "conditions": conditions.into_value(), "listeners": listeners })
}

/// One listener. `programmed`: its object is accepted, and proxies are there.
fn listener(of: &OfGateway<'_>, index: usize, listener: &Listener<'_>, programmed: bool, generation: i64) -> Value {
    let mut conditions = Conditions::new(generation);
    let conflict = listener.conflict.as_ref();
    match listener.refused.as_ref().or(conflict) {
        Some(because) => conditions.set("Accepted", false, because.reason, &because.message),
        None => conditions.set("Accepted", true, "Accepted", "the listener can be served"),
    };
    match conflict {
        Some(because) => conditions.set("Conflicted", true, because.reason, &because.message),
        None => conditions.set(
            "Conflicted",
            false,
            "NoConflicts",
            "no other listener has the same port and hostname",
        ),
    };
    match &listener.unresolved {
        Some(because) => conditions.set("ResolvedRefs", false, because.reason, &because.message),
        None => conditions.set("ResolvedRefs", true, "ResolvedRefs", "all references are good"),
    };
    match (conflict, listener.is_served(), programmed) {
        (Some(because), ..) => conditions.set("Programmed", false, because.reason, &because.message),
        (None, false, _) => conditions.set("Programmed", false, "Invalid", "the listener cannot be served"),
        (None, true, false) => conditions.set("Programmed", false, "Pending", "the Gateway is not programmed yet"),
        (None, true, true) => conditions.set("Programmed", true, "Programmed", "the Gateway's proxies serve it"),
    };
    if let Some(because) = &listener.overlap {
        conditions.set("OverlappingTLSConfig", true, because.reason, &because.message);
    }
    let kinds = listener.kinds.iter();
    let kinds: Vec<Value> = kinds
        .map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind.name() }))
        .collect();
    json!({
        "name": listener.spec.name,
        "supportedKinds": kinds,
        "attachedRoutes": of.attached.listeners[index].len(),
        "conditions": conditions.into_value(),
    })
}
