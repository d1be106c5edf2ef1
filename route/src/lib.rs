//! What a request is entitled to: the one library of route semantics, for every kind of route and on every side.
//!
//! Three verbs. [`Table::compile`] turns neutral [`rule::Rule`]s into an immutable table and says which of them lost;
//! [`Table::decide`] answers an [`Ask`]; [`Table::explain`] gives the same answer with every refusal written down.
//! Pure: no I/O, no clock, no randomness of its own, no Kubernetes. Where a decision goes, and how, is the caller's.

pub mod rule;
pub mod validate;
pub mod ask;
pub mod host;
pub mod listener;
pub mod canonical;
mod matcher;
pub mod precedence;
pub mod conflict;
mod compile;
mod connection;
mod table;
mod decide;
mod explain;
pub mod backend;
pub mod edit;
pub mod session;
pub mod limits;

pub use ask::{Ask, HttpView};
pub use backend::{Compiled, NoTarget, Share, Target};
pub use conflict::{Conflict, Lost};
pub use decide::{Decision, NoRoute};
pub use explain::{Outcome, Step};
pub use host::Host;
pub use table::Table;
