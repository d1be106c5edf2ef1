//! Role: the few answers in which the sides of a pod differ. Everything else is one path for both.
//!
//! A role is a value, built by the module of its name, so that no stage exists twice.

pub mod gateway;
pub mod inbound;
pub mod outbound;

use std::net::SocketAddr;

/// Which way a connection goes, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the pod's application.
    Inbound,
    /// From the pod's application.
    Outbound,
    /// From outside, through a gateway.
    Gateway,
}

impl Direction {
    /// The name, as in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Gateway => "gateway",
        }
    }
}

/// Which original destinations a role takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// The pod's own addresses, on ports that are not weft's.
    OwnPod,
    /// Whatever the redirect brought, except weft's own listeners.
    Redirected,
    /// What was sent to the listener itself.
    Listener,
}

/// How a role learns what a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LooksUp {
    /// It is the application in this pod.
    Itself,
    /// The controller says.
    Controller,
}

/// One side of the pod.
#[derive(Clone, Debug)]
pub struct Role {
    /// Which way.
    pub direction: Direction,
    /// Where it listens.
    pub listeners: Vec<SocketAddr>,
    /// Which original destinations are accepted.
    pub takes: Takes,
    /// Whether TLS of the mesh is ended here.
    pub ends_mesh_tls: bool,
    /// Who says what a destination is.
    pub looks_up: LooksUp,
    /// Whether `weft-init` may ask here whether its redirects work.
    pub answers_check: bool,
}
