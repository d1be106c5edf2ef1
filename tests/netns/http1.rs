//! HTTP/1.1 and 1.0, on bare sockets and with curl: what the client sends is what the application gets, and the other way round.

use anyhow::{Context, Result, ensure};
use weft_tests::Mesh;

use crate::{on_every_path, tests};

tests![
    keep_alive,
    pipelining,
    chunked_and_length_stay_what_they_are,
    trailers_both_ways,
    head_has_a_length_and_no_body,
    early_hints_are_passed_on,
    expect_continue_waits_for_the_server,
    absolute_form,
    half_close_still_gets_the_answer,
    http_1_0,
    bodies_until_close,
    a_cut_message_never_looks_complete,
    transparent_but_for_hop_by_hop_fields,
    case_is_kept_where_both_sides_are_http_1,
    t02_length_and_chunked_together_are_refused,
    t03_odd_lengths_are_refused,
    t04_odd_transfer_codings_are_refused,
    t05_chunks_have_one_reading,
    t06_odd_fields_are_refused,
    t07_an_early_answer_does_not_desynchronise,
    t11_h2c_upgrades_are_dropped,
    t22_one_host,
    curl_uploads_and_downloads,
];

fn on_bare_sockets(mesh: &Mesh, check: &str) -> Result<()> {
    on_every_path(|client, namespace| {
        mesh.script(client, "h1.py", &[&format!("origin.{namespace}"), "8060", check])?;
        Ok(())
    })
}

fn keep_alive(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "keep_alive")
}
fn pipelining(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "pipelining")
}
fn chunked_and_length_stay_what_they_are(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "chunked")?;
    on_bare_sockets(mesh, "length")
}
fn trailers_both_ways(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "trailers")
}
fn head_has_a_length_and_no_body(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "head")
}
fn early_hints_are_passed_on(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "interim")
}
fn expect_continue_waits_for_the_server(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "expect")
}
fn absolute_form(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "absolute_form")
}
fn half_close_still_gets_the_answer(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "half_close")
}
fn http_1_0(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "http10")
}
fn bodies_until_close(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "until_close")
}
fn a_cut_message_never_looks_complete(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "cut")
}
fn transparent_but_for_hop_by_hop_fields(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "transparency")
}
fn case_is_kept_where_both_sides_are_http_1(mesh: &Mesh) -> Result<()> {
    // Over the mesh hop names are HTTP/2's, in lower case; with one proxy both sides are HTTP/1.
    mesh.script("client.plain", "h1.py", &["origin.mesh", "8060", "case_is_kept"])?;
    mesh.script("client.mesh", "h1.py", &["origin.plain", "8060", "case_is_kept"])?;
    Ok(())
}
fn t02_length_and_chunked_together_are_refused(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "t02")
}
fn t03_odd_lengths_are_refused(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "t03")
}
fn t04_odd_transfer_codings_are_refused(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "t04")
}
fn t05_chunks_have_one_reading(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "t05")
}
fn t06_odd_fields_are_refused(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "t06")
}
fn t07_an_early_answer_does_not_desynchronise(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "early_answer")
}
fn t11_h2c_upgrades_are_dropped(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "h2c_is_dropped")
}
fn t22_one_host(mesh: &Mesh) -> Result<()> {
    on_bare_sockets(mesh, "t22")
}

fn curl_uploads_and_downloads(mesh: &Mesh) -> Result<()> {
    on_every_path(|client, namespace| {
        let url = format!("http://web.{namespace}:8080/echo");
        let command = format!(
            "head -c 3000000 /dev/urandom > /tmp/up && curl -sS --max-time 20 --fail -T /tmp/up {url} -o /tmp/down && cmp /tmp/up /tmp/down \
             && curl -sS --max-time 20 --fail --http2-prior-knowledge -T /tmp/up {url} -o /tmp/down -w '%{{http_version}}' && cmp /tmp/up /tmp/down"
        );
        let out = mesh
            .exec(
                client,
                &[
                    "bash",
                    "-c",
                    &format!("cd $(mktemp -d) && {}", command.replace("/tmp/", "")),
                ],
            )?
            .ok()
            .context(url)?;
        ensure!(out.trim() == "2", "h2c was answered with HTTP/{out}");
        Ok(())
    })
}
