//! The wires of a sandbox: a node that routes, and each pod on a wire of its own to it.
//!
//! A pod has one address in each family and a default route; every packet between pods passes the node, as in a cluster. One wire leads
//! from the machine to the node, for the addresses of load balancers; nothing in the sandbox reaches the machine by it unasked.

use crate::{
    address::{GATEWAY_V6, Pair, Ranges},
    netns::{Error, Netns, batch, veth},
};

/// The pod's end of its wire.
const POD_LINK: &str = "eth0";
/// The node's end of the wire to the machine.
pub(crate) const OUTSIDE: &str = "outside";

/// Makes the node's namespace, with its own addresses and the DNS server's.
pub fn node(name: &str, ranges: Ranges) -> Result<Netns, Error> {
    let node = Netns::create(name)?;
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/forwarding", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        node.sysctl(key, value)?;
    }
    let mut lines = Vec::new();
    for pair in [ranges.node(), ranges.dns()] {
        lines.push(format!("addr add {}/32 dev lo", pair.v4));
        lines.push(format!("addr add {}/128 dev lo nodad", pair.v6));
    }
    // The node's own connections to a ClusterIP need a way out before the rules give them another destination.
    let (v4, v6) = ranges.services();
    lines.push(format!("route add {v4} dev lo src {}", ranges.node().v4));
    lines.push(format!("route add {v6} dev lo src {}", ranges.node().v6));
    let (v4, v6) = ranges.balancers();
    lines.push(format!("route add {v4} dev lo src {}", ranges.node().v4));
    lines.push(format!("route add {v6} dev lo src {}", ranges.node().v6));
    node.batch(&lines)?;
    Ok(node)
}

/// Name of the machine's end of the wire to a sandbox's node.
pub fn outside_link(ranges: Ranges) -> String {
    format!("weft{}", ranges.index)
}

/// Makes the wire between the machine, in whose network namespace the calling thread is, and the node.
pub fn outside(node: &Netns, ranges: Ranges) -> Result<(), Error> {
    let link = outside_link(ranges);
    // Of a sandbox that was killed.
    let _ = batch(&[], &[format!("link delete {link}")]);
    let (machine, end) = ranges.wire();
    let (v4, v6) = ranges.balancers();
    batch(
        &[],
        &[
            format!("link add {link} type veth peer name {OUTSIDE} netns {}", node.name()),
            format!("link set {link} up"),
            format!("addr add {}/32 dev {link}", machine.v4),
            format!("route add {}/32 dev {link} scope link src {}", end.v4, machine.v4),
            format!("route add {v4} via {} dev {link} src {}", end.v4, machine.v4),
        ],
    )?;
    node.batch(&[
        format!("link set {OUTSIDE} up"),
        format!("addr add {}/32 dev {OUTSIDE}", end.v4),
        format!("route add {}/32 dev {OUTSIDE} scope link src {}", machine.v4, end.v4),
    ])?;
    // A machine without IPv6 has the IPv4 addresses only.
    let both = batch(
        &[],
        &[
            format!("addr add {}/128 dev {link} nodad", machine.v6),
            format!("route add {}/128 dev {link} src {}", end.v6, machine.v6),
            format!("route add {v6} via {} dev {link} src {}", end.v6, machine.v6),
        ],
    )
    .and_then(|()| {
        node.batch(&[
            format!("addr add {}/128 dev {OUTSIDE} nodad", end.v6),
            format!("route add {}/128 dev {OUTSIDE} src {}", machine.v6, end.v6),
        ])
    });
    if let Err(error) = both {
        tracing::info!(%error, "load balancers have no IPv6 address that the machine reaches");
    }
    Ok(())
}

/// Name of the node's end of a pod's wire.
fn link(number: u16) -> String {
    format!("pod{number}")
}

/// Makes the namespace of the n-th pod and its wire to the node.
pub fn pod(node: &Netns, name: &str, number: u16, ranges: Ranges) -> Result<Netns, Error> {
    let (address, gateway): (Pair, Pair) = (ranges.pod(number), ranges.node());
    let pod = Netns::create(name)?;
    // As container runtimes do: a container without capabilities may bind any port and ping.
    pod.sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
    let wire = link(number);
    veth((&pod, POD_LINK), (node, &wire))?;
    node.batch(&[
        format!("addr add {GATEWAY_V6}/64 dev {wire} nodad"),
        format!("route add {}/32 dev {wire} src {}", address.v4, gateway.v4),
        format!("route add {}/128 dev {wire} src {}", address.v6, gateway.v6),
    ])?;
    pod.batch(&[
        format!("addr add {}/32 dev {POD_LINK}", address.v4),
        format!("addr add {}/128 dev {POD_LINK} nodad", address.v6),
        format!("route add {} dev {POD_LINK} scope link", gateway.v4),
        format!("route add default via {} dev {POD_LINK}", gateway.v4),
        format!("route add default via {GATEWAY_V6} dev {POD_LINK}"),
    ])?;
    Ok(pod)
}

/// Takes a pod's wire away at once, though processes may still hold its namespace.
pub fn unplug(node: &Netns, number: u16) {
    // It may be gone already, with the pod's namespace.
    let _ = node.batch(&[format!("link delete {}", link(number))]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn pods_reach_each_other_through_the_node_in_both_families() {
        let ranges = Ranges { index: 99 };
        let name = |part: &str| format!("weft-unit-{}-{part}", std::process::id());
        let node = node(&name("node"), ranges).unwrap();
        let pods: Vec<Netns> = (20..22)
            .map(|n| pod(&node, &name(&format!("pod{n}")), n, ranges).unwrap())
            .collect();
        for address in ranges.pod(21).addresses() {
            let listener = pods[1].run(|| TcpListener::bind((address, 80)).unwrap()).unwrap();
            let stream = pods[0].run(|| TcpStream::connect((address, 80)).unwrap()).unwrap();
            let seen = listener.accept().unwrap().1.ip();
            assert_eq!(seen, stream.local_addr().unwrap().ip());
            assert!(ranges.pod(20).addresses().contains(&seen));
        }
    }
}
