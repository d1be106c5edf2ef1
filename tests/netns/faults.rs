//! What happens when something dies. These break things, so they have a sandbox of their own.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{
    Mesh,
    objects::{App, namespace, ready_when_open},
};

use crate::tests;

tests![
    f10_known_traffic_outlives_the_controller,
    f06_a_killed_proxy_is_never_bypassed
];

fn objects() -> String {
    let app = |name: &str, container: String, port| {
        App {
            namespace: "mesh",
            name,
            replicas: 1,
            container,
            port,
        }
        .yaml()
    };
    namespace("mesh", "weft.dev/inject: enabled")
        + &namespace("strict", "weft.dev/inject: enabled, weft.dev/mtls: strict")
        + &namespace("plain", "")
        + &app("client", "image: tools, command: [sleep, infinity]".into(), 0)
        + &app(
            "web",
            format!(
                "image: apps, args: [http, --listen, '8080', --version, v1], {}",
                ready_when_open(8080)
            ),
            8080,
        )
        + &App {
            namespace: "strict",
            name: "web",
            replicas: 1,
            container: "image: apps, args: [http, --listen, '8080'], readinessProbe: {httpGet: {path: /status/200, port: 8080}, periodSeconds: 1}".into(),
            port: 8080,
        }
        .yaml()
        + &App {
            namespace: "plain",
            name: "client",
            replicas: 1,
            container: "image: tools, command: [sleep, infinity]".into(),
            port: 0,
        }
        .yaml()
}

