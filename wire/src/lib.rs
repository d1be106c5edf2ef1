//! Bytes from the network to typed heads, and back: no I/O, no clock, no task.
//!
//! - [`h1`]: HTTP/1 for both roles: heads with their order, case and bytes, what they mean, bodies, and the framing guard.
//! - [`h2`]: what an HTTP/2 request must satisfy before weft routes it or writes it as HTTP/1.
//! - [`host`]: the one canonical form of a host.
//! - [`hello`]: a ClientHello's server name and ALPN ids.
//! - [`sniff`]: the protocol from the first bytes of a connection.
//!
//! Reading and writing sockets, timers, routing and pools are left to the proxy. All limits are `weft_proto::limits`.

pub mod h1;
pub mod h2;
pub mod hello;
pub mod host;
pub mod sniff;
