//! A compiled rule: its labels, its edits and its backends, ready for use; and how one backend is drawn by weight.

use std::{fmt, sync::Arc};

use crate::{
    edit::Edit,
    rule::{Origin, Retry, Timeouts},
    session::Sessions,
};

/// A rule with everything that can be computed before the first request.
#[derive(Debug)]
pub struct Compiled {
    /// Position among the rules that the table was compiled from: callers keep their handles of the rule by it.
    pub id: u32,
    /// Where the rule was written.
    pub origin: Origin,
    /// `namespace/name` of the route: the label in metrics and logs.
    pub route: Arc<str>,
    /// The rule's name, else its number: the label in metrics and logs.
    pub rule: Arc<str>,
    /// Limits of a request.
    pub timeouts: Timeouts,
    /// When a request is tried again; within the limits of [`crate::limits`].
    pub retry: Option<Box<Retry>>,
    /// How requests stay at one endpoint. `None`: they do not, or there is no key to sign with.
    pub sessions: Option<Box<Sessions>>,
    /// What is done to a request, in the order in which it was written.
    pub edits: Box<[Edit]>,
    /// Where requests go. In the order in which they were written.
    pub shares: Box<[Share]>,
    /// Sum of all weights up to and with each share's.
    pub(crate) sums: Box<[u64]>,
    /// One of the edits, or of those of a share, is for CORS.
    pub(crate) has_cors: bool,
    /// Set where the rule cannot be carried out: every request that it takes is answered 500.
    pub(crate) invalid: Option<Arc<str>>,
}

/// A backend's part of a rule.
#[derive(Debug)]
pub struct Share {
    /// Index of the backend in its destination; the reason where the reference is not valid.
    pub backend: Result<u32, Arc<str>>,
    /// Its share is this, of the sum of all.
    pub weight: u32,
    /// For the requests that go to this backend only, after those of the rule.
    pub edits: Box<[Edit]>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the backend with this index in its destination.
    Backend(u32),
    /// Nowhere: answer 500 (a gRPC call: `UNAVAILABLE`), unless an edit answers the request.
    None(NoTarget),
}

/// Why a rule has nowhere to send a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// It names no backend.
    NoBackends,
    /// The weights of all its backends are zero.
    NoWeight,
    /// The reference that was drawn is not valid.
    Reference(Arc<str>),
    /// One of the rule's filters is not valid.
    Rule(Arc<str>),
}

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoTarget::NoBackends => f.write_str("the rule names no backend"),
            NoTarget::NoWeight => f.write_str("the weights of all the rule's backends are zero"),
            NoTarget::Reference(reason) => write!(f, "the rule's backend is not valid: {reason}"),
            NoTarget::Rule(reason) => write!(f, "the rule is not valid: {reason}"),
        }
    }
}

impl Compiled {
    /// Draws a share by weight; `random` is uniform over all of `u64`.
    pub(crate) fn draw(&self, random: u64) -> (Option<u32>, Target) {
        if let Some(reason) = &self.invalid {
            return (None, Target::None(NoTarget::Rule(reason.clone())));
        }
        let total = match self.sums.last() {
            None => return (None, Target::None(NoTarget::NoBackends)),
            Some(0) => return (None, Target::None(NoTarget::NoWeight)),
            Some(total) => *total,
        };
        // The upper half of the product is uniform below `total`, without the bias towards small values of a remainder.
        let point = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        // A share of weight 0 has the same sum as the one before it, and so is never the first that exceeds the point.
        let index = self.sums.partition_point(|sum| *sum <= point);
        let target = match &self.shares[index].backend {
            Ok(backend) => Target::Backend(*backend),
            Err(reason) => Target::None(NoTarget::Reference(reason.clone())),
        };
        (Some(index as u32), target)
    }
}
