//! Traces, as the OpenTelemetry collector's own receiver hears them. The proxies must be told where it is, so they have a
//! sandbox of their own.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{
    Mesh, Ran,
    objects::{App, namespace, ready_when_open},
    repository,
};

use crate::tests;

tests![spans_of_both_sides_are_linked_in_one_trace];

/// OpenTelemetry's numbers of the kinds of a span.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const PARENT: &str = "b7ad6b7169203331";

fn objects() -> String {
    let app = |name, arguments: &str, port| {
        App {
            namespace: "mesh",
            name,
            replicas: 1,
            container: format!("image: apps, args: [{arguments}], {}", ready_when_open(port)),
            port,
        }
        .yaml()
    };
    namespace("mesh", "weft.dev/inject: enabled")
        + &namespace("observe", "")
        + &App {
            namespace: "mesh",
            name: "client",
            replicas: 1,
            container: "image: tools, command: [sleep, infinity]".into(),
            port: 0,
        }
        .yaml()
        + &app("web", "http, --listen, '8080', --version, v1", 8080)
        + &app("grpc", "grpc, --listen, '50051'", 50051)
        + &app("websocket", "websocket, --listen, '8090'", 8090)
        + &App {
            namespace: "observe",
            name: "collector",
            replicas: 1,
            container: format!("image: otlp, args: ['[::]:4317'], {}", ready_when_open(4317)),
            port: 4317,
        }
        .yaml()
}

/// The spans of one trace that have arrived.
fn spans(mesh: &Mesh, trace: &str) -> Result<Vec<Value>> {
    let log = mesh.logs("collector.observe", "app")?;
    let each = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for line in log.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).with_context(|| format!("{line:.200}"))?;
        for resource in each(&line, "resourceSpans") {
            for scope in each(&resource, "scopeSpans") {
                found.extend(
                    each(&scope, "spans")
                        .into_iter()
                        .filter(|span| span["traceId"] == trace),
                );
            }
        }
    }
    Ok(found)
}

fn spans_of_both_sides_are_linked_in_one_trace(_: &Mesh) -> Result<()> {
    let receiver = Ran::from(Command::new(repository().join("scripts/otlp-receiver")).output()?).ok()?;
    let image = format!("otlp={}", receiver.trim());
    let mesh = Mesh::up_with(
        "tracing",
        &objects(),
        &[
            "--image",
            &image,
            "--otlp-endpoint",
            "http://collector.observe:4317",
            "--trace-sampling",
            "0",
        ],
    )?;
    let call = |kind: &str, target: &str, trace: &str, flags: &str| {
        let parent = format!("00-{trace}-{PARENT}-{flags}");
        mesh.script("client.mesh", "traced.py", &[kind, target, &parent])
    };
    let kinds = [
        ("h1", "web.mesh:8080", "0af7651916cd43dd8448eb211c80319c"),
        ("grpc", "grpc.mesh:50051", "1af7651916cd43dd8448eb211c80319c"),
        ("websocket", "websocket.mesh:8090", "2af7651916cd43dd8448eb211c80319c"),
    ];
    for (kind, target, trace) in kinds {
        call(kind, target, trace, "01").context(kind)?;
        mesh.eventually(&format!("both spans of {kind}"), Duration::from_secs(15), || {
            Ok(spans(&mesh, trace)?.len() == 2)
        })?;
        let found = spans(&mesh, trace)?;
        let of = |wanted: u64| {
            let span = found.iter().find(|span| span["kind"] == wanted);
            span.with_context(|| format!("{kind}: no span of kind {wanted} in {found:?}"))
        };
        let (client, server) = (of(CLIENT)?, of(SERVER)?);
        ensure!(client["parentSpanId"] == PARENT, "{kind}: {client}");
        ensure!(server["parentSpanId"] == client["spanId"], "{kind}: {client} {server}");
    }
    // What its parent does not want to be recorded is not, and passes as it came.
    let unsampled = "3af7651916cd43dd8448eb211c80319c";
    let arrived = call("h1", "web.mesh:8080", unsampled, "00")?;
    ensure!(
        arrived.contains(&format!("00-{unsampled}-{PARENT}-00")) && arrived.contains("a=1,b=2"),
        "{arrived}"
    );
    call("grpc", "grpc.mesh:50051", unsampled, "00")?;
    let exported = mesh
        .metrics("client.mesh")?
        .sum("weft_spans_total", &[("outcome", "exported")]);
    ensure!(exported == 3.0, "{exported} spans were exported");
    ensure!(spans(&mesh, unsampled)?.is_empty());

    // A collector that is away costs nothing but the spans.
    let mut collector = mesh.get("deployments", "observe", "collector")?;
    collector["spec"]["replicas"] = 0.into();
    mesh.apply(&serde_json::to_string(&collector)?)?;
    mesh.eventually("the collector to be gone", Duration::from_secs(20), || {
        Ok(mesh.pods("observe", "collector")?.is_empty())
    })?;
    let began = std::time::Instant::now();
    for (kind, target, trace) in kinds {
        call(kind, target, trace, "01").context(kind)?;
    }
    ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}
