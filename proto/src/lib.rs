//! Every contract between weft's programs: names, typed arguments, and (feature `rpc`) discovery and identity.

#[cfg(feature = "rpc")]
pub mod convert;
pub mod duration;
pub mod environment;
pub mod limits;
pub mod meshed;
pub mod names;
pub mod probes;
#[cfg(feature = "rpc")]
pub mod rpc;
pub mod skip;
