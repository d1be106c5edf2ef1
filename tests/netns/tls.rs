//! The application's own TLS passes byte-exact: its certificate, any ALPN id, a ClientHello in several segments.

use anyhow::{Result, ensure};
use weft_tests::Mesh;

use crate::{on_every_path, tests};

tests![
    the_client_sees_the_applications_certificate,
    any_alpn_id_is_kept,
    t57_a_hello_in_small_segments
];

fn the_client_sees_the_applications_certificate(mesh: &Mesh) -> Result<()> {
    let expected = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(crate::cluster::fixtures().join("tls.crt"))
        .output()?;
    let expected = String::from_utf8_lossy(&expected.stdout).trim().to_owned();
    on_every_path(|client, namespace| {
        let command = format!(
            "openssl s_client -connect secure.{namespace}:8443 -servername secure.{namespace} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
        );
        let seen = mesh.exec(client, &["bash", "-c", &command])?.ok()?;
        ensure!(seen.trim() == expected, "{seen} instead of {expected}");
        Ok(())
    })
}

fn any_alpn_id_is_kept(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        for id in ["hotrod", "h2", "http/1.1"] {
            let command = format!(
                "openssl s_client -connect secure.{namespace}:8443 -servername secure.{namespace} -alpn {id} </dev/null 2>&1"
            );
            let seen = mesh.exec(client, &["bash", "-c", &command])?;
            ensure!(
                seen.stdout.contains(&format!("ALPN protocol: {id}")),
                "{id}: {}",
                seen.stdout
            );
        }
        Ok(())
    })
}

fn t57_a_hello_in_small_segments(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(client, "split_hello.py", &[&format!("secure.{namespace}"), "8443"])
            .map(drop)
    })
}
