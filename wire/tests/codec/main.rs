//! The codec's promises, row by row: RELIABILITY's threats by their ids, and properties over any input.

mod support;

mod framing;
mod bodies;
mod meaning;
mod rewriting;
mod downgrade;
mod first_bytes;
mod properties;
mod corpus;
mod against_hyper;
mod responses;
mod against_nginx;
mod fuzz;
