//! The few changes of the network that the proof needs, and takes back: a route, and a pair of devices.
//!
//! rtnetlink messages by hand (`rtnetlink(7)`), so that the image needs no further program. Each change is a value
//! whose drop undoes it; the kernel is the one who reads these bytes, and answers each with an error number.

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use std::{io, net::IpAddr, os::fd::AsRawFd};

// Message types, flags and attributes of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h and neighbour.h.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// A route to one address, out of one interface, as long as this value lives.
#[derive(Debug)]
pub struct Route {
    destination: IpAddr,
    interface: u32,
}

impl Route {
    /// Adds the route.
    pub fn add(destination: IpAddr, interface: &str) -> io::Result<Self> {
        let route = Self {
            destination,
            interface: if_nametoindex(interface)?,
        };
        request(NEW_ROUTE, CREATE | REPLACE, &route.body())?;
        Ok(route)
    }

    fn body(&self) -> Vec<u8> {
        const MAIN_TABLE: u8 = 254;
        const STATIC: u8 = 4;
        const UNICAST: u8 = 1;
        let (family, address) = bytes(self.destination);
        // An IPv4 route without a gateway has the scope of its link; IPv6 knows no scopes here.
        let scope = if family == FAMILY_V4 { 253 } else { 0 };
        let mut body = vec![
            family,
            bits(&address),
            0,
            0,
            MAIN_TABLE,
            STATIC,
            scope,
            UNICAST,
            0,
            0,
            0,
            0,
        ];
        attribute(&mut body, 1, &address);
        attribute(&mut body, 4, &self.interface.to_ne_bytes());
        body
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // It may have gone with its interface, and nothing better can be done here.
        let _ = request(DELETE_ROUTE, 0, &self.body());
    }
}

/// A pair of joined devices, both in this namespace, as long as this value lives.
#[derive(Debug)]
pub struct Pair {
    near: &'static str,
    far: &'static str,
}

impl Pair {
    /// Makes the pair with these names and hardware addresses, both ends up. A pair of the same name that a killed run
    /// has left goes first.
    pub fn create(near: (&'static str, [u8; 6]), far: (&'static str, [u8; 6])) -> io::Result<Self> {
        let _ = delete_link(near.0);
        let end = |(name, hardware): (&str, [u8; 6])| {
            // Down: an end cannot be up before the other is there.
            let mut body = link(0, 0);
            attribute(&mut body, 1, &hardware);
            attribute(&mut body, 3, &[name.as_bytes(), &[0]].concat());
            body
        };
        let mut data = Vec::new();
        attribute(&mut data, 1, &end(far));
        let mut kind = Vec::new();
        attribute(&mut kind, 1, b"veth");
        attribute(&mut kind, 2, &data);
        let mut body = end(near);
        attribute(&mut body, 18, &kind);
        request(NEW_LINK, CREATE | EXCLUSIVE, &body)?;
        let pair = Self {
            near: near.0,
            far: far.0,
        };
        for name in [pair.near, pair.far] {
            request(NEW_LINK, 0, &link(if_nametoindex(name)?, IFF_UP))?;
        }
        Ok(pair)
    }

    /// Gives the far end an address, at once usable, with everything else of that prefix behind the near end.
    pub fn far_address(&self, address: IpAddr, prefix: u8) -> io::Result<()> {
        const WITHOUT_DUPLICATE_DETECTION: u8 = 2;
        let (family, address) = bytes(address);
        let flags = if family == FAMILY_V6 {
            WITHOUT_DUPLICATE_DETECTION
        } else {
            0
        };
        let mut body = vec![family, prefix, flags, 0];
        body.extend(if_nametoindex(self.far)?.to_ne_bytes());
        attribute(&mut body, 1, &address);
        attribute(&mut body, 2, &address);
        request(NEW_ADDRESS, CREATE | REPLACE, &body)
    }

    /// Tells the far end who its neighbour is, so that it need not ask.
    pub fn neighbour(&self, address: IpAddr, hardware: [u8; 6]) -> io::Result<()> {
        const PERMANENT: u16 = 0x80;
        let (family, address) = bytes(address);
        let mut body = vec![family, 0, 0, 0];
        body.extend(if_nametoindex(self.far)?.to_ne_bytes());
        body.extend(PERMANENT.to_ne_bytes());
        body.extend([0, 0]);
        attribute(&mut body, 1, &address);
        attribute(&mut body, 2, &hardware);
        request(NEW_NEIGHBOUR, CREATE | REPLACE, &body)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // One end takes the other with it, and all addresses, routes and neighbours.
        let _ = delete_link(self.near);
    }
}

fn delete_link(name: &str) -> io::Result<()> {
    request(DELETE_LINK, 0, &link(if_nametoindex(name)?, 0))
}

/// `struct ifinfomsg`: which device, and which of its flags to set.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

fn bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (FAMILY_V4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (FAMILY_V6, v6.octets().to_vec()),
    }
}

fn bits(address: &[u8]) -> u8 {
    if address.len() == 4 { 32 } else { 128 }
}

/// Appends an attribute, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes here are a few dozen bytes");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Sends one request, and waits for the kernel's answer, which comes before `send` returns.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(16 + body.len()).expect("requests here are a few hundred bytes");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsghdr (16 bytes), then nlmsgerr, which starts with the negative error number; 0 is the acknowledgement.
    let kind = answer
        .get(4..6)
        .filter(|_| length >= 20)
        .map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match (kind, error) {
        (Some(ERROR), 0) => Ok(()),
        (Some(ERROR), error) => Err(Errno::from_raw(-error).into()),
        _ => Err(io::Error::other(
            "the kernel answered a netlink request with something else than its outcome",
        )),
    }
}
