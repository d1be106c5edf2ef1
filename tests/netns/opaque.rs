//! Bytes that weft does not parse: FIN, RST and half-close are kept, bulk arrives whole, a failed dial is a reset at once.

use std::time::Duration;

use anyhow::Result;
use weft_tests::Mesh;

use crate::{on_every_path, tests};

tests![
    t13_the_servers_reset_reaches_the_client,
    t13_the_clients_reset_reaches_the_server,
    the_servers_close_reaches_the_client,
    the_client_may_end_its_half,
    the_server_may_end_its_half,
    bulk_both_ways,
    a_failed_dial_is_a_reset_at_once,
];

fn with_peer(mesh: &Mesh, check: &str) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(client, "tcp.py", &[&format!("peer.{namespace}"), "7100", check])
            .map(drop)
    })
}

fn t13_the_servers_reset_reaches_the_client(mesh: &Mesh) -> Result<()> {
    with_peer(mesh, "reset_by_server")
}

fn t13_the_clients_reset_reaches_the_server(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        let mark = format!("{}-{}", client.replace('.', "-"), namespace);
        mesh.script(
            client,
            "tcp.py",
            &[&format!("peer.{namespace}"), "7100", "reset_by_client", &mark],
        )?;
        let pod = mesh.pods(namespace, "peer")?[0]["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        mesh.eventually("the server to see the reset", Duration::from_secs(5), || {
            Ok(mesh
                .logs(&format!("{pod}.{namespace}"), "app")?
                .lines()
                .any(|line| line == format!("{mark} reset")))
        })
    })
}

fn the_servers_close_reaches_the_client(mesh: &Mesh) -> Result<()> {
    with_peer(mesh, "close_by_server")
}

fn the_client_may_end_its_half(mesh: &Mesh) -> Result<()> {
    with_peer(mesh, "half_close_by_client")
}

fn the_server_may_end_its_half(mesh: &Mesh) -> Result<()> {
    with_peer(mesh, "half_close_by_server")
}

fn bulk_both_ways(mesh: &Mesh) -> Result<()> {
    with_peer(mesh, "bulk")
}

fn a_failed_dial_is_a_reset_at_once(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        let pod = &mesh.pods(namespace, "peer")?[0];
        let address = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
        mesh.script(client, "tcp.py", &[&address, "7199", "refused"]).map(drop)
    })
}
