//! Whole sandboxes, driven by the `weft` command as a person would. As root on Linux.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod harness;
mod services;
mod workloads;
mod containers;
mod commands;
mod mesh;
