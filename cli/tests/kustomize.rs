//! `weft install` and `kubectl apply -k manifests` are the same objects, as kubectl itself reads both.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};
use weft_sandbox::manifest;

/// kubectl: of PATH, or the one that the tests' node keeps in its cache, where it is one name of the node's only binary.
fn kubectl() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let in_path = env::split_paths(&path).map(|directory| directory.join("kubectl"));
    let cache = env::var_os("WEFT_TOOLS").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/weft")))?;
    let nodes = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("kube"));
    in_path
        .chain(nodes.filter(|path| {
            path.parent()
                .is_some_and(|parent| parent.to_string_lossy().contains("kube-node-"))
        }))
        .find(|path| path.is_file())
}

/// The objects of a kustomization, as kubectl reads them, by what they are.
fn rendered(kubectl: &Path, directory: &Path) -> BTreeMap<String, Value> {
    let output = Command::new(kubectl)
        .arg0("kubectl")
        .arg("kustomize")
        .arg(directory)
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("kubectl writes UTF-8");
    let objects: Vec<Value> = manifest::documents(&text)
        .into_iter()
        .map(|(_, text)| manifest::parse(text).expect("kubectl writes YAML"))
        .collect();
    let count = objects.len();
    let named: BTreeMap<_, _> = objects
        .into_iter()
        .map(|object| {
            (
                format!(
                    "{} {} {}",
                    object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]
                ),
                object,
            )
        })
        .collect();
    assert_eq!(named.len(), count, "an object is there twice");
    named
}

#[test]
fn weft_install_prints_what_kustomize_applies() {
    let Some(kubectl) = kubectl() else {
        println!("skipped: there is no kubectl in PATH, and tests/kube-node has not put one into its cache");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let weft = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["install", "--crds=all"])
        .env_clear()
        .output()
        .unwrap();
    assert!(weft.status.success(), "{}", String::from_utf8_lossy(&weft.stderr));
    fs::write(directory.path().join("all.yaml"), &weft.stdout).unwrap();
    fs::write(directory.path().join("kustomization.yaml"), "resources: [all.yaml]\n").unwrap();
    let printed = rendered(&kubectl, directory.path());
    let applied = rendered(&kubectl, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests"));
    assert!(applied.len() > 40, "{:?}", applied.keys());
    assert!(
        printed.keys().eq(applied.keys()),
        "{:?}\n{:?}",
        printed.keys(),
        applied.keys()
    );
    for (what, object) in &applied {
        assert_eq!(&printed[what], object, "{what}");
    }
}
