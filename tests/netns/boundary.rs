//! The pod's boundary: who reaches which of weft's ports, and what is never sent in the clear.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::Mesh;

use crate::tests;

tests![
    t30_a_proxy_never_dials_itself,
    t31_weft_ports_are_no_open_relay,
    t32_only_the_pods_own_addresses_are_taken,
    t33_mesh_needs_a_certificate,
    t34_ipv6_is_meshed_too,
    the_marker_is_seen_on_the_plain_path_only,
    strict_refuses_plaintext,
    a_reserved_uid_is_refused_with_a_reason,
    bad_annotations_are_refused_all_together,
];

fn address(mesh: &Mesh, namespace: &str, app: &str, family: usize) -> Result<String> {
    let pod = &mesh.pods(namespace, app)?[0];
    Ok(pod["status"]["podIPs"][family]["ip"]
        .as_str()
        .context("a pod has both families")?
        .to_owned())
}

/// What a connection that sends an HTTP request gets: its first line, or how it ended.
fn knock(mesh: &Mesh, from: &str, host: &str, port: u16) -> Result<String> {
    let program = format!(
        "import socket\ntry:\n s = socket.create_connection(('{host}', {port}), timeout=4)\n s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n d = s.recv(100)\n print(d.split(b'\\r\\n')[0].decode('latin-1') or 'closed')\nexcept OSError as e:\n print(type(e).__name__)"
    );
    Ok(mesh.exec(from, &["python3", "-c", &program])?.ok()?.trim().to_owned())
}

fn t30_a_proxy_never_dials_itself(mesh: &Mesh) -> Result<()> {
    for port in [15001, 15006] {
        let seen = knock(mesh, "client.mesh", "127.0.0.1", port)?;
        ensure!(
            !seen.contains("200"),
            "a direct dial of {port} from inside was answered: {seen}"
        );
        let own = address(mesh, "mesh", "client", 0)?;
        let seen = knock(mesh, "client.mesh", &own, port)?;
        ensure!(!seen.contains("200"), "a self-dial of {port} was answered: {seen}");
    }
    // The proxy is still there.
    let ready = mesh
        .exec(
            "client.mesh",
            &[
                "curl",
                "-sS",
                "--max-time",
                "3",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "http://127.0.0.1:15020/ready",
            ],
        )?
        .ok()?;
    ensure!(ready == "200", "{ready}");
    Ok(())
}

fn t31_weft_ports_are_no_open_relay(mesh: &Mesh) -> Result<()> {
    for from in ["client.mesh", "client.plain"] {
        for family in [0, 1] {
            let target = address(mesh, "mesh", "web", family)?;
            for port in [15001, 15006, 15010, 15012, 15021] {
                let seen = knock(mesh, from, &target, port)?;
                ensure!(!seen.starts_with("HTTP/1.1 2"), "{from} → {target} port {port}: {seen}");
            }
            // Metrics and readiness may be read, nothing else may be done.
            let seen = mesh.exec(
                from,
                &[
                    "curl",
                    "-sS",
                    "--max-time",
                    "4",
                    "-g",
                    "-X",
                    "POST",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    &format!("http://{}:15020/ready", bracketed(&target)),
                ],
            )?;
            ensure!(
                !seen.stdout.starts_with('2'),
                "POST to the metrics port: {}",
                seen.stdout
            );
        }
    }
    Ok(())
}

