//! Cluster in, answers out: each `golden/NAME.yaml` is a cluster with questions (`# ask: ADDRESS`, and `from NAMESPACE` where who
//! asks matters), and `NAME.txt` what a proxy is told, with what is said of the routes. `UPDATE_GOLDEN=1 cargo test -p weft-controller --test golden` writes the
//! answers anew; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{fmt::Write, fs, path::Path};

use weft_controller::{
    cluster::{Change, Cluster, Touched},
    plan::{self, Name, Settings},
    status,
    watch::parse,
};
use weft_proto::rpc::discovery::{self as wire, DestinationKind, change::Content};

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
    if !text.contains("# statuses") {
        for (key, desired) in status::statuses(&cluster, &settings) {
            for problem in desired.problems() {
                writeln!(out, "{key}: {problem}").unwrap();
            }
        }
    }
    for question in text.lines().filter_map(|line| line.strip_prefix("# ask: ")) {
        let (asked, caller) = question.split_once(" from ").unwrap_or((question, ""));
        let name = match asked.parse() {
            Ok(address) => Name::Destination(address),
            Err(_) => Name::Workload(asked.parse().unwrap()),
        };
        writeln!(out, "\n{question}").unwrap();
        match plan::answer(&cluster, &settings, &name).answer_for(caller).cloned() {
            None => writeln!(out, "  nothing to say yet").unwrap(),
            Some(answer) => match answer.content {
                Content::Destination(destination) => show(&destination, &mut out),
                Content::Workload(workload) => writeln!(out, "  {workload:?}\n  for {:?}", answer.only_for).unwrap(),
                Content::Gateway(gateway) => writeln!(out, "  {gateway:?}\n  for {:?}", answer.only_for).unwrap(),
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
    for (index, backend) in destination.backends.iter().enumerate() {
        writeln!(out, "  backend {index}: {} {:?}", backend.id, backend.protocol()).unwrap();
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
    for rule in weft_proto::convert::rules(destination).unwrap() {
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
