//! Attempt after attempt: of weft's own only while certainly nothing was processed, by a rule's retry as that says (GEP-1731).
//!
//! Whatever the reason, a request is sent again only from its beginning: the answer has not begun, and all of the body that
//! was taken from the client is still here.

use super::{Go, client::Client, client::End, head::Request, head::Wants, try_one, within};
use crate::{
    connection::Connection,
    endpoint::{self, Lease, balance::random_below},
    fault::{Fault, Reason},
    record::Record,
};
use smallvec::SmallVec;
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep};
use weft_proto::limits;

/// What came of one attempt.
pub(super) enum Tried {
    /// The client has its answer.
    Ended(End),
    /// A status that the rule wants another attempt for.
    Again,
}

/// How many more attempts a rule allows, and how long before each.
struct Retries {
    left: u32,
    pause: Duration,
    most: Duration,
}

impl Retries {
    fn of(go: &Go) -> Self {
        let retry = go.decision.as_ref().and_then(|decision| decision.retry());
        let pause = retry.and_then(|retry| retry.backoff).unwrap_or(limits::RETRY_WAIT);
        Self {
            left: retry.map_or(0, |retry| retry.attempts),
            pause,
            most: pause.max(limits::RETRY_WAIT_MOST),
        }
    }

    /// The next pause: at least what the rule says, doubled with each attempt, and never the same for all clients.
    fn next(&mut self) -> Duration {
        self.left -= 1;
        let pause = self.pause;
        self.pause = (pause * 2).min(self.most);
        let spread = usize::try_from(pause.as_micros() / 2).unwrap_or(usize::MAX).max(1);
        pause + Duration::from_micros(random_below(spread) as u64)
    }
}

/// Endpoint after endpoint.
pub(super) async fn go_on(
    client: &mut Client<'_>,
    request: &Request,
    wants: &Wants,
    go: &mut Go,
    connection: &Arc<Connection>,
    record: &mut Record,
) -> Result<End, Fault> {
    let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
    let mut before: Option<Fault> = None;
    let mut retries = Retries::of(go);
    let has_rule = retries.left > 0;
    // Attempts since the rule last said something: those of weft's own.
    let mut own = 0;
    loop {
        own += 1;
        let lease = match (choose(go, &tried), before.take()) {
            (Ok(lease), _) => lease,
            (Err(_), Some(_)) if own == 1 => {
                // The rule's attempts may go where others have been; another endpoint is only better.
                tried.clear();
                choose(go, &tried)?
            }
            // The reason why the last one failed says more than that there is no other.
            (Err(_), Some(fault)) if has_rule && is_retried(fault.reason) => {
                next(&mut retries, client, fault, record).await?;
                (tried, own) = (SmallVec::new(), 0);
                continue;
            }
            (Err(_), Some(before)) => return Err(before),
            (Err(fault), None) => return Err(fault),
        };
        client.up = Default::default();
        go.retries_left = retries.left > 0;
        let deadline = go.backend_timeout.map(|time| Instant::now() + time);
        let ended = {
            let trying = pin!(try_one(client, request, wants, go, &lease, connection, record));
            within(trying, deadline).await
        };
        let ended = ended.unwrap_or_else(|| Err(Fault::new(Reason::BackendTimeout)));
        match ended {
            Ok(Tried::Ended(End::Tunnel(io, _))) => return Ok(End::Tunnel(io, Some(lease))),
            Ok(Tried::Ended(end)) => return Ok(end),
            Ok(Tried::Again) => {
                record.retried("status");
                tried.push(lease.address);
                drop(lease);
                wait(retries.next(), client).await?;
                (before, own) = (Some(Fault::new(Reason::NoEndpoint)), 0);
            }
            Err(fault) if client.has_begun() || !client.kept.is_complete() => return Err(fault),
            Err(fault) if is_own(&fault, has_rule) && own < limits::ATTEMPTS => {
                record.retried(fault.reason.label());
                if fault.reason == Reason::StreamRefused {
                    lease.failed();
                }
                // A connection that had ended says nothing about its endpoint.
                if !matches!(fault.reason, Reason::HopGone | Reason::ServerGone) {
                    tried.push(lease.address);
                }
                before = Some(fault);
            }
            Err(fault) if has_rule && is_retried(fault.reason) => {
                tried.push(lease.address);
                drop(lease);
                next(&mut retries, client, fault, record).await?;
                (before, own) = (Some(Fault::new(Reason::NoEndpoint)), 0);
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// The endpoint of the request's session, if it has one that was not tried; else any of its backend's.
fn choose(go: &Go, tried: &[SocketAddr]) -> Result<Lease, Fault> {
    let session = go.session.as_ref().and_then(|session| session.endpoint());
    match session.filter(|endpoint| !tried.contains(&endpoint.address)) {
        Some(endpoint) => Ok(Lease::new(endpoint.clone())),
        None => endpoint::choose(&go.backend, tried),
    }
}

/// Whether weft tries again of itself. Where a rule says how often, a connection that ended without an answer counts as one
/// of its attempts: the server may have ended it for this very request.
fn is_own(fault: &Fault, has_rule: bool) -> bool {
    fault.may_replay() && !(has_rule && fault.reason == Reason::ServerGone)
}

/// Whether a rule's retry is about this: there was no connection, it broke before an answer, or the attempt took too long.
pub(super) fn is_retried(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectRefused
            | Reason::ConnectTimeout
            | Reason::Unreachable
            | Reason::HopGone
            | Reason::StreamRefused
            | Reason::ServerGone
            | Reason::ServerReset
            | Reason::ServerHandshake
            | Reason::BackendTimeout
    )
}

/// Waits before the rule's next attempt, or ends with what the last one came to.
async fn next(retries: &mut Retries, client: &mut Client<'_>, fault: Fault, record: &mut Record) -> Result<(), Fault> {
    if retries.left == 0 {
        return Err(match fault.reason {
            Reason::BackendTimeout => fault,
            _ => Fault::because(Reason::RetriesFailed, fault),
        });
    }
    record.retried(fault.reason.label());
    wait(retries.next(), client).await
}

/// A pause, unless the client goes away.
async fn wait(pause: Duration, client: &mut Client<'_>) -> Result<(), Fault> {
    let mut timer = pin!(sleep(pause));
    poll_fn(|cx| {
        if let Poll::Ready(fault) = client.poll_gone(cx) {
            return Poll::Ready(Err(fault));
        }
        timer.as_mut().poll(cx).map(Ok)
    })
    .await
}
