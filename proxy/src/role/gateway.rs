//! The side that the world meets: no redirects, and listeners that the controller tells, which come and go (`front.rs`).

use super::{Direction, LooksUp, Role, Takes};

/// The gateway's role.
pub fn role() -> Role {
    Role {
        direction: Direction::Gateway,
        listeners: Vec::new(),
        takes: Takes::Listener,
        ends_mesh_tls: false,
        looks_up: LooksUp::Controller,
        answers_check: false,
    }
}
