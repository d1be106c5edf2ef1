//! Load at a fixed rate over several protocols at once, for tests that break something meanwhile: `weft-apps client load`.
//!
//! Open loop: requests start when their time has come, whether or not earlier ones were answered, so that a pause shows as what it is.
//! Nothing is retried: what a user would have seen as a failure is counted as one, with its reason and the moment. It ends after its
//! time, or at SIGTERM, and prints one line of JSON either way.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::Channel;

use crate::sample::{self, sample_client::SampleClient};

/// Failures that are told one by one; the others are only counted.
const TOLD: usize = 20;
/// Pause before a WebSocket that could not be opened, or was cut, is tried again.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Load {
    /// http://HOST:PORT/PATH, asked over HTTP/1.1 with kept-alive connections.
    #[arg(long)]
    http: Option<Uri>,
    /// HTTP requests in a second.
    #[arg(long, default_value_t = 100)]
    http_rate: u32,
    /// A new connection for each HTTP request.
    #[arg(long)]
    close: bool,
    /// http://HOST:PORT of the gRPC service, called on one connection.
    #[arg(long)]
    grpc: Option<Uri>,
    /// gRPC calls in a second.
    #[arg(long, default_value_t = 100)]
    grpc_rate: u32,
    /// Instead of unary calls, streams of so many replies, 200 ms apart.
    #[arg(long, default_value_t = 0)]
    grpc_messages: u32,
    /// ws://HOST:PORT/echo
    #[arg(long)]
    websocket: Option<Uri>,
    /// WebSockets that are kept open, each with an echo a second; one that ends is opened again.
    #[arg(long, default_value_t = 10)]
    websockets: u32,
    /// Seconds, unless SIGTERM comes first.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Milliseconds after which a request has failed.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
}

/// What became of the requests of one protocol.
#[derive(Default)]
struct Tally {
    requests: u64,
    failed: u64,
    reasons: BTreeMap<String, u64>,
    /// The first failures: seconds since the start, and the reason.
    first: Vec<(f64, String)>,
    last_failure: Option<f64>,
    pods: BTreeMap<String, u64>,
    /// WebSockets: how they ended.
    closed: BTreeMap<String, u64>,
    /// Answers by their time, in powers of two of a millisecond.
    times: [u64; 20],
    slowest: Duration,
}

type Shared = Arc<Mutex<Tally>>;

