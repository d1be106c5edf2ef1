//! Which match of which rule lost when a table was compiled, to which other one, and by which comparison.

use std::fmt;

use crate::{precedence::Comparison, rule::Origin, validate::Invalid};

/// A rule, or one of its matches, that will never decide anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The rule that lost.
    pub loser: Origin,
    /// Which of its matches, from 0; `None`: the whole rule.
    pub matched: Option<u32>,
    /// Why.
    pub lost: Lost,
}

/// Why a rule or a match has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Another one takes the very same requests and comes first.
    Shadowed {
        /// The rule that takes them.
        winner: Origin,
        /// The comparison that decided between the two.
        by: Comparison,
    },
    /// It cannot be carried out. As a match it takes no request; as a rule it answers 500.
    Invalid(Invalid),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.loser)?;
        if let Some(index) = self.matched {
            write!(f, ", match {index}")?;
        }
        match &self.lost {
            Lost::Shadowed { winner, by } => {
                let what = if winner.kind.is_http() {
                    "requests"
                } else {
                    "connections"
                };
                write!(f, " has no effect: {winner} takes the same {what} and {by}")
            }
            Lost::Invalid(invalid) => write!(f, ": {invalid}"),
        }
    }
}
