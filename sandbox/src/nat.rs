//! ClusterIPs: Services and their slices → the text of one `iptables-restore` transaction for each family.
//!
//! The node's namespace is ours alone, so a transaction replaces its tables as a whole: no state to compare with.

use crate::{
    address::Ranges,
    endpoints::SERVICE_NAME,
    netns,
    network::OUTSIDE,
    object::{Object, label, name, namespace},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// One address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }

    /// The program that applies the family's transactions.
    pub fn restore(self) -> &'static str {
        match self {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        }
    }
}

/// Applies both families' transactions in the namespace of the calling thread.
pub fn apply(ranges: Ranges, services: &[&Object], slices: &[&Object]) -> Result<(), netns::Error> {
    for family in Family::ALL {
        netns::feed(family.restore(), &["--wait"], &render(family, ranges, services, slices))?;
    }
    Ok(())
}

/// The tables `nat` and `filter` of the node for one family.
pub fn render(family: Family, ranges: Ranges, services: &[&Object], slices: &[&Object]) -> String {
    let mut text = Text::default();
    for service in services {
        for address in addresses(service).into_iter().filter(|a| family.has(a)) {
            for port in list(&service["spec"]["ports"]) {
                text.port(service, address, port, &ready(service, port, slices, family));
            }
        }
    }
    let (services, balancers) = (ranges.services(), ranges.balancers());
    let (dns, range, balancers) = match family {
        Family::V4 => (
            ranges.dns().v4.to_string(),
            services.0.to_string(),
            balancers.0.to_string(),
        ),
        Family::V6 => (
            ranges.dns().v6.to_string(),
            services.1.to_string(),
            balancers.1.to_string(),
        ),
    };
    // What has become an endpoint's address by now is past this; what has not is nobody's.
    text.line_filter(&format!("-A REFUSED -d {dns} -j RETURN"));
    text.line_filter(&format!("-A REFUSED -d {range} -j REJECT"));
    // The machine reaches the sandbox by this wire, and not the sandbox the machine.
    text.line_filter(&format!("-A REFUSED -o {OUTSIDE} -m conntrack --ctstate NEW -j REJECT"));
    text.line_filter(&format!("-A REFUSED -o {OUTSIDE} -j RETURN"));
    text.line_filter(&format!("-A REFUSED -d {balancers} -j REJECT"));
    text.finish()
}

