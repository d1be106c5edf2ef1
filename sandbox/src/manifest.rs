//! YAML files → checked objects. Every mistake of every file is collected, each with file, document, what and fix.
//!
//! Here an object is judged by itself and against the others of its batch; what it leads to is `supervisor/`'s business.

use crate::{
    fields,
    images::Images,
    object::{Key, Kind, Object, name, namespace, selects},
    pod_check,
};
use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

/// One file's text, and the name to call it by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// What the user called it.
    pub file: String,
    /// What it says.
    pub text: String,
}

/// One mistake: where, what, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// File and document.
    pub place: String,
    /// What is wrong, and the fix.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What a batch of files says.
#[derive(Debug, Default)]
pub struct Batch {
    /// The objects, in the order in which they must come into being.
    pub objects: Vec<(String, Object)>,
    /// Kinds and fields that are right but that nothing here acts on.
    pub ignored: BTreeSet<String>,
    /// What is wrong.
    pub mistakes: Vec<Mistake>,
}

/// The manifests of a directory and those below it, sorted; `images.yaml` is not one of them.
pub fn directory(path: &Path) -> io::Result<Vec<Source>> {
    let mut files = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                open.push(path);
            } else if ["yaml", "yml", "json"].contains(&extension)
                && path.file_stem() != Some("images".as_ref())
                && !hidden
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|path| file(path)).collect()
}

/// One file.
pub fn file(path: &Path) -> io::Result<Source> {
    let place = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let length = fs::metadata(path).map_err(place)?.len();
    let limit = weft_proto::limits::OBJECT_FILE as u64;
    if length > limit {
        return Err(place(io::Error::other(format!(
            "{length} bytes; a file of objects may have {limit}; split it"
        ))));
    }
    Ok(Source {
        file: path.display().to_string(),
        text: fs::read_to_string(path).map_err(place)?,
    })
}

/// Reads and checks a batch. `existing` tells which namespaces there are already.
pub fn read(sources: &[Source], images: &Images, existing: &dyn Fn(&str) -> bool) -> Batch {
    let mut batch = Batch::default();
    for source in sources {
        if Path::new(&source.file).file_stem() == Some("kustomization".as_ref()) {
            batch
                .ignored
                .insert(format!("{} (kustomize is not run; render it first)", source.file));
            continue;
        }
        for (number, text) in documents(&source.text) {
            let place = format!("{}, document {number}", source.file);
            match parse(text) {
                Ok(Value::Null) => {}
                Ok(value) => document(place, value, &mut batch, images),
                Err(what) => batch.mistakes.push(Mistake { place, what }),
            }
        }
    }
    together(&mut batch, existing);
    batch.objects.sort_by_key(|(_, object)| Kind::of(object));
    batch
}

/// Parses one YAML document into JSON.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // `defaultMode: 0644` means what kubectl takes it for.
    let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| format!("not YAML: {e}; correct it"))
}

/// The documents of a file that say something, numbered as a reader counts them.
pub fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut starts = vec![0];
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            starts.push(offset + line.find('\n').map_or(line.len(), |n| n + 1));
        }
        offset += line.len();
    }
    let mut found = Vec::new();
    for (i, start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).map_or(text.len(), |next| {
            text[..next - 1].rfind("---").unwrap_or(*next).max(*start)
        });
        let document = &text[*start..end];
        let meaningful = document
            .lines()
            .any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
        if meaningful {
            found.push((found.len() + 1, document));
        }
    }
    found
}

fn document(place: String, object: Object, batch: &mut Batch, images: &Images) {
    if let (Some("List"), Some(items)) = (object["kind"].as_str(), object["items"].as_array()) {
        for (i, item) in items.iter().enumerate() {
            document(format!("{place}, item {}", i + 1), item.clone(), batch, images);
        }
        return;
    }
    let (Some(kind), Some(api)) = (object["kind"].as_str(), object["apiVersion"].as_str()) else {
        let what = "no 'apiVersion' and 'kind'; every object has both".to_string();
        batch.mistakes.push(Mistake { place, what });
        return;
    };
    let place = format!(
        "{place} ({kind} {})",
        if name(&object).is_empty() {
            "without a name"
        } else {
            name(&object)
        }
    );
    if let Some(known) = Kind::ALL
        .iter()
        .find(|k| k.name() == kind && api.starts_with("extensions/"))
    {
        let what = format!("apiVersion {api} is no longer served; write {}", known.api_version());
        batch.mistakes.push(Mistake { place, what });
        return;
    }
    let Some(kind) = Kind::of(&object) else {
        batch.ignored.insert(format!("{kind} ({api})"));
        return;
    };
    let mut mistakes = Vec::new();
    if let Err(what) = valid_name(name(&object)) {
        mistakes.push(format!("metadata.name {what}"));
    }
    let checked = check_types(kind, &object);
    let typed = checked.is_ok();
    mistakes.extend(checked.err().into_iter().flatten());
    if typed {
        mistakes.extend(check_object(kind, &object, images));
    }
    batch.mistakes.extend(mistakes.into_iter().map(|what| Mistake {
        place: place.clone(),
        what,
    }));
    batch.ignored.extend(
        fields::ignored(kind, &object)
            .into_iter()
            .map(|path| format!("{kind} {path}")),
    );
    if typed {
        let mut object = object;
        if kind.namespaced() && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = "default".into();
        }
        batch.objects.push((place, object));
    }
}

