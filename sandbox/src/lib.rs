//! A small cluster without a cluster: pods are network namespaces of this machine, containers are its processes.

pub mod netns;
