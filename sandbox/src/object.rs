//! Objects as the API would store them: their kinds, their keys, and short ways to read them.
//!
//! An object is a JSON value; typed views (k8s-openapi) are taken where a controller needs more than a field or two.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;

/// An object of the API, as JSON.
pub type Object = Value;

macro_rules! kinds {
    ($( $kind:ident $name:literal $plural:literal $short:literal $api:literal $namespaced:literal; )+) => {
        /// The kinds that the sandbox stores. What it does with each is said in `docs/sandbox.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the kinds are Kubernetes' own")]
        pub enum Kind { $($kind),+ }

        impl Kind {
            /// Every kind, in the order in which objects must come into being.
            pub const ALL: &[Kind] = &[$(Kind::$kind),+];
            /// The `kind` field.
            pub fn name(self) -> &'static str { match self { $(Kind::$kind => $name),+ } }
            /// Lower-case plural, as in URLs and on the command line.
            pub fn plural(self) -> &'static str { match self { $(Kind::$kind => $plural),+ } }
            /// The command line's abbreviation.
            pub fn short(self) -> &'static str { match self { $(Kind::$kind => $short),+ } }
            /// The `apiVersion` field that is written.
            pub fn api_version(self) -> &'static str { match self { $(Kind::$kind => $api),+ } }
            /// Whether objects of this kind belong to a namespace.
            pub fn namespaced(self) -> bool { match self { $(Kind::$kind => $namespaced),+ } }
        }
    };
}

kinds! {
    Namespace "Namespace" "namespaces" "ns" "v1" false;
    ServiceAccount "ServiceAccount" "serviceaccounts" "sa" "v1" true;
    ConfigMap "ConfigMap" "configmaps" "cm" "v1" true;
    Secret "Secret" "secrets" "secret" "v1" true;
    Service "Service" "services" "svc" "v1" true;
    EndpointSlice "EndpointSlice" "endpointslices" "eps" "discovery.k8s.io/v1" true;
    ReferenceGrant "ReferenceGrant" "referencegrants" "refgrant" "gateway.networking.k8s.io/v1" true;
    BackendTlsPolicy "BackendTLSPolicy" "backendtlspolicies" "btlspolicy" "gateway.networking.k8s.io/v1" true;
    GatewayClass "GatewayClass" "gatewayclasses" "gc" "gateway.networking.k8s.io/v1" false;
    Gateway "Gateway" "gateways" "gtw" "gateway.networking.k8s.io/v1" true;
    ListenerSet "ListenerSet" "listenersets" "lset" "gateway.networking.k8s.io/v1" true;
    HttpRoute "HTTPRoute" "httproutes" "httproute" "gateway.networking.k8s.io/v1" true;
    GrpcRoute "GRPCRoute" "grpcroutes" "grpcroute" "gateway.networking.k8s.io/v1" true;
    TlsRoute "TLSRoute" "tlsroutes" "tlsroute" "gateway.networking.k8s.io/v1" true;
    TcpRoute "TCPRoute" "tcproutes" "tcproute" "gateway.networking.k8s.io/v1" true;
    UdpRoute "UDPRoute" "udproutes" "udproute" "gateway.networking.k8s.io/v1" true;
    Deployment "Deployment" "deployments" "deploy" "apps/v1" true;
    StatefulSet "StatefulSet" "statefulsets" "sts" "apps/v1" true;
    Job "Job" "jobs" "job" "batch/v1" true;
    Pod "Pod" "pods" "po" "v1" true;
}

impl Kind {
    /// The kind that a command line means by `pods`, `pod`, `po` or `Pod`.
    pub fn from_argument(text: &str) -> Option<Kind> {
        let text = text.to_ascii_lowercase();
        let means = |k: &Kind| [k.plural(), k.short(), &k.name().to_ascii_lowercase()].contains(&text.as_str());
        Self::ALL.iter().copied().find(means)
    }

    /// The kind of an object, when its group is the one that the kind belongs to.
    pub fn of(object: &Object) -> Option<Kind> {
        let (kind, api) = (object["kind"].as_str()?, object["apiVersion"].as_str()?);
        let group = |api: &str| {
            api.rsplit_once('/')
                .map_or(String::new(), |(group, _)| group.to_string())
        };
        Self::ALL
            .iter()
            .copied()
            .find(|k| k.name() == kind && group(k.api_version()) == group(api))
    }
}

