//! Cluster in, answers out: each `golden/NAME.yaml` is a cluster with questions, and `NAME.txt` what a proxy is told, with what is said
//! of the objects. `UPDATE_GOLDEN=1 cargo test -p weft-controller --test golden` writes the answers anew; read the difference before
//! you commit it.
//!
//! `# ask: ADDRESS` asks for a destination or a workload, with `from NAMESPACE` where who asks matters; `# ask: gateway NAMESPACE/NAME`
//! for what a gateway serves. `# statuses` tells every status, not only what is wrong. `TLS(NAME …)` stands for the data of a
//! Secret with a certificate of these names, `CA(NAME)` for that of a ConfigMap with an authority's.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{cell::RefCell, collections::HashMap, fmt::Write, fs, path::Path};

use serde_json::{Value, json};
use weft_controller::{
    cluster::{Change, Cluster, ObjectKey, Touched},
    plan::{self, Name, Settings},
    status,
    watch::parse,
};
use weft_proto::rpc::discovery::{self as wire, DestinationKind, change::Content};
use weft_route::rule;

#[test]
fn answers_are_as_written_down() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() >= 5, "the cases are there");
    for case in cases {
        let answers = answers(&fs::read_to_string(&case).unwrap());
        let expected = case.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &answers).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert!(
            answers == expected,
            "{} gives\n{answers}\nexpected was\n{expected}",
            case.display()
        );
    }
}

fn answers(text: &str) -> String {
    let certificates = Certificates::default();
    let text = &certificates.filled_in(text);
    let (mut cluster, mut touched, mut out) = (Cluster::default(), Touched::default(), String::new());
    for document in parse::documents(text) {
        for parsed in parse::objects(document.value.unwrap()) {
            let name = parsed.key.map(|key| key.to_string()).unwrap_or_default();
            for mistake in parsed.mistakes {
                writeln!(out, "refused {name}: {mistake}").unwrap();
            }
            if let Some(object) = parsed.object {
                cluster.apply(Change::Apply(Box::new(object)), &mut touched);
            }
        }
    }
    let settings = Settings {
        trust_domain: "cluster.local".into(),
        cluster_cidrs: "10.0.0.0/8,fd00::/8".parse().unwrap(),
        sessions: Default::default(),
    };
    for (key, desired) in status::statuses(&cluster, &settings) {
        if text.contains("# statuses") {
            writeln!(out, "{key}").unwrap();
            tell(&desired.0, 1, &mut out);
        } else {
            for problem in desired.problems() {
                writeln!(out, "{key}: {problem}").unwrap();
            }
        }
    }
    for question in text.lines().filter_map(|line| line.strip_prefix("# ask: ")) {
        let (asked, caller) = question.split_once(" from ").unwrap_or((question, ""));
        let name = match (asked.strip_prefix("gateway "), asked.parse()) {
            (Some(name), _) => {
                let (namespace, name) = name.split_once('/').unwrap();
                Name::Gateway(ObjectKey::new(namespace, name))
            }
            (None, Ok(address)) => Name::Destination(address),
            (None, Err(_)) => Name::Workload(asked.parse().unwrap()),
        };
        writeln!(out, "\n{question}").unwrap();
        match plan::answer(&cluster, &settings, &name).answer_for(caller).cloned() {
            None => writeln!(out, "  nothing to say yet").unwrap(),
            Some(answer) => match answer.content {
                Content::Destination(destination) => show(&destination, &mut out),
                Content::Workload(workload) => writeln!(out, "  {workload:?}\n  for {:?}", answer.only_for).unwrap(),
                Content::Gateway(gateway) => {
                    writeln!(out, "  for {:?}", answer.only_for).unwrap();
                    show_gateway(&gateway, &certificates, &mut out);
                }
                Content::Unchanged(_) => unreachable!("a plan is content"),
            },
        }
    }
    out
}

fn show(destination: &wire::Destination, out: &mut String) {
    let object = |name: &wire::ObjectName| format!("{}/{}", name.namespace, name.name);
    let kind = DestinationKind::try_from(destination.kind).unwrap();
    let of = destination.object.as_ref().map(object).unwrap_or_default();
    writeln!(
        out,
        "  {kind:?} {of} {:?} default {:?}",
        destination.protocol(),
        destination.default_backend
    )
    .unwrap();
    show_backends(&destination.backends, out);
    show_rules(&weft_proto::convert::rules(destination).unwrap(), out);
}

/// A status: conditions a line each.
fn tell(status: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let Value::Object(fields) = status else {
        return writeln!(out, "{indent}{status}").unwrap();
    };
    if let Some(kind) = fields.get("type").filter(|_| fields.contains_key("reason")) {
        let text = |field: &str| fields[field].as_str().unwrap();
        let (status, reason, message) = (text("status"), text("reason"), text("message"));
        return writeln!(out, "{indent}{} {status} {reason}: {message}", kind.as_str().unwrap()).unwrap();
    }
    for (name, value) in fields {
        match value {
            Value::Array(list)
                if list
                    .iter()
                    .any(|one| one.get("conditions").is_some() || one.get("reason").is_some()) =>
            {
                writeln!(out, "{indent}{name}").unwrap();
                list.iter().for_each(|one| tell(one, depth + 1, out));
            }
            Value::Array(list) if name == "supportedFeatures" => {
                writeln!(out, "{indent}{name}: {} of them", list.len()).unwrap();
            }
            value => writeln!(out, "{indent}{name}: {value}").unwrap(),
        }
    }
}

