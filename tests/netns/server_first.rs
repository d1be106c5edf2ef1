//! Protocols in which the server speaks first need no annotation and wait for nothing; silent HTTP clients stay HTTP clients.

use anyhow::{Result, ensure};
use weft_tests::Mesh;

use crate::{on_every_path, tests};

tests![
    a_greeting_arrives_within_20_ms,
    a_real_mail_client,
    a_real_database,
    a_408_to_a_silent_client_teaches_nothing,
    a_client_that_speaks_after_15_s_stays_http
];

fn a_greeting_arrives_within_20_ms(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        let direct: f64 = mesh
            .script("client.plain", "greeting.py", &["greeting.plain", "2525"])?
            .trim()
            .parse()?;
        let through: f64 = mesh
            .script(client, "greeting.py", &[&format!("greeting.{namespace}"), "2525"])?
            .trim()
            .parse()?;
        // The least of 20 connections: noise only adds.
        ensure!(
            through - direct < 20.0,
            "{through:.1} ms through weft, {direct:.1} ms without"
        );
        Ok(())
    })
}

fn a_real_mail_client(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        let program = format!(
            "import smtplib; s = smtplib.SMTP('greeting.{namespace}', 2525, timeout=10); print(s.noop()[0]); s.quit()"
        );
        let out = mesh.exec(client, &["python3", "-c", &program])?.ok()?;
        ensure!(out.trim() == "250", "{out}");
        Ok(())
    })
}

fn a_real_database(mesh: &Mesh) -> Result<()> {
    for client in ["client.mesh", "client.plain"] {
        let out = mesh
            .exec(
                client,
                &[
                    "mariadb",
                    "--no-defaults",
                    "-h",
                    "mysql.mesh",
                    "-P",
                    "3306",
                    "-u",
                    "root",
                    "--skip-ssl",
                    "-BN",
                    "-e",
                    "select 6*7",
                ],
            )?
            .ok()?;
        ensure!(out.trim() == "42", "{out}");
    }
    Ok(())
}

fn a_408_to_a_silent_client_teaches_nothing(mesh: &Mesh) -> Result<()> {
    let silent = "import socket; s = socket.create_connection(('impatient.mesh', 8408), timeout=10); d = s.recv(4096); print(d.split(b'\\r\\n')[0].decode()); print(s.recv(1))";
    for client in ["client.mesh", "client.plain"] {
        for _ in 0..3 {
            let out = mesh.exec(client, &["python3", "-c", silent])?.ok()?;
            ensure!(
                out.starts_with("HTTP/1.1 408") || out.starts_with("HTTP/1.0 408"),
                "the server's answer to silence was lost: {out}"
            );
        }
        // Still parsed as HTTP: a request that only a parser refuses is refused by weft.
        mesh.script(client, "h1.py", &["impatient.mesh", "8408", "t22"])?;
        let out = mesh
            .exec(
                client,
                &["curl", "-sS", "--max-time", "5", "http://impatient.mesh:8408/"],
            )?
            .ok()?;
        ensure!(out == "patient", "{out}");
    }
    Ok(())
}

fn a_client_that_speaks_after_15_s_stays_http(mesh: &Mesh) -> Result<()> {
    // A grpcio channel behind a relay that connects at once and passes the first byte on after 15 s.
    let out = mesh.script("client.mesh", "late_grpc.py", &["balanced.mesh:50051", "15", "300"])?;
    let counts: Vec<u32> = out
        .lines()
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    ensure!(
        counts.len() == 3 && counts.iter().all(|count| *count >= 60),
        "not balanced: {out}"
    );
    Ok(())
}
