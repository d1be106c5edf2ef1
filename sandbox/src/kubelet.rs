//! The kubelet: one task for each pod, from its first init container to its last sidecar.

pub mod env;
pub mod field;
pub mod token;
pub mod volumes;
