//! Volumes: what files they hold, and keeping a directory the same as that.

use super::{
    env::{Find, config_map, secret},
    field,
    token::Token,
};
use crate::object::Object;
use k8s_openapi::api::core::v1 as core;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Component, Path, PathBuf},
};

/// Mode of files, unless the volume says so.
const DEFAULT_MODE: i32 = 0o644;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it says.
    pub bytes: Vec<u8>,
    /// Who may read it.
    pub mode: u32,
}

/// Files by their path below the volume.
pub type Files = BTreeMap<PathBuf, File>;

/// What stands behind a volume.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Files that are kept the same as the objects.
    Files(Files),
    /// An empty directory of the pod's own.
    Empty,
    /// A directory that outlives the pod.
    Claim(String),
    /// A path of the machine; made as a directory when missing.
    Host(PathBuf, bool),
}

/// Gives a token for an audience and a life in seconds.
pub type Tokens<'a> = &'a dyn Fn(&str, u64) -> Result<Token, String>;

/// What a volume holds. An error names what is missing.
pub fn content(volume: &core::Volume, pod: &Object, find: Find<'_>, tokens: Tokens<'_>) -> Result<Content, String> {
    if volume.empty_dir.is_some() {
        return Ok(Content::Empty);
    }
    if let Some(host) = &volume.host_path {
        let create = host.type_.as_deref() == Some("DirectoryOrCreate");
        return Ok(Content::Host(host.path.clone().into(), create));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Ok(Content::Claim(claim.claim_name.clone()));
    }
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let values = or_empty(config_map(&source.name, find), source.optional)?;
        select(&mut files, values, &source.items, source.default_mode, &source.name)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        select(
            &mut files,
            or_empty(secret(&name, find), source.optional)?,
            &source.items,
            source.default_mode,
            &name,
        )?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut files, pod, &source.items, source.default_mode)?;
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            project(&mut files, source, projected.default_mode, pod, find, tokens)?;
        }
    } else {
        return Err(format!(
            "volume '{}' is of a kind that the sandbox does not have",
            volume.name
        ));
    }
    Ok(Content::Files(files))
}

fn project(
    files: &mut Files,
    source: &core::VolumeProjection,
    mode: Option<i32>,
    pod: &Object,
    find: Find<'_>,
    tokens: Tokens<'_>,
) -> Result<(), String> {
    if let Some(token) = &source.service_account_token {
        let audience = token.audience.as_deref().unwrap_or(super::token::ISSUER);
        let life = token
            .expiration_seconds
            .and_then(|s| u64::try_from(s).ok())
            .unwrap_or(3600);
        insert(files, &token.path, tokens(audience, life)?.text.into_bytes(), mode)?;
    }
    if let Some(source) = &source.config_map {
        select(
            files,
            or_empty(config_map(&source.name, find), source.optional)?,
            &source.items,
            mode,
            &source.name,
        )?;
    }
    if let Some(source) = &source.secret {
        select(
            files,
            or_empty(secret(&source.name, find), source.optional)?,
            &source.items,
            mode,
            &source.name,
        )?;
    }
    match &source.downward_api {
        Some(source) => downward(files, pod, &source.items, mode),
        None => Ok(()),
    }
}

type Values = BTreeMap<String, Vec<u8>>;

fn or_empty(values: Result<Values, String>, optional: Option<bool>) -> Result<Values, String> {
    if optional == Some(true) {
        Ok(values.unwrap_or_default())
    } else {
        values
    }
}

