//! What is printed: that it is what `manifests/` says, and what each flag changes.

use super::{objects::Crd, *};
use clap::Parser;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use weft_sandbox::manifest;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    install: Install,
}

fn choices(words: &[&str]) -> Result<Choices, Vec<String>> {
    let words = Words::try_parse_from(std::iter::once(&"install").chain(words)).unwrap();
    Choices::new(&words.install)
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// The files that a kustomization names, and those below it, in its order.
fn named(directory: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(directory.join("kustomization.yaml")).unwrap();
    let kustomization: Value = manifest::parse(&text).unwrap();
    let keys: BTreeSet<_> = kustomization.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["apiVersion", "kind", "resources"].into(),
        "what is printed knows no transformation"
    );
    let resources = kustomization["resources"].as_array().unwrap();
    let paths = resources.iter().map(|name| directory.join(name.as_str().unwrap()));
    paths
        .flat_map(|path| if path.is_dir() { named(&path) } else { vec![path] })
        .collect()
}

#[test]
fn every_file_that_kustomize_applies_is_carried_and_no_other() {
    let carried: Vec<&str> = CRDS
        .iter()
        .map(|crd| crd.text)
        .chain(objects::FILES.iter().map(|(_, text)| *text))
        .collect();
    let there: Vec<String> = named(&manifests())
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(there.len(), carried.len());
    assert!(
        there.iter().eq(&carried),
        "the order of the kustomizations is the order of installing"
    );
}

#[test]
fn definitions_have_the_names_by_which_they_are_looked_for() {
    for Crd { name, text } in CRDS {
        assert!(text.contains(&format!("\n  name: {name}\n")), "{name}");
        assert!(
            text.contains("gateway.networking.k8s.io/bundle-version: v1.6.3\n"),
            "{name}"
        );
    }
}

#[test]
fn without_flags_the_objects_are_those_of_the_files() {
    let files = system().unwrap();
    let edited = choices(&[]).unwrap().edit(files.clone()).unwrap();
    for (file, edited) in files.iter().zip(&edited) {
        assert_eq!(file, edited);
    }
}

#[test]
fn images_have_the_version_of_this_program() {
    let text = serde_json::to_string(&system().unwrap()).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let tags: Vec<&str> = text
        .split("weft.dev/")
        .filter_map(|rest| {
            let image = rest.split('"').next()?;
            let (program, tag) = image.split_once(':')?;
            ["proxy", "init", "injector", "controller"]
                .contains(&program)
                .then_some(tag)
        })
        .collect();
    assert_eq!(tags, [version; 6], "set the tags in manifests/weft to the version");
}

