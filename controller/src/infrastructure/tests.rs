//! A Gateway and its parameters in, objects out: each case is a file of `tests/golden/infrastructure`. `WEFT_BLESS=1` writes them anew;
//! read the difference before you commit it.

use std::{fs, path::Path};

use super::*;

fn settings() -> Settings {
    Settings {
        image: "weft.dev/proxy:0.1.0".into(),
        image_pull_policy: "IfNotPresent".into(),
        trust_domain: "cluster.local".into(),
        trust_bundle: "-----BEGIN CERTIFICATE-----\n".into(),
        discovery: "weft-routes.weft-system.svc:15010".into(),
        identity: "weft-identity.weft-system.svc:15012".into(),
        otlp_endpoint: None,
        trace_sampling: None,
    }
}

fn front(name: &str, ports: &[u16]) -> Front {
    Front {
        gateway: ObjectKey::new("shop", name),
        class: "weft".into(),
        uid: "u-1".into(),
        name: format!("{name}-weft"),
        ports: ports.iter().copied().collect(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn parameters(entries: &[(&str, &str)]) -> Parameters {
    let entries = entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Parameters::read(&entries.collect()).unwrap()
}

fn is_golden(name: &str, objects: &[Value]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/infrastructure/{name}.yaml"));
    let texts: Vec<String> = objects
        .iter()
        .map(|object| serde_saphyr::to_string(object).unwrap())
        .collect();
    let text = texts.join("---\n");
    if std::env::var_os("WEFT_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} was expected, and this came:\n{text}",
        path.display()
    );
}

#[test]
fn a_gateway_that_says_nothing_more_gets_one_proxy_behind_a_load_balancer() {
    is_golden(
        "plain",
        &objects(&front("web", &[80, 443]), &Parameters::default(), &settings()),
    );
}

#[test]
fn what_a_gateway_says_reaches_every_object() {
    let mut front = front("web", &[80]);
    front.addresses = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    front.labels = BTreeMap::from([
        ("team".to_owned(), "shop".to_owned()),
        (NAME.to_owned(), "mine".to_owned()),
    ]);
    front.annotations = BTreeMap::from([
        (label::INJECT.to_owned(), "enabled".to_owned()),
        ("a".to_owned(), "b".to_owned()),
    ]);
    let parameters = parameters(&[
        ("replicas", "3"),
        ("service-type", "NodePort"),
        ("external-traffic-policy", "Local"),
        ("cpu-request", "1"),
        ("memory-limit", "2Gi"),
        ("host-ports", "80,443"),
    ]);
    let settings = Settings {
        otlp_endpoint: Some("http://c:4317".into()),
        trace_sampling: Some(0.5),
        ..settings()
    };
    is_golden("everything", &objects(&front, &parameters, &settings));
}

#[test]
fn listeners_restart_no_proxy() {
    let objects = |ports: &[u16]| super::objects(&front("web", ports), &Parameters::default(), &settings());
    let (few, many) = (objects(&[80]), objects(&[80, 443, 8443]));
    assert_eq!(few[1], many[1], "the Deployment");
    assert_ne!(few[2], many[2], "the Service");
    assert_eq!(objects(&[]).len(), 2, "a Service without ports would be refused");
}

#[test]
fn an_address_that_is_asked_for_is_asked_of_the_load_balancer() {
    let mut front = front("web", &[80]);
    front.addresses = vec!["192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap()];
    let objects = objects(&front, &Parameters::default(), &settings());
    assert_eq!(objects[2]["spec"]["loadBalancerIP"], "192.0.2.7");
    assert!(objects[2]["spec"]["externalIPs"].is_null());
}

#[test]
fn long_names_fit_into_a_label_and_stay_apart() {
    let (one, other) = ("a".repeat(64), "a".repeat(65));
    for text in [&one, &other] {
        assert_eq!(label_value(text).len(), LABEL);
    }
    assert_ne!(label_value(&one), label_value(&other));
    assert_eq!(label_value("web"), "web");
}
