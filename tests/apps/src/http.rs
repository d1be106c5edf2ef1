//! An HTTP service that tells who answered what: the pod, its version, and the request as it arrived.
//!
//! Paths that do something are listed in [`HELP`]; every other path describes the request.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use serde_json::json;

use crate::{
    listen::{Listen, Tls},
    web::{self, AnyBody},
};

/// What the paths do.
const HELP: &str = "\
/status/NNN   answers with that status
/delay/MS     answers after so many milliseconds
/stream/N     N lines, each in a chunk of its own
/bytes/N      N bytes
/echo         sends the body back as it comes
/trailers     a body with trailers
/slow         ten bytes, one every 100 ms
/help         this
everything else: who answered, and what was asked, as JSON";

/// Longest body of `/bytes` and `/stream`.
const LONGEST: u64 = 1 << 30;

#[derive(clap::Args)]
pub struct Http {
    #[command(flatten)]
    listen: Listen,
    /// The version that it says it is.
    #[arg(long, env = "VERSION", default_value = "v1")]
    version: String,
}

struct Me {
    pod: String,
    version: String,
}

pub async fn serve(http: Http) -> Result<()> {
    let me = Arc::new(Me {
        pod: crate::pod(),
        version: http.version,
    });
    let handle = move |connection| {
        let me = me.clone();
        web::serve(connection, move |request| answer(request, me.clone()))
    };
    http.listen
        .serve("http", Tls::IfGiven, &["h2", "http/1.1"], handle)
        .await
}

async fn answer(request: Request<Incoming>, me: Arc<Me>) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let (action, argument) = path[1.min(path.len())..]
        .split_once('/')
        .unwrap_or((path.trim_start_matches('/'), ""));
    let mut response = match (action, argument.parse::<u64>()) {
        ("status", Ok(status)) => match u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
        {
            Some(status) if status.as_u16() >= 200 => web::text(status, status.to_string()),
            _ => web::text(StatusCode::BAD_REQUEST, "not a final status"),
        },
        ("delay", Ok(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds.min(3_600_000))).await;
            describe(&request, &me)
        }
        ("stream", Ok(lines)) => lines_of(lines.min(LONGEST)),
        ("bytes", Ok(length)) => bytes_of(length.min(LONGEST)),
        ("echo", _) => echo(request),
        ("trailers", _) => trailers(),
        ("slow", _) => slow(),
        ("help", _) => web::text(StatusCode::OK, HELP),
        _ => describe(&request, &me),
    };
    let headers = response.headers_mut();
    for (name, value) in [("x-pod", &me.pod), ("x-version", &me.version)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn describe(request: &Request<Incoming>, me: &Me) -> Response<AnyBody> {
    let protocol = match request.version() {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "unknown",
    };
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            [
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ]
        })
        .collect();
    let described = json!({
        "pod": me.pod,
        "version": me.version,
        "protocol": protocol,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.uri().query(),
        "authority": request.uri().authority().map(http::uri::Authority::as_str),
        "headers": headers,
    });
    let mut response = Response::new(web::full(described.to_string() + "\n"));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn lines_of(count: u64) -> Response<AnyBody> {
    let lines =
        stream::iter(1..=count).map(|line| Ok::<_, std::io::Error>(Frame::data(Bytes::from(format!("line {line}\n")))));
    // Between two lines others get their turn, so that each goes out on its own.
    let yielding = lines.then(|line| async {
        tokio::task::yield_now().await;
        line
    });
    Response::new(web::boxed(StreamBody::new(yielding)))
}

fn bytes_of(length: u64) -> Response<AnyBody> {
    const PIECE: u64 = 16 << 10;
    static ZEROES: [u8; PIECE as usize] = [b'.'; PIECE as usize];
    let pieces = stream::iter(0..length.div_ceil(PIECE)).map(move |piece| {
        let left = (length - piece * PIECE).min(PIECE);
        let piece = Bytes::from_static(&ZEROES).slice(..usize::try_from(left).unwrap_or(ZEROES.len()));
        Ok::<_, std::io::Error>(Frame::data(piece))
    });
    let mut response = Response::new(web::boxed(StreamBody::new(pieces)));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

fn echo(request: Request<Incoming>) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(web::boxed(body));
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// hyper sends trailers over HTTP/1.1 only when they are declared and the client has said `TE: trailers`.
fn trailers() -> Response<AnyBody> {
    let mut fields = HeaderMap::new();
    fields.insert("x-checksum", HeaderValue::from_static("7"));
    let frames = [Frame::data(Bytes::from_static(b"the body\n")), Frame::trailers(fields)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, std::io::Error>)));
    let mut response = Response::new(web::boxed(body));
    response
        .headers_mut()
        .insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

fn slow() -> Response<AnyBody> {
    let bytes = stream::iter(b"0123456789".iter()).then(|byte| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(std::slice::from_ref(byte))))
    });
    Response::new(web::boxed(StreamBody::new(bytes)))
}