fn bracketed(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

fn t32_only_the_pods_own_addresses_are_taken(mesh: &Mesh) -> Result<()> {
    // A packet for another address reaches the pod: inbound must not carry it on.
    let pod = mesh.pods("mesh", "web")?[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let seen = knock(mesh, &format!("{pod}.mesh"), "127.0.0.1", 15006)?;
    ensure!(!seen.starts_with("HTTP/1.1 2"), "{seen}");
    Ok(())
}

fn t33_mesh_needs_a_certificate(mesh: &Mesh) -> Result<()> {
    let target = address(mesh, "mesh", "web", 0)?;
    let command = format!("openssl s_client -connect {target}:8080 -alpn weft/1 -noservername </dev/null 2>&1; true");
    let seen = mesh.exec("client.plain", &["bash", "-c", &command])?.ok()?;
    // With TLS 1.3 the client learns of the refusal after its own Finished: what counts is that a request is not answered.
    let program = format!(
        "import socket, ssl\nc = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE; c.set_alpn_protocols(['weft/1'])\n\
         try:\n s = c.wrap_socket(socket.create_connection(('{target}', 8080), timeout=4)); s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'); d = s.recv(100); print('answered', d[:20] if d else 'nothing')\n\
         except Exception as e: print('refused', type(e).__name__, e)"
    );
    let answered = mesh.exec("client.plain", &["python3", "-c", &program])?.ok()?;
    ensure!(
        answered.starts_with("refused") || answered.contains("nothing"),
        "without a certificate: {answered}\n{seen}"
    );
    Ok(())
}

fn t34_ipv6_is_meshed_too(mesh: &Mesh) -> Result<()> {
    let before = mesh
        .metrics("client.mesh")?
        .sum("weft_requests_total", &[("direction", "outbound"), ("hop", "mesh")]);
    let target = address(mesh, "mesh", "web", 1)?;
    let out = mesh
        .exec(
            "client.mesh",
            &[
                "curl",
                "-sS",
                "-g",
                "--max-time",
                "5",
                &format!("http://[{target}]:8080/"),
            ],
        )?
        .ok()?;
    ensure!(out.contains("v1"), "{out}");
    let after = mesh
        .metrics("client.mesh")?
        .sum("weft_requests_total", &[("direction", "outbound"), ("hop", "mesh")]);
    ensure!(after > before, "the request over IPv6 did not cross the mesh hop");
    Ok(())
}

fn the_marker_is_seen_on_the_plain_path_only(mesh: &Mesh) -> Result<()> {
    for (namespace, clear) in [("mesh", false), ("plain", true)] {
        let marker = format!("marker-{namespace}-{}", std::process::id());
        let server = mesh.pods(namespace, "web")?[0]["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let dump = mesh.directory().join(format!("{namespace}.pcap"));
        let dump = dump.to_str().context("a readable path")?;
        // eth0 is the wire: inside the pod, on lo, the proxy hands the application what it says in clear. -U writes each packet as it comes.
        let mut capture = std::process::Command::new("ip")
            .args(["netns", "exec", &mesh.network_namespace(namespace, &server)?])
            .args([
                "timeout", "30", "tcpdump", "-Z", "root", "-U", "-i", "eth0", "-w", dump, "tcp",
            ])
            .stderr(std::process::Stdio::null())
            .spawn()?;
        mesh.eventually("tcpdump to listen", Duration::from_secs(5), || {
            Ok(std::fs::metadata(dump).is_ok_and(|file| file.len() > 0))
        })?;
        let sent = || {
            mesh.exec(
                "client.mesh",
                &[
                    "curl",
                    "-sS",
                    "--max-time",
                    "5",
                    "-d",
                    &marker,
                    &format!("http://web.{namespace}:8080/echo"),
                ],
            )?
            .ok()
        };
        ensure!(sent()? == marker);
        // A second request after the first: once its packets are in the file, so are the first one's.
        let size = std::fs::metadata(dump)?.len();
        ensure!(sent()? == marker);
        mesh.eventually("tcpdump to write", Duration::from_secs(5), || {
            Ok(std::fs::metadata(dump)?.len() > size)
        })?;
        capture.kill()?;
        capture.wait()?;
        let bytes = std::fs::read(dump)?;
        ensure!(bytes.len() > 500, "the capture of {namespace} has no traffic");
        let found = bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
        ensure!(
            found == clear,
            "in {namespace} the marker was {} on the wire",
            if found { "seen" } else { "not seen" }
        );
    }
    Ok(())
}

fn strict_refuses_plaintext(mesh: &Mesh) -> Result<()> {
    let meshed = mesh
        .exec(
            "client.mesh",
            &["curl", "-sS", "--max-time", "5", "http://web.strict:8080/"],
        )?
        .ok()?;
    ensure!(meshed.contains("strict"), "{meshed}");
    // The kubelet speaks plaintext, too: its httpGet probe is let in, or the pod would never be ready.
    mesh.eventually("the strict pod to be ready", Duration::from_secs(20), || {
        let conditions = mesh.pods("strict", "web")?[0]["status"]["conditions"].clone();
        Ok(conditions.as_array().is_some_and(|all| {
            all.iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        }))
    })?;
    let plain = |path: &str, more: &[&str]| -> Result<String> {
        let url = format!("http://web.strict:8080{path}");
        let mut command = vec![
            "curl",
            "-sS",
            "--path-as-is",
            "--max-time",
            "5",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ];
        command.extend(more);
        command.push(&url);
        Ok(mesh.exec("client.plain", &command)?.stdout)
    };
    let probe = plain("/status/200", &[])?;
    ensure!(probe == "200", "what the probe asks for was not let in: {probe}");
    for (path, more) in [
        ("/", &[][..]),
        ("/status/201", &[]),
        ("/x/../status/200", &[]),
        ("/status/200", &["-X", "POST"]),
    ] {
        let seen = plain(path, more)?;
        ensure!(
            seen == "403",
            "plaintext in a strict namespace, {path} {more:?}: {seen}"
        );
    }
    let seen = plain("/status/200", &["--http2-prior-knowledge"])?;
    ensure!(
        !seen.starts_with('2'),
        "the probe speaks HTTP/1, this was HTTP/2: {seen}"
    );
    Ok(())
}

fn pod(name: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: mesh{metadata}}}\nspec: {{{spec}}}\n")
}

fn refusal(mesh: &Mesh, name: &str, text: &str) -> Result<String> {
    mesh.apply(text)?;
    let mut message = String::new();
    mesh.eventually("the pod to be refused", Duration::from_secs(10), || {
        let status = &mesh.get("pods", "mesh", name)?["status"];
        message = status["message"].as_str().unwrap_or_default().to_owned();
        Ok(status["phase"] == "Failed" && !message.is_empty())
    })?;
    mesh.delete(text)?;
    Ok(message)
}

fn a_reserved_uid_is_refused_with_a_reason(mesh: &Mesh) -> Result<()> {
    let text = pod(
        "t35",
        "",
        "containers: [{name: app, image: tools, command: [sleep, infinity], securityContext: {runAsUser: 2717}}]",
    );
    let message = refusal(mesh, "t35", &text)?;
    ensure!(message.contains("2717") && message.contains("app"), "{message}");
    Ok(())
}

fn bad_annotations_are_refused_all_together(mesh: &Mesh) -> Result<()> {
    let annotations =
        ", annotations: {weft.dev/skip-inbound-ports: '80,abc', weft.dev/skip-outbound-cidrs: '10.0.0.0/99'}";
    let message = refusal(
        mesh,
        "t38",
        &pod(
            "t38",
            annotations,
            "containers: [{name: app, image: tools, command: [sleep, infinity]}]",
        ),
    )?;
    ensure!(
        message.contains("'abc'") && message.contains("10.0.0.0/99"),
        "one of two mistakes is missing: {message}"
    );
    Ok(())
}