#[test]
fn every_object_is_weft_s_and_says_so() {
    for object in system().unwrap() {
        let (kind, name) = (
            object["kind"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap(),
        );
        let labels = &object["metadata"]["labels"];
        assert_eq!(
            labels[names::kubernetes::PART_OF],
            names::kubernetes::PART_OF_WEFT,
            "{kind} {name}"
        );
        assert!(labels[names::kubernetes::NAME].is_string(), "{kind} {name}");
        assert!(
            name.starts_with("weft-") || kind == "GatewayClass" && name == "weft",
            "{kind} {name}"
        );
        let apart = [
            "GatewayClass",
            "Namespace",
            "ClusterRole",
            "ClusterRoleBinding",
            "MutatingWebhookConfiguration",
        ];
        let namespace = object["metadata"]["namespace"].as_str();
        assert_eq!(
            namespace,
            (!apart.contains(&kind)).then_some(names::SYSTEM_NAMESPACE),
            "{kind} {name}"
        );
    }
}

/// The arguments of a Deployment's container, after the edits.
fn arguments(objects: &[Value], name: &str) -> Vec<String> {
    let is_it = |object: &&Value| object["kind"] == "Deployment" && object["metadata"]["name"] == name;
    let found = objects.iter().find(is_it).unwrap();
    serde_json::from_value(found["spec"]["template"]["spec"]["containers"][0]["args"].clone()).unwrap()
}

#[test]
fn flags_reach_the_programs_that_they_are_about() {
    let edited = choices(&[
        "--image-prefix=localhost:5000/weft",
        "--image-tag=x1",
        "--image-pull-policy=Never",
        "--trust-domain=a.example",
        "--cluster-cidrs=10.0.0.0/8,fd00::/8",
        "--leaf-life=60s",
        "--otlp-endpoint=http://c.o.svc:4317",
        "--trace-sampling=0.5",
        "--replicas=3",
    ])
    .unwrap()
    .edit(system().unwrap())
    .unwrap();
    let mut seen = Vec::new();
    for deployment in edited.iter().filter(|object| object["kind"] == "Deployment") {
        let name = deployment["metadata"]["name"].as_str().unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments = arguments(&edited, name);
        assert_eq!(container["imagePullPolicy"], "Never");
        assert!(
            arguments.contains(&"--trust-domain=a.example".into()),
            "{name}: {arguments:?}"
        );
        seen.push(format!(
            "{name} x{} {}",
            deployment["spec"]["replicas"],
            container["image"].as_str().unwrap()
        ));
    }
    assert_eq!(
        seen,
        [
            "weft-identity x1 localhost:5000/weft/controller:x1",
            "weft-routes x3 localhost:5000/weft/controller:x1",
            "weft-injector x3 localhost:5000/weft/injector:x1",
        ]
    );
    let has = |name: &str, words: &[&str]| {
        let arguments = arguments(&edited, name);
        for word in words {
            assert!(
                arguments.iter().any(|argument| argument == word),
                "{name}: {word} in {arguments:?}"
            );
        }
    };
    has("weft-identity", &["--leaf-life=60s"]);
    has(
        "weft-routes",
        &[
            "--cluster-cidrs=10.0.0.0/8,fd00::/8",
            "--proxy-image=localhost:5000/weft/proxy:x1",
            "--image-pull-policy=Never",
            "--otlp-endpoint=http://c.o.svc:4317",
            "--trace-sampling=0.5",
        ],
    );
    has(
        "weft-injector",
        &[
            "--proxy-image=localhost:5000/weft/proxy:x1",
            "--init-image=localhost:5000/weft/init:x1",
            "--image-pull-policy=Never",
            "--otlp-endpoint=http://c.o.svc:4317",
            "--trace-sampling=0.5",
        ],
    );
}

#[test]
fn all_mistakes_are_told_together() {
    let mistakes = choices(&[
        "--crds=some",
        "--image-prefix=a b",
        "--image-tag=:",
        "--image-pull-policy=Sometimes",
        "--trust-domain=Bad!",
        "--cluster-cidrs=10.0.0.0/33",
        "--leaf-life=1s",
        "--otlp-endpoint=collector",
        "--trace-sampling=2",
        "--replicas=0",
    ])
    .unwrap_err();
    let flags: Vec<&str> = mistakes
        .iter()
        .filter_map(|mistake| mistake.split(':').next())
        .collect();
    let expected = [
        "--crds",
        "--image-prefix",
        "--image-tag",
        "--image-pull-policy",
        "--trust-domain",
        "--cluster-cidrs",
        "--leaf-life",
        "--otlp-endpoint",
        "--trace-sampling",
        "--replicas",
    ];
    assert_eq!(flags, expected, "{mistakes:#?}");
    assert!(choices(&["--trace-sampling=0.5"]).unwrap_err()[0].contains("--otlp-endpoint"));
}

#[test]
fn definitions_that_are_there_are_not_printed_again() {
    let there = BTreeMap::from([(
        "httproutes.gateway.networking.k8s.io".to_owned(),
        "v1.2.0, standard".to_owned(),
    )]);
    let wanted = |crds: Crds| CRDS.iter().filter(|crd| crds.wanted(crd, &there)).count();
    assert_eq!(
        (wanted(Crds::Missing), wanted(Crds::All), wanted(Crds::None)),
        (CRDS.len() - 1, CRDS.len(), 0)
    );
}

#[test]
fn the_programs_read_the_arguments_that_they_are_given() {
    let edited = choices(&[
        "--cluster-cidrs=10.0.0.0/8",
        "--otlp-endpoint=http://c.o.svc:4317",
        "--trace-sampling=0.5",
    ])
    .unwrap()
    .edit(system().unwrap())
    .unwrap();
    for name in ["weft-identity", "weft-routes"] {
        let words = std::iter::once("weft-controller".to_owned()).chain(arguments(&edited, name));
        let raw = weft_controller::config::Raw::try_parse_from(words).unwrap();
        weft_controller::config::Config::new(raw).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}"));
    }
    let words = std::iter::once("weft-injector".to_owned()).chain(arguments(&edited, "weft-injector"));
    let weft_injector::arguments::Command::Serve(serve) = weft_injector::arguments::Arguments::try_parse_from(words)
        .unwrap()
        .command;
    // The one thing that is missing here is the file that the pod mounts.
    let mistakes = serve.settings().unwrap_err();
    assert!(
        mistakes.iter().all(|mistake| mistake.starts_with("--trust-bundle")),
        "{mistakes:?}"
    );
}