/// Its cluster addresses, then those that load balancers and users gave it.
fn addresses(service: &Object) -> Vec<IpAddr> {
    let cluster = list(&service["spec"]["clusterIPs"]).iter();
    let ingress = list(&service["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|one| &one["ip"]);
    let external = list(&service["spec"]["externalIPs"]).iter();
    let texts = cluster.chain(ingress).chain(external);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.filter_map(|ip| ip.as_str()?.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The endpoints that take traffic: the ready ones; when there is none, those that still serve on their way out.
fn ready(service: &Object, port: &Value, slices: &[&Object], family: Family) -> Vec<SocketAddr> {
    let port_name = port["name"].as_str().unwrap_or_default();
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let (mut ready, mut last) = (Vec::new(), Vec::new());
    let ours = |s: &&&Object| namespace(s) == namespace(service) && label(s, SERVICE_NAME) == Some(name(service));
    for slice in slices.iter().filter(ours) {
        let same = |p: &&Value| {
            p["name"].as_str().unwrap_or_default() == port_name && p["protocol"].as_str().unwrap_or("TCP") == protocol
        };
        let number = list(&slice["ports"])
            .iter()
            .find(same)
            .and_then(|p| u16::try_from(p["port"].as_u64()?).ok());
        let Some(number) = number else { continue };
        for endpoint in list(&slice["endpoints"]) {
            let addresses = list(&endpoint["addresses"])
                .iter()
                .filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
            let addresses = addresses.filter(|a| family.has(a)).map(|a| SocketAddr::new(a, number));
            let conditions = &endpoint["conditions"];
            if conditions["ready"] != false {
                ready.extend(addresses);
            } else if conditions["serving"] == true && conditions["terminating"] == true {
                last.extend(addresses);
            }
        }
    }
    let mut chosen = if ready.is_empty() { last } else { ready };
    chosen.sort();
    chosen
}

#[derive(Default)]
struct Text {
    chains: String,
    nat: String,
    filter: String,
    hairpins: BTreeMap<IpAddr, ()>,
}

impl Text {
    fn port(&mut self, service: &Object, address: IpAddr, port: &Value, endpoints: &[SocketAddr]) {
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_ascii_lowercase();
        let number = port["port"].as_u64().unwrap_or_default();
        let comment = format!("{}/{}:{number}", namespace(service), name(service));
        let to =
            format!("-d {address} -p {protocol} -m {protocol} --dport {number} -m comment --comment \"{comment}\"");
        if endpoints.is_empty() {
            self.line_filter(&format!("-A REFUSED {to} -j REJECT"));
            return;
        }
        let id = id(&format!("{comment}/{protocol}"));
        let chain = format!(":SVC-{id} - [0:0]\n");
        self.line_nat(&format!("-A SERVICES {to} -j SVC-{id}"));
        // All addresses of a Service share what is behind it.
        if self.chains.contains(&chain) {
            return;
        }
        self.chain(&format!("SVC-{id}"));
        let affinity = (service["spec"]["sessionAffinity"] == "ClientIP").then(|| {
            let seconds = &service["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
            seconds.as_u64().unwrap_or(10_800)
        });
        let sep = |endpoint: &SocketAddr| format!("SEP-{}", self::id(&format!("{comment}/{protocol}/{endpoint}")));
        if let Some(seconds) = affinity {
            for endpoint in endpoints {
                let sep = sep(endpoint);
                self.chain(&sep);
                self.line_nat(&format!(
                    "-A SVC-{id} -m recent --name {sep} --rcheck --seconds {seconds} --reap -j {sep}"
                ));
                self.line_nat(&format!(
                    "-A {sep} -p {protocol} -m recent --name {sep} --set -j DNAT --to-destination {endpoint}"
                ));
            }
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            let left = endpoints.len() - i;
            let share = if left > 1 {
                format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64)
            } else {
                String::new()
            };
            let jump = match affinity {
                Some(_) => sep(endpoint),
                None => format!("DNAT --to-destination {endpoint}"),
            };
            self.line_nat(&format!("-A SVC-{id} -p {protocol}{share} -j {jump}"));
            self.hairpins.insert(endpoint.ip(), ());
        }
    }

    fn chain(&mut self, name: &str) {
        let _ = writeln!(self.chains, ":{name} - [0:0]");
    }

    fn line_nat(&mut self, line: &str) {
        let _ = writeln!(self.nat, "{line}");
    }

    fn line_filter(&mut self, line: &str) {
        let _ = writeln!(self.filter, "{line}");
    }

    fn finish(mut self) -> String {
        // A pod that reaches itself through a Service must see the node as the client, or the answer would not come back here.
        for address in std::mem::take(&mut self.hairpins).into_keys() {
            self.line_nat(&format!(
                "-A POSTROUTING -s {address} -d {address} -m conntrack --ctstate DNAT -j MASQUERADE"
            ));
        }
        format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:SERVICES - [0:0]\n{}\
             -A PREROUTING -j SERVICES\n-A OUTPUT -j SERVICES\n{}COMMIT\n\
             *filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:REFUSED - [0:0]\n\
             -A FORWARD -j REFUSED\n-A OUTPUT -j REFUSED\n{}COMMIT\n",
            self.chains, self.nat, self.filter
        )
    }
}

/// A chain's name may have 28 characters; this is long enough to be the only one.
fn id(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .take(8)
        .map(|b| format!("{b:02X}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use serde_json::json;

    fn objects() -> (Object, Object, Object) {
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIPs": ["10.100.128.20", "fd77::14"], "ports": [{"name": "http", "port": 80}, {"name": "dead", "port": 81}]},
        });
        let slice = |family: &str, ips: [&str; 3]| {
            let endpoint = |ip: &str, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready}});
            json!({
                "metadata": {"namespace": "shop", "labels": {SERVICE_NAME: "web"}}, "addressType": family,
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "endpoints": [endpoint(ips[0], true), endpoint(ips[1], true), endpoint(ips[2], false)],
            })
        };
        let (four, six) = (
            ["10.100.0.21", "10.100.0.20", "10.100.0.22"],
            ["fd77::21", "fd77::20", "fd77::22"],
        );
        (service, slice("IPv4", four), slice("IPv6", six))
    }

    const RANGES: Ranges = Ranges { index: 0 };
    const GOLDEN: &str = r#"*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:SERVICES - [0:0]
:SVC-ID - [0:0]
-A PREROUTING -j SERVICES
-A OUTPUT -j SERVICES
-A SERVICES -d fd77::14 -p tcp -m tcp --dport 80 -m comment --comment "shop/web:80" -j SVC-ID
-A SVC-ID -p tcp -m statistic --mode random --probability 0.5000000000 -j DNAT --to-destination [fd77::20]:8080
-A SVC-ID -p tcp -j DNAT --to-destination [fd77::21]:8080
-A POSTROUTING -s fd77::20 -d fd77::20 -m conntrack --ctstate DNAT -j MASQUERADE
-A POSTROUTING -s fd77::21 -d fd77::21 -m conntrack --ctstate DNAT -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:REFUSED - [0:0]
-A FORWARD -j REFUSED
-A OUTPUT -j REFUSED
-A REFUSED -d fd77::14 -p tcp -m tcp --dport 81 -m comment --comment "shop/web:81" -j REJECT
-A REFUSED -d fd77:6566:7400:80::a -j RETURN
-A REFUSED -d fd77:6566:7400:80::/112 -j REJECT
-A REFUSED -o outside -m conntrack --ctstate NEW -j REJECT
-A REFUSED -o outside -j RETURN
-A REFUSED -d fd77:6566:7400:c8::/112 -j REJECT
COMMIT
"#;

    #[test]
    fn ready_endpoints_share_and_a_port_without_any_is_refused() {
        let (service, four, six) = objects();
        let text = render(Family::V6, RANGES, &[&service], &[&four, &six]);
        assert_eq!(text, GOLDEN.replace("ID", &id("shop/web:80/tcp")));
    }

    #[test]
    fn addresses_of_load_balancers_lead_where_the_cluster_s_own_do() {
        let (mut service, four, six) = objects();
        service["status"]["loadBalancer"]["ingress"] = json!([{"ip": "198.18.0.1"}]);
        service["spec"]["externalIPs"] = json!(["198.18.0.1", "192.0.2.7"]);
        let text = render(Family::V4, RANGES, &[&service], &[&four, &six]);
        for address in ["10.100.128.20", "198.18.0.1", "192.0.2.7"] {
            let line = format!("-A SERVICES -d {address} -p tcp -m tcp --dport 80 ");
            assert_eq!(text.matches(&line).count(), 1, "{text}");
        }
        let chain = format!("-A SVC-{} ", id("shop/web:80/tcp"));
        assert_eq!(text.matches(&chain).count(), 2, "two endpoints: {text}");
    }

    #[test]
    fn the_kernel_takes_what_is_rendered_with_and_without_affinity() {
        let (mut service, four, six) = objects();
        let netns = Netns::create(&format!("weft-unit-{}-nat", std::process::id())).unwrap();
        netns
            .run(|| apply(RANGES, &[&service], &[&four, &six]))
            .unwrap()
            .unwrap();
        service["spec"]["sessionAffinity"] = "ClientIP".into();
        netns
            .run(|| apply(RANGES, &[&service], &[&four, &six]))
            .unwrap()
            .unwrap();
    }
}
