//! What happens in the sandbox while Prometheus looks: the demo's traffic, and every kind of failure that a panel is for.

use std::{process::Child, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Mesh, binaries, repository};

/// The sample applications and what [`lead`] needs beside them.
pub(crate) fn objects() -> Result<String> {
    let folder = repository().join("manifests/sample");
    let mut names: Vec<_> = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| name != "images.yaml" && name != "kustomization.yaml");
    // The namespace is first.
    names.sort_by_key(|name| (name != "namespace.yaml", name.clone()));
    let mut text = String::new();
    for name in names {
        text += &std::fs::read_to_string(folder.join(name))?;
        text += "\n---\n";
    }
    let client = "image: weft.dev/sample/client:1";
    let indent = " ".repeat(10);
    ensure!(text.contains(client), "the sample has no client");
    Ok(text
        .replace(client, &format!("image: tools\n{indent}command: [sleep, infinity]"))
        .replace("weft.dev/sample/apps:1", "apps")
        + &std::fs::read_to_string(repository().join("tests/grafana/objects.yaml"))?)
}

/// A shell loop for so many seconds.
fn again(seconds: u64, pause: &str, body: &str) -> String {
    format!(
        "end=$((SECONDS+{seconds})); while [ $SECONDS -lt $end ]; do {body}; sleep {pause}; done >/dev/null 2>&1; true"
    )
}

/// Starts all traffic; each child ends by itself.
fn traffic(mesh: &Mesh, seconds: u64) -> Result<Vec<Child>> {
    let script = repository().join("tests/grafana/traffic.py").display().to_string();
    let apps = binaries()?.join("weft-apps").display().to_string();
    let socket = repository()
        .join("tests/netns/scripts/websocket.py")
        .display()
        .to_string();
    let web = "http://web.sample:8080";
    let requests = |rate: u32, urls: &str| format!("python3 {script} {seconds} {rate} {urls}");
    let usual = format!("{web}/ ").repeat(12);
    let tcp = |host: &str, port: u16, bytes: &str| {
        format!("(exec 3<>/dev/tcp/{host}/{port}; printf '{bytes}' >&3; read -r -t 1 -N 1 _ <&3; sleep 0.5)")
    };
    let plans: Vec<(&str, String)> = vec![
        (
            "client.sample",
            requests(
                60,
                &format!(
                    "{usual} {web}/new {web}/new {web}/old {web}/delay/40 {web}/status/404 {web}/status/503 http://legacy.outside:8080/ http://half.outside:8081/ http://half.outside:8081/ http://keys.vault:8080/ http://broken.sample:8080/ http://gone.outside:8081/"
                ),
            ),
        ),
        (
            "web-v1.sample",
            requests(
                12,
                "http://web-v2.sample:8080/ http://web-v2.sample:8080/delay/5 http://keys.vault:8080/ http://legacy.outside:8080/ http://legacy.outside:8080/status/500 http://half.outside:8081/",
            ),
        ),
        (
            "legacy-client.outside",
            requests(
                14,
                &format!("{web}/ {web}/ {web}/ {web}/delay/10 {web}/status/500 http://keys.vault:8080/"),
            ),
        ),
        (
            "client.sample",
            again(
                seconds,
                "0.5",
                &format!(
                    "{apps} client grpc http://grpc.sample:50051 --calls 20; {apps} client grpc http://legacy-grpc.outside:50051 --calls 3"
                ),
            ),
        ),
        (
            "legacy-client.outside",
            again(
                seconds,
                "1",
                &format!("{apps} client grpc http://grpc.sample:50051 --calls 5"),
            ),
        ),
        (
            "client.sample",
            again(
                seconds,
                "0.3",
                &format!(
                    "{apps} client websocket ws://websocket.sample:8090/echo; {apps} client upgrade upgrade.sample:8070"
                ),
            ),
        ),
        (
            "legacy-client.outside",
            again(
                seconds,
                "0.5",
                &format!("{apps} client websocket ws://websocket.sample:8090/echo"),
            ),
        ),
        (
            "client.sample",
            again(
                seconds,
                "0.4",
                &format!(
                    "{}; {}; openssl s_client -connect tls.sample:8443 -alpn hotrod </dev/null",
                    tcp("echo.sample", 7000, "hello"),
                    tcp("legacy-echo.outside", 7000, "hello")
                ),
            ),
        ),
        (
            "client.sample",
            again(
                seconds,
                "1",
                "python3 -c \"import smtplib; s=smtplib.SMTP('greeting.sample',2525,timeout=5); s.noop(); s.quit()\"",
            ),
        ),
        // What goes wrong: a rule's time is up, a head is too large, a ClientHello is none, an address has nobody, and a client leaves.
        (
            "client.sample",
            again(
                seconds,
                "0.5",
                &format!(
                    "curl -s --max-time 4 {web}/delay/4000; head -c 150000 /dev/zero | tr '\\0' a >/tmp/long; curl -s -H @<(printf 'x-long: '; cat /tmp/long) {web}/; curl -s --max-time 0.1 {web}/slow; {}; {}",
                    tcp("web.sample", 8080, "\\x16\\x03\\x01\\x00\\x02\\x05\\x00"),
                    tcp("half.outside", 9999, "x"),
                ),
            ),
        ),
        (
            "legacy-client.outside",
            again(
                seconds,
                "1",
                &format!(
                    "{}; {}",
                    tcp("web.sample", 8080, "\\x16\\x03\\x01\\x00\\x02\\x05\\x00"),
                    tcp("keys.vault", 8080, "hello")
                ),
            ),
        ),
        (
            "node",
            again(seconds, "2", "curl -s --max-time 2 http://127.0.0.1:8443/"),
        ),
        // By the front door, with a client that leaves now and then.
        (
            "legacy-client.outside",
            requests(
                20,
                "http://front-door-weft.sample/ http://front-door-weft.sample/ http://front-door-weft.sample/status/404 http://front-door-weft.sample/status/503",
            ),
        ),
        (
            "legacy-client.outside",
            again(
                seconds,
                "0.5",
                &format!(
                    "curl -s --max-time 0.1 http://front-door-weft.sample/slow; {apps} client websocket ws://front-door-weft.sample/echo; {apps} client grpc http://front-door-weft.sample:50051 --calls 3"
                ),
            ),
        ),
    ];
    let mut running = Vec::new();
    for (pod, command) in plans {
        running.push(mesh.spawn(pod, &["bash", "-c", &command])?);
    }
    let libraries = format!("PYTHONPATH={}", repository().join("tests/apps/python").display());
    for _ in 0..3 {
        let words = [
            "env",
            &libraries,
            &mesh.python(),
            &socket,
            "ws://websocket.sample:8090/echo",
            "silence",
        ];
        running.push(mesh.spawn("client.sample", &words)?);
    }
    Ok(running)
}

