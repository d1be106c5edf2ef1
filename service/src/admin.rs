//! A small HTTP server for `/live`, `/ready`, `/metrics` and what a program mounts: GET only, bounded, never a secret.
//!
//! The Host field means nothing here. What makes a program ready is for the program.

use std::{collections::BTreeMap, convert::Infallible, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use weft_proto::{limits, names::path};

use crate::process;

/// The answer of a handler.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Plain text with a line feed.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\n');
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }

    /// JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body: body.into(),
        }
    }
}

type Handled = Pin<Box<dyn Future<Output = Answer> + Send>>;
/// Given the rest of the path and the request's head.
type Handler = Box<dyn Fn(&str, &Parts) -> Handled + Send + Sync>;

/// What is served where.
#[derive(Default)]
pub struct Routes {
    exact: BTreeMap<&'static str, Handler>,
    prefixes: Vec<(&'static str, Handler)>,
}

impl Routes {
    /// `/live`, and `/ready` by this question: `Err` says what is missing.
    pub fn new(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self::default()
            .get(path::LIVE, || Answer::text(StatusCode::OK, "live"))
            .get(path::READY, move || match ready() {
                Ok(()) => Answer::text(StatusCode::OK, "ready"),
                Err(missing) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, missing),
            })
    }

    /// `/metrics`: the text that this closure renders, in Prometheus' format, and what every process tells of itself.
    pub fn metrics(self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        process::started();
        self.get(path::METRICS, move || Answer {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: (render() + &process::render()).into(),
        })
    }

    /// One path.
    pub fn get(mut self, path: &'static str, handler: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        self.exact
            .insert(path, Box::new(move |_, _| Box::pin(std::future::ready(handler()))));
        self
    }

    /// Every path that starts so; the handler is given the rest of the path.
    pub fn get_below<F>(self, prefix: &'static str, handler: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.get_below_with(prefix, move |rest, _| handler(rest))
    }

    /// The same; the handler is given the request's head too.
    pub fn get_below_with<F>(
        mut self,
        prefix: &'static str,
        handler: impl Fn(String, Parts) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        self.prefixes.push((
            prefix,
            Box::new(move |rest, head| Box::pin(handler(rest.to_owned(), head.clone()))),
        ));
        self
    }

    async fn answer(&self, head: &Parts) -> Answer {
        let (method, path) = (&head.method, head.uri.path());
        let handler = self.exact.get(path).map(|handler| (handler, "")).or_else(|| {
            self.prefixes
                .iter()
                .find_map(|(prefix, handler)| Some((handler, path.strip_prefix(prefix)?)))
        });
        match handler {
            None => Answer::text(StatusCode::NOT_FOUND, "nothing here"),
            Some(_) if method != Method::GET && method != Method::HEAD => {
                Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here")
            }
            Some((handler, rest)) => handler(rest, head).await,
        }
    }
}

/// A bound admin server.
pub struct Server {
    listener: TcpListener,
    routes: Arc<Routes>,
}

impl Server {
    /// Binds the address.
    pub async fn bind(address: SocketAddr, routes: Routes) -> std::io::Result<Self> {
        Ok(Self::on(TcpListener::bind(address).await?, routes))
    }

    /// Serves on a listener that is bound already.
    pub fn on(listener: TcpListener, routes: Routes) -> Self {
        Self {
            listener,
            routes: Arc::new(routes),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped. Never returns.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let routes = self.routes.clone();
                    tokio::spawn(Box::pin(async move {
                        connection(stream, routes).await;
                        drop(place);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin server cannot accept");
                    tokio::time::sleep(limits::ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
}

/// Serves one connection, for programs with a listener of their own.
pub async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Arc<Routes>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        async move {
            let (head, _) = request.into_parts();
            let handled = routes.answer(&head);
            let answer = tokio::time::timeout(limits::ADMIN_TIME, handled)
                .await
                .unwrap_or_else(|_| Answer::text(StatusCode::GATEWAY_TIMEOUT, "no answer in time"));
            Ok::<_, Infallible>(respond(answer))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_TIME)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "admin connection");
    }
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(answer.content_type),
    );
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    async fn ask(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_answers_get_on_known_paths_and_nothing_else() {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = ready.clone();
        let routes = Routes::new(move || {
            asked
                .load(Ordering::SeqCst)
                .then_some(())
                .ok_or("no certificate yet".into())
        })
        .metrics(|| "weft_x 1\n".into())
        .get_below(path::TCP_PROBE_PREFIX, |rest| async move {
            Answer::text(StatusCode::OK, format!("port {rest}"))
        });
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), routes).await.unwrap();
        let address = server.address().unwrap();
        tokio::spawn(server.serve());

        assert!(ask(address, "GET /live").await.starts_with("HTTP/1.1 200"));
        let not_ready = ask(address, "GET /ready").await;
        assert!(
            not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("no certificate yet"),
            "{not_ready}"
        );
        ready.store(true, Ordering::SeqCst);
        assert!(ask(address, "GET /ready").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(address, "GET /metrics").await;
        assert!(
            metrics.contains("weft_x 1\n") && metrics.contains("weft_build_info{"),
            "{metrics}"
        );
        assert!(ask(address, "GET /probe/tcp/80").await.ends_with("port 80\n"));
        assert!(ask(address, "POST /live").await.starts_with("HTTP/1.1 405"));
        assert!(ask(address, "GET /other").await.starts_with("HTTP/1.1 404"));
        assert!(ask(address, "GET /live/../ready").await.starts_with("HTTP/1.1 404"));
    }
}
