//! A small cluster without a cluster: pods are network namespaces of this machine, containers are its processes.

pub mod netns;
pub mod object;
pub mod fields;
pub mod images;
pub mod manifest;
pub mod pod_check;
pub mod store;
pub mod paths;
pub mod cluster;
pub mod address;
pub mod endpoints;
pub mod nat;
pub mod network;
pub mod dns;
pub mod root;
pub mod launch;
pub mod enter;
pub mod kubelet;
pub mod workloads;
pub mod inject;
pub mod supervisor;
pub mod cleanup;
pub mod table;
pub mod client;
pub mod check;
