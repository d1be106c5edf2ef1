//! The side that the pod's application meets: loopback only, every TLS is the application's, the controller says what a
//! destination is.

use std::net::{Ipv4Addr, Ipv6Addr};

use weft_proto::names::port;

use super::{Direction, LooksUp, Role, Takes};

/// The outbound role.
pub fn role() -> Role {
    Role {
        direction: Direction::Outbound,
        listeners: vec![
            (Ipv4Addr::LOCALHOST, port::OUTBOUND).into(),
            (Ipv6Addr::LOCALHOST, port::OUTBOUND).into(),
        ],
        takes: Takes::Redirected,
        ends_mesh_tls: false,
        looks_up: LooksUp::Controller,
        answers_check: true,
    }
}
