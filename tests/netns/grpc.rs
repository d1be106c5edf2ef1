//! gRPC with grpcio: all four kinds, trailers, deadlines, cancellation, big messages, and a connection that is balanced call by call.

use anyhow::{Result, ensure};
use weft_tests::Mesh;

use crate::{on_every_path, tests};

tests![
    all_four_kinds,
    trailers_and_trailers_only,
    deadlines,
    cancellation,
    messages_of_5_mib,
    one_connection_is_balanced_over_three_pods,
    cancellation_reaches_the_servers_proxy,
];

fn checks(mesh: &Mesh, names: &[&str]) -> Result<()> {
    on_every_path(|client, namespace| {
        for name in names {
            mesh.script(client, "grpc_kinds.py", &[&format!("grpc.{namespace}:50051"), name])?;
        }
        Ok(())
    })
}

fn all_four_kinds(mesh: &Mesh) -> Result<()> {
    checks(mesh, &["unary", "server_stream", "client_stream", "bidirectional"])
}

fn trailers_and_trailers_only(mesh: &Mesh) -> Result<()> {
    checks(mesh, &["trailers", "trailers_only"])
}

fn deadlines(mesh: &Mesh) -> Result<()> {
    checks(mesh, &["deadline"])
}

fn cancellation(mesh: &Mesh) -> Result<()> {
    checks(mesh, &["cancel"])
}

fn messages_of_5_mib(mesh: &Mesh) -> Result<()> {
    checks(mesh, &["big"])
}

fn one_connection_is_balanced_over_three_pods(mesh: &Mesh) -> Result<()> {
    let out = mesh.script("client.mesh", "grpc_calls.py", &["balanced.mesh:50051", "300"])?;
    let counts: Vec<u32> = out
        .lines()
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    ensure!(
        counts.len() == 3 && counts.iter().sum::<u32>() == 300 && counts.iter().all(|count| *count >= 60),
        "{out}"
    );
    Ok(())
}

fn cancellation_reaches_the_servers_proxy(mesh: &Mesh) -> Result<()> {
    let cancelled = || -> Result<f64> {
        let mut sum = 0.0;
        for pod in mesh.pods("mesh", "grpc")? {
            let metrics = mesh.metrics(&format!(
                "{}.mesh",
                pod["metadata"]["name"].as_str().unwrap_or_default()
            ))?;
            sum += metrics.sum(
                "weft_requests_total",
                &[("direction", "inbound"), ("reason", "client_gone")],
            );
        }
        Ok(sum)
    };
    let before = cancelled()?;
    mesh.script("client.mesh", "grpc_kinds.py", &["grpc.mesh:50051", "cancel"])?;
    mesh.eventually(
        "20 cancelled calls at the servers' proxies",
        std::time::Duration::from_secs(5),
        || Ok(cancelled()? >= before + 20.0),
    )
}
