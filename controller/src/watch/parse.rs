//! Text → documents → objects, for both sources.
//!
//! An object that cannot be read is a list of mistakes with the object's name, never an end of anything else.

use std::sync::Arc;

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use crate::{
    cluster::{
        read::{self as compact, Mistakes},
        types::{Key, Kind, Object, ObjectKey},
    },
    gateway::objects::{BackendTlsPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant},
    objects::{
        GATEWAY_GROUP,
        core::{self, EndpointSlice},
    },
    translate::{self, Route},
};

/// One document of a file.
#[derive(Debug, PartialEq)]
pub struct Document {
    /// From 1; documents without content do not count.
    pub number: usize,
    /// The line that it starts on, from 1.
    pub line: usize,
    /// Its content, or what is wrong with its text.
    pub value: Result<Value, String>,
}

/// Splits a file of YAML (or JSON, which is YAML) and reads each document by itself.
pub fn documents(text: &str) -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    for (line, part) in split(text) {
        if part
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            continue;
        }
        // The empty lines let the parser count as the reader of the file does.
        let padded = "\n".repeat(line - 1) + part;
        let value = match serde_saphyr::from_str::<Value>(&padded) {
            Ok(Value::Null) => continue,
            Ok(value) => Ok(value),
            Err(error) => Err(one_line(&error.to_string())),
        };
        documents.push(Document {
            number: documents.len() + 1,
            line,
            value,
        });
    }
    documents
}

/// Parts between lines that start with `---`, which at the start of a line always ends a document (YAML 1.2, 9.1.2).
fn split(text: &str) -> Vec<(usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut parts, mut start, mut start_line, mut offset) = (Vec::new(), 0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker {
            parts.push((start_line, &text[start..offset]));
            // What stands behind the marker belongs to the document.
            start = offset + 3;
            start_line = index + 1;
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

/// The parser's messages draw the place in the text over several lines; a log line has one.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(1).collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

/// What became of one object.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Which one it is, as far as that can be told.
    pub key: Option<Key>,
    /// The object; `None` for kinds that weft does not read.
    pub object: Option<Object>,
    /// For what it is refused.
    pub mistakes: Mistakes,
    /// What weft reads in its own way.
    pub notes: Vec<String>,
}

impl Parsed {
    fn refused(key: Option<Key>, mistakes: Mistakes) -> Self {
        Self {
            key,
            mistakes,
            ..Self::default()
        }
    }
}

/// Reads the objects of a document: one, or those of a List.
pub fn objects(document: Value) -> Vec<Parsed> {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text(&document, "apiVersion"), text(&document, "kind"));
    if version.is_empty() || kind.is_empty() {
        return vec![Parsed::refused(
            None,
            vec!["apiVersion or kind is missing: this is no Kubernetes object".into()],
        )];
    }
    let (Some(item_kind), Value::Object(mut fields)) = (kind.strip_suffix("List"), document.clone()) else {
        return vec![object(&version, &kind, document)];
    };
    let Some(Value::Array(items)) = fields.remove("items") else {
        return vec![object(&version, &kind, document)];
    };
    let one = |item: Value| {
        let (own_version, own_kind) = (text(&item, "apiVersion"), text(&item, "kind"));
        match (own_version.is_empty(), item_kind.is_empty()) {
            (false, _) => object(&own_version, &own_kind, item),
            (true, false) => object(&version, item_kind, item),
            (true, true) => Parsed::refused(None, vec!["an item of the List has no apiVersion".into()]),
        }
    };
    items.into_iter().map(one).collect()
}

fn object(version: &str, kind: &str, value: Value) -> Parsed {
    let known = match (version, kind) {
        ("v1", "Namespace") => Kind::Namespace,
        ("v1", "Pod") => Kind::Pod,
        ("v1", "Service") => Kind::Service,
        ("discovery.k8s.io/v1", "EndpointSlice") => Kind::EndpointSlice,
        ("v1", "Node") => Kind::Node,
        ("networking.k8s.io/v1", "ServiceCIDR") => Kind::ServiceCidr,
        ("v1", "Secret") => Kind::Secret,
        ("v1", "ConfigMap") => Kind::ConfigMap,
        _ => match of_gateway_api(version, kind) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Parsed::default(),
            Err(mistake) => return Parsed::refused(None, vec![mistake]),
        },
    };
    let metadata: Name = match read(value.get("metadata").cloned().unwrap_or_default(), "metadata") {
        Ok(metadata) => metadata,
        Err(mistakes) => return Parsed::refused(None, mistakes),
    };
    let metadata = core::Meta::<IgnoredAny> {
        name: metadata.name,
        namespace: metadata.namespace,
        ..core::Meta::default()
    };
    let name = match compact::key(&metadata) {
        Ok(name) => name,
        Err(mistakes) => return Parsed::refused(None, mistakes),
    };
    let mut notes = Vec::new();
    let object = match known {
        Kind::Namespace => typed(value).and_then(|object| namespace(object, &mut notes)),
        Kind::Pod => typed(value).and_then(|object| pod(object, &mut notes)),
        Kind::Service => typed(value).and_then(service),
        Kind::EndpointSlice => typed(value).and_then(slice),
        Kind::Node => typed(value).and_then(node),
        Kind::ServiceCidr => typed(value).and_then(service_cidr),
        Kind::Secret => typed(value).and_then(secret),
        Kind::ConfigMap => typed(value).and_then(config_map),
        kind => typed(value).and_then(|object| custom(kind, object, Origin::File)),
    };
    let name = if known.is_cluster_wide() {
        ObjectKey {
            namespace: "".into(),
            ..name
        }
    } else {
        name
    };
    let key = Some(Key {
        kind: known,
        object: name,
    });
    match object {
        Ok(object) => Parsed {
            key,
            object,
            mistakes: Vec::new(),
            notes,
        },
        Err(mistakes) => Parsed {
            key,
            object: None,
            mistakes,
            notes,
        },
    }
}