/// Leads the sandbox's life for so many seconds, with a controller that goes away and comes back near the end.
pub(crate) fn lead(mesh: &Mesh, seconds: u64) -> Result<()> {
    // From here on the pod should have been meshed, and is not.
    mesh.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: early, labels: {weft.dev/inject: enabled}}\n")?;
    let mut running = traffic(mesh, seconds)?;
    let scale = |name: &str, namespace: &str, replicas: &str| {
        let words = [
            "sandbox",
            "scale",
            "deployment",
            name,
            replicas,
            "-n",
            namespace,
            "--name",
            mesh.name(),
        ];
        mesh.weft(&words)?.ok().with_context(|| format!("scaling {name}"))
    };
    std::thread::sleep(Duration::from_secs(seconds / 3));
    // New pods: admissions and certificates. One of them cannot be admitted.
    scale("web-v2", "sample", "2")?;
    let refused = "apiVersion: v1\nkind: Pod\nmetadata: {name: odd, namespace: sample, annotations: {weft.dev/skip-inbound-ports: all}}\n\
                   spec: {containers: [{name: app, image: tools, command: [sleep, infinity]}]}\n";
    mesh.apply(refused)?;
    std::thread::sleep(Duration::from_secs(seconds / 3));
    scale("weft-controller", "weft-system", "0")?;
    std::thread::sleep(Duration::from_secs(6));
    scale("weft-controller", "weft-system", "1")?;
    for child in &mut running {
        child.wait()?;
    }
    Ok(())
}
