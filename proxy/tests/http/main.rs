//! HTTP through the engine, with peers scripted byte by byte and frame by frame, and with real libraries.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod cors;
mod declared;
mod gateway;
mod hostile;
mod libraries;
mod mirrors;
mod probes;
mod records;
mod reencrypt;
mod retries;
mod rules;
mod sessions;
mod streams;
mod transparency;
mod upgrade;
mod world;
