//! Text → documents → objects, for both sources.
//!
//! An object that cannot be read is a list of mistakes with the object's name, never an end of anything else.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    cluster::{
        read::{self as compact, Mistakes},
        types::{Key, Kind, Object, ObjectKey},
    },
    objects::{
        GATEWAY_GROUP, GrpcRouteSpec, HttpRouteSpec,
        core::{self, EndpointSlice, Meta},
    },
    translate,
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
        ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "HTTPRoute") => Kind::HttpRoute,
        ("gateway.networking.k8s.io/v1", "GRPCRoute") => Kind::GrpcRoute,
        ("v1", "Node") => Kind::Node,
        ("networking.k8s.io/v1", "ServiceCIDR") => Kind::ServiceCidr,
        (_, "HTTPRoute" | "GRPCRoute") if version.starts_with(GATEWAY_GROUP) => {
            let mistake = format!("{kind} of {version} is not read; write apiVersion: {GATEWAY_GROUP}/v1");
            return Parsed::refused(None, vec![mistake]);
        }
        _ => return Parsed::default(),
    };
    let metadata: Meta = match read(value.get("metadata").cloned().unwrap_or_default(), "metadata") {
        Ok(metadata) => metadata,
        Err(mistakes) => return Parsed::refused(None, mistakes),
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
        Kind::HttpRoute => http_route(&metadata, spec(value)),
        Kind::GrpcRoute => grpc_route(&metadata, spec(value)),
        Kind::Node => typed(value).and_then(node),
        Kind::ServiceCidr => typed(value).and_then(service_cidr),
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

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Mistakes> {
    serde_path_to_error::deserialize(value).map_err(|error| vec![error.to_string()])
}

fn read<T: DeserializeOwned + Default>(value: Value, name: &str) -> Result<T, Mistakes> {
    match value {
        Value::Null => Ok(T::default()),
        value => serde_path_to_error::deserialize(value).map_err(|error| vec![format!("{name}.{error}")]),
    }
}

fn spec(mut object: Value) -> Value {
    object.get_mut("spec").map(Value::take).unwrap_or_default()
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

/// Reads an HTTPRoute from its metadata and its specification.
pub fn http_route(metadata: &Meta, spec: Value) -> Result<Option<Object>, Mistakes> {
    let spec: HttpRouteSpec = read(spec, "spec")?;
    Ok(Some(Object::Route(translate::http_route(metadata, &spec)?)))
}

/// Reads a GRPCRoute from its metadata and its specification.
pub fn grpc_route(metadata: &Meta, spec: Value) -> Result<Option<Object>, Mistakes> {
    let spec: GrpcRouteSpec = read(spec, "spec")?;
    Ok(Some(Object::Route(translate::grpc_route(metadata, &spec)?)))
}

#[cfg(test)]
mod tests;
