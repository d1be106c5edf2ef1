//! What a person does to a pod by hand goes on working: exec, logs, port-forward, cp, attach.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use weft_tests::{
    kube::{APPS, CLIENT, Cluster, Namespace},
    objects::{App, ready_when_open},
};

use crate::{Test, tests};

tests![exec_logs_cp_and_attach, port_forward_reaches_the_application];

const MINUTE: Duration = Duration::from_secs(120);

fn exec_logs_cp_and_attach(test: &Test) -> Result<()> {
    let namespace = test.namespace("weft.dev/inject: enabled")?;
    let container = format!("image: '{CLIENT}', command: [bash, -c, 'while true; do echo said; sleep 0.2; done']");
    let app = App {
        namespace: namespace.name(),
        name: "app",
        replicas: 1,
        container,
        port: 0,
    };
    namespace.apply(&app.yaml())?;
    namespace.rolled_out(MINUTE)?;
    let pod = namespace.pod("app")?;
    // Without -c it is the application that is meant, not what weft added.
    ensure!(namespace.exec(&pod, &["cat", "/proc/1/comm"])?.ok()?.trim() == "bash");
    ensure!(namespace.kubectl(&["logs", &pod, "--tail=1"])?.ok()?.trim() == "said");
    for (container, word) in [("app", "said"), ("weft-init", "weft"), ("weft-proxy", "weft")] {
        let log = namespace.logs(&pod, container)?;
        ensure!(log.contains(word), "no '{word}' in the log of {container}: {log:.300}");
    }
    let all = namespace
        .kubectl(&["logs", &pod, "--all-containers", "--prefix"])?
        .ok()?;
    for container in ["app", "weft-init", "weft-proxy"] {
        ensure!(
            all.contains(&format!("/{container}]")),
            "nothing of {container} in: {all:.300}"
        );
    }
    let (file, back) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(file.path(), &bytes)?;
    let (from, to) = (file.path().display().to_string(), back.path().display().to_string());
    namespace.kubectl(&["cp", &from, &format!("{pod}:/tmp/copied")])?.ok()?;
    namespace.kubectl(&["cp", &format!("{pod}:/tmp/copied"), &to])?.ok()?;
    ensure!(
        std::fs::read(back.path())? == bytes,
        "what was copied there and back is not the same"
    );
    let mut attached = namespace
        .cluster()
        .kubectl_spawn(&["-n", namespace.name(), "attach", &pod])?;
    let output = attached.stdout.take().context("attach has an output")?;
    let mut line = String::new();
    let read = BufReader::new(output).read_line(&mut line);
    attached.kill()?;
    attached.wait()?;
    read?;
    ensure!(line.trim() == "said", "attached to: {line}");
    Ok(())
}

/// Forwards a port of the machine, and returns what an HTTP request through it gets.
fn through(cluster: &Cluster, namespace: &Namespace<'_>, target: &str, port: u16) -> Result<String> {
    let ports = format!(":{port}");
    let mut forward = cluster.kubectl_spawn(&["-n", namespace.name(), "port-forward", target, &ports])?;
    // Held until the end: kubectl writes a line for each connection, and ends when nobody would read it.
    let mut output = BufReader::new(forward.stdout.take().context("port-forward has an output")?);
    let ask = || -> Result<String> {
        let mut told = String::new();
        output.read_line(&mut told)?;
        // Forwarding from 127.0.0.1:40001 -> 8080
        let own = told.split(" -> ").next().and_then(|text| text.rsplit(':').next());
        let own: u16 = own
            .and_then(|text| text.trim().parse().ok())
            .with_context(|| format!("port-forward said: {told}"))?;
        let mut stream = TcpStream::connect(("127.0.0.1", own))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /by-hand HTTP/1.1\r\nhost: x\r\n\r\n")?;
        // Until the body is complete: how the forwarding ends a connection is not what is asked.
        let (mut answer, mut bytes) = (String::new(), [0; 4096]);
        while !answer.contains("\r\n\r\n") || !answer.ends_with("}\n") {
            match stream.read(&mut bytes)? {
                0 => break,
                length => answer += &String::from_utf8_lossy(&bytes[..length]),
            }
        }
        Ok(answer)
    };
    let answer = { ask }();
    forward.kill()?;
    let said = forward.wait_with_output()?;
    drop(output);
    answer.with_context(|| format!("port-forward said: {}", String::from_utf8_lossy(&said.stderr)))
}

fn port_forward_reaches_the_application(test: &Test) -> Result<()> {
    // In a strict namespace too: it comes over the pod's loopback, which is not redirected.
    let namespace = test.namespace("weft.dev/inject: enabled, weft.dev/mtls: strict")?;
    let container = format!(
        "image: '{APPS}', args: [http, --listen, '8080'], {}",
        ready_when_open(8080)
    );
    let app = App {
        namespace: namespace.name(),
        name: "web",
        replicas: 1,
        container,
        port: 8080,
    };
    namespace.apply(&app.yaml())?;
    namespace.rolled_out(MINUTE)?;
    let pod = namespace.pod("web")?;
    for target in [
        format!("pod/{pod}"),
        "service/web".to_owned(),
        "deployment/web".to_owned(),
    ] {
        let answer = through(test.cluster(), &namespace, &target, 8080).with_context(|| target.clone())?;
        ensure!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(&pod),
            "{target}: {answer}"
        );
    }
    Ok(())
}
