//! A container's environment and words, from the pod's spec and the objects that it names.

use super::field;
use crate::object::{Kind, Object};
use k8s_openapi::{ByteString, api::core::v1 as core};
use serde_json::Value;
use std::collections::BTreeMap;

/// Finds an object of the pod's namespace.
pub type Find<'a> = &'a dyn Fn(Kind, &str) -> Option<Object>;

/// The environment: `base` below `envFrom` below `env`. An error names what is missing.
pub fn environment(
    container: &core::Container,
    pod: &Object,
    base: BTreeMap<String, String>,
    find: Find<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = base;
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (values, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(r), _) => (config_map(&r.name, find), r.optional),
            (_, Some(r)) => (secret(&r.name, find), r.optional),
            _ => continue,
        };
        match values {
            Ok(values) => env.extend(
                values
                    .into_iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), text(value))),
            ),
            Err(_) if optional == Some(true) => {}
            Err(missing) => return Err(missing),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &env)),
            (None, Some(source)) => from_source(source, pod, find)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

fn from_source(source: &core::EnvVarSource, pod: &Object, find: Find<'_>) -> Result<Option<String>, String> {
    if let Some(reference) = &source.field_ref {
        return field::value(pod, &reference.field_path).map(Some);
    }
    let (values, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(r), _) => (config_map(&r.name, find), &r.name, &r.key, r.optional),
        (_, Some(r)) => (secret(&r.name, find), &r.name, &r.key, r.optional),
        // resourceFieldRef: a process of the machine has no limits to speak of.
        _ => return Ok(None),
    };
    let found = values.and_then(|mut v| v.remove(key).ok_or_else(|| format!("'{name}' has no key '{key}'")));
    match found {
        Ok(value) => Ok(Some(text(value))),
        Err(_) if optional == Some(true) => Ok(None),
        Err(missing) => Err(missing),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The keys of a ConfigMap.
pub fn config_map(name: &str, find: Find<'_>) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let object = find(Kind::ConfigMap, name).ok_or_else(|| format!("configmap '{name}' not found"))?;
    let mut values = strings(&object["data"]);
    values.extend(encoded(&object["binaryData"]));
    Ok(values)
}

/// The keys of a Secret.
pub fn secret(name: &str, find: Find<'_>) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let object = find(Kind::Secret, name).ok_or_else(|| format!("secret '{name}' not found"))?;
    let mut values = encoded(&object["data"]);
    values.extend(strings(&object["stringData"]));
    Ok(values)
}

fn strings(map: &Value) -> BTreeMap<String, Vec<u8>> {
    let pairs = map.as_object().into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.as_bytes().to_vec())))
        .collect()
}

fn encoded(map: &Value) -> BTreeMap<String, Vec<u8>> {
    let decode = |value: &Value| serde_json::from_value::<ByteString>(value.clone()).ok().map(|b| b.0);
    map.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), decode(value)?)))
        .collect()
}

/// Replaces `$(NAME)` by the variable; `$$(NAME)` stands for `$(NAME)`, and an unknown name stays as it is.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(kind: Kind, name: &str) -> Option<Object> {
        match (kind, name) {
            (Kind::ConfigMap, "settings") => Some(json!({"data": {"COLOUR": "red", "SIZE": "2"}})),
            (Kind::Secret, "keys") => Some(json!({"data": {"token": "c2VjcmV0"}})),
            _ => None,
        }
    }

    fn environment_of(container: Value) -> Result<Vec<String>, String> {
        let container: core::Container = serde_json::from_value(container).unwrap();
        let pod = json!({"metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}}, "status": {"podIP": "10.0.0.1"}});
        let env = environment(
            &container,
            &pod,
            BTreeMap::from([("PATH".into(), "/bin".into())]),
            &find,
        )?;
        Ok(env.into_iter().map(|(k, v)| format!("{k}={v}")).collect())
    }

    #[test]
    fn variables_come_from_where_the_spec_says_in_its_order() {
        let env = environment_of(json!({
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "URL", "value": "http://$(POD).db/$(P_COLOUR)/$(LATER)/$$(POD)"},
                {"name": "LATER", "value": "x"},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
        }));
        let expected = [
            "LABEL=web",
            "LATER=x",
            "PATH=/bin",
            "POD=web-0",
            "P_COLOUR=red",
            "P_SIZE=2",
            "TOKEN=secret",
            "URL=http://web-0.db/red/$(LATER)/$(POD)",
        ];
        assert_eq!(env.unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let from = |source: Value| environment_of(json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]}));
        assert_eq!(
            from(json!({"secretKeyRef": {"name": "no", "key": "k"}})).unwrap_err(),
            "secret 'no' not found"
        );
        assert_eq!(
            from(json!({"configMapKeyRef": {"name": "settings", "key": "k"}})).unwrap_err(),
            "'settings' has no key 'k'"
        );
        assert!(from(json!({"configMapKeyRef": {"name": "settings", "key": "k", "optional": true}})).is_ok());
        assert!(
            from(json!({"fieldRef": {"fieldPath": "spec.colour"}}))
                .unwrap_err()
                .contains("spec.colour")
        );
    }

    #[test]
    fn dollars_that_name_nothing_stay() {
        let env = BTreeMap::from([("A".to_string(), "1".to_string())]);
        for (text, expected) in [
            ("$(A)$A$", "1$A$"),
            ("$$(A)$$", "$(A)$"),
            ("$(A", "$(A"),
            ("$(B)", "$(B)"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, &env), expected);
        }
    }
}
