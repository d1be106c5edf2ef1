//! Dials an address that nothing answers; the proxy does, when the redirect works.
//!
//! IPv6 looks for a route before OUTPUT sees the packet, so that without a default route the dial would fail before
//! any rule; then a route to that one address is added for as long as the proof takes. IPv4 is the same.

use super::Missed;
use crate::{netlink::Route, plan::Family};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, ErrorKind, Read},
    net::SocketAddr,
    time::Duration,
};
use weft_proto::{limits, names::check};

/// The dial, and what it needed.
pub(super) struct Dial {
    destination: SocketAddr,
    interface: String,
    route: Option<Route>,
}

impl Dial {
    pub(super) fn new(family: Family, interface: &str) -> Self {
        Self {
            destination: family.check_address(),
            interface: interface.to_owned(),
            route: None,
        }
    }

    pub(super) fn describe(&self) -> String {
        format!("dialled {}", self.destination)
    }

    /// Whether one connection lands on the proxy.
    pub(super) fn attempt(&mut self, left: Duration) -> Result<(), Missed> {
        match self.dial(left) {
            Ok(answer) if answer == check::ANSWER => Ok(()),
            Ok(answer) if answer.is_empty() => Err(Missed::Otherwise("it was closed without an answer".to_owned())),
            Ok(answer) => Err(Missed::Otherwise(format!("'{}' answered", answer.escape_ascii()))),
            Err(error) if no_route(&error) && self.route.is_none() => {
                match Route::add(self.destination.ip(), &self.interface) {
                    Ok(route) => {
                        self.route = Some(route);
                        self.attempt(left)
                    }
                    Err(refused) => Err(Missed::Otherwise(format!(
                        "{error}, and a route to it could not be added to {}: {refused} (CAP_NET_ADMIN is needed)",
                        self.interface
                    ))),
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err(Missed::Refused),
            Err(error) => Err(Missed::Otherwise(error.to_string())),
        }
    }

    fn dial(&self, left: Duration) -> io::Result<Vec<u8>> {
        let time = left.min(limits::CHECK_ATTEMPT);
        let socket = Socket::new(Domain::for_address(self.destination), Type::STREAM, None)?;
        socket.connect_timeout(&self.destination.into(), time)?;
        socket.set_read_timeout(Some(time))?;
        let mut answer = Vec::new();
        // One byte more than the answer, so that anything longer is seen to be something else.
        let mut limited = socket.take(check::ANSWER.len() as u64 + 1);
        match limited.read_to_end(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(io::Error::new(
                ErrorKind::TimedOut,
                "it was accepted, but neither answered nor closed",
            )),
            // Whatever came before a reset tells more than the reset.
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }
}

/// The dial failed before any rule could see it: no route, or a default route that says unreachable or prohibited.
fn no_route(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
    )
}
