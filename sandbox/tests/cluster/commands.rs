//! The command's words: mistakes, logs, two sandboxes, and leaving nothing behind.

use crate::harness::{Sandbox, pod, web};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::process::Command;

#[test]
fn all_mistakes_are_told_together_and_nothing_is_started() {
    let sandbox = Sandbox::new();
    let manifests = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: app:1}]}\n\
                     ---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: nowhere}\nspec: {ports: [{port: x}]}\n";
    let output = sandbox.start(manifests, "web: ''\n", &["--no-mesh", "--image", "oops"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for expected in [
        "images.yaml: image 'web': the command is empty",
        "--image 'oops': no '='",
        "manifests.yaml, document 1 (Pod a): pod 'a', container 'c', image 'app:1': neither a 'command' nor a mapping",
        "manifests.yaml, document 2 (Service s): 'spec.ports.0.port'",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
    assert_eq!(sandbox.traces(), Vec::<String>::new());
}

#[test]
fn the_sandbox_survives_bad_input_and_applies_nothing_of_it() {
    let sandbox = Sandbox::up(&pod("a", "exec sleep infinity", ""));
    let bad = pod("b", "exec sleep infinity", "")
        + "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: c}\nspec: {containers: 5}\n";
    let said = sandbox.apply(&bad).unwrap_err();
    assert!(
        said.contains("nothing was applied") && said.contains("document 2 (Pod c)"),
        "{said}"
    );
    for garbage in ["{{{{", "a: [", "- 1\n- 2\n", "\u{0}"] {
        assert!(sandbox.apply(garbage).is_err(), "{garbage:?}");
    }
    assert!(
        sandbox
            .try_run(&["get", "unicorns"])
            .unwrap_err()
            .contains("choose one of")
    );
    assert!(
        sandbox
            .try_run(&["exec", "nobody", "--", "true"])
            .unwrap_err()
            .contains("weft sandbox get pods")
    );
    assert!(
        sandbox
            .try_run(&["logs", "a", "-c", "none"])
            .unwrap_err()
            .contains("choose one of c")
    );
    let table = sandbox.run(&["get", "pods"]);
    assert!(table.contains(" a ") && !table.contains(" b "), "{table}");
}

#[test]
fn logs_are_shown_and_objects_are_changed_and_removed() {
    let sandbox = Sandbox::up(&pod("a", "echo to stdout; echo to stderr >&2; exec sleep infinity", ""));
    let log = sandbox.until_log("a", "stderr");
    assert_eq!(log, "to stdout\nto stderr\n");
    let same = pod("a", "echo to stdout; echo to stderr >&2; exec sleep infinity", "");
    assert!(sandbox.apply(&same).unwrap().contains("Pod default/a unchanged"));
    assert!(
        sandbox
            .apply(&pod("a", "echo other; exec sleep infinity", ""))
            .unwrap()
            .contains("replaced")
    );
    sandbox.until_log("a", "other");
    let path = sandbox.file("apply.txt").display().to_string();
    assert!(sandbox.run(&["delete", "-f", &path]).contains("Pod default/a deleted"));
    sandbox.eventually("gone", |s| {
        Some(s.run(&["get", "pods"])).filter(|t| t.starts_with("no pods"))
    });
    let ignored = sandbox
        .apply(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra, finalizers: [x]}\n---\napiVersion: a/v1\nkind: Odd\n",
        )
        .unwrap();
    assert!(
        ignored.contains("ignored: Namespace metadata.finalizers") && ignored.contains("ignored: Odd (a/v1)"),
        "{ignored}"
    );
}

#[test]
fn a_namespace_takes_everything_in_it_along() {
    let sandbox = Sandbox::up("apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n");
    let inside = web("web", 1).replace("metadata: {name: web}", "metadata: {name: web, namespace: extra}");
    sandbox.apply(&inside).unwrap();
    sandbox.until_line("pods", &["web-", "1/1"]);
    sandbox.run(&["delete", "namespace", "extra"]);
    sandbox.eventually("gone", |s| {
        Some(s.run(&["get", "pods"])).filter(|t| t.starts_with("no pods"))
    });
    assert!(
        sandbox
            .run(&["get", "services", "-n", "extra"])
            .starts_with("no services")
    );
}

#[test]
fn two_sandboxes_live_side_by_side_and_down_leaves_nothing_behind() {
    // Each sandbox has one wire to the machine, by which load balancers are reached; other tests' sandboxes come and go meanwhile.
    let links = || {
        let all = Command::new("ip").args(["-br", "link"]).output().unwrap().stdout;
        let all = String::from_utf8(all).unwrap();
        let others = all.lines().filter(|line| !line.starts_with("weft"));
        others.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = links();
    let manifests = web("web", 1) + &pod("client", "exec sleep infinity", "");
    let (one, other) = (Sandbox::up(&manifests), Sandbox::up(&manifests));
    for sandbox in [&one, &other] {
        sandbox.shell("client", "curl -sS --max-time 5 http://web/");
    }
    assert_eq!(links(), before, "nothing else is in the machine's own network");
    one.run(&["down"]);
    assert_eq!(one.traces(), Vec::<String>::new());
    other.shell("client", "curl -sS --max-time 5 http://web/");
    other.run(&["down"]);
    assert_eq!(other.traces(), Vec::<String>::new());
    assert_eq!(links(), before);
    assert!(other.run(&["down"]).contains("was not up"));
}

#[test]
fn a_supervisor_that_was_killed_is_cleaned_up_after() {
    let manifests = pod("a", "sleep infinity & exec sleep infinity", "");
    let sandbox = Sandbox::up(&manifests);
    kill(Pid::from_raw(sandbox.supervisor()), Signal::SIGKILL).unwrap();
    sandbox.eventually("it does not answer", |s| s.try_run(&["wait"]).err());
    // The next `up` clears away what is left, and so does `down`.
    assert!(sandbox.start(&manifests, "", &["--no-mesh"]).status.success());
    kill(Pid::from_raw(sandbox.supervisor()), Signal::SIGKILL).unwrap();
    sandbox.run(&["down"]);
    assert_eq!(sandbox.traces(), Vec::<String>::new());
}

#[test]
fn up_says_what_does_not_become_ready_and_why() {
    let sandbox = Sandbox::new();
    let manifests = pod("a", "echo the disk is full; exit 4", "  restartPolicy: Never\n");
    let output = sandbox.start(&manifests, "", &["--no-mesh"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("default/a: Error") && said.contains("the disk is full"),
        "{said}"
    );
}