/// Seconds without a controller: short in a run of all tests, `WEFT_OUTAGE_SECONDS=600` for the promise's ten minutes.
fn outage() -> u64 {
    std::env::var("WEFT_OUTAGE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}

fn f10_known_traffic_outlives_the_controller(_: &Mesh) -> Result<()> {
    let mesh = Mesh::up("faults", &objects())?;
    let get = |code: &str| {
        mesh.exec(
            "client.mesh",
            &[
                "curl",
                "-sS",
                "--max-time",
                "8",
                "-o",
                "/dev/null",
                "-w",
                code,
                "http://web.mesh:8080/",
            ],
        )
    };
    ensure!(get("%{http_code}")?.ok()? == "200");

    let mut controller = mesh.get("deployments", "weft-system", "weft-controller")?;
    let scale = |controller: &mut serde_json::Value, replicas: u32| {
        controller["spec"]["replicas"] = replicas.into();
        mesh.apply(&serde_json::to_string(controller)?)
    };
    scale(&mut controller, 0)?;
    let gone = || Ok(mesh.pods("weft-system", "weft-controller")?.is_empty());
    mesh.eventually("the controller to be gone", Duration::from_secs(20), gone)?;

    let seconds = outage().to_string();
    let script = weft_tests::repository().join("tests/netns/scripts/load.py");
    let limit = Duration::from_secs(outage() + 30).as_secs().to_string();
    let known = mesh.exec(
        "client.mesh",
        &[
            "timeout",
            &limit,
            "python3",
            &script.to_string_lossy(),
            "web.mesh",
            "8080",
            &seconds,
        ],
    )?;
    ensure!(
        known.success && known.stdout.contains(" 0 failed"),
        "known traffic without a controller: {}{}",
        known.stdout,
        known.stderr
    );
    // What nobody has asked for before fails within 3 s and says why, inside of the cluster's ranges.
    let started = std::time::Instant::now();
    let unknown = mesh.exec(
        "client.mesh",
        &[
            "curl",
            "-s",
            "--max-time",
            "8",
            "-D",
            "-",
            "-o",
            "/dev/null",
            "http://weft-injector.weft-system:443/",
        ],
    )?;
    ensure!(
        started.elapsed() < Duration::from_secs(5),
        "an unknown destination hung for {:?}",
        started.elapsed()
    );
    ensure!(!unknown.stdout.starts_with("HTTP/1.1 2"), "{}", unknown.stdout);

    // A proxy that nobody tells anything is closed, past the time for which it waits for a word, too. Here nobody signs either: that it is
    // its mode which closes it where it has a certificate is tested on a cluster, and beside the code.
    let plain = || {
        let url = "http://web.strict:8080/";
        let command = [
            "curl",
            "-s",
            "--max-time",
            "5",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            url,
        ];
        Ok::<_, anyhow::Error>(mesh.exec("client.plain", &command)?.stdout)
    };
    ensure!(plain()? == "403", "plaintext was let in before the restart");
    kill_proxy(&mesh, "strict", "web")?;
    let again = std::time::Instant::now();
    let mut told = Vec::new();
    mesh.eventually(
        "the strict pod to be asked for a while",
        Duration::from_secs(40),
        || {
            told.push(plain()?);
            Ok(again.elapsed() > Duration::from_secs(8))
        },
    )?;
    ensure!(
        told.iter().all(|code| code != "200"),
        "plaintext at a strict pod without a controller: {told:?}"
    );

    scale(&mut controller, 1)?;
    let late = App {
        namespace: "mesh",
        name: "late",
        replicas: 1,
        container: format!(
            "image: apps, args: [http, --listen, '8080', --version, late], {}",
            ready_when_open(8080)
        ),
        port: 8080,
    };
    mesh.apply(&late.yaml())?;
    mesh.eventually("a new pod to be meshed", Duration::from_secs(60), || {
        let out = mesh.exec(
            "client.mesh",
            &["curl", "-s", "--max-time", "3", "http://late.mesh:8080/"],
        )?;
        Ok(out.stdout.contains("late"))
    })?;
    mesh.eventually(
        "the strict pod to refuse plaintext again",
        Duration::from_secs(30),
        || Ok(plain()? == "403"),
    )?;
    let crossed = mesh.metrics("client.mesh")?.sum(
        "weft_requests_total",
        &[
            ("direction", "outbound"),
            ("hop", "mesh"),
            ("backend", "mesh/late:8080"),
        ],
    );
    ensure!(crossed >= 1.0, "the new pod was not reached over the mesh hop");
    Ok(())
}

fn f06_a_killed_proxy_is_never_bypassed(_: &Mesh) -> Result<()> {
    let mesh = Mesh::up("killed", &objects())?;
    // Until it is back, connections are refused: the redirects stay. A 200 before the restart would be a bypass.
    kill_proxy(&mesh, "mesh", "client")?;
    mesh.eventually("traffic to go on", Duration::from_secs(20), || {
        Ok(mesh
            .exec(
                "client.mesh",
                &[
                    "curl",
                    "-s",
                    "--max-time",
                    "3",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "http://web.mesh:8080/",
                ],
            )?
            .stdout
            == "200")
    })?;
    let crossed = mesh
        .metrics("client.mesh")?
        .sum("weft_requests_total", &[("direction", "outbound"), ("hop", "mesh")]);
    ensure!(crossed >= 1.0, "traffic went on without the mesh hop");
    Ok(())
}

/// Kills the proxy of an application's first pod, and returns when it was started again.
fn kill_proxy(mesh: &Mesh, namespace: &str, app: &str) -> Result<()> {
    let pod = mesh.pods(namespace, app)?[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let space = mesh.network_namespace(namespace, &pod)?;
    let pids = std::process::Command::new("ip")
        .args(["netns", "pids", &space])
        .output()?;
    let proxies: Vec<u32> = String::from_utf8_lossy(&pids.stdout)
        .split_whitespace()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "weft-proxy")
        })
        .filter_map(|pid| pid.parse().ok())
        .collect();
    ensure!(!proxies.is_empty(), "no proxy found in {space}");
    let restarts = || -> Result<u64> {
        let pods = mesh.pods(namespace, app)?;
        let statuses = pods[0]["status"]["initContainerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(statuses
            .iter()
            .find(|status| status["name"] == "weft-proxy")
            .and_then(|status| status["restartCount"].as_u64())
            .unwrap_or(0))
    };
    let before = restarts()?;
    for pid in proxies {
        std::process::Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status()?;
    }
    mesh.eventually("the proxy to be started again", Duration::from_secs(20), || {
        Ok(restarts()? > before)
    })
}
