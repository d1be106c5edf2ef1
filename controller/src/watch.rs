//! Where the cluster's objects come from: one interface, and two sources behind it.
//!
//! A source sends batches of changes and says when it has told everything that is there. What a bad object is, and that the
//! good ones go on working, is decided in [`parse`], alike for both.

pub mod directory;
pub mod health;
pub mod kubernetes;
pub mod parse;
pub mod secrets;

use std::{future::Future, pin::Pin};

use tokio::sync::mpsc;

pub use health::Health;

use crate::cluster::Change;

/// Changes that belong together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they happened.
    pub changes: Vec<Change>,
    /// With this batch everything that there is has been told.
    pub synced: bool,
}

/// Where a source sends its batches; bounded, so that a slow reader slows the source.
pub type Sink = mpsc::Sender<Batch>;

/// Something that knows the cluster's objects and follows them.
pub trait Source: Send {
    /// Follows until the sink is closed. Errors are the source's own to log and to outlive.
    fn follow(self: Box<Self>, sink: Sink) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