fn valid_name(name: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = name.bytes().next().is_some_and(inner) && name.bytes().last().is_some_and(inner);
    if ends && name.len() <= 253 && name.bytes().all(|b| inner(b) || b == b'-' || b == b'.') {
        return Ok(());
    }
    Err(format!(
        "'{name}' is not a name; use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
    ))
}

fn check_types(kind: Kind, object: &Object) -> Result<(), Vec<String>> {
    fn check<T: DeserializeOwned + Serialize>(object: &Object) -> Result<(), Vec<String>> {
        let read = |o: &Object| serde_json::from_value::<T>(o.clone());
        match read(object) {
            Ok(value) => {
                let back = serde_json::to_value(value).map_err(|e| vec![e.to_string()])?;
                let mut unknown = Vec::new();
                missing(object, &back, String::new(), &mut unknown);
                let say = |path: String| format!("unknown field '{path}'; correct its name or place, or remove it");
                if unknown.is_empty() {
                    Ok(())
                } else {
                    Err(unknown.into_iter().map(say).collect())
                }
            }
            Err(error) => {
                let text = error.to_string();
                let path = culprit(object, &text, &|o| read(o).err().map(|e| e.to_string()));
                let what = text.trim_end_matches(" at line 0 column 0").to_string();
                Err(vec![path.map_or(what.clone(), |path| {
                    format!("'{path}': {what}; correct its value")
                })])
            }
        }
    }
    match kind {
        Kind::Namespace => check::<core::Namespace>(object),
        Kind::ServiceAccount => check::<core::ServiceAccount>(object),
        Kind::ConfigMap => check::<core::ConfigMap>(object),
        Kind::Secret => check::<core::Secret>(object),
        Kind::Service => check::<core::Service>(object),
        Kind::EndpointSlice => check::<discovery::EndpointSlice>(object),
        Kind::Deployment => check::<apps::Deployment>(object),
        Kind::StatefulSet => check::<apps::StatefulSet>(object),
        Kind::Job => check::<batch::Job>(object),
        Kind::Pod => check::<core::Pod>(object),
        // The controller judges its own objects and says so in their statuses.
        _ => Ok(()),
    }
}

