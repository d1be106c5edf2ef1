//! Redirects a pod's TCP to its proxy, and proves that it does.
//!
//! The way from arguments to a proven pod, in the order of the modules: arguments become types (`config`), types become
//! named rules (`plan`), rules become the text of one transaction (`render`), the node's own backend is found
//! (`backend`), the transaction is made (`apply`), and real connections show that it works (`check`).
//! What happens to a connection once it has reached the proxy is the proxy's affair.

pub mod config;
pub mod plan;
pub mod render;
pub mod backend;
pub mod apply;
pub mod pod;
pub mod netlink;
pub mod check;