/// The kind of an object of the Gateway API, of the versions that have the same fields. An error for other versions.
fn of_gateway_api(version: &str, kind: &str) -> Result<Option<Kind>, String> {
    let Some(version) = version
        .strip_prefix(GATEWAY_GROUP)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        return Ok(None);
    };
    let known = Kind::ALL.into_iter().filter(|kind| kind.is_gateway_api());
    let Some(known) = known.into_iter().find(|known| known.name() == kind) else {
        return Ok(None);
    };
    let older: &[&str] = match known {
        Kind::GatewayClass | Kind::Gateway | Kind::HttpRoute | Kind::ReferenceGrant => &["v1beta1"],
        Kind::TlsRoute => &["v1alpha3", "v1alpha2"],
        Kind::TcpRoute | Kind::UdpRoute => &["v1alpha2"],
        Kind::BackendTlsPolicy => &["v1alpha3"],
        _ => &[],
    };
    if version == "v1" || older.contains(&version) {
        Ok(Some(known))
    } else {
        Err(format!(
            "{kind} of {GATEWAY_GROUP}/{version} is not read; write apiVersion: {GATEWAY_GROUP}/v1"
        ))
    }
}

/// Of `metadata` what names an object.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Name {
    name: Option<String>,
    namespace: Option<String>,
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Mistakes> {
    serde_path_to_error::deserialize(value).map_err(|error| vec![error.to_string()])
}

fn read<T: DeserializeOwned + Default>(value: Value, name: &str) -> Result<T, Mistakes> {
    match value {
        Value::Null => Ok(T::default()),
        value => serde_path_to_error::deserialize(value).map_err(|error| vec![format!("{name}.{error}")]),
    }
}

/// Reads a Namespace.
pub fn namespace(object: core::Namespace, notes: &mut Vec<String>) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::Namespace(compact::namespace(object, notes)?)))
}

/// Reads a Pod.
pub fn pod(object: core::Pod, notes: &mut Vec<String>) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::Pod(compact::pod(object, notes)?)))
}

/// Reads a Service.
pub fn service(object: core::Service) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::Service(compact::service(object)?)))
}

/// Reads an EndpointSlice.
pub fn slice(object: EndpointSlice) -> Result<Option<Object>, Mistakes> {
    Ok(compact::slice(object)?.map(Object::Slice))
}

/// Reads a Node.
pub fn node(object: core::Node) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::Ranges(compact::node(object)?)))
}

/// Reads a ServiceCIDR.
pub fn service_cidr(object: core::ServiceCidr) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::Ranges(compact::service_cidr(object)?)))
}

/// Reads a Secret.
pub fn secret(object: core::Secret) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::Secret(compact::secret(object)?)))
}

/// Reads a ConfigMap.
pub fn config_map(object: core::ConfigMap) -> Result<Option<Object>, Mistakes> {
    Ok(Some(Object::ConfigMap(compact::config_map(object)?)))
}

/// Where an object of the Gateway API comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has looked at it yet: what an API server would refuse is refused.
    File,
    /// An API server took it: what is wrong with it all the same is said in its status.
    ApiServer,
}

/// Reads an object of the Gateway API.
pub fn custom(kind: Kind, mut object: core::Custom, origin: Origin) -> Result<Option<Object>, Mistakes> {
    let told = |(route, mistakes): (Route, Mistakes)| match origin {
        Origin::File if !mistakes.is_empty() => Err(mistakes),
        _ => Ok(route),
    };
    let observed = compact::observed(&mut object);
    let key = compact::key(&object.metadata)?;
    let (metadata, spec) = (&object.metadata, object.spec);
    let created = observed.created;
    Ok(Some(match kind {
        Kind::HttpRoute => Object::Route(observed, told(translate::http_route(metadata, &read(spec, "spec")?)?)?),
        Kind::GrpcRoute => Object::Route(observed, told(translate::grpc_route(metadata, &read(spec, "spec")?)?)?),
        Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => Object::Route(
            observed,
            told(translate::l4_route(kind, metadata, &read(spec, "spec")?)?)?,
        ),
        Kind::GatewayClass => {
            let (name, spec) = (key.name, read(spec, "spec")?);
            Object::GatewayClass(observed, GatewayClass { name, spec })
        }
        Kind::Gateway => {
            let spec = read(spec, "spec")?;
            Object::Gateway(observed, Arc::new(Gateway { key, spec }))
        }
        Kind::ListenerSet => {
            let spec = read(spec, "spec")?;
            Object::ListenerSet(observed, ListenerSet { key, created, spec })
        }
        Kind::BackendTlsPolicy => {
            let spec = read(spec, "spec")?;
            Object::BackendTlsPolicy(observed, BackendTlsPolicy { key, created, spec })
        }
        Kind::ReferenceGrant => {
            let spec = read(spec, "spec")?;
            Object::ReferenceGrant(ReferenceGrant { key, spec })
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests;