/// Paths of `written` that did not survive the way through the type: fields that Kubernetes does not know.
fn missing(written: &Value, back: &Value, path: String, found: &mut Vec<String>) {
    match (written, back) {
        (Value::Object(written), Value::Object(back)) => {
            for (key, value) in written.iter().filter(|(_, v)| !v.is_null()) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match back.get(key) {
                    Some(back) => missing(value, back, path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(back)) => {
            for (i, (written, back)) in written.iter().zip(back).enumerate() {
                missing(written, back, format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// The path whose value the type does not take: the deepest one without which the error is another.
fn culprit(object: &Object, error: &str, fails: &dyn Fn(&Object) -> Option<String>) -> Option<String> {
    fn paths(value: &Value, at: String, found: &mut Vec<String>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| (k.replace('~', "~0").replace('/', "~1"), v))
                .collect(),
            Value::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
            _ => return,
        };
        for (key, value) in children {
            let path = format!("{at}/{key}");
            found.push(path.clone());
            paths(value, path, found);
        }
    }
    let mut all = Vec::new();
    paths(object, String::new(), &mut all);
    let changes = |pointer: &&String| {
        let mut changed = object.clone();
        if let Some(value) = changed.pointer_mut(pointer) {
            *value = Value::Null;
        }
        fails(&changed).as_deref() != Some(error)
    };
    let pointer = all.iter().filter(changes).max_by_key(|p| p.matches('/').count())?;
    Some(
        pointer
            .trim_start_matches('/')
            .replace('/', ".")
            .replace("~1", "/")
            .replace("~0", "~"),
    )
}

fn check_object(kind: Kind, object: &Object, images: &Images) -> Vec<String> {
    let mut mistakes = Vec::new();
    match kind {
        Kind::Pod => mistakes.extend(pod_check::spec(&object["spec"], "spec", name(object), images)),
        Kind::Deployment | Kind::StatefulSet | Kind::Job => {
            let mut template = object["spec"]["template"].clone();
            for claim in object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
                // Each pod gets a volume of the claim's name.
                let volume = serde_json::json!({ "name": claim["metadata"]["name"] });
                match template["spec"]["volumes"].as_array_mut() {
                    Some(volumes) => volumes.push(volume),
                    None => template["spec"]["volumes"] = serde_json::json!([volume]),
                }
            }
            mistakes.extend(pod_check::spec(
                &template["spec"],
                "spec.template.spec",
                name(object),
                images,
            ));
            let (selector, labels) = (&object["spec"]["selector"], &template["metadata"]["labels"]);
            if kind != Kind::Job && !selects(selector, labels) {
                mistakes.push(
                    "spec.selector does not take spec.template.metadata.labels; give both the same labels".into(),
                );
            }
            if kind == Kind::Job && !matches!(template["spec"]["restartPolicy"].as_str(), Some("Never" | "OnFailure")) {
                mistakes.push("spec.template.spec.restartPolicy of a Job must be Never or OnFailure; set one".into());
            }
        }
        Kind::Service => {
            let kind = object["spec"]["type"].as_str();
            let ports = object["spec"]["ports"].as_array().map_or(0, Vec::len);
            if ports == 0 && kind != Some("ExternalName") && object["spec"]["clusterIP"] != "None" {
                mistakes.push("spec.ports is empty; name at least one port".into());
            }
            let unnamed = object["spec"]["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|p| p["name"].is_null())
                .count();
            if ports > 1 && unnamed > 0 {
                mistakes.push("spec.ports has several ports and one without a name; name each".into());
            }
        }
        _ => {}
    }
    mistakes
}

fn together(batch: &mut Batch, existing: &dyn Fn(&str) -> bool) {
    let declared: BTreeSet<&str> = batch
        .objects
        .iter()
        .filter(|(_, o)| o["kind"] == "Namespace")
        .map(|(_, o)| name(o))
        .collect();
    let mut seen: BTreeMap<Key, &str> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (place, object) in &batch.objects {
        let Some(key) = Key::of(object) else { continue };
        let namespace = namespace(object);
        if key.kind.namespaced() && !declared.contains(namespace) && !existing(namespace) {
            let what = format!(
                "namespace '{namespace}' does not exist; add a Namespace of that name, or correct metadata.namespace"
            );
            mistakes.push(Mistake {
                place: place.clone(),
                what,
            });
        }
        if let Some(first) = seen.insert(key, place) {
            let what = format!("the same object as in {first}; remove one, or rename it");
            mistakes.push(Mistake {
                place: place.clone(),
                what,
            });
        }
    }
    batch.mistakes.extend(mistakes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Batch {
        let source = Source {
            file: "a.yaml".into(),
            text: text.into(),
        };
        read(&[source], &Images::default(), &|n| n == "default")
    }

    #[test]
    fn all_mistakes_of_all_documents_are_reported_together_with_place_and_fix() {
        let batch = check(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: eighty}]}\n---\n# nothing\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {name: P_1, namespace: shop}\nspec: {container: []}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {containers: [{name: c, image: app:1}]}\n---\nkind: [\n",
        );
        let said: Vec<String> = batch.mistakes.iter().map(|m| m.to_string()).collect();
        let expected = [
            "a.yaml, document 1 (Service web): 'spec.ports.0.port': invalid type: string \"eighty\", expected i32; correct its value",
            "a.yaml, document 2 (Pod P_1): metadata.name 'P_1' is not a name; ",
            "a.yaml, document 2 (Pod P_1): ",
            "a.yaml, document 3 (Pod b): pod 'b', container 'c', image 'app:1': neither a 'command' nor a mapping; ",
            "a.yaml, document 4: not YAML: ",
        ];
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}\nshould begin with\n{expected}");
        }
        assert_eq!(said.len(), expected.len(), "{said:#?}");
    }

    #[test]
    fn a_namespace_must_be_there_or_in_the_batch_and_an_object_is_named_once() {
        let config =
            |ns: &str| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: {ns}}}\n");
        let batch = check(&format!("{}{}{}", config("default"), config("shop"), config("default")));
        let said: Vec<&str> = batch
            .mistakes
            .iter()
            .map(|m| m.what.split(';').next().unwrap())
            .collect();
        assert_eq!(
            said,
            [
                "namespace 'shop' does not exist",
                "the same object as in a.yaml, document 1 (ConfigMap a)"
            ]
        );
    }

    #[test]
    fn unknown_kinds_are_named_as_ignored_and_do_not_stop_the_rest() {
        let batch = check(
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n",
        );
        assert!(batch.mistakes.is_empty());
        assert_eq!(
            batch.ignored.into_iter().collect::<Vec<_>>(),
            ["PodDisruptionBudget (policy/v1)"]
        );
        assert_eq!(batch.objects.len(), 1);
    }

    #[test]
    fn a_mode_with_a_leading_zero_is_octal() {
        let value: Value = parse("defaultMode: 0644").unwrap();
        assert_eq!(value["defaultMode"], 0o644);
    }
}