#[test]
fn a_gateway_s_proxy_is_confined_and_told_as_a_sidecar_is() {
    use weft_controller::infrastructure::{Front, Parameters, Settings, objects};
    let settings = Settings {
        image: "p".into(),
        image_pull_policy: "Never".into(),
        trust_domain: "a.example".into(),
        trust_bundle: "PEM".into(),
        discovery: "d:1".into(),
        identity: "i:1".into(),
        otlp_endpoint: Some("http://c:4317".into()),
        trace_sampling: Some(0.5),
    };
    let injected = weft_injector::Settings {
        proxy_image: "p".into(),
        init_image: "i".into(),
        image_pull_policy: "Never".into(),
        trust_domain: "a.example".into(),
        trust_bundle: "PEM".into(),
        discovery: "d:1".into(),
        identity: "i:1".into(),
        cluster_cidrs: Default::default(),
        otlp_endpoint: Some("http://c:4317".into()),
        trace_sampling: Some(0.5),
    };
    let front = Front {
        gateway: weft_controller::cluster::ObjectKey::new("shop", "web"),
        class: "weft".into(),
        uid: "u".into(),
        name: "web-weft".into(),
        ports: [80].into(),
        addresses: Vec::new(),
        labels: Default::default(),
        annotations: Default::default(),
    };
    let objects = objects(&front, &Parameters::default(), &settings);
    let pod = &objects.iter().find(|object| object["kind"] == "Deployment").unwrap()["spec"]["template"]["spec"];
    let gateway = &pod["containers"][0];
    let sidecar = weft_injector::containers::proxy(&injected, &Default::default(), &Default::default(), false);
    let sidecar = serde_json::to_value(sidecar).unwrap();

    let mut variables = sidecar["env"].as_array().unwrap().clone();
    variables.push(serde_json::json!({"name": "WEFT_GATEWAY", "value": "shop/web"}));
    let sorted = |mut list: Vec<Value>| {
        list.sort_by_key(|one| one["name"].as_str().unwrap_or_default().to_owned());
        list
    };
    assert_eq!(sorted(gateway["env"].as_array().unwrap().clone()), sorted(variables));
    assert_eq!(gateway["volumeMounts"], sidecar["volumeMounts"]);
    let volumes = serde_json::to_value(weft_injector::volumes::volumes()).unwrap();
    assert_eq!(pod["volumes"], volumes);
    for field in ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"] {
        assert_eq!(
            gateway["securityContext"][field], sidecar["securityContext"][field],
            "{field}"
        );
    }
    for field in ["runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile"] {
        assert_eq!(
            pod["securityContext"][field], sidecar["securityContext"][field],
            "{field}"
        );
    }
}