fn select(
    files: &mut Files,
    mut values: Values,
    items: &Option<Vec<core::KeyToPath>>,
    mode: Option<i32>,
    of: &str,
) -> Result<(), String> {
    let Some(items) = items else {
        return values
            .into_iter()
            .try_for_each(|(key, bytes)| insert(files, &key, bytes, mode));
    };
    for item in items {
        let bytes = values
            .remove(&item.key)
            .ok_or_else(|| format!("'{of}' has no key '{}'", item.key))?;
        insert(files, &item.path, bytes, item.mode.or(mode))?;
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    pod: &Object,
    items: &Option<Vec<core::DownwardAPIVolumeFile>>,
    mode: Option<i32>,
) -> Result<(), String> {
    for item in items.iter().flatten() {
        let Some(reference) = &item.field_ref else { continue };
        insert(
            files,
            &item.path,
            field::value(pod, &reference.field_path)?.into_bytes(),
            item.mode.or(mode),
        )?;
    }
    Ok(())
}

fn insert(files: &mut Files, path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<(), String> {
    let path = PathBuf::from(path);
    if !path.components().all(|c| matches!(c, Component::Normal(_))) || path.as_os_str().is_empty() {
        return Err(format!("the path '{}' leads out of its volume", path.display()));
    }
    let mode = mode.unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777;
    files.insert(path, File { bytes, mode });
    Ok(())
}

/// Makes a directory hold exactly these files. Each changes at once: a reader sees the old one or the new one.
pub fn write(directory: &Path, files: &Files, before: Option<&Files>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for gone in before
        .into_iter()
        .flatten()
        .filter(|(path, _)| !files.contains_key(*path))
    {
        fs::remove_file(directory.join(gone.0))?;
    }
    for (path, file) in files {
        if before.and_then(|b| b.get(path)) == Some(file) {
            continue;
        }
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent)?;
        let new = parent.join(format!(
            ".{}.new",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        fs::write(&new, &file.bytes)?;
        let mode = file.mode | if group.is_some() { (file.mode & 0o400) >> 3 } else { 0 };
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        chown(&new, None, group)?;
        fs::rename(&new, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;
    use serde_json::{Value, json};

    fn find(kind: Kind, name: &str) -> Option<Object> {
        let data = json!({"data": {"a.conf": "one", "b.conf": "two"}});
        (kind == Kind::ConfigMap && name == "settings").then_some(data)
    }

    fn files(volume: Value) -> Result<Content, String> {
        let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}});
        let volume: core::Volume = serde_json::from_value(volume).unwrap();
        let token = |audience: &str, life: u64| {
            Ok(Token {
                text: format!("{audience}/{life}"),
                renew_at: 0,
            })
        };
        content(&volume, &pod, &find, &token)
    }

    fn shown(content: Content) -> Vec<String> {
        let Content::Files(files) = content else {
            panic!("not files")
        };
        let line = |(path, file): (&PathBuf, &File)| {
            format!(
                "{} {:o} {}",
                path.display(),
                file.mode,
                String::from_utf8_lossy(&file.bytes)
            )
        };
        files.iter().map(line).collect()
    }

    #[test]
    fn volumes_hold_what_their_sources_say() {
        let all = files(json!({"name": "v", "configMap": {"name": "settings", "defaultMode": 256}})).unwrap();
        assert_eq!(shown(all), ["a.conf 400 one", "b.conf 400 two"]);
        let projected = json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": "weft-ca", "expirationSeconds": 600}},
            {"configMap": {"name": "settings", "items": [{"key": "b.conf", "path": "sub/b"}]}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        ]}});
        assert_eq!(
            shown(files(projected).unwrap()),
            ["labels 644 app=\"web\"\n", "sub/b 644 two", "token 644 weft-ca/600"]
        );
        assert_eq!(files(json!({"name": "v", "emptyDir": {}})).unwrap(), Content::Empty);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = |source: Value| files(source).unwrap_err();
        assert_eq!(
            error(json!({"name": "v", "secret": {"secretName": "no"}})),
            "secret 'no' not found"
        );
        assert!(error(json!({"name": "v", "nfs": {"path": "/", "server": "s"}})).contains("volume 'v'"));
        let out = json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "a.conf", "path": "../x"}]}});
        assert!(error(out).contains("leads out"));
    }

    #[test]
    fn a_directory_follows_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = |text: &str| File {
            bytes: text.into(),
            mode: 0o600,
        };
        let before = Files::from([("a".into(), file("1")), ("sub/b".into(), file("2"))]);
        write(directory.path(), &before, None, None).unwrap();
        let after = Files::from([("sub/b".into(), file("3"))]);
        write(directory.path(), &after, Some(&before), Some(0)).unwrap();
        assert!(!directory.path().join("a").exists());
        let b = directory.path().join("sub/b");
        assert_eq!(fs::read_to_string(&b).unwrap(), "3");
        assert_eq!(fs::metadata(b).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
