//! weft's data plane: how the bytes travel.
//!
//! Every connection takes one path, and the modules below carry the names of its stages, in the order in which a
//! connection meets them. [`connection`] is one socket from its first byte to its last; [`exchange`] is one HTTP request.
//! What a request is entitled to is decided by the `weft-route` crate; here it is only carried out.

pub mod config;
pub mod app;
pub mod workers;
pub mod role;
pub mod io;

pub mod accept;
pub mod original_dst;
pub mod detect;
pub mod terminate;
pub mod front;
pub mod tables;
pub mod last_word;
pub mod authorize;
pub mod endpoint;
pub mod hop;
pub mod relay;

pub mod connection;
pub mod exchange;
pub mod h1;

pub mod fault;
pub mod respond;
pub mod record;
pub mod metrics;
pub mod access_log;
pub mod trace;

pub mod discovery;
pub mod identity;
pub mod explain;
pub mod admin;
