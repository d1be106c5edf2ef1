//! The commands that need neither root nor a sandbox.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn weft(words: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let piped = command
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program was just built");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes())
        .expect("the program reads its input");
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn limits_prints_every_limit_with_its_value_and_what_it_bounds() {
    let output = weft(&["limits"], "");
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), weft_proto::limits::all().len());
    for (name, value, about) in weft_proto::limits::all() {
        assert!(
            lines
                .lines()
                .any(|l| l.starts_with(name) && l.contains(&value) && l.ends_with(about)),
            "{name}"
        );
    }
}

#[test]
fn inject_shows_pods_and_templates_as_the_webhook_would_make_them_and_keeps_the_rest() {
    let input = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n\
                 apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, image: i}]}\n---\n\
                 apiVersion: v1\nkind: Pod\nmetadata: {name: out, annotations: {weft.dev/inject: disabled}}\nspec: {containers: [{name: c, image: i}]}\n";
    let output = weft(
        &["inject", "-f", "-", "--proxy-image", "registry.example/proxy:1"],
        input,
    );
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(shown.matches("image: registry.example/proxy:1").count(), 1, "{shown}");
    assert_eq!(shown.matches("name: weft-init").count(), 1, "{shown}");
    assert!(
        shown.contains("kind: Service") && said.contains("Pod out: left alone"),
        "{shown}{said}"
    );
}

#[test]
fn inject_refuses_with_every_reason_and_a_failing_exit_code() {
    let input = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad, annotations: {weft.dev/skip-inbound-ports: '80,abc'}}\n\
                 spec: {containers: [{name: c, image: i, ports: [{containerPort: 15001}], securityContext: {runAsUser: 2717}}]}\n";
    let output = weft(&["inject", "-f", "-"], input);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for expected in ["'abc'", "15001", "2717"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_that_is_not_there_or_not_yaml_is_named() {
    let output = weft(&["inject", "-f", "/no/such/file.yaml"], "");
    assert!(text(&output.stderr).contains("/no/such/file.yaml"));
    let output = weft(&["inject", "-f", "-"], "a: [");
    assert!(
        text(&output.stderr).contains("document 1: not YAML"),
        "{}",
        text(&output.stderr)
    );
}
