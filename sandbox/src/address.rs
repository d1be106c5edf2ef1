//! Which addresses a sandbox has. Pure arithmetic: the n-th pod has the same number in both families.
//!
//! Of all sandboxes no two share a range: the addresses of load balancers are reached from the machine, and for the others a log
//! line or a capture tells by itself which one it is from.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How many sandboxes can have ranges of their own.
pub const INDEXES: u8 = 100;
/// The gateway of every pod in IPv6: the node's end of the pod's wire.
pub const GATEWAY_V6: &str = "fe80::1";

/// How many load balancers one sandbox can have.
pub const BALANCERS: u16 = 250;

/// The ranges of the sandbox with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// 0 to [`INDEXES`] - 1.
    pub index: u8,
}

/// An IPv4 address and the IPv6 address with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Both, IPv4 first.
    pub fn addresses(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

impl Ranges {
    /// Pods (and the node itself, number 1).
    pub fn pods(self) -> (Ipv4Net, Ipv6Net) {
        self.range(0)
    }

    /// Services.
    pub fn services(self) -> (Ipv4Net, Ipv6Net) {
        self.range(128)
    }

    /// Load balancers. Outside of the cluster's own ranges, as such addresses are; of the range for measuring (RFC 2544), which no network
    /// outside of a laboratory has.
    pub fn balancers(self) -> (Ipv4Net, Ipv6Net) {
        let v4 = Ipv4Addr::new(198, 18, self.index, 0);
        let (_, v6) = self.range(200);
        (Ipv4Net::new_assert(v4, 24), v6)
    }

    /// The n-th load balancer, from 1 to [`BALANCERS`].
    pub fn balancer(self, n: u16) -> Pair {
        pair(self.balancers(), n)
    }

    /// The ends of the wire between the machine and the node: the machine's, and the node's.
    pub fn wire(self) -> (Pair, Pair) {
        (self.balancer(254), self.balancer(255))
    }

    /// The node's own addresses.
    pub fn node(self) -> Pair {
        self.pod(1)
    }

    /// The DNS server's.
    pub fn dns(self) -> Pair {
        self.service(10)
    }

    /// The n-th pod.
    pub fn pod(self, n: u16) -> Pair {
        pair(self.pods(), n)
    }

    /// The n-th Service.
    pub fn service(self, n: u16) -> Pair {
        pair(self.services(), n)
    }

    /// The number of a Service's address, if it lies in the range.
    pub fn service_number(self, address: IpAddr) -> Option<u16> {
        let (v4, v6) = self.services();
        let number = match address {
            IpAddr::V4(a) if v4.contains(&a) => u32::from(a) - u32::from(v4.network()),
            IpAddr::V6(a) if v6.contains(&a) => u32::try_from(u128::from(a) - u128::from(v6.network())).ok()?,
            _ => return None,
        };
        u16::try_from(number).ok()
    }

    /// Every range of the cluster, as arguments take them.
    pub fn cidrs(self) -> String {
        let (pods, services) = (self.pods(), self.services());
        let all: [IpNet; 4] = [pods.0.into(), services.0.into(), pods.1.into(), services.1.into()];
        all.map(|net| net.to_string()).join(",")
    }

    fn range(self, third: u8) -> (Ipv4Net, Ipv6Net) {
        let v4 = Ipv4Addr::new(10, 100 + self.index, third, 0);
        // fd77:6566:74 is "wef" and "t" in ASCII: a unique local prefix that is easy to recognise.
        let v6 = Ipv6Addr::new(
            0xfd77,
            0x6566,
            0x7400 + u16::from(self.index),
            u16::from(third),
            0,
            0,
            0,
            0,
        );
        (Ipv4Net::new_assert(v4, 17), Ipv6Net::new_assert(v6, 112))
    }
}

fn pair((v4, v6): (Ipv4Net, Ipv6Net), n: u16) -> Pair {
    let v4 = Ipv4Addr::from(u32::from(v4.network()) + u32::from(n));
    let v6 = Ipv6Addr::from(u128::from(v6.network()) + u128::from(n));
    Pair { v4, v6 }
}

/// Numbers that are handed out in turn, so that an address that was just freed is not the next one taken.
#[derive(Debug, Default)]
pub struct Numbers {
    used: BTreeSet<u16>,
    last: u16,
}

impl Numbers {
    /// The first number that is handed out; lower ones are the sandbox's own.
    const FIRST: u16 = 20;
    /// The last: a /17 has 32768 addresses.
    const LAST: u16 = 32_766;

    /// The next free number, or nothing when all are taken.
    pub fn take(&mut self) -> Option<u16> {
        let after = (self.last.max(Self::FIRST - 1) + 1)..=Self::LAST;
        let number = after.chain(Self::FIRST..=Self::LAST).find(|n| !self.used.contains(n))?;
        self.last = number;
        self.used.insert(number);
        Some(number)
    }

    /// Gives a number back.
    pub fn free(&mut self, number: u16) {
        self.used.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_two_sandboxes_are_disjoint_and_hold_their_own() {
        let (one, other) = (Ranges { index: 0 }, Ranges { index: 1 });
        assert_eq!(
            one.cidrs(),
            "10.100.0.0/17,10.100.128.0/17,fd77:6566:7400::/112,fd77:6566:7400:80::/112"
        );
        assert!(!one.pods().0.contains(&other.pods().0) && !one.pods().1.contains(&other.pods().1));
        assert_eq!(
            one.node(),
            Pair {
                v4: "10.100.0.1".parse().unwrap(),
                v6: "fd77:6566:7400::1".parse().unwrap()
            }
        );
        let last = one.pod(Numbers::LAST);
        assert!(one.pods().0.contains(&last.v4) && one.pods().1.contains(&last.v6));
        for address in one.service(4711).addresses() {
            assert_eq!(one.service_number(address), Some(4711));
        }
        assert_eq!(one.service_number("10.96.0.1".parse().unwrap()), None);
        let balancer = one.balancer(BALANCERS);
        assert_eq!(balancer.v4.to_string(), "198.18.0.250");
        let (pods, services) = (one.pods(), one.services());
        assert!(
            !pods.1.contains(&balancer.v6) && !services.1.contains(&balancer.v6),
            "outside of the cluster"
        );
    }

    #[test]
    fn a_freed_number_is_taken_again_last() {
        let mut numbers = Numbers::default();
        let first = numbers.take().unwrap();
        numbers.free(first);
        assert_ne!(numbers.take(), Some(first));
        let rest = std::iter::from_fn(|| numbers.take()).count();
        assert_eq!(rest, usize::from(Numbers::LAST - Numbers::FIRST));
    }
}
