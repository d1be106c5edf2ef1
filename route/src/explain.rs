//! What became of each match on the way to an answer.

use std::fmt;

use crate::{rule::Origin, table::Candidate};

pub use crate::matcher::Refusal;

/// One match of one rule, as it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule's id.
    pub rule: u32,
    /// Where the rule was written.
    pub origin: Origin,
    /// Which of its matches, from 0.
    pub matched: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All its conditions hold, and it comes first.
    Taken,
    /// This condition does not hold.
    Refused(Refusal),
    /// Another one was taken before.
    NotReached,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, match {}: ", self.origin, self.matched)?;
        match &self.outcome {
            Outcome::Taken => f.write_str("taken"),
            Outcome::Refused(refusal) => write!(f, "no, {refusal}"),
            Outcome::NotReached => f.write_str("not reached"),
        }
    }
}

/// Who wants to know. The walk is compiled once for the answer alone and once for the explanation.
pub(crate) trait Trace {
    /// Every candidate is looked at, without the index.
    const EVERYTHING: bool;
    fn note(&mut self, candidate: &Candidate, refusal: Option<Refusal>, is_past: bool);
}

impl Trace for () {
    const EVERYTHING: bool = false;
    fn note(&mut self, _: &Candidate, _: Option<Refusal>, _: bool) {}
}

impl Trace for Vec<Step> {
    const EVERYTHING: bool = true;
    fn note(&mut self, candidate: &Candidate, refusal: Option<Refusal>, is_past: bool) {
        let outcome = match refusal {
            _ if is_past => Outcome::NotReached,
            Some(refusal) => Outcome::Refused(refusal),
            None => Outcome::Taken,
        };
        let rule = &candidate.rule;
        self.push(Step {
            rule: rule.id,
            origin: rule.origin.clone(),
            matched: candidate.matched,
            outcome,
        });
    }
}
