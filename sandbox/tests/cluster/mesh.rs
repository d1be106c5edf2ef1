//! With weft in it: the real injector, controller, init and proxies.

use crate::harness::{Sandbox, pod, web};

const LABELLED: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {weft.dev/inject: enabled}}\n";

#[test]
fn pods_of_a_labelled_namespace_are_meshed_and_a_refused_one_says_why() {
    let sandbox = Sandbox::new();
    let manifests = LABELLED.to_string() + &web("web", 2) + &pod("client", "exec sleep infinity", "");
    let output = sandbox.start(&manifests, "", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["web-", "client"] {
        sandbox.until_line("pods", &[name, "2/2", "Running", "yes"]);
    }
    for family in ["-4", "-6"] {
        let answer = sandbox.shell("client", &format!("curl {family} -sS --max-time 5 http://web/"));
        assert!(answer.starts_with("web-"), "{answer}");
    }
    sandbox.eventually("the access log tells of the mesh hop", |s| {
        let log = s.run(&["logs", "client", "-c", "weft-proxy"]);
        log.lines()
            .find(|l| l.contains("\"hop\":\"mesh\"") && l.contains("\"status\":200"))
            .map(String::from)
    });
    // A client outside of the mesh gets in, as long as the namespace is permissive.
    let address = sandbox
        .until_line("services", &["web"])
        .split_whitespace()
        .nth(3)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_string();
    sandbox.run(&[
        "exec",
        "node",
        "--",
        "curl",
        "-sS",
        "--max-time",
        "5",
        &format!("http://{address}/"),
    ]);

    let refused = pod("refused", "exec sleep infinity", "") + "    ports: [{containerPort: 15001}]\n";
    sandbox.apply(&refused).unwrap();
    sandbox.until_line("pods", &["refused", "Refused", "15001"]);
    let left_out = pod("out", "exec sleep infinity", "")
        .replace("name: out,", "name: out, annotations: {weft.dev/inject: disabled},");
    sandbox.apply(&left_out).unwrap();
    sandbox.until_line("pods", &["out", "1/1", "weft.dev/inject=disabled"]);

    let down = sandbox.run(&["down"]);
    assert!(down.contains("is gone"));
    assert_eq!(sandbox.traces(), Vec::<String>::new());
}

#[test]
fn a_meshed_job_ends_with_its_application() {
    let sandbox = Sandbox::new();
    let job = "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{name: c, image: sh, command: [sh, -c, 'curl -sS --max-time 5 http://web/']}]\n";
    let output = sandbox.start(&(LABELLED.to_string() + &web("web", 1) + job), "", &[]);
    sandbox.until_line("jobs", &["once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The job may ask before the Service has an endpoint, and is then tried again.
    sandbox.eventually("complete", |s| {
        Some(s.run(&["get", "jobs"])).filter(|t| t.contains("Complete"))
    });
    assert!(said.is_empty() || said.contains("once-"), "{said}");
}
