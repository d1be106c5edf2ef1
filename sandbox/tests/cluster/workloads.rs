//! Jobs, restarts, rolling updates.

use crate::harness::{Sandbox, pod, web};

#[test]
fn a_job_ends_and_one_that_fails_gives_up() {
    let job = |name: &str, script: &str| {
        format!(
            "\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  completions: 2\n  backoffLimit: 1\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{{name: c, image: sh, command: [sh, -c, '{script}']}}]\n"
        )
    };
    let sandbox = Sandbox::up(&job("good", "echo done"));
    sandbox.until_line("jobs", &["good", "Complete", "2/2"]);
    assert_eq!(sandbox.run(&["logs", "good"]), "done\n");
    sandbox.until_line("pods", &["good-", "0/1", "Completed"]);
    sandbox.apply(&job("bad", "exit 3")).unwrap();
    sandbox.until_line("jobs", &["bad", "Failed", "0/2"]);
    sandbox.until_line("pods", &["bad-", "Error"]);
}

#[test]
fn the_restart_policy_decides_what_becomes_of_a_container_that_ends() {
    let sandbox = Sandbox::up(&pod("stay", "exec sleep infinity", ""));
    let manifests = pod("never", "exit 1", "  restartPolicy: Never\n")
        + &pod("on-failure", "exit 0", "  restartPolicy: OnFailure\n")
        + &pod("always", "echo once; exit 1", "");
    sandbox.apply(&manifests).unwrap();
    sandbox.until_line("pods", &[" never", "0/1", "Error", " 0 "]);
    sandbox.until_line("pods", &["on-failure", "0/1", "Completed", " 0 "]);
    sandbox.until_line("pods", &["always", "0/1", "CrashLoopBackOff"]);
    sandbox.eventually("a second start", |s| {
        Some(s.run(&["logs", "always"])).filter(|log| log.matches("once").count() >= 2)
    });
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_started_again() {
    let probe = "    livenessProbe: {exec: {command: [test, '!', -f, /dead]}, periodSeconds: 1, failureThreshold: 1}\n";
    let sandbox = Sandbox::up(&(pod("a", "trap 'exit 0' TERM; while :; do sleep 0.1; done", "") + probe));
    sandbox.shell("a", "touch /dead");
    sandbox.until_line("pods", &["a ", "1/1", "Running", " 1 "]);
    // The new container has a root of its own.
    assert_eq!(sandbox.shell("a", "ls /dead 2>/dev/null || echo gone"), "gone\n");
}

#[test]
fn a_changed_deployment_rolls_over_without_a_gap() {
    let sandbox = Sandbox::up(&(web("web", 2) + &pod("client", "exec sleep infinity", "")));
    let old = sandbox.run(&["get", "pods"]);
    let changed = web("web", 2).replace("image: python", "image: python:2");
    sandbox.apply(&changed).unwrap();
    // Asked all the while: the script ends when no old pod is left.
    let ask = "for i in $(seq 40); do curl -sS --max-time 5 http://web/ >/dev/null || echo FAILED; done";
    sandbox.eventually("rolled over", |s| {
        assert_eq!(s.shell("client", ask), "");
        let now = s.run(&["get", "pods"]);
        let names = |t: &str| {
            t.lines()
                .filter_map(|l| l.split_whitespace().nth(1))
                .filter(|n| n.starts_with("web-"))
                .map(String::from)
                .collect::<Vec<_>>()
        };
        let (before, after) = (names(&old), names(&now));
        (after.len() == 2 && after.iter().all(|n| !before.contains(n))).then_some(now)
    });
}
