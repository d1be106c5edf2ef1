//! What the proxy tells of itself. On its port: live, ready, metrics and what stands for `tcpSocket` probes and those over HTTPS, GET
//! only and nothing that changes anything (RELIABILITY T31). On a socket file, which only the proxy's user can open: the
//! drain, the destinations, a gateway's listeners and the log's filter.

mod https_probe;

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use weft_proto::{
    limits,
    names::{env, path, port},
};
use weft_service::{
    admin::{self, Answer, Routes},
    log,
};

use crate::{
    app::Shared,
    explain::{self, Question},
    metrics,
};

/// Starts the drain of what comes in.
const DRAIN: &str = "/drain";
/// Every destination that is known.
const TABLES: &str = "/tables";
/// What a gateway serves.
const LISTENERS: &str = "/listeners";
/// `/explain/QUESTION`: what would become of a request or a connection.
const EXPLAIN: &str = "/explain/";
/// The log's filter; `/log/FILTER` changes it.
const LOG: &str = "/log";

/// Time for the application to take a probe's connection.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Binds the port, in both families where the node has both.
pub fn bind() -> io::Result<std::net::TcpListener> {
    bind_at((Ipv6Addr::UNSPECIFIED, port::METRICS).into())
        .or_else(|_| bind_at((Ipv4Addr::UNSPECIFIED, port::METRICS).into()))
}

fn bind_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::ACCEPT_QUEUE as i32)?;
    Ok(socket.into())
}

/// Serves the port, for ever.
pub async fn serve_port(listener: std::net::TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let (asked, https) = (shared.clone(), shared.clone());
    let routes = Routes::new(move || asked.ready())
        .metrics(metrics::render)
        .get_below(path::TCP_PROBE_PREFIX, move |rest| probe(rest, shared.clone()))
        .get_below_with(path::HTTPS_PROBE_PREFIX, move |rest, head| {
            https_probe::answer(rest, head, https.clone())
        });
    admin::Server::on(TcpListener::from_std(listener)?, routes)
        .serve()
        .await;
    Ok(())
}

/// Whether the application takes a connection: as a `tcpSocket` probe would, if its connection were not captured.
async fn probe(port: String, shared: Arc<Shared>) -> Answer {
    let allowed = port
        .parse::<u16>()
        .ok()
        .filter(|port| shared.config.probe_ports.contains(*port));
    let Some(port) = allowed else {
        return Answer::text(
            StatusCode::NOT_FOUND,
            format!("not one of the ports in {}", env::PROBE_PORTS),
        );
    };
    let mut last = String::from("the pod has no address");
    for ip in &shared.config.pod_ips {
        match tokio::time::timeout(PROBE_TIME, TcpStream::connect((*ip, port))).await {
            Ok(Ok(_)) => return Answer::text(StatusCode::OK, "the application listens"),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer in time".into(),
        }
    }
    Answer::text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the application does not listen: {last}"),
    )
}

/// Serves the socket file, for ever.
pub async fn serve_socket(shared: Arc<Shared>, filter: log::Filter) -> io::Result<()> {
    let path = shared.config.admin_socket.clone();
    let listener = bind_socket(&path)?;
    let (drained, tables, now) = (shared.clone(), shared.clone(), filter.clone());
    let (gateway, asked) = (shared.clone(), shared.clone());
    let routes = Routes::new(move || shared.ready())
        .get(DRAIN, move || {
            drained.inbound_drain.drain();
            drained.drain_gateway();
            Answer::text(StatusCode::OK, "draining")
        })
        .get(TABLES, move || Answer::json(dump(&tables)))
        .get_below(EXPLAIN, move |question| {
            let shared = asked.clone();
            async move {
                let question = match Question::parse(&question) {
                    Ok(question) => question,
                    Err(wrong) => return Answer::text(StatusCode::BAD_REQUEST, wrong),
                };
                match explain::explain(&question, &shared).await {
                    Ok(answer) => Answer::json(pretty(&answer)),
                    Err(wrong) => Answer::text(StatusCode::BAD_REQUEST, wrong),
                }
            }
        })
        .get(LISTENERS, move || Answer::json(listeners(&gateway)))
        .get(LOG, move || Answer::text(StatusCode::OK, now.current()))
        .get_below("/log/", move |wanted| {
            let set = filter.set(&wanted);
            async move {
                match set {
                    Ok(()) => Answer::text(StatusCode::OK, wanted),
                    Err(error) => Answer::text(StatusCode::BAD_REQUEST, error.to_string()),
                }
            }
        });
    let routes = Arc::new(routes);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(Box::pin(admin::connection(stream, routes.clone())))),
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept");
                tokio::time::sleep(limits::ACCEPT_BACK_OFF).await;
            }
        }
    }
}

/// One that a process before this one has left behind is replaced.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Nobody but the proxy's own user.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// The destinations, for people.
fn dump(shared: &Shared) -> Vec<u8> {
    let all = shared
        .tables
        .dump()
        .into_iter()
        .map(|(address, looks_up, users, known)| {
            let mut one = serde_json::json!({
                "address": address.to_string(),
                "side": format!("{looks_up:?}").to_lowercase(),
                "connections": users,
            });
            if let Some(known) = known {
                let backends: Vec<_> = known
                    .backends
                    .iter()
                    .map(|backend| {
                        let endpoints: Vec<_> = backend
                            .endpoints
                            .iter()
                            .map(|endpoint| {
                                serde_json::json!({
                                    "address": endpoint.address.to_string(),
                                    "pod": &*endpoint.pod,
                                    "identity": endpoint.identity_label.as_deref(),
                                    "terminating": endpoint.terminating,
                                    "in_flight": endpoint.load.in_flight(),
                                })
                            })
                            .collect();
                        serde_json::json!({ "id": &*backend.id, "endpoints": endpoints })
                    })
                    .collect();
                one["kind"] = known.kind.as_str_name().into();
                one["object"] = (*known.object).into();
                one["version"] = known.version.as_str().into();
                one["rules"] = known.table.rules().len().into();
                one["backends"] = backends.into();
            }
            one
        });
    pretty(&all.collect::<Vec<_>>())
}

/// What a gateway serves, for people; `null` at a sidecar.
fn listeners(shared: &Shared) -> Vec<u8> {
    pretty(&shared.front.as_ref().map(|front| front.dump()))
}

fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Asks the running proxy to drain, and returns when it has heard: `weft-proxy drain`.
pub fn ask_to_drain(socket: &Path) -> io::Result<()> {
    ask(socket, DRAIN, limits::CONNECT_TIME).map(drop)
}

/// Asks the running proxy what would become of a request or a connection: `weft-proxy explain`. The answer is JSON.
pub fn ask_to_explain(socket: &Path, question: &str) -> io::Result<serde_json::Value> {
    // It may have to ask the controller first.
    let patience = limits::DESTINATION_TIME + limits::CONNECT_TIME;
    let body = ask(socket, &format!("{EXPLAIN}{question}"), patience)?;
    Ok(serde_json::from_str(&body)?)
}

fn ask(socket: &Path, path: &str, patience: Duration) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200") {
        return Ok(body.to_owned());
    }
    let line = head.lines().next().unwrap_or("nothing");
    Err(io::Error::other(format!("the proxy answered: {line} {}", body.trim())))
}
