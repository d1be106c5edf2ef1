//! What the HTTP applications share: one connection of HTTP/1.1 or HTTP/2, upgrades and extended CONNECT included.

use std::{convert::Infallible, future::Future};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};

use crate::listen::Connection;

/// Any body.
pub type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body in one piece.
pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    boxed(Full::new(bytes.into()))
}

/// Any body, boxed.
pub fn boxed<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A short answer in words.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<AnyBody> {
    let mut response = Response::new(full(text.into() + "\n"));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Serves one connection, whichever version it speaks.
pub async fn serve<S, F>(connection: Connection, service: S) -> Result<()>
where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let Connection { io, mut ending } = connection;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol().max_concurrent_streams(1000);
    builder.http1().preserve_header_case(true);
    let service = hyper::service::service_fn(move |request| {
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut served = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = async { drop(ending.wait_for(|ending| *ending).await) } => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    ended.map_err(|error| anyhow!("{error}"))
}