impl Kind {
    /// Whether it is a route of the Gateway API.
    pub fn is_route(self) -> bool {
        use Kind::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute, UdpRoute};
        matches!(self, HttpRoute | GrpcRoute | TlsRoute | TcpRoute | UdpRoute)
    }

    /// Whether it is one of the Gateway API, whose objects the controller judges.
    pub fn is_gateway_api(self) -> bool {
        self.api_version().starts_with(weft_proto::names::gateway_api::GROUP)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What tells one object from every other at one time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for kinds without.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Key {
        let namespace = if kind.namespaced() {
            namespace.to_string()
        } else {
            String::new()
        };
        Key {
            kind,
            namespace,
            name: name.to_string(),
        }
    }

    /// The key of an object of a known kind.
    pub fn of(object: &Object) -> Option<Key> {
        let kind = Kind::of(object)?;
        Some(Key::new(kind, namespace(object), name(object)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// `metadata.name`, or nothing.
pub fn name(object: &Object) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// `metadata.namespace`, or `default`.
pub fn namespace(object: &Object) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("default")
}

/// `metadata.uid`, or nothing.
pub fn uid(object: &Object) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// A label's value.
pub fn label<'a>(object: &'a Object, label: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(label)?.as_str()
}

/// Whether the object is on its way out.
pub fn is_terminating(object: &Object) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Uid of the object that controls this one.
pub fn owner(object: &Object) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|o| o["controller"] == true)?["uid"].as_str()
}

/// A reference for `metadata.ownerReferences`.
pub fn owner_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner), "uid": uid(owner), "controller": true,
    })
}

/// Whether `matchLabels` and `matchExpressions` take these labels.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let value = |key: &str| labels.get(key).and_then(Value::as_str);
    let equal = |wanted: &Value| {
        let wanted = wanted.as_object();
        wanted.is_none_or(|w| {
            w.iter()
                .all(|(key, v)| value(key).is_some_and(|got| Some(got) == v.as_str()))
        })
    };
    let expression = |e: &Value| {
        let got = e["key"].as_str().and_then(value);
        let listed = || {
            e["values"]
                .as_array()
                .is_some_and(|v| v.iter().any(|v| v.as_str() == got))
        };
        match e["operator"].as_str() {
            Some("In") => got.is_some() && listed(),
            Some("NotIn") => got.is_none() || !listed(),
            Some("Exists") => got.is_some(),
            Some("DoesNotExist") => got.is_none(),
            _ => false,
        }
    };
    equal(&selector["matchLabels"])
        && selector["matchExpressions"]
            .as_array()
            .is_none_or(|all| all.iter().all(expression))
}

/// A typed view of an object. Objects are checked against their types when they are read, so that this holds for stored ones.
pub fn typed<T: DeserializeOwned>(object: &Object) -> anyhow::Result<T> {
    serde_json::from_value(object.clone()).map_err(|e| anyhow::anyhow!("{} {}: {e}", object["kind"], name(object)))
}

/// A new random identifier, from the kernel.
pub fn new_uid() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    uuid.map(|u| u.trim().to_string())
        .expect("the kernel gives random identifiers wherever /proc is mounted")
}

/// The last five characters of a generated pod name.
pub fn random_suffix() -> String {
    // The alphabet of Kubernetes' own generated names: no vowels, no look-alikes.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let uid = new_uid();
    let digits = uid.bytes().filter(|b| *b != b'-').collect::<Vec<_>>();
    digits
        .chunks(4)
        .take(5)
        .map(|c| ALPHABET[c.iter().map(|b| *b as usize).sum::<usize>() % ALPHABET.len()] as char)
        .collect()
}

/// The time now, as the API writes it.
pub fn now() -> String {
    let now = time::OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    now.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_each_of_its_names_and_by_its_group() {
        assert_eq!(Kind::from_argument("po"), Some(Kind::Pod));
        assert_eq!(Kind::from_argument("HTTPRoute"), Some(Kind::HttpRoute));
        assert_eq!(Kind::from_argument("nodes"), None);
        assert_eq!(
            Kind::of(&json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute"})),
            Some(Kind::HttpRoute)
        );
        assert_eq!(
            Kind::of(&json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service"})),
            None
        );
    }

    #[test]
    fn selectors_take_labels_as_kubernetes_does() {
        let labels = json!({"app": "web", "tier": "front"});
        let cases = [
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}),
                true,
            ),
            (json!({}), true),
        ];
        for (selector, expected) in cases {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn names_that_are_generated_are_valid_and_differ() {
        let (one, other) = (random_suffix(), random_suffix());
        assert!(one.len() == 5 && one != other, "{one} {other}");
    }
}
