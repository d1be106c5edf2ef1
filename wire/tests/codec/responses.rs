//! T01 for responses, with hyper's client as the second reader: what the codec lets through, hyper sees as the same response.
//!
//! Where hyper differs on purpose: it takes 101 for an upgrade whether one was asked for or not, and interim responses it
//! keeps to itself; neither is compared.

use crate::properties;
use crate::support::{bytes, read_whole_body};
use bytes::BytesMut;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_wire::h1::{BodyDecoder, BodyEncoder, Connection, Forward, RequestKind, ResponseHead, Scan};

/// Status and body as hyper's client sees them; `None` for a body that it takes for cut off.
type Seen = (u16, Option<Vec<u8>>);

fn seen_by_hyper(method: &str, stream: &[u8]) -> Option<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (client, mut server) = tokio::io::duplex(1 << 20);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .expect("no bytes yet");
        let request = http::Request::builder()
            .method(method)
            .uri("/")
            .header("host", "a")
            .body(Empty::<Bytes>::new());
        let ask = async {
            let response = sender.send_request(request.expect("a request")).await.ok()?;
            let status = response.status().as_u16();
            Some((
                status,
                response
                    .into_body()
                    .collect()
                    .await
                    .ok()
                    .map(|body| body.to_bytes().to_vec()),
            ))
        };
        let serve = async {
            let mut head = [0; 1024];
            let _ = server.read(&mut head).await;
            let _ = server.write_all(stream).await;
            let _ = server.shutdown().await;
        };
        // The connection's own end says nothing that the response does not.
        let (seen, (), _) = tokio::join!(ask, serve, connection);
        seen
    })
}

/// A response as the codec reads it and as it goes on, if its head and body are complete.
fn forwarded(kind: RequestKind, stream: &[u8]) -> Option<(Seen, Vec<u8>)> {
    let (head, used) = ResponseHead::parse(stream, kind, &mut Scan::default()).ok()??;
    let (message, complete) = read_whole_body(&mut BodyDecoder::response(head.body()), &stream[used..]).ok()?;
    if !complete {
        return None;
    }
    let mut out = BytesMut::new();
    head.encode(
        &Forward {
            connection: Connection::Close,
            ..Forward::default()
        },
        &mut out,
    );
    let mut encoder = BodyEncoder::new(head.body());
    encoder.data(&message.body, &mut out).expect("the length is right");
    encoder.finish(&mut out).expect("the length is right");
    Some(((head.status(), Some(message.body)), out.to_vec()))
}

fn check(stream: &[u8]) -> bool {
    for (method, kind) in [("GET", RequestKind::Other), ("HEAD", RequestKind::Head)] {
        let Some((ours, bytes)) = forwarded(kind, stream) else {
            continue;
        };
        if ours.0 < 200 {
            continue;
        }
        let hyper = seen_by_hyper(method, &bytes);
        assert_eq!(hyper, Some(ours), "{method}: {:?}", String::from_utf8_lossy(&bytes));
    }
    forwarded(RequestKind::Other, stream).is_some()
}

#[test]
fn t01_hyper_sees_the_same_response() {
    let mut through = 0;
    let bodies = [
        "",
        "hello",
        "5⏎hello⏎0⏎⏎",
        "5;a⏎hello⏎0⏎⏎",
        "5  ⏎hello⏎0⏎A: b⏎⏎",
        "5⏎hello⏎",
        "0⏎⏎HTTP/1.1 200 OK⏎Content-Length: 0⏎⏎",
    ];
    let framings = [
        "",
        "Content-Length: 5⏎",
        "Content-Length: 0⏎",
        "Content-Length: 0005⏎",
        "Content-Length: 5, 5⏎",
        "Content-Length: 5⏎Content-Length: 5⏎",
        "Transfer-Encoding: chunked⏎",
        "Transfer-Encoding: CHUNKED⏎",
        "Transfer-Encoding: identity⏎",
        "Transfer-Encoding: gzip, chunked⏎",
        "Transfer-Encoding: chunked⏎Content-Length: 5⏎",
        "Connection: close⏎",
        "Connection: content-length⏎Content-Length: 5⏎",
    ];
    for line in [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 205 Reset",
        "HTTP/1.1 404",
        "HTTP/1.1 500 ",
        "HTTP/1.1 999 é",
    ] {
        for framing in framings {
            for body in bodies {
                through += usize::from(check(&bytes(&format!("{line}⏎A: b⏎{framing}⏎{body}"))));
            }
        }
    }
    assert!(
        through > 200,
        "only {through} responses went through: the corpus tests nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn t01_hyper_sees_the_same_damaged_response(status in 200u16..600, chunked in any::<bool>(), damage in properties::damage()) {
        let rest = if chunked { "Transfer-Encoding: chunked⏎⏎5⏎hello⏎3⏎abc⏎0⏎X: y⏎⏎" } else { "Content-Length: 8⏎⏎helloabc" };
        check(&properties::damaged(bytes(&format!("HTTP/1.1 {status} OK⏎A: b⏎{rest}")), damage));
    }
}
