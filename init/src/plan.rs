//! What shall be redirected → named rules in order, one [`Plan`] for each family. Pure: no I/O, no text.
//!
//! The order is the meaning: the first rule that matches decides. Inbound leaves alone the proxy's own ports (they must
//! be reachable directly, or be refused by the proxy itself) and the ports that the user named. Outbound leaves alone
//! the proxy, loopback to itself, and the users, ranges and ports that the user named. Everything else is redirected.
//!
//! What needs no rule: the proxy that dials its own pod's address is decided at OUTPUT and never meets PREROUTING,
//! because conntrack asks for each connection once. UDP is never matched. A mid-stream packet whose conntrack entry
//! was lost is redirected again to the same port, and finds its socket.

use crate::config::Redirects;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use weft_proto::names::{check, port};

/// An IP family; each has its own tables, and its own transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which everything is done.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The addresses of loopback.
    pub fn loopback(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            Self::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        }
    }

    /// The destination that `check` dials to prove the outbound side.
    pub fn check_address(self) -> SocketAddr {
        match self {
            Self::V4 => (check::ADDRESS_V4, check::PORT).into(),
            Self::V6 => (check::ADDRESS_V6, check::PORT).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// One of weft's own chains in the nat table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chain {
    /// What comes into the pod.
    Inbound,
    /// What the pod's processes dial.
    Outbound,
}

impl Chain {
    /// Both chains.
    pub const BOTH: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The chain's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "WEFT_INBOUND",
            Self::Outbound => "WEFT_OUTBOUND",
        }
    }

    /// The kernel's chain from which ours is entered.
    pub const fn hook(self) -> &'static str {
        match self {
            Self::Inbound => "PREROUTING",
            Self::Outbound => "OUTPUT",
        }
    }
}

/// What a rule looks at, besides the protocol, which is always TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet leaves over the loopback interface.
    OverLoopback,
    /// The socket's user lies in this range.
    User(u32, u32),
    /// The destination lies in this range.
    Destination(IpNet),
    /// The destination's port lies in this range.
    Port(u16, u16),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the connection alone.
    Skip,
    /// Redirect the connection to this port of the pod.
    Redirect(u16),
}

/// One rule: its name stands beside it in the kernel's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Why the rule is there.
    pub name: &'static str,
    /// All of these must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
}

/// All rules of one family, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The family.
    pub family: Family,
    /// Rules for what comes into the pod.
    pub inbound: Vec<Rule>,
    /// Rules for what the pod's processes dial.
    pub outbound: Vec<Rule>,
}

impl Plan {
    /// The plan of one family. `check_uid` is the user as which the proof will dial.
    pub fn new(redirects: &Redirects, family: Family, check_uid: u32) -> Self {
        Self {
            family,
            inbound: inbound(redirects),
            outbound: outbound(redirects, family, check_uid),
        }
    }

    /// The rules of one chain.
    pub fn rules(&self, chain: Chain) -> &[Rule] {
        match chain {
            Chain::Inbound => &self.inbound,
            Chain::Outbound => &self.outbound,
        }
    }
}

impl Redirects {
    /// Ports of the proxy itself. Dialled directly they must reach the proxy as dialled: metrics answer there, and the
    /// two listeners recognise by the missing redirect that the destination was forged.
    pub fn own_ports(&self) -> [u16; 3] {
        [self.outbound_port, self.inbound_port, port::METRICS]
    }

    /// Whether the user's own exceptions would leave the proof's connection alone.
    fn skip_the_check(&self, family: Family, check_uid: u32) -> bool {
        let check = family.check_address();
        self.skip_outbound_ports.contains(check.port())
            || self.skip_outbound_cidrs.contains(check.ip())
            || self
                .skip_uids
                .ranges()
                .iter()
                .any(|&(low, high)| (low..=high).contains(&check_uid))
    }
}

fn inbound(redirects: &Redirects) -> Vec<Rule> {
    let own = redirects.own_ports().map(|port| (port, port));
    let mut rules: Vec<Rule> = own
        .iter()
        .map(|&(low, high)| skip("port of the proxy", [Match::Port(low, high)]))
        .collect();
    rules.extend(
        redirects
            .skip_inbound_ports
            .ranges()
            .iter()
            .map(|&(low, high)| skip("skip-inbound-ports", [Match::Port(low, high)])),
    );
    rules.push(redirect("to inbound", [], redirects.inbound_port));
    rules
}

fn outbound(redirects: &Redirects, family: Family, check_uid: u32) -> Vec<Rule> {
    let uid = redirects.proxy_uid;
    let mut rules = vec![
        skip("the proxy itself", [Match::User(uid, uid)]),
        // Both conditions: an application that dials its own pod's address also goes over the loopback interface, but
        // that is a self-call, which the proxy hands from outbound to inbound inside the process.
        skip(
            "loopback to itself",
            [Match::OverLoopback, Match::Destination(family.loopback())],
        ),
    ];
    if redirects.skip_the_check(family, check_uid) {
        // The user's exceptions may cover the proof's destination or its user; the proof must not fail for that.
        let check = family.check_address();
        let matches = [
            Match::Destination(check.ip().into()),
            Match::Port(check.port(), check.port()),
        ];
        rules.push(redirect("check", matches, redirects.outbound_port));
    }
    rules.extend(
        redirects
            .skip_uids
            .ranges()
            .iter()
            .map(|&(low, high)| skip("skip-uids", [Match::User(low, high)])),
    );
    let ranges = redirects
        .skip_outbound_cidrs
        .ranges()
        .iter()
        .filter(|range| Family::of(range.addr()) == family);
    rules.extend(ranges.map(|range| skip("skip-outbound-cidrs", [Match::Destination(range.trunc())])));
    rules.extend(
        redirects
            .skip_outbound_ports
            .ranges()
            .iter()
            .map(|&(low, high)| skip("skip-outbound-ports", [Match::Port(low, high)])),
    );
    rules.push(redirect("to outbound", [], redirects.outbound_port));
    rules
}

fn skip(name: &'static str, matches: impl Into<Vec<Match>>) -> Rule {
    Rule {
        name,
        matches: matches.into(),
        verdict: Verdict::Skip,
    }
}

fn redirect(name: &'static str, matches: impl Into<Vec<Match>>, port: u16) -> Rule {
    Rule {
        name,
        matches: matches.into(),
        verdict: Verdict::Redirect(port),
    }
}
