//! Sends a connection request into the namespace as a stranger would, and waits for the proxy to accept it.
//!
//! A connection that is dialled inside the namespace never meets PREROUTING, so that it would prove nothing. So a pair of
//! devices is made, with an address of the documentation ranges on the far end; a SYN written to the near end as a raw
//! frame arrives at the far end like any packet from outside. Its port is one that nothing listens on: only the redirect
//! can make it a SYN-ACK. The request is then reset, so that the proxy's accept never sees a connection.
//! Where devices cannot be made, the proof says so; the rules have been read back from the kernel in any case.

use super::{
    Missed,
    frame::{Addressed, Flags},
};
use crate::{config::Redirects, netlink::Pair, plan::Family};
use nix::{
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, socket,
    },
};
use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};
use weft_proto::names::check;

const NEAR: (&str, [u8; 6]) = ("weft-check0", [0x02, b'w', b'e', b'f', b't', 0]);
const FAR: (&str, [u8; 6]) = ("weft-check1", [0x02, b'w', b'e', b'f', b't', 1]);
/// Longest time for one answer; a request may get lost while the devices come up, and then another is sent.
const ANSWER: Duration = Duration::from_millis(500);

/// The devices and the socket of one family's proof.
pub(super) struct Knock {
    /// Our request's addresses: from the near end to the far end.
    request: Addressed,
    socket: OwnedFd,
    near: LinkAddr,
    /// Kept for its drop.
    _pair: Pair,
}

impl Knock {
    /// Prepares everything, or says why it cannot be done here.
    pub(super) fn new(family: Family, redirects: &Redirects) -> Result<Self, String> {
        let port = free_port(redirects).ok_or("every inbound port is skipped or in use")?;
        // The two addresses of the smallest network that holds the check's address.
        let far: IpAddr = match family {
            Family::V4 => Ipv4Addr::from_bits(check::ADDRESS_V4.to_bits() ^ 1).into(),
            Family::V6 => Ipv6Addr::from_bits(check::ADDRESS_V6.to_bits() ^ 1).into(),
        };
        let near = family.check_address().ip();
        let prepared = || -> io::Result<Self> {
            let pair = Pair::create(NEAR, FAR)?;
            pair.far_address(far, if family == Family::V4 { 31 } else { 127 })?;
            pair.neighbour(near, NEAR.1)?;
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )?;
            let link = link_address(NEAR.0)?;
            let request = Addressed {
                hardware: (NEAR.1, FAR.1),
                from: SocketAddr::new(near, own_port()),
                to: SocketAddr::new(far, port),
            };
            Ok(Self {
                request,
                socket,
                near: link,
                _pair: pair,
            })
        };
        prepared().map_err(|error| format!("a pair of devices to send a connection from could not be made: {error}"))
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "sent a connection request from {} to {} through {}",
            self.request.from, self.request.to, NEAR.0
        )
    }

    /// Whether one connection request is accepted.
    pub(super) fn attempt(&mut self, left: Duration) -> Result<(), Missed> {
        let failed = |error: io::Error| Missed::Otherwise(error.to_string());
        let sequence = 1;
        self.send(Flags::SYN, sequence, 0).map_err(failed)?;
        let deadline = Instant::now() + left.min(ANSWER);
        loop {
            let Some(frame) = self.receive(deadline).map_err(failed)? else {
                return Err(Missed::Otherwise("no answer".to_owned()));
            };
            // The kernel shows us the frames of every device, our own too; only an answer has its addresses reversed.
            let Some(answer) = self.request.reversed().read(&frame) else {
                continue;
            };
            if answer.flags.contains(Flags::RST) {
                return Err(Missed::Refused);
            }
            if answer.flags.contains(Flags::SYN | Flags::ACK) {
                // Not finished, so that no connection reaches the proxy.
                self.send(Flags::RST, answer.acknowledged, 0).map_err(failed)?;
                return Ok(());
            }
        }
    }

    fn send(&self, flags: Flags, sequence: u32, acknowledged: u32) -> io::Result<()> {
        let frame = self.request.write(flags, sequence, acknowledged);
        sendto(self.socket.as_raw_fd(), &frame, &self.near, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || poll(&mut ready, timeout)? == 0 {
            return Ok(None);
        }
        let mut frame = vec![0; 2048];
        let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT)?;
        frame.truncate(length);
        Ok(Some(frame))
    }
}

/// The packet-level address of a device, which carries its index.
fn link_address(name: &str) -> io::Result<LinkAddr> {
    let of_device = |address: SockaddrStorage| address.as_link_addr().copied();
    getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .find_map(|entry| of_device(entry.address?))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} has no hardware address")))
}

/// A port of the stranger's; another one in each run, so that an earlier run's traces in conntrack do not matter.
fn own_port() -> u16 {
    // Process ids differ between runs, and need no source of randomness.
    let spread = std::process::id() % 20_000;
    40_000 + u16::try_from(spread).expect("less than 20000")
}

/// A port that is redirected and that nothing listens on: the check's, or else the next such.
fn free_port(redirects: &Redirects) -> Option<u16> {
    let taken = listening();
    let own = redirects.own_ports();
    (check::PORT..=u16::MAX)
        .chain(1..check::PORT)
        .find(|port| !own.contains(port) && !taken.contains(port) && !redirects.skip_inbound_ports.contains(*port))
}

/// Ports that something listens on, in this namespace.
fn listening() -> HashSet<u16> {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(listening_port)
        .collect()
}

/// `sl local_address rem_address st ...`, with the port in hexadecimal behind the colon, and 0A for LISTEN.
fn listening_port(line: &str) -> Option<u16> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    (fields.nth(1)? == "0A")
        .then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let line = "   0: 00000000:3A9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1";
        assert_eq!(listening_port(line), Some(15006));
        assert_eq!(listening_port(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening_port("  sl  local_address rem_address   st"), None);
    }
}
