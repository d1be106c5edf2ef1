//! Proves, through the running proxy and in both directions, that the redirects work. Rules that are listed are not
//! enough: a node may take them into a table that nobody reads.
//!
//! Outbound is a plain connection to an address that nothing answers: weft must. Inbound is a connection request that
//! enters the namespace through a pair of devices made for it, to a port that nothing listens on: weft must accept it.
//! After a failed proof the rules stay, so that a pod that starts all the same is closed and not open.

mod frame;
mod inbound;
mod outbound;

use crate::{
    apply,
    backend::Tool,
    config::Redirects,
    plan::{Chain, Family},
    pod::{self, Address},
};
use std::{
    fmt, thread,
    time::{Duration, Instant},
};
use weft_proto::names::container;

/// One family's rules, to be proven.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// What was asked for.
    pub redirects: &'a Redirects,
    /// With what it was set.
    pub tool: Tool,
    /// The pod's addresses, of both families.
    pub addresses: &'a [Address],
}

/// How far one family was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Connections in both directions landed on the proxy.
    Both,
    /// Outbound landed on the proxy; the inbound rules are there, but could not be tried for this reason.
    OutboundOnly(String),
    /// Nobody can reach the pod in this family, nor can the pod reach anybody.
    NoAddress,
}

/// Why a family is not proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{family}: {side} connections do not land on the proxy: {tried}, for {} s: {last}{}. \
     The rules stay in place, so that nothing passes around the proxy; `weft-init --undo` removes them.",
    .waited.as_secs(), .hint.as_deref().map(|hint| format!(". {hint}")).unwrap_or_default()
)]
pub struct Unproven {
    family: Family,
    side: &'static str,
    tried: String,
    waited: Duration,
    last: String,
    hint: Option<String>,
}

/// What one attempt met, other than the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missed {
    /// The connection was refused at once.
    Refused,
    /// Anything else, in words.
    Otherwise(String),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Otherwise(what) => f.write_str(what),
        }
    }
}

/// Longest pause between two attempts. A refused connection is known at once; there is no event to wait for.
const PAUSE: Duration = Duration::from_millis(200);

/// Proves one family, within the time until `deadline`, during which the proxy may still be starting.
pub fn prove(target: Target<'_>, started: Instant, deadline: Instant) -> Result<Proof, Unproven> {
    let Some(address) = pod::first(target.addresses, target.tool.family) else {
        return Ok(Proof::NoAddress);
    };
    let run = Run {
        target,
        started,
        deadline,
    };
    let mut outbound = outbound::Dial::new(target.tool.family, &address.interface);
    run.until_landed(Chain::Outbound, &outbound.describe(), |left| outbound.attempt(left))?;
    // The temporary route must be gone before the pair of devices brings its own.
    drop(outbound);

    let mut knock = match inbound::Knock::new(target.tool.family, target.redirects) {
        Ok(knock) => knock,
        Err(reason) => return Ok(Proof::OutboundOnly(reason)),
    };
    run.until_landed(Chain::Inbound, &knock.describe(), |left| knock.attempt(left))?;
    Ok(Proof::Both)
}

struct Run<'a> {
    target: Target<'a>,
    started: Instant,
    deadline: Instant,
}

impl Run<'_> {
    /// Attempts until one lands.
    fn until_landed(
        &self,
        chain: Chain,
        tried: &str,
        mut attempt: impl FnMut(Duration) -> Result<(), Missed>,
    ) -> Result<(), Unproven> {
        let caught_before = apply::caught(self.target.tool, chain);
        let mut pause = Duration::from_millis(10);
        let mut last = None;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            // At least one attempt, even when the other family has used the time up.
            if left.is_zero() && last.is_some() {
                break;
            }
            match attempt(left.max(Duration::from_millis(500))) {
                Ok(()) => return Ok(()),
                Err(missed) => last = Some(missed),
            }
            thread::sleep(pause.min(self.deadline.saturating_duration_since(Instant::now())));
            pause = (pause * 2).min(PAUSE);
        }
        let last = last.unwrap_or(Missed::Otherwise("nothing was tried".to_owned()));
        let caught = caught_before
            .zip(apply::caught(self.target.tool, chain))
            .map(|(before, now)| now > before);
        Err(Unproven {
            family: self.target.tool.family,
            side: if chain == Chain::Outbound {
                "outbound"
            } else {
                "inbound"
            },
            tried: tried.to_owned(),
            waited: self.started.elapsed(),
            hint: self.hint(chain, &last, caught),
            last: last.to_string(),
        })
    }

    /// What the rules' counters say about a failure.
    fn hint(&self, chain: Chain, last: &Missed, caught: Option<bool>) -> Option<String> {
        let redirects = self.target.redirects;
        let port = if chain == Chain::Outbound {
            redirects.outbound_port
        } else {
            redirects.inbound_port
        };
        let tool = self.target.tool;
        Some(match (caught?, last) {
            (true, Missed::Refused) => format!(
                "The redirect works, but nothing listens on port {port} (in {}): see why container {} does not run",
                tool.family,
                container::PROXY
            ),
            (true, _) => format!(
                "The redirect works, but what listens on port {port} did not answer as weft does: see the log of container {}",
                container::PROXY
            ),
            (false, _) => format!(
                "The rule of {} has counted nothing: the kernel does not use the rules of {tool}, or something before it takes \
                 the connection; see `{tool}-save` and `nft list ruleset`",
                chain.name()
            ),
        })
    }
}
