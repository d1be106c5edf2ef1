//! The side that other pods meet: every address, the mesh's TLS ended, the application dialled at the pod's own address.

use std::net::{Ipv4Addr, Ipv6Addr};

use weft_proto::names::port;

use super::{Direction, LooksUp, Role, Takes};

/// The inbound role.
pub fn role() -> Role {
    Role {
        direction: Direction::Inbound,
        listeners: vec![
            (Ipv4Addr::UNSPECIFIED, port::INBOUND).into(),
            (Ipv6Addr::UNSPECIFIED, port::INBOUND).into(),
        ],
        takes: Takes::OwnPod,
        ends_mesh_tls: true,
        looks_up: LooksUp::Itself,
        answers_check: false,
    }
}
