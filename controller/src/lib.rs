//! The controller: watches the cluster, compiles routes, answers proxies, signs workload certificates.
//!
//! The modules in the order in which an object becomes an answer, then who signs certificates, then what runs it all.
//! [`api`] is the way to an API server, for those that talk to one.

pub mod api;
pub mod objects;
pub mod watch;
pub mod translate;
pub mod cluster;
pub mod gateway;
pub mod plan;
pub mod session_keys;
pub mod answers;
pub mod status;
pub mod infrastructure;
pub mod listen;
pub mod serve;
pub mod issue;
pub mod leader;
pub mod unmeshed;
pub mod metrics;
pub mod config;
pub mod app;
