//! What addresses the pod has, as this network namespace shows them.

use crate::plan::Family;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use std::{io, net::IpAddr};

/// An address under which others can reach the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The interface that holds it.
    pub interface: String,
}

/// Every global address. Unique local IPv6 addresses count, since pods have them; link-local ones do not in IPv6, where
/// every interface has one, but do in IPv4, where some networks give pods nothing else.
pub fn addresses() -> io::Result<Vec<Address>> {
    let up = getifaddrs()?.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP));
    let all = up.filter_map(|entry| {
        let address = entry.address?;
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        Some(Address {
            ip,
            interface: entry.interface_name,
        })
    });
    Ok(all.filter(|address| is_global(address.ip)).collect())
}

/// The first global address of a family.
pub fn first(addresses: &[Address], family: Family) -> Option<&Address> {
    addresses.iter().find(|address| Family::of(address.ip) == family)
}

fn is_global(ip: IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}
