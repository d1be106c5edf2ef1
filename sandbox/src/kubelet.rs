//! The kubelet: one task for each pod, from its first init container to its last sidecar.

pub mod env;
pub mod field;
pub mod token;
pub mod volumes;
pub mod process;
pub mod probe;
pub mod status;
pub mod unit;
pub mod pod;
