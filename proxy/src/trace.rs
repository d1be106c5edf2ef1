//! Spans: one for each HTTP request that is sampled, as a child of the span in which it was sent.
//!
//! Without an endpoint to export to, there is no tracer, and a request's `traceparent` and `tracestate` are fields like all
//! others. With one, what the parent says counts, and where there is no parent, the ratio; a request that is not sampled is
//! passed on untouched. Of a request that comes from another weft, that one has decided. What a span says is `span.rs`'
//! matter, how spans leave is `export.rs`'.

pub mod context;

mod export;
mod span;

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use weft_proto::limits;
use weft_route::HttpView;

use crate::{
    config::{Config, Otlp},
    metrics,
    record::Facts,
};
use context::{Context, Parent};

pub use export::run;
pub use span::{Ended, Open};

/// Random bits of a `trace-id` by which it is sampled: the same in every system that samples by them.
const RANDOM_BITS: u32 = 56;

/// What waits to be exported.
enum Message {
    Span(Box<opentelemetry_proto::tonic::trace::v1::Span>),
    /// Everything before it is to be exported at once; told when that is done.
    Flush(oneshot::Sender<()>),
}

/// Decides which requests have spans, and takes the spans that ended.
pub struct Tracer {
    queue: mpsc::Sender<Message>,
    /// Rung when there is enough for a batch.
    full: Notify,
    /// Trace ids whose random bits are less are not sampled.
    least: u64,
    /// Until the exporter takes it.
    taken_from: Mutex<Option<mpsc::Receiver<Message>>>,
}

impl Tracer {
    /// A tracer, where there is an endpoint to export to.
    pub fn new(config: &Config) -> Option<Self> {
        let Otlp { sampling, .. } = config.otlp.as_ref()?;
        let (queue, taken_from) = mpsc::channel(limits::SPANS);
        Some(Self {
            queue,
            full: Notify::new(),
            least: ((1.0 - sampling) * (1u64 << RANDOM_BITS) as f64) as u64,
            taken_from: Mutex::new(Some(taken_from)),
        })
    }

    /// Begins the span of a request, where it is to have one. `version`: of HTTP, as the client speaks it.
    pub fn begin(&self, request: &impl HttpView, version: &'static str, facts: &Facts) -> Option<Box<Open>> {
        let (context, parent) = match Parent::of(request) {
            Parent::Known(parent) if parent.sampled => (parent.child(), Some(parent.span)),
            Parent::Known(_) => return None,
            // The weft before this one has looked at the same request.
            Parent::None | Parent::Malformed if facts.mesh => return None,
            Parent::None | Parent::Malformed => {
                let trace = context::new_trace();
                if !self.samples(trace) {
                    return None;
                }
                (Context::begin(trace), None)
            }
        };
        Some(Box::new(Open::new(context, parent, request, version)))
    }

    fn samples(&self, trace: u128) -> bool {
        let random = trace as u64 & ((1 << RANDOM_BITS) - 1);
        random >= self.least
    }

    /// Takes a span that has ended. Never waits: what finds no place is dropped, and counted.
    pub fn end(&self, open: Open, ended: &Ended<'_>) {
        let span = Box::new(open.end(ended));
        if self.queue.try_send(Message::Span(span)).is_err() {
            return metrics::spans("dropped", 1);
        }
        if self.queue.max_capacity() - self.queue.capacity() >= limits::SPAN_BATCH {
            self.full.notify_one();
        }
    }

    /// Returns when everything that has ended was exported, or could not be.
    pub async fn flush(&self) {
        let (done, told) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            self.full.notify_one();
            let _ = told.await;
        }
    }

    fn take_queue(&self) -> Option<mpsc::Receiver<Message>> {
        self.taken_from.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests;
