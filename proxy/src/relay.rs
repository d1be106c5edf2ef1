//! Carrying what was decided: bytes, requests with their bodies, upgrades. Nothing here decides where to.

pub mod bytes;
pub mod idle;

pub mod http;
pub mod upgrade;
pub mod websocket;
