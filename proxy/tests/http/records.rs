//! What is counted and what is logged: the same values, from configuration and closed lists, and no secrets.

use crate::{
    streams::{call, echo, h2c},
    world::{SOON, Way, World, answering, app, backend, h1_on, h2_on},
};
use bytes::Bytes;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};
use weft_proxy::{access_log, connection::Connection, metrics};

/// One log for all tests of this process; each looks for its own backend.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        access_log::start(log.clone()).unwrap();
        log
    })
}

/// The lines that name this backend, once there are so many.
async fn lines(backend: &str, count: usize) -> Vec<serde_json::Value> {
    for _ in 0..1000 {
        let text = String::from_utf8(log().0.lock().unwrap().clone()).unwrap();
        let found: Vec<_> = text.lines().filter(|line| line.contains(backend)).collect();
        if found.len() >= count {
            return found
                .iter()
                .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
                .collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{} lines of {backend}", lines_now(backend));
}

fn lines_now(backend: &str) -> usize {
    String::from_utf8_lossy(&log().0.lock().unwrap())
        .lines()
        .filter(|line| line.contains(backend))
        .count()
}

/// The value of the series of this name whose labels contain all of these.
fn value(name: &str, labels: &[&str]) -> f64 {
    let text = metrics::render();
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label)))
        .collect();
    found
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

async fn to_backend(world: &mut World, way: Way, id: &str, app: SocketAddr) -> Arc<Connection> {
    let identity = if way == Way::Mesh {
        "spiffe://cluster.local/ns/shop/sa/web"
    } else {
        ""
    };
    world
        .connection_with(way, &[app], |destination| {
            destination.backends = vec![backend(id, &[app], identity)]
        })
        .await
}

#[tokio::test]
async fn a_request_is_counted_and_logged_from_the_same_values() {
    let log = log();
    let mut world = World::new();
    let address = app(|_, mut peer| async move {
        peer.head().await;
        peer.expect("12345").await;
        peer.send("HTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\nyes").await;
    })
    .await;
    let id = "shop/counted:80";
    let connection = to_backend(&mut world, Way::Mesh, id, address).await;
    let mut client = h1_on(connection);
    client
        .send(
            "POST /pay?token=hush HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer hush\r\nCookie: s=hush\r\n\
             Content-Length: 5\r\n\r\n12345",
        )
        .await;
    client.head().await;
    client.expect("yes").await;
    let line = &lines(id, 1).await[0];
    for (name, expected) in [
        ("kind", "request"),
        ("direction", "outbound"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("path", "/pay"),
        ("protocol", "http1"),
        ("hop", "itself"),
        ("backend", id),
        ("server_identity", "spiffe://cluster.local/ns/shop/sa/web"),
        ("destination", "10.96.0.1:80"),
    ] {
        assert_eq!(line[name], expected, "{name}: {line}");
    }
    assert_eq!(
        (&line["status"], &line["received_bytes"], &line["sent_bytes"]),
        (&201.into(), &5.into(), &3.into())
    );
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(line.get("reason").is_none(), "{line}");
    let labels = [
        "direction=\"outbound\"",
        "backend=\"shop/counted:80\"",
        "protocol=\"http1\"",
        "hop=\"itself\"",
        "peer=\"spiffe://cluster.local/ns/shop/sa/web\"",
    ];
    let with = |more: &'static [&'static str]| [&labels[..], more].concat();
    assert_eq!(
        value("weft_requests_total", &with(&["status=\"2xx\"", "reason=\"none\""])),
        1.0
    );
    assert_eq!(value("weft_request_body_bytes_total", &labels), 5.0);
    assert_eq!(value("weft_response_body_bytes_total", &labels), 3.0);
    assert_eq!(value("weft_request_duration_seconds_count", &labels), 1.0);
    // The other side has its own record, with the client's identity.
    let inbound = [
        "direction=\"inbound\"",
        "backend=\"self\"",
        "peer=\"spiffe://cluster.local/ns/shop/sa/web\"",
        "status=\"2xx\"",
    ];
    assert!(value("weft_requests_total", &inbound) >= 1.0);
    let all = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned() + &metrics::render();
    assert!(!all.contains("hush"), "a secret was written down");
}