/// Certificates that stand in a case by their names: they are made anew in each run.
#[derive(Default)]
struct Certificates(RefCell<HashMap<String, String>>);

impl Certificates {
    fn filled_in(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((at, is_ca)) = ["TLS(", "CA("]
            .iter()
            .filter_map(|mark| Some((rest.find(mark)?, *mark == "CA(")))
            .min()
        {
            let end = at + rest[at..].find(')').unwrap();
            let names = rest[at..end].split_once('(').unwrap().1;
            let pair =
                rcgen::generate_simple_self_signed(names.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap();
            let pem = pair.cert.pem();
            self.0.borrow_mut().insert(pem.trim_end().to_owned(), names.to_owned());
            let data = if is_ca {
                json!({ "ca.crt": pem })
            } else {
                json!({ "tls.crt": pem, "tls.key": pair.signing_key.serialize_pem() })
            };
            filled.push_str(&rest[..at]);
            filled.push_str(&data.to_string());
            rest = &rest[end + 1..];
        }
        filled + rest
    }

    fn name(&self, pem: &str) -> String {
        let name = self.0.borrow().get(pem.trim_end()).cloned();
        name.unwrap_or_else(|| "unknown".into())
    }
}

fn show_gateway(gateway: &wire::Gateway, certificates: &Certificates, out: &mut String) {
    for (index, one) in gateway.certificates.iter().enumerate() {
        let key = if one.key.contains("PRIVATE KEY") {
            "with its key"
        } else {
            "without a key"
        };
        writeln!(out, "  certificate {index}: {} {key}", certificates.name(&one.chain)).unwrap();
    }
    show_backends(&gateway.backends, out);
    for backend in gateway.backends.iter().filter_map(|backend| backend.tls.as_ref()) {
        let own = backend
            .client_certificate
            .as_ref()
            .map(|one| certificates.name(&one.chain));
        writeln!(
            out,
            "  tls {} shows {own:?} trusts {}",
            backend.server_name,
            certificates.name(&backend.roots)
        )
        .unwrap();
    }
    for listener in &gateway.listeners {
        writeln!(
            out,
            "  listener {} {} {:?} host '{}' certificates {:?}",
            listener.name,
            listener.port,
            listener.protocol(),
            listener.hostname,
            listener.certificates
        )
        .unwrap();
        if let Some(check) = &listener.client_validation {
            let fallback = check.allow_insecure_fallback;
            writeln!(
                out,
                "    clients {} fallback {fallback}",
                certificates.name(&check.roots)
            )
            .unwrap();
        }
        show_rules(
            &weft_proto::convert::rules_of(&listener.rules, gateway.backends.len()).unwrap(),
            out,
        );
    }
}

fn show_backends(backends: &[wire::Backend], out: &mut String) {
    let object = |name: &wire::ObjectName| format!("{}/{}", name.namespace, name.name);
    for (index, backend) in backends.iter().enumerate() {
        writeln!(out, "  backend {index}: {} {:?}", backend.id, backend.protocol()).unwrap();
        if !backend.refused.is_empty() {
            writeln!(out, "    refused: {}", backend.refused).unwrap();
        }
        if let Some(tls) = &backend.tls {
            let (names, uris) = (&tls.dns_names, &tls.uris);
            writeln!(
                out,
                "    tls {} names {names:?} {uris:?} alpn {:?}",
                tls.server_name, tls.alpn
            )
            .unwrap();
        }
        for endpoint in &backend.endpoints {
            let address = endpoint.address.as_ref().unwrap().socket_addr().unwrap();
            let pod = endpoint.pod.as_ref().map(object).unwrap_or("no pod".into());
            let identity = if endpoint.identity.is_empty() {
                "plain"
            } else {
                &endpoint.identity
            };
            let end = if endpoint.terminating { " terminating" } else { "" };
            writeln!(out, "    {address} {pod} ({}) {identity}{end}", endpoint.pod_uid).unwrap();
        }
    }
}

fn show_rules(rules: &[rule::Rule], out: &mut String) {
    for rule in rules {
        writeln!(out, "  rule {} hosts {:?} {:?}", rule.origin, rule.hosts, rule.timeouts).unwrap();
        for one in &rule.matches {
            writeln!(out, "    match {one:?}").unwrap();
        }
        for filter in &rule.filters {
            writeln!(out, "    filter {filter:?}").unwrap();
        }
        for backend in &rule.backends {
            writeln!(
                out,
                "    to {:?} weight {} {:?}",
                backend.backend, backend.weight, backend.filters
            )
            .unwrap();
        }
    }
}
