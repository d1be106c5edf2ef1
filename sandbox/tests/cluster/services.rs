//! Services: names, ClusterIPs, readiness, headless names.

use crate::harness::{Sandbox, pod, web};

#[test]
fn a_service_is_reached_by_name_and_cluster_ip_in_both_families_and_spreads() {
    let sandbox = Sandbox::up(&(web("web", 2) + &pod("client", "exec sleep infinity", "")));
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do for f in 4 6; do curl -$f -sS --max-time 5 http://web.default.svc.cluster.local/; done; done";
    let answers = sandbox.shell("client", script);
    let mut pods: Vec<&str> = answers.lines().collect();
    assert_eq!(pods.len(), 20, "{answers}");
    pods.sort();
    pods.dedup();
    assert_eq!(pods.len(), 2, "both pods answer: {answers}");
    let line = sandbox.until_line("services", &["web"]);
    let addresses = line.split_whitespace().nth(3).unwrap().to_string();
    let (v4, v6) = addresses.split_once(',').unwrap();
    sandbox.shell(
        "client",
        &format!("curl -sS --max-time 5 http://{v4}/ && curl -sS --max-time 5 'http://[{v6}]/'"),
    );
    sandbox.run(&["exec", "node", "--", "curl", "-sS", "--max-time", "5", "http://web/"]);
    // From the node, too, and a pod reaches itself through its own Service.
    sandbox.run(&[
        "exec",
        "node",
        "--",
        "curl",
        "-sS",
        "--max-time",
        "5",
        &format!("http://{v4}/"),
    ]);
    sandbox.run(&["scale", "deployment", "web", "1"]);
    sandbox.eventually("one pod", |s| {
        Some(s.run(&["get", "pods"])).filter(|t| t.matches("web-").count() == 1)
    });
    sandbox.shell("web", "for i in 1 2 3; do curl -sS --max-time 5 http://web/; done");
    assert_eq!(
        sandbox
            .shell("client", "getent ahosts nowhere.default.svc.cluster.local || echo none")
            .trim(),
        "none"
    );
}

#[test]
fn readiness_decides_who_is_an_endpoint_and_a_service_without_any_refuses() {
    let probe = "    readinessProbe: {exec: {command: [test, -f, /ok]}, periodSeconds: 1, failureThreshold: 1}\n";
    let service =
        "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n";
    let server = pod("a", "touch /ok; exec python3 -m http.server 80 --bind ::", "") + probe;
    let sandbox = Sandbox::up(&(server + service + &pod("client", "exec sleep infinity", "")));
    let curl = "for f in 4 6; do curl -$f -s -o /dev/null -w '%{exitcode}\n' --max-time 5 http://a/ || true; done";
    assert_eq!(sandbox.shell("client", curl), "0\n0\n");
    sandbox.shell("a", "rm /ok");
    sandbox.until_line("endpointslices", &["a-ipv4", "none"]);
    sandbox.eventually("refused at once", |s| {
        Some(s.shell("client", curl)).filter(|codes| codes == "7\n7\n")
    });
    sandbox.shell("a", "touch /ok");
    sandbox.eventually("back", |s| {
        Some(s.shell("client", curl)).filter(|codes| codes == "0\n0\n")
    });
}

#[test]
fn pods_of_a_stateful_set_have_names_and_their_volumes_outlive_them() {
    let set = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  volumeClaimTemplates: [{metadata: {name: data}}]
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        image: python
        command: [sh, -c, "hostname -f >> /data/index.html; cd /data && exec python3 -m http.server 8080 --bind ::"]
        readinessProbe: {tcpSocket: {port: 8080}}
        volumeMounts: [{name: data, mountPath: /data}]
"#;
    let sandbox = Sandbox::up(&format!("{set}{}", pod("client", "exec sleep infinity", "")));
    let of = |n: u32| format!("db-{n}.db.default.svc.cluster.local");
    for n in 0..2 {
        assert_eq!(
            sandbox
                .shell("client", &format!("curl -sS --max-time 5 http://db-{n}.db:8080/"))
                .trim(),
            of(n)
        );
    }
    assert_eq!(
        sandbox
            .shell("client", "getent ahostsv4 db | awk '{print $1}' | sort -u | wc -l")
            .trim(),
        "2"
    );
    let before = sandbox.until_line("pods", &["db-1"]);
    sandbox.run(&["delete", "pod", "db-1"]);
    sandbox.eventually("another db-1", |s| {
        let line = s
            .run(&["get", "pods"])
            .lines()
            .find(|l| l.contains("db-1"))
            .map(String::from)?;
        (line != before && line.contains("1/1")).then_some(line)
    });
    let twice = format!("{0}\n{0}\n", of(1));
    sandbox.eventually("it serves what it wrote before", |s| {
        Some(s.shell("client", "curl -sS --max-time 5 http://db-1.db:8080/ || true")).filter(|answer| *answer == twice)
    });
}
