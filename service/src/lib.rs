//! What each long-running weft program does alike: logs, the admin server, drain, tasks, SPIFFE ids and TLS.
//!
//! Nothing here knows what a program is for. The second program that needs something moves it here.

pub mod admin;
pub mod drain;
pub mod log;
pub mod process;
pub mod spiffe;
pub mod task;
pub mod tls;
