//! T01 against hyper's server as a second reader: what the codec lets through, hyper sees as the same one request.
//!
//! Where hyper may differ, on purpose ([`Difference`]):
//! - It keeps a fragment out of its `Uri` (`/a#b` is `/a`), and so cannot show it.
//! - It refuses targets that `http::Uri` does not know, which RFC 9112 does not allow either but real clients send
//!   (`"`, `<`, `>`, `^`, `` ` ``, `\`, `|` unescaped): weft passes them on as sent, and the server judges.
//! - It answers CONNECT and ends HTTP there; there is no body to compare.
//!
//! Everything else in which the two differ is a stream that weft refuses and hyper takes (`Transfer-Encoding` over
//! `Content-Length`, two equal lengths, no Host, bare LF, …). What is refused is not forwarded, so there is nothing to see.

use crate::support::{Ended, Forwarded, forward};
use crate::{corpus, properties};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request as hyper saw it; `None` for a body that did not come whole.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    trailers: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Difference {
    Fragment,
    Uri,
    Connect,
}

fn intended(forwarded: &Forwarded) -> Option<Difference> {
    let target = &forwarded.message.target;
    if forwarded.is_connect {
        Some(Difference::Connect)
    } else if target.parse::<http::Uri>().is_err() {
        Some(Difference::Uri)
    } else {
        target.contains('#').then_some(Difference::Fragment)
    }
}

/// Every request that hyper's server sees in a stream.
fn seen_by_hyper(stream: &[u8]) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (client, server) = tokio::io::duplex(1 << 20);
        let service = service_fn(|request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                let collected = body.collect().await.ok();
                let trailers = collected
                    .as_ref()
                    .and_then(|body| body.trailers().cloned())
                    .unwrap_or_default();
                seen.borrow_mut().push(Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    fields: pairs(&parts.headers),
                    body: collected.map(|body| body.to_bytes().to_vec()),
                    trailers: pairs(&trailers),
                });
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let connection = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service);
        let client = async {
            let (mut read, mut write) = tokio::io::split(client);
            let write = async {
                // An error here is a server that has refused already.
                let _ = write.write_all(stream).await;
                let _ = write.shutdown().await;
            };
            let mut answers = Vec::new();
            let _ = tokio::join!(write, read.read_to_end(&mut answers));
        };
        let _ = tokio::join!(connection, client);
        seen.take()
    })
}

fn pairs(map: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = map
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The request as hyper must see it.
fn expected(forwarded: &Forwarded) -> Seen {
    let lower = |fields: &[(String, Vec<u8>)]| {
        let mut all: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let (messages, _) = crate::support::read_requests(&forwarded.bytes, &[usize::MAX]);
    assert_eq!(messages.len(), 1, "what is written is one request to the codec itself");
    Seen {
        method: forwarded.message.method.clone(),
        target: forwarded.message.target.clone(),
        fields: lower(&messages[0].fields),
        body: Some(forwarded.message.body.clone()),
        trailers: lower(&forwarded.message.trailers),
    }
}

/// Checks every request of a stream that the codec lets through.
fn check(name: &str, stream: &[u8]) -> usize {
    let (forwarded, ended) = forward(stream);
    for one in &forwarded {
        let (seen, expected) = (seen_by_hyper(&one.bytes), expected(one));
        match intended(one) {
            None => {
                let target = |seen: &Seen| seen.target.trim_end_matches('/').to_ascii_lowercase();
                assert_eq!(seen.len(), 1, "{name}: {one:?}");
                // hyper writes an absolute target with its own `/` and case.
                assert_eq!(target(&seen[0]), target(&expected), "{name}");
                assert_eq!(
                    Seen {
                        target: String::new(),
                        ..seen[0].clone()
                    },
                    Seen {
                        target: String::new(),
                        ..expected
                    },
                    "{name}"
                );
            }
            Some(Difference::Fragment) => {
                assert_eq!(seen.len(), 1, "{name}: {one:?}");
                assert_eq!(
                    (&seen[0].method, &seen[0].body),
                    (&expected.method, &expected.body),
                    "{name}"
                );
            }
            Some(Difference::Uri) => assert_eq!(seen, [], "{name}: {one:?}"),
            Some(Difference::Connect) => assert!(seen.len() <= 1, "{name}: {one:?}"),
        }
    }
    // The stream as it came: where weft took all of it, hyper saw the same requests in it.
    if matches!(ended, Ended::Clean | Ended::Close) && forwarded.iter().all(|one| intended(one).is_none()) {
        let seen: Vec<_> = seen_by_hyper(stream)
            .into_iter()
            .map(|seen| (seen.method, seen.body))
            .collect();
        let ours: Vec<_> = forwarded
            .iter()
            .map(|one| (one.message.method.clone(), Some(one.message.body.clone())))
            .collect();
        assert_eq!(seen, ours, "{name}");
    }
    forwarded.len()
}

#[test]
fn t01_hyper_sees_the_same_one_request() {
    let streams = corpus::streams();
    let through: usize = streams.iter().map(|(name, stream)| check(name, stream)).sum();
    assert!(
        through > streams.len() / 4,
        "only {through} requests went through: the corpus tests nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn t01_hyper_sees_the_same_requests_in_damaged_streams(requests in prop::collection::vec(properties::one_request(), 1..3), damage in properties::damage()) {
        let stream = properties::damaged(requests.concat(), damage);
        check("random", &stream);
    }
}
