//! Each application with its own client, on real sockets of this machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

struct App {
    process: Child,
    port: u16,
}

impl App {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_weft-apps"))
            .args(arguments)
            .args(["--listen", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self { process, port }
    }

    fn connect(&self, host: &str) -> TcpStream {
        let stream = TcpStream::connect((host, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn client(&self, arguments: &[&str]) -> Value {
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace("PORT", &self.port.to_string()));
        let output = Command::new(env!("CARGO_BIN_EXE_weft-apps"))
            .arg("client")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn grpc_answers_all_four_kinds_and_says_who_it_is() {
    let app = App::start(&["grpc"]);
    for host in ["127.0.0.1", "[::1]"] {
        let said = app.client(&["grpc", &format!("http://{host}:PORT"), "--calls", "5"]);
        assert_eq!(said["server_stream"], 3);
        assert_eq!(said["client_stream"], 3);
        assert_eq!(said["bidirectional"], 9);
        assert_eq!(said["pods"].as_object().unwrap().values().next().unwrap(), 5);
    }
}

#[test]
fn grpc_serves_its_own_tls() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let app = App::start(&["grpc", "--tls-cert", cert, "--tls-key", key]);
    assert_eq!(
        app.client(&["grpc", "https://localhost:PORT", "--ca", cert])["unary"],
        1
    );
}

#[test]
fn websocket_echoes_and_closes_with_the_code_that_it_is_told() {
    let app = App::start(&["websocket"]);
    let said = app.client(&["websocket", "ws://127.0.0.1:PORT/echo", "--size", "1048576"]);
    assert_eq!(
        (&said["binary"], &said["pong"], &said["close"]),
        (&1_048_576.into(), &true.into(), &4001.into())
    );
    let said = app.client(&["websocket", "ws://127.0.0.1:PORT/chat"]);
    assert_eq!(said["text"], "hello");
}

#[test]
fn http_tells_who_answered_over_both_versions() {
    let app = App::start(&["http", "--version", "v7"]);
    let said = app.client(&["http", "http://127.0.0.1:PORT/some/path?q=1", "--requests", "3"]);
    assert_eq!(said["statuses"]["200"], 3);
    assert_eq!(said["versions"]["v7"], 3);
    assert_eq!(said["last"]["protocol"], "HTTP/1.1");
    assert_eq!(said["last"]["path"], "/some/path");
    assert_eq!(
        app.client(&["http", "http://[::1]:PORT/", "--h2c"])["last"]["protocol"],
        "HTTP/2"
    );
    assert_eq!(
        app.client(&["http", "http://127.0.0.1:PORT/status/404"])["statuses"]["404"],
        1
    );
    assert_eq!(
        app.client(&["http", "http://127.0.0.1:PORT/stream/2"])["last"],
        "line 1\nline 2"
    );
    let mut stream = app.connect("127.0.0.1");
    stream
        .write_all(b"GET /trailers HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("0\r\nx-checksum: 7\r\n\r\n"), "{answer}");
}

#[test]
fn bytes_behind_an_upgrade_head_come_back() {
    let app = App::start(&["upgrade"]);
    let said = app.client(&["upgrade", "127.0.0.1:PORT"]);
    assert_eq!(said["echoed"], "early and late");
}

#[test]
fn greeting_speaks_first_and_echo_keeps_the_other_half_open() {
    let app = App::start(&["greeting"]);
    let mut lines = BufReader::new(app.connect("127.0.0.1"));
    let mut said = String::new();
    lines.read_line(&mut said).unwrap();
    assert!(said.starts_with("220 ") && said.ends_with("\r\n"), "{said}");
    lines
        .get_mut()
        .write_all(b"HELO me\r\nNOOP\r\nMAIL\r\nQUIT\r\n")
        .unwrap();
    said.clear();
    lines.read_to_string(&mut said).unwrap();
    let codes: Vec<_> = said.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "502", "221"]);

    let app = App::start(&["echo"]);
    let mut stream = app.connect("::1");
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");
}

#[test]
fn load_counts_every_protocol_and_ends_at_sigterm_with_its_result() {
    let (web, grpc, socket) = (App::start(&["http"]), App::start(&["grpc"]), App::start(&["websocket"]));
    let load = Command::new(env!("CARGO_BIN_EXE_weft-apps"))
        .args([
            "client",
            "load",
            "--seconds",
            "60",
            "--http-rate",
            "50",
            "--grpc-rate",
            "50",
            "--websockets",
            "3",
        ])
        .args(["--http", &format!("http://127.0.0.1:{}/", web.port)])
        .args(["--grpc", &format!("http://127.0.0.1:{}", grpc.port)])
        .args(["--websocket", &format!("ws://127.0.0.1:{}/echo", socket.port)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    drop(socket);
    std::thread::sleep(Duration::from_millis(500));
    let pid = load.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let said: Value = serde_json::from_slice(&load.wait_with_output().unwrap().stdout).unwrap();
    for protocol in ["http", "grpc"] {
        assert!(said[protocol]["requests"].as_u64().unwrap() > 50, "{said}");
        assert_eq!(said[protocol]["failed"], 0, "{said}");
    }
    // A server that was killed says no code: each of the three is a failure.
    assert!(said["websocket"]["closed"]["cut"].as_u64().unwrap() >= 3, "{said}");
}
