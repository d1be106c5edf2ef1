//! T01 against a real nginx as a second reader: what the codec lets through, nginx sees as the same one request, or none.
//!
//! nginx reads and frames the whole request, then passes it to an echo of its own, which answers with method, target and
//! length of the body as they came. After each request comes a marker on the same connection: had nginx framed the
//! request differently, it would not see the marker, or something else before it.
//!
//! Where nginx may refuse what weft passes on (nothing is ever seen twice, or differently): methods that it does not take
//! (CONNECT, TRACE, names with other letters than upper case, `_` and `-`), the target `*`, and `%00` in a target.
//! An absolute target it shows without scheme and host.

use crate::corpus;
use crate::support::{Forwarded, forward};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use weft_wire::h1::{BodyDecoder, RequestKind, ResponseHead, Scan};

const MARKER: &str = "GET /marker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A running nginx; gone with the value.
struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    fn start() -> Nginx {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        std::fs::write(root.join("nginx.conf"), configuration(root)).expect("a configuration");
        let child = Command::new(program())
            .arg("-p")
            .arg(root)
            .arg("-c")
            .arg(root.join("nginx.conf"))
            .arg("-e")
            .arg(root.join("error.log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "nginx does not start ({error}): this test needs Debian's package `nginx` (apt-get install nginx)"
                )
            });
        let mut nginx = Nginx { child, directory };
        nginx.wait_until_it_listens();
        nginx
    }

    /// nginx has no way to say that it listens but to listen.
    fn wait_until_it_listens(&mut self) {
        let started = std::time::Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(_) => return,
                Err(error) => {
                    let log = || std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default();
                    if let Ok(Some(status)) = self.child.try_wait() {
                        panic!("nginx ended with {status}: {}", log());
                    }
                    assert!(
                        started.elapsed() < Duration::from_secs(20),
                        "nginx does not listen ({error}): {}",
                        log()
                    );
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("reader.sock")
    }

    /// The answers to what is written on one connection: status and body of each, interim ones left out.
    fn ask(&self, stream: &[u8]) -> Vec<(u16, String)> {
        let mut socket = UnixStream::connect(self.socket()).expect("nginx listens");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        // An error here is a server that has refused already.
        let _ = socket.write_all(stream);
        let mut answers = Vec::new();
        match socket.read_to_end(&mut answers) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!(
                "{error} after {:?}, for {:?}",
                String::from_utf8_lossy(&answers),
                String::from_utf8_lossy(stream)
            ),
        }
        read_answers(&answers, stream.starts_with(b"HEAD "))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian installs it where a user's PATH does not look.
fn program() -> &'static Path {
    let usual = Path::new("/usr/sbin/nginx");
    if usual.exists() { usual } else { Path::new("nginx") }
}

fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
            uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
            client_body_timeout 1s; client_header_timeout 1s; client_max_body_size 0; lingering_close off;
            server {{
                listen unix:{root}/reader.sock;
                location / {{ proxy_pass http://unix:{root}/echo.sock; proxy_buffering off; proxy_set_header Host a; }}
            }}
            server {{
                listen unix:{root}/echo.sock;
                location / {{ return 200 \"$request_method $request_uri $content_length\"; }}
            }}
        }}"
    )
}

fn read_answers(stream: &[u8], first_is_to_head: bool) -> Vec<(u16, String)> {
    let (mut answers, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let kind = if first_is_to_head && answers.is_empty() {
            RequestKind::Head
        } else {
            RequestKind::Other
        };
        let (head, used) = ResponseHead::parse(rest, kind, &mut Scan::default())
            .expect("nginx's heads are plain")
            .expect("complete");
        rest = &rest[used..];
        if head.is_interim() {
            continue;
        }
        let (body, _) = crate::support::read_whole_body(&mut BodyDecoder::response(head.body()), rest)
            .expect("nginx's bodies are plain");
        let mut decoder = BodyDecoder::response(head.body());
        while let Ok((used, piece)) = decoder.step(rest) {
            rest = &rest[used..];
            if matches!(piece, weft_wire::h1::Piece::End | weft_wire::h1::Piece::NeedMore) {
                break;
            }
        }
        answers.push((head.status(), String::from_utf8_lossy(&body.body).into_owned()));
    }
    answers
}

/// What the echo answers to this request.
fn expected(one: &Forwarded) -> String {
    let target = match one.path.as_str() {
        "" => "/".to_owned(),
        path if path.starts_with('?') => format!("/{path}"),
        path => path.to_owned(),
    };
    let has_length = !matches!(one.message.length, weft_wire::h1::BodyLength::None);
    // To its own servers nginx says no length where there is no body.
    let length = if has_length && !one.message.body.is_empty() {
        one.message.body.len().to_string()
    } else {
        String::new()
    };
    format!("{} {target} {length}", one.message.method)
}

#[test]
fn t01_nginx_sees_the_same_one_request() {
    let nginx = Nginx::start();
    assert_eq!(
        nginx.ask(MARKER.as_bytes()),
        [(200, "GET /marker ".to_owned())],
        "the echo works"
    );
    let (mut same, mut refused) = (0, Vec::new());
    for (name, stream) in corpus::streams() {
        for one in forward(&stream).0 {
            let mut bytes = one.bytes.clone();
            bytes.extend_from_slice(MARKER.as_bytes());
            let answers = nginx.ask(&bytes);
            let marker = (200, "GET /marker ".to_owned());
            let own = if one.message.method == "HEAD" {
                String::new()
            } else {
                expected(&one)
            };
            match answers.as_slice() {
                [first, second] if *second == marker && one.keep_alive => {
                    assert_eq!(
                        (first.0, first.1.trim_end_matches(" 0").trim_end()),
                        (200, own.trim_end()),
                        "{name}"
                    );
                    same += 1;
                }
                [first] if first.0 == 200 && !one.keep_alive => {
                    assert_eq!(first.1.trim_end_matches(" 0").trim_end(), own.trim_end(), "{name}");
                    same += 1;
                }
                // Refused as a whole: nothing was seen.
                [(400..=599, _), ..] if answers.len() == 1 || answers[1..] == [marker] => {
                    if !may_refuse(&one) {
                        refused.push((name.clone(), answers[0].0));
                    }
                }
                _ => panic!("{name}: {answers:?} for {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
    }
    assert!(
        same > 100,
        "only {same} requests were compared: the corpus tests nothing"
    );
    assert!(
        refused.is_empty(),
        "nginx refuses what weft passes on, and why is not known yet: {refused:#?}"
    );
}

/// Whether nginx is known to refuse this (the list at the top).
fn may_refuse(one: &Forwarded) -> bool {
    let is_method = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'-');
    let method = one.message.method.as_str();
    matches!(method, "CONNECT" | "TRACE")
        || !method.bytes().all(is_method)
        || one.path == "*"
        || one.path.contains("%00")
}
