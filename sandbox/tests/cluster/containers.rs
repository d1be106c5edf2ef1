//! What a container sees and in which order containers live.

use crate::harness::{Sandbox, pod};
use std::fs;

const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red, app.conf: "line\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: hunter2}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  serviceAccountName: reader
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 4000}
  volumes:
  - {name: conf, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: shared, emptyDir: {}}
  - name: token
    projected: {sources: [{serviceAccountToken: {path: token, audience: weft-ca, expirationSeconds: 600}}]}
  containers:
  - name: one
    image: sh
    command: [sh, -c, 'echo from $(POD) > /shared/note; exec sleep infinity']
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    volumeMounts:
    - {name: conf, mountPath: /etc/app}
    - {name: conf, mountPath: /etc/only.conf, subPath: app.conf}
    - {name: keys, mountPath: /keys}
    - {name: shared, mountPath: /shared}
    - {name: token, mountPath: /var/run/secrets/tokens}
  - name: two
    image: sh
    command: [sleep, infinity]
    workingDir: /shared
    securityContext: {runAsUser: 1234, runAsGroup: 1234, readOnlyRootFilesystem: true}
    volumeMounts: [{name: shared, mountPath: /shared}]
"#;

#[test]
fn environment_and_volumes_are_what_the_spec_says() {
    let sandbox = Sandbox::up(OBJECTS);
    assert_eq!(
        sandbox.shell("a", "echo $POD $COLOUR $PASSWORD $(hostname)"),
        "a red hunter2 a\n"
    );
    assert_eq!(
        sandbox.shell("a", "ip -o addr show dev eth0 | grep -c -e ${IPS%,*} -e ${IPS#*,}"),
        "2\n"
    );
    assert_eq!(
        sandbox.shell("a", "cat /etc/app/app.conf /etc/only.conf /keys/password"),
        "line\nline\nhunter2"
    );
    assert_eq!(sandbox.shell("a", "stat -L -c %a /keys/password"), "440\n");
    let claims = sandbox.shell(
        "a",
        "cut -d. -f2 /var/run/secrets/tokens/token | tr '_-' '/+' | base64 -d 2>/dev/null || true",
    );
    assert!(
        claims.contains("system:serviceaccount:default:reader") && claims.contains("weft-ca"),
        "{claims}"
    );
    let two = |script: &str| sandbox.run(&["exec", "a", "-c", "two", "--", "sh", "-c", script]);
    assert_eq!(
        two("id -u; id -g; id -G; pwd; cat note"),
        "1234\n1234\n1234 4000\n/shared\nfrom a\n"
    );
    assert_eq!(
        two("touch /x 2>/dev/null || echo read-only; touch /shared/y && echo writable"),
        "read-only\nwritable\n"
    );
    // A changed ConfigMap reaches the file, and nothing that containers write reaches the machine.
    sandbox.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red, app.conf: \"other\\n\"}\n").unwrap();
    sandbox.eventually("the new text", |s| {
        Some(s.shell("a", "cat /etc/app/app.conf")).filter(|t| t == "other\n")
    });
    sandbox.shell("a", "echo x > /weft-sandbox-test-file; ls /weft-sandbox-test-file");
    assert!(!std::path::Path::new("/weft-sandbox-test-file").exists());
}

