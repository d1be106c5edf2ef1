//! The injector: a pod in, a meshed pod out, and the mutating webhook around that function.
//!
//! [`pod::inject`] is pure; everything that it needs to know arrives as a [`context::Context`]. [`admission`] turns a
//! request of the API server into a call of it, [`webhook`] carries that over HTTPS, [`certificate`] makes the webhook's
//! own certificate, and [`kubernetes`] keeps its CA in the cluster. What is left to others: which namespaces the webhook is called for (the API server's
//! `namespaceSelector`), the redirects (`weft-init`), and what a proxy does with what is written here (`weft-proxy`).

pub mod arguments;
pub mod context;
pub mod decide;
pub mod annotations;
pub mod refuse;
pub mod neighbours;
pub mod probes;
pub mod volumes;
pub mod containers;
pub mod pod;
pub mod patch;
pub mod admission;
pub mod pod_security;
pub mod metrics;
pub mod health;
pub mod certificate;
pub mod kubernetes;
pub mod webhook;
pub mod audit;
pub mod app;

pub use context::{Context, Namespace, Settings};
pub use pod::{Outcome, inject};
pub use refuse::Refusal;
