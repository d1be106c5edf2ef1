//! Skeleton.
pub mod answers;
pub mod cluster;
pub mod listen;
pub mod objects;
pub mod plan;
pub mod serve;
pub mod translate;
pub mod watch;
