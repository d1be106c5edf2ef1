//! HTTP through the engine, with peers scripted byte by byte and frame by frame, and with real libraries.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod declared;
mod gateway;
mod hostile;
mod libraries;
mod probes;
mod records;
mod reencrypt;
mod rules;
mod streams;
mod transparency;
mod upgrade;
mod world;