fn with<T>(tally: &Shared, change: impl FnOnce(&mut Tally) -> T) -> T {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Tally {
    fn fail(&mut self, start: Instant, reason: String) {
        let at = (start.elapsed().as_secs_f64() * 100.0).round() / 100.0;
        self.failed += 1;
        self.last_failure = Some(at);
        if self.first.len() < TOLD {
            self.first.push((at, reason.clone()));
        }
        *self.reasons.entry(reason).or_default() += 1;
    }

    fn answered(&mut self, took: Duration, pod: String) {
        let slot = (u128::BITS - took.as_millis().leading_zeros()) as usize;
        self.times[slot.min(self.times.len() - 1)] += 1;
        self.slowest = self.slowest.max(took);
        *self.pods.entry(pod).or_default() += 1;
    }

    /// The upper bound of the time in which this share of the answers came.
    fn within(&self, share: f64) -> u64 {
        let all: u64 = self.times.iter().sum();
        let mut left = (all as f64 * share).ceil() as u64;
        for (slot, count) in self.times.iter().enumerate() {
            if left <= *count {
                return 1 << slot;
            }
            left -= count;
        }
        1 << self.times.len()
    }

    fn told(&self) -> Value {
        json!({
            "requests": self.requests,
            "failed": self.failed,
            "reasons": self.reasons,
            "first_failures": self.first,
            "last_failure": self.last_failure,
            "pods": self.pods,
            "closed": self.closed,
            "p50_ms_below": self.within(0.5),
            "p99_ms_below": self.within(0.99),
            "slowest_ms": u64::try_from(self.slowest.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Runs until the time is over or SIGTERM comes; the result as JSON.
pub async fn run(load: Load) -> Result<Value> {
    let start = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let limit = Duration::from_millis(load.timeout);
    let mut parts: Vec<(&str, Shared)> = Vec::new();
    let mut running = JoinSet::new();
    let mut part = |name| {
        let tally = Shared::default();
        parts.push((name, tally.clone()));
        tally
    };

    if let Some(url) = load.http {
        let pool = Arc::new(Pool::new(url, load.close)?);
        let call = move || {
            let pool = pool.clone();
            async move { pool.get().await }
        };
        running.spawn(steady(
            load.http_rate,
            limit,
            start,
            stopped.clone(),
            part("http"),
            call,
        ));
    }
    if let Some(url) = load.grpc {
        let channel = Channel::builder(url).connect_timeout(limit).connect_lazy();
        let messages = load.grpc_messages;
        let call = move || grpc(channel.clone(), messages);
        running.spawn(steady(
            load.grpc_rate,
            limit,
            start,
            stopped.clone(),
            part("grpc"),
            call,
        ));
    }
    if let Some(url) = load.websocket {
        let tally = part("websocket");
        for number in 0..load.websockets {
            // Spread over the second.
            let delay = Duration::from_secs(1) * number / load.websockets.max(1);
            running.spawn(keep_open(
                url.clone(),
                delay,
                limit,
                start,
                stopped.clone(),
                tally.clone(),
            ));
        }
    }
    ensure!(!parts.is_empty(), "nothing to load: give --http, --grpc or --websocket");

    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(load.seconds)) => {}
        _ = terminated.recv() => {}
    }
    let seconds = start.elapsed().as_secs_f64();
    stop.send_replace(true);
    while running.join_next().await.is_some() {}
    let mut result = json!({"seconds": (seconds * 10.0).round() / 10.0});
    for (name, tally) in parts {
        result[name] = with(&tally, |tally| tally.told());
    }
    Ok(result)
}

/// Starts a call each time it is due, and waits at the end for those that are open.
async fn steady<F>(
    rate: u32,
    limit: Duration,
    start: Instant,
    mut stopped: watch::Receiver<bool>,
    tally: Shared,
    call: impl Fn() -> F,
) where
    F: Future<Output = Result<String>> + Send + 'static,
{
    let mut clock = interval(Duration::from_secs(1) / rate.max(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        while open.try_join_next().is_some() {}
        let (tally, call) = (tally.clone(), call());
        open.spawn(async move {
            let begin = Instant::now();
            with(&tally, |tally| tally.requests += 1);
            let result = timeout(limit, call).await.context("timeout").and_then(|done| done);
            with(&tally, |tally| match result {
                Ok(pod) => tally.answered(begin.elapsed(), pod),
                Err(error) => tally.fail(start, format!("{error:#}")),
            });
        });
    }
    while open.join_next().await.is_some() {}
}

/// Kept-alive HTTP/1.1 connections to one address.
struct Pool {
    url: Uri,
    authority: String,
    close: bool,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Pool {
    fn new(url: Uri, close: bool) -> Result<Self> {
        let authority = url.authority().context("the URL names no host")?.to_string();
        Ok(Self {
            url,
            authority,
            close,
            idle: Mutex::default(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Empty<Bytes>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self) -> Result<SendRequest<Empty<Bytes>>> {
        while let Some(mut idle) = { self.lock().pop() } {
            // One that the server has closed is not ready any more.
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = super::client::dial(&self.url).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One request; the pod that answered.
    async fn get(&self) -> Result<String> {
        let mut connection = self.connection().await?;
        let path = self.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = Request::get(path)
            .header(header::HOST, &self.authority)
            .body(Empty::new())?;
        let response = connection.send_request(request).await?;
        let field = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (status, pod, error) = (response.status(), field("x-pod"), field("weft-error"));
        response.into_body().collect().await.context("the response broke off")?;
        if !self.close {
            self.lock().push(connection);
        }
        ensure!(status.is_success(), "{} {}", status.as_u16(), error.unwrap_or_default());
        Ok(pod.unwrap_or_else(|| "unknown".into()))
    }
}

/// One unary call, or a stream of replies; the pod that answered.
async fn grpc(channel: Channel, messages: u32) -> Result<String> {
    let said = |status: tonic::Status| {
        let told = status
            .metadata()
            .get("weft-error")
            .and_then(|value| value.to_str().ok());
        anyhow::anyhow!("{:?} {}", status.code(), told.unwrap_or(status.message()))
    };
    let mut client = SampleClient::new(channel);
    let mut request = sample::Request {
        text: "hello".into(),
        ..sample::Request::default()
    };
    if messages == 0 {
        return Ok(client.unary(request).await.map_err(said)?.into_inner().pod);
    }
    request.messages = messages;
    request.delay_ms = 200;
    let mut replies = client.server_stream(request).await.map_err(said)?.into_inner();
    let (mut received, mut pod) = (0, String::new());
    while let Some(reply) = replies.message().await.map_err(said)? {
        received += 1;
        pod = reply.pod;
    }
    ensure!(received == messages, "{received} of {messages} replies");
    Ok(pod)
}

/// Keeps one WebSocket open: an echo a second; when it is closed with a code, that is counted and it is opened again.
async fn keep_open(
    url: Uri,
    delay: Duration,
    limit: Duration,
    start: Instant,
    mut stopped: watch::Receiver<bool>,
    tally: Shared,
) {
    tokio::time::sleep(delay).await;
    while !*stopped.borrow() {
        let ended = tokio::select! {
            ended = one_websocket(&url, limit, &tally) => ended,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match ended {
            Ok(code) => with(&tally, |tally| *tally.closed.entry(code.to_string()).or_default() += 1),
            Err(error) => {
                with(&tally, |tally| {
                    *tally.closed.entry("cut".into()).or_default() += 1;
                    tally.fail(start, format!("{error:#}"));
                });
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// The code with which the server closed it; any other end is an error. `requests` counts openings and echoes.
async fn one_websocket(url: &Uri, limit: Duration, tally: &Shared) -> Result<u16> {
    with(tally, |tally| tally.requests += 1);
    let (mut socket, _) = timeout(limit, tokio_tungstenite::connect_async(url))
        .await
        .context("opening took too long")?
        .context("not opened")?;
    let mut clock = interval(Duration::from_secs(1));
    let mut sent: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = clock.tick() => {
                if let Some(since) = sent {
                    ensure!(since.elapsed() < limit, "no echo");
                } else {
                    with(tally, |tally| tally.requests += 1);
                    sent = Some(Instant::now());
                    // One that is being closed cannot be written to: its Close frame is still to be read.
                    let _ = socket.send(Message::text("hello")).await;
                }
            }
            message = socket.next() => match message.context("it ended without a Close frame")? {
                Ok(Message::Close(frame)) => {
                    while let Some(Ok(_)) = socket.next().await {}
                    return Ok(frame.map_or(1005, |frame| u16::from(frame.code)));
                }
                Ok(_) => {
                    if let Some(since) = sent.take() {
                        with(tally, |tally| tally.answered(since.elapsed(), "echo".into()));
                    }
                }
                Err(error) => return Err(error).context("cut"),
            },
        }
    }
}
