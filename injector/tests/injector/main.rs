//! The injector as its users meet it: pods in text, reviews over HTTPS, and whatever hostile callers think of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod golden;
mod refusals;
mod properties;
mod hostile;
mod https;