#[test]
fn a_container_has_its_own_processes_and_no_power_over_its_network() {
    let sandbox = Sandbox::up(&pod("a", "exec sleep infinity", ""));
    assert_eq!(
        sandbox.shell(
            "a",
            "cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l | xargs test 6 -gt && echo few"
        ),
        "sleep\nfew\n"
    );
    let refused = sandbox
        .try_run(&["exec", "a", "--", "ip", "link", "set", "eth0", "down"])
        .unwrap_err();
    assert!(refused.contains("not permitted"), "{refused}");
    let output = sandbox.weft(&["exec", "a", "--", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    let output = sandbox.weft(&["exec", "a", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn an_object_that_is_missing_is_waited_for_and_named() {
    let more = "  volumes: [{name: v, configMap: {name: late}}]\n";
    let sandbox = Sandbox::up(&pod("stay", "exec sleep infinity", ""));
    sandbox.apply(&pod("a", "exec sleep infinity", more)).unwrap();
    sandbox.eventually("it says what is missing", |s| {
        s.try_run(&["wait", "--seconds", "1"])
            .err()
            .filter(|e| e.contains("configmap 'late' not found"))
    });
    sandbox
        .apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\n")
        .unwrap();
    sandbox.until_line("pods", &["a ", "1/1", "Running"]);
}

#[test]
fn init_containers_and_sidecars_begin_in_order_and_end_in_reverse() {
    let sandbox = Sandbox::new();
    let journal = sandbox.write("journal", "");
    let manifest = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: order}
spec:
  template:
    spec:
      restartPolicy: Never
      volumes: [{name: journal, hostPath: {path: JOURNAL}}]
      initContainers:
      - name: sidecar
        image: sh
        restartPolicy: Always
        command: [sh, -c, "trap 'echo sidecar term >> /journal; exit 0' TERM; echo sidecar begins >> /journal; sleep 1; touch /up; echo sidecar up >> /journal; while :; do sleep 0.05; done"]
        startupProbe: {exec: {command: [test, -f, /up]}, periodSeconds: 1, failureThreshold: 20}
        lifecycle: {preStop: {exec: {command: [sh, -c, "echo sidecar hook >> /journal"]}}}
        volumeMounts: [{name: journal, mountPath: /journal}]
      - name: init
        image: sh
        command: [sh, -c, "echo init >> /journal"]
        volumeMounts: [{name: journal, mountPath: /journal}]
      containers:
      - name: app
        image: sh
        command: [sh, -c, "echo app >> /journal"]
        volumeMounts: [{name: journal, mountPath: /journal}]
"#;
    let output = sandbox.start(
        &manifest.replace("JOURNAL", &journal.display().to_string()),
        "",
        &["--no-mesh"],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "sidecar begins\nsidecar up\ninit\napp\nsidecar hook\nsidecar term\n";
    assert_eq!(fs::read_to_string(&journal).unwrap(), expected);
    sandbox.until_line("jobs", &["order", "Complete"]);
}

#[test]
fn a_pod_that_goes_has_its_hook_and_its_grace_and_then_no_more() {
    let sandbox = Sandbox::new();
    let journal = sandbox.write("journal", "");
    let more = format!(
        "  volumes: [{{name: journal, hostPath: {{path: {}}}}}]\n",
        journal.display()
    );
    let mount = "    volumeMounts: [{name: journal, mountPath: /journal}]\n";
    let hook = "    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook >> /journal']}}}\n";
    let stubborn = "trap 'echo term >> /journal' TERM; while :; do sleep 0.05; done";
    let output = sandbox.start(&(pod("a", stubborn, &more) + mount + hook), "", &["--no-mesh"]);
    assert!(output.status.success());
    let begun = std::time::Instant::now();
    sandbox.run(&["delete", "pod", "a"]);
    sandbox.eventually("gone", |s| {
        Some(s.run(&["get", "pods"])).filter(|t| t.starts_with("no pods"))
    });
    let took = begun.elapsed().as_secs_f64();
    assert!((1.9..6.0).contains(&took), "its grace is 2 s: {took}");
    assert_eq!(fs::read_to_string(&journal).unwrap(), "hook\nterm\n");
}

#[test]
fn a_mapped_image_brings_its_directory_environment_and_files() {
    let sandbox = Sandbox::new();
    sandbox.write("health.sh", "#!/bin/sh\necho healthy\n");
    let images = "app:1:\n  command: [sh, -c, 'pwd; echo $MODE $0 $1; sh /bin/health; exec sleep infinity', default]\n  args: [unused]\n  \
                  workingDir: .\n  env: {MODE: mapped}\n  files: {/bin/health: ./health.sh}\n";
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: c, image: app:1, args: [given]}]\n";
    let output = sandbox.start(manifest, images, &["--no-mesh"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = sandbox.until_log("a", "healthy");
    assert!(log.ends_with("mapped default given\nhealthy\n"), "{log}");
    let directory = sandbox.file("health.sh").parent().unwrap().display().to_string();
    assert_eq!(log.lines().next(), Some(directory.as_str()));
}