#[tokio::test]
async fn a_grpc_call_is_counted_by_its_status() {
    log();
    let mut world = World::new();
    let address = h2c(echo).await;
    let id = "shop/grpc:80";
    let connection = to_backend(&mut world, Way::Plain, id, address).await;
    let mut send = h2_on(connection).await;
    let (answer, mut up) = send.send_request(call("/pkg.Cart/Get"), false).unwrap();
    up.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
    let mut body = tokio::time::timeout(SOON, answer).await.unwrap().unwrap().into_body();
    while let Some(part) = body.data().await {
        part.unwrap();
    }
    body.trailers().await.unwrap();
    let line = &lines(id, 1).await[0];
    assert_eq!(
        (&line["protocol"], &line["grpc_status"], &line["hop"]),
        (&"grpc".into(), &0.into(), &"h2c".into()),
        "{line}"
    );
    assert_eq!(
        value(
            "weft_grpc_responses_total",
            &["backend=\"shop/grpc:80\"", "grpc_status=\"0\""]
        ),
        1.0
    );
}

#[tokio::test]
async fn a_failure_is_counted_with_its_reason_and_an_abandoned_request_too() {
    log();
    let mut world = World::new();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let id = "shop/dead:80";
    let connection = to_backend(&mut world, Way::Plain, id, dead).await;
    let mut client = h1_on(connection);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    let line = &lines(id, 1).await[0];
    assert_eq!(
        (&line["reason"], &line["stage"], &line["blame"], &line["status"]),
        (&"connect_refused".into(), &"hop".into(), &"server".into(), &503.into())
    );
    assert_eq!(
        value(
            "weft_requests_total",
            &[
                "backend=\"shop/dead:80\"",
                "reason=\"connect_refused\"",
                "status=\"5xx\""
            ]
        ),
        1.0
    );

    let mut world = World::new();
    let silent = app(|_, mut peer| async move { drop(peer.rest().await) }).await;
    let id = "shop/silent:80";
    let connection = to_backend(&mut world, Way::Plain, id, silent).await;
    let mut client = h1_on(connection);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    client.io.reset();
    let line = &lines(id, 1).await[0];
    assert_eq!(
        (&line["reason"], &line["blame"]),
        (&"client_gone".into(), &"client".into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_tunnels_time_is_not_a_requests() {
    log();
    let mut world = World::new();
    let address = app(|_, mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            .await;
        peer.rest().await;
    })
    .await;
    let id = "shop/tunnel:80";
    let connection = to_backend(&mut world, Way::Plain, id, address).await;
    let mut client = h1_on(connection);
    client
        .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        .await;
    client.head().await;
    client.expect("hello").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(client);
    let line = &lines(id, 1).await[0];
    assert_eq!(
        (&line["kind"], &line["protocol"], &line["status"]),
        (&"tunnel".into(), &"websocket".into(), &101.into()),
        "{line}"
    );
    assert!(line["duration_ms"].as_f64().unwrap() >= 300.0, "{line}");
    assert_eq!(
        (&line["received_bytes"], &line["sent_bytes"]),
        (&2.into(), &5.into()),
        "{line}"
    );
    let labels = ["backend=\"shop/tunnel:80\"", "protocol=\"websocket\""];
    assert!(value("weft_request_duration_seconds_sum", &labels) < 0.25);
    assert!(value("weft_tunnel_duration_seconds_sum", &labels) >= 0.3);
    assert_eq!(value("weft_tunnel_sent_bytes_total", &labels), 5.0);
}

#[tokio::test]
async fn t59_hosts_and_paths_of_requests_make_no_series() {
    let mut world = World::new();
    let address = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
    let connection = to_backend(&mut world, Way::Plain, "shop/many:80", address).await;
    let mut client = h1_on(connection);
    for number in 0..200 {
        client
            .send(format!(
                "GET /{number} HTTP/1.1\r\nHost: h{number}.example\r\nX-{number}: 1\r\n\r\n"
            ))
            .await;
        client.expect("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    }
    let series = metrics::render()
        .lines()
        .filter(|line| line.starts_with("weft_requests_total{") && line.contains("shop/many"))
        .count();
    assert_eq!(series, 1);
    assert_eq!(value("weft_requests_total", &["backend=\"shop/many:80\""]), 200.0);
}

#[tokio::test]
async fn t60_what_a_client_names_itself_cannot_forge_a_line() {
    log();
    let mut world = World::new();
    let address = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
    let id = "shop/forged:80";
    let connection = to_backend(&mut world, Way::Plain, id, address).await;
    let mut client = h1_on(connection);
    client
        .send("GET /a\",\"status\":999,\"x\u{202e}\u{1b}:\" HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let answer = client.head().await;
    if answer.starts_with("HTTP/1.1 200") {
        let line = &lines(id, 1).await[0];
        assert_eq!(line["status"], 200);
    }
    assert!(!log().0.lock().unwrap().contains(&0x1b));
}
