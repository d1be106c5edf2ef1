//! WebSocket and other Upgrades: RFC 8441 on the mesh hop, nothing lost at either end, nothing sent before the other side agreed.

use anyhow::{Result, ensure};
use weft_tests::Mesh;

use crate::{on_every_path, tests};

tests![
    websocket_messages_pings_and_close_codes,
    websocket_messages_of_1_mib,
    websockets_survive_silence,
    another_upgrade_token_with_early_bytes,
    t08_nothing_is_sent_before_101,
    t09_an_unasked_101_is_an_error,
    websocket_crosses_as_extended_connect,
];

fn websocket(mesh: &Mesh, check: &str) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(
            client,
            "websocket.py",
            &[&format!("ws://websocket.{namespace}:8090/echo"), check],
        )
        .map(drop)
    })
}

fn websocket_messages_pings_and_close_codes(mesh: &Mesh) -> Result<()> {
    websocket(mesh, "messages")?;
    websocket(mesh, "close")
}

fn websocket_messages_of_1_mib(mesh: &Mesh) -> Result<()> {
    websocket(mesh, "big")
}

/// The hour of silence is a test with a paused clock, beside the relay; this is the scaled-down real run.
fn websockets_survive_silence(mesh: &Mesh) -> Result<()> {
    websocket(mesh, "silence")
}

fn another_upgrade_token_with_early_bytes(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(client, "hotrod.py", &[&format!("upgrade.{namespace}"), "8070"])
            .map(drop)
    })
}

fn t08_nothing_is_sent_before_101(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(
            client,
            "h1.py",
            &[&format!("origin.{namespace}"), "8060", "upgrade_refused"],
        )
        .map(drop)
    })
}

fn t09_an_unasked_101_is_an_error(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(
            client,
            "h1.py",
            &[&format!("origin.{namespace}"), "8060", "unasked_101"],
        )
        .map(drop)
    })
}

fn websocket_crosses_as_extended_connect(mesh: &Mesh) -> Result<()> {
    let tunnels = || {
        Ok::<_, anyhow::Error>(mesh.metrics("client.mesh")?.sum(
            "weft_tunnels_total",
            &[("direction", "outbound"), ("protocol", "websocket"), ("hop", "mesh")],
        ))
    };
    let before = tunnels()?;
    mesh.script(
        "client.mesh",
        "websocket.py",
        &["ws://websocket.mesh:8090/echo", "messages"],
    )?;
    mesh.eventually("the tunnel to be counted", std::time::Duration::from_secs(5), || {
        Ok(tunnels()? > before)
    })?;
    ensure!(
        mesh.metrics("client.mesh")?.sum(
            "weft_tunnels_total",
            &[
                ("protocol", "websocket"),
                ("hop", "plain"),
                ("direction", "outbound"),
                ("backend", "mesh/websocket:8090")
            ]
        ) == 0.0
    );
    Ok(())
}
