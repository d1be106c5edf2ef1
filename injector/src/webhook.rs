//! HTTPS around [`crate::admission::review`]: sizes, times and numbers of calls are bounded, and nothing is remembered
//! from one call to the next. Which certificate is served, and with which settings, can change while it runs.
//!
//! A body that is too long, late or not a review gets an HTTP error: the API server takes that for a failed call, and
//! its `failurePolicy` decides. Everything that can be answered is answered with 200.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{timeout, timeout_at},
};
use tracing::{debug, info, warn};
use weft_proto::limits;
use weft_service::{drain, task, tls};

use crate::{
    admission::{self, Endpoint, Terms, Verdict},
    certificate::Issued,
    context::Settings,
    metrics::Metrics,
};

/// Where reviews are posted. The API server adds a query of its own.
pub const PATH: &str = "/inject";
/// Where they are posted from namespaces that are labelled `weft.dev/mtls=strict`.
pub const STRICT_PATH: &str = "/inject/strict";
/// Where they are posted from namespaces whose Pod Security forbids what weft adds to a pod.
pub const POD_SECURITY_PATH: &str = "/inject/pod-security";

/// What the webhook works with; all of it may change while it runs.
#[derive(Clone)]
pub struct Webhook {
    /// What is written into pods.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Why no pod of this cluster can be meshed, where none can.
    pub unsupported: watch::Receiver<Option<Arc<str>>>,
    /// The certificate that is served. `None` ends every connection.
    pub issued: watch::Receiver<Option<Issued>>,
    /// When to stop.
    pub signal: drain::Signal,
    /// What happened so far.
    pub metrics: Arc<Metrics>,
}

struct Shared {
    webhook: Webhook,
    calls: Semaphore,
}

/// Serves until the signal says so; open calls are finished first.
pub async fn serve(listener: TcpListener, webhook: Webhook) {
    let signal = webhook.signal.clone();
    let shared = Arc::new(Shared {
        webhook,
        calls: Semaphore::new(limits::ADMISSION_CALLS),
    });
    let places = Arc::new(Semaphore::new(limits::ADMISSION_CONNECTIONS));
    loop {
        let accepted = async {
            let place = places
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = signal.draining() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let shared = shared.clone();
                task::spawn("webhook connection", async move {
                    connection(stream, client, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the webhook cannot accept");
                tokio::time::sleep(limits::ACCEPT_BACK_OFF).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(limits::ADMISSION_CONNECTIONS).expect("the limit is small");
    tokio::select! {
        _ = places.acquire_many(all) => {}
        () = signal.closed() => {}
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, shared: Arc<Shared>) {
    let config = shared
        .webhook
        .issued
        .borrow()
        .as_ref()
        .map(|issued| issued.config.clone());
    let Some(config) = config else { return };
    let accepted = timeout(
        limits::HANDSHAKE_TIME,
        tokio_rustls::TlsAcceptor::from(config).accept(stream),
    )
    .await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            shared.webhook.metrics.handshakes_failed.fetch_add(1, Relaxed);
            warn!(%client, %error, "the TLS handshake with the webhook failed; the API server must trust its CA (caBundle)");
            return;
        }
        Err(_) => {
            shared.webhook.metrics.handshakes_failed.fetch_add(1, Relaxed);
            debug!(%client, "no TLS handshake in time");
            return;
        }
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(tls::H2);
    let activity = Arc::new(Activity::default());
    let service = {
        let (shared, activity) = (shared.clone(), activity.clone());
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let (shared, activity) = (shared.clone(), activity.clone());
            async move {
                let _busy = activity.begin();
                Ok::<_, Infallible>(answer(request, &shared).await)
            }
        })
    };
    let signal = &shared.webhook.signal;
    let ended = if is_h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(limits::H2_PING)
            .keep_alive_timeout(limits::H2_PING_ANSWER)
            .max_concurrent_streams(u32::try_from(limits::ADMISSION_CALLS).ok())
            .max_header_list_size(u32::try_from(limits::H2_HEADER_LIST).unwrap_or(u32::MAX));
        let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = &mut served => Some(ended),
            () = activity.idle_or(signal) => {
                served.as_mut().graceful_shutdown();
                timeout(limits::ADMISSION_TIME, served).await.ok()
            }
        }
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEAD_TIME)
            .max_buf_size(limits::HEAD);
        let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = &mut served => Some(ended),
            () = activity.idle_or(signal) => {
                served.as_mut().graceful_shutdown();
                timeout(limits::ADMISSION_TIME, served).await.ok()
            }
        }
    };
    if let Some(Err(error)) = ended {
        debug!(%client, %error, "webhook connection");
    }
}

