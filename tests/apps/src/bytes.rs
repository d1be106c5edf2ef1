//! Protocols that a proxy passes as bytes: a server that speaks first, an echo, an Upgrade token of its own, and TLS.

use anyhow::Result;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::{
    listen::{Connection, Listen, Tls},
    web::{self, AnyBody},
};

/// The Upgrade token of [`upgrade`].
pub const TOKEN: &str = "hotrod";
/// Longest line of the SMTP dialogue (RFC 5321 4.5.3.1.4).
const LINE: u64 = 512;

/// Bytes until their end, which is passed on as an end of its own: the other half may stay open.
async fn echo_bytes(io: impl AsyncRead + AsyncWrite) -> Result<()> {
    let (mut read, mut write) = tokio::io::split(io);
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await?;
    Ok(())
}

pub async fn echo(listen: Listen) -> Result<()> {
    listen
        .serve("echo", Tls::IfGiven, &[], |connection| echo_bytes(connection.io))
        .await
}

pub async fn tls(listen: Listen) -> Result<()> {
    listen
        .serve("tls", Tls::Always, &["hotrod"], |connection| echo_bytes(connection.io))
        .await
}

pub async fn upgrade(listen: Listen) -> Result<()> {
    let handle = |connection| web::serve(connection, |request| async move { agree(request) });
    listen.serve("upgrade", Tls::IfGiven, &["http/1.1"], handle).await
}

fn agree(mut request: Request<Incoming>) -> Response<AnyBody> {
    let upgrade_to = HeaderValue::from_static(TOKEN);
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|token| token == TOKEN);
    let mut response = if asked {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                // An end without notice is the client's to explain.
                let _ = echo_bytes(TokioIo::new(upgraded)).await;
            }
        });
        let mut response = Response::new(web::full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
    } else {
        web::text(StatusCode::UPGRADE_REQUIRED, format!("ask for Upgrade: {TOKEN}"))
    };
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, upgrade_to);
    response
}

pub async fn greeting(listen: Listen) -> Result<()> {
    listen.serve("greeting", Tls::IfGiven, &[], smtp).await
}

/// As much SMTP as a client needs to feel at home (RFC 5321).
async fn smtp(connection: Connection) -> Result<()> {
    let pod = crate::pod();
    let mut io = BufReader::new(connection.io);
    say(&mut io, &format!("220 {pod} ESMTP weft-apps")).await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut io).take(LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return say(&mut io, "500 line too long").await;
        }
        let text = String::from_utf8_lossy(&line);
        let verb = text
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        match verb.as_str() {
            "HELO" | "EHLO" => say(&mut io, &format!("250 {pod}")).await?,
            "NOOP" => say(&mut io, &format!("250 {pod} is here")).await?,
            "RSET" => say(&mut io, "250 fine").await?,
            "QUIT" => {
                say(&mut io, "221 bye").await?;
                io.shutdown().await?;
                return Ok(());
            }
            _ => say(&mut io, "502 not here").await?,
        }
    }
}

async fn say(io: &mut (impl AsyncWrite + Unpin), line: &str) -> Result<()> {
    io.write_all(format!("{line}\r\n").as_bytes()).await?;
    io.flush().await?;
    Ok(())
}