/// What tells an idle connection from one that is used.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    open: AtomicUsize,
}

struct Busy(Arc<Activity>);

impl Activity {
    fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Busy(self.clone())
    }

    /// Returns when nothing was asked for long, or when the program is to end.
    async fn idle_or(&self, signal: &drain::Signal) {
        const LONG: Duration = limits::CLIENT_IDLE;
        let idle = async {
            loop {
                let before = self.begun.load(Relaxed);
                tokio::time::sleep(LONG).await;
                if self.begun.load(Relaxed) == before && self.open.load(Relaxed) == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            () = idle => {}
            () = signal.draining() => {}
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// What is said to a caller that cannot be answered with a review.
struct Unanswered(StatusCode, String);

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let deadline = tokio::time::Instant::now() + limits::ADMISSION_TIME;
    let answered = timeout_at(deadline, review(request, shared)).await.unwrap_or_else(|_| {
        shared.webhook.metrics.late.fetch_add(1, Relaxed);
        Err(Unanswered(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not done in {:?}", limits::ADMISSION_TIME),
        ))
    });
    match answered {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(Unanswered(status, why)) => {
            warn!(%status, why, "a call to the webhook failed");
            respond(status, "text/plain; charset=utf-8", why + "\n")
        }
    }
}

async fn review(request: Request<Incoming>, shared: &Shared) -> Result<Vec<u8>, Unanswered> {
    let unanswered = |status, why: &str| Err(Unanswered(status, why.to_owned()));
    let endpoint = match request.uri().path() {
        PATH => Endpoint::Inject,
        STRICT_PATH => Endpoint::InjectStrict,
        POD_SECURITY_PATH => Endpoint::PodSecurity,
        _ => return unanswered(StatusCode::NOT_FOUND, "nothing here"),
    };
    if request.method() != Method::POST {
        return unanswered(StatusCode::METHOD_NOT_ALLOWED, "an AdmissionReview is posted");
    }
    let media = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        return unanswered(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "an AdmissionReview is application/json",
        );
    }
    // Only as many bodies are held as are worked on.
    let _call = shared.calls.acquire().await.expect("the semaphore is never closed");
    let metrics = &shared.webhook.metrics;
    let body = match Limited::new(request.into_body(), limits::ADMISSION).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            metrics.malformed.fetch_add(1, Relaxed);
            let why = format!("the body is longer than {} bytes", limits::ADMISSION);
            return Err(Unanswered(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Err(error) => {
            return Err(Unanswered(
                StatusCode::BAD_REQUEST,
                format!("the body cannot be read: {error}"),
            ));
        }
    };
    let settings = shared.webhook.settings.borrow().clone();
    // A long one takes a while: others must not wait behind it.
    let unsupported = shared.webhook.unsupported.borrow().clone();
    let reviewed = tokio::task::spawn_blocking(move || {
        let terms = Terms {
            settings: &settings,
            endpoint,
            unsupported: unsupported.as_deref(),
        };
        admission::review(&body, &terms)
    })
    .await;
    let answer = match reviewed {
        Ok(Ok(answer)) => answer,
        Ok(Err(malformed)) => {
            metrics.malformed.fetch_add(1, Relaxed);
            return Err(Unanswered(StatusCode::BAD_REQUEST, malformed.to_string()));
        }
        Err(error) => {
            tracing::error!(%error, "a review ended with a panic");
            return unanswered(StatusCode::INTERNAL_SERVER_ERROR, "the review failed");
        }
    };
    match &answer.verdict {
        Verdict::Injected => {
            metrics.injected.fetch_add(1, Relaxed);
            info!(pod = answer.about, "injected");
        }
        Verdict::Unchanged(why) => {
            metrics.unchanged.fetch_add(1, Relaxed);
            info!(pod = answer.about, why, "left alone");
        }
        Verdict::Refused(why) => {
            metrics.refused.fetch_add(1, Relaxed);
            warn!(pod = answer.about, why, "refused");
        }
    }
    Ok(answer.body)
}

fn respond(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}
