//! Load balancers: each Service of that type has an address that the machine and every pod reach, and that its status tells.

use super::Supervisor;
use crate::{
    address::{BALANCERS, Pair},
    object::{Key, Kind, Object},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};

impl Supervisor {
    /// Gives every Service that asks for one an address, and takes it from those that do not any more.
    pub(super) fn balancers(&self) -> anyhow::Result<()> {
        let mut store = self.cluster.store();
        let services: Vec<(Key, Object)> = store
            .list(Kind::Service)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        let pairs: Vec<Pair> = (1..=BALANCERS).map(|n| self.cluster.ranges.balancer(n)).collect();
        let mut used: BTreeSet<Pair> = services
            .iter()
            .filter_map(|(_, service)| has(service, &pairs))
            .collect();
        for (key, service) in services {
            let status = wanted(&service, &pairs, &used);
            if status == service["status"] {
                continue;
            }
            store.change(&key, |service| service["status"] = status)?;
            used.extend(store.get(&key).and_then(|service| has(service, &pairs)));
            self.cluster.changed.notify_one();
        }
        Ok(())
    }
}

fn addresses(service: &Object) -> impl Iterator<Item = IpAddr> + '_ {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    ingress
        .into_iter()
        .flatten()
        .filter_map(|one| one["ip"].as_str()?.parse().ok())
}

/// Which balancer a Service has.
fn has(service: &Object, pairs: &[Pair]) -> Option<Pair> {
    addresses(service).find_map(|address| of(address, pairs))
}

fn of(address: IpAddr, pairs: &[Pair]) -> Option<Pair> {
    pairs.iter().copied().find(|pair| pair.addresses().contains(&address))
}

/// The status that a Service is to have. One that asks for an address which is not there, or is another's, gets none.
fn wanted(service: &Object, pairs: &[Pair], used: &BTreeSet<Pair>) -> Value {
    if service["spec"]["type"] != "LoadBalancer" {
        return if service["status"]["loadBalancer"].is_null() {
            service["status"].clone()
        } else {
            json!({"loadBalancer": {}})
        };
    }
    let (asked, had) = (service["spec"]["loadBalancerIP"].as_str(), has(service, pairs));
    let pair = match asked.filter(|text| !text.is_empty()) {
        Some(text) => {
            let asked = text.parse().ok().and_then(|address| of(address, pairs));
            asked.filter(|pair| had == Some(*pair) || !used.contains(pair))
        }
        None => had.or_else(|| pairs.iter().copied().find(|pair| !used.contains(pair))),
    };
    let families = service["spec"]["ipFamilies"].as_array();
    let of_family = |address: &IpAddr| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        families.is_none_or(|all| all.iter().any(|one| one == family))
    };
    let addresses = pair.map(Pair::addresses).into_iter().flatten();
    let ingress: Vec<Value> = addresses
        .filter(of_family)
        .map(|address| json!({"ip": address.to_string()}))
        .collect();
    if ingress.is_empty() {
        return json!({"loadBalancer": {}});
    }
    json!({"loadBalancer": {"ingress": ingress}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Ranges;

    fn pairs() -> Vec<Pair> {
        (1..=3).map(|n| Ranges { index: 7 }.balancer(n)).collect()
    }

    fn service(spec: Value, status: Value) -> Object {
        json!({"metadata": {"name": "web"}, "spec": spec, "status": status})
    }

    fn ingress(status: &Value) -> Vec<String> {
        addresses(&json!({"status": status}))
            .map(|address| address.to_string())
            .collect()
    }

    #[test]
    fn a_balancer_has_an_address_of_each_family_and_keeps_it() {
        let (pairs, mut used) = (pairs(), BTreeSet::new());
        used.insert(pairs[0]);
        let status = wanted(&service(json!({"type": "LoadBalancer"}), Value::Null), &pairs, &used);
        assert_eq!(ingress(&status), ["198.18.7.2", "fd77:6566:7407:c8::2"]);
        used.insert(pairs[1]);
        let again = service(json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"]}), status);
        assert_eq!(ingress(&wanted(&again, &pairs, &used)), ["198.18.7.2"]);
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_or_none_is() {
        let pairs = pairs();
        let used = BTreeSet::from([pairs[0]]);
        let given = |asked: &str| {
            let spec = json!({"type": "LoadBalancer", "loadBalancerIP": asked, "ipFamilies": ["IPv4"]});
            ingress(&wanted(&service(spec, Value::Null), &pairs, &used))
        };
        assert_eq!(given("198.18.7.3"), ["198.18.7.3"]);
        assert!(given("198.18.7.1").is_empty(), "it is another's");
        assert!(given("192.0.2.1").is_empty(), "it is not there");
    }

    #[test]
    fn who_asks_no_more_has_none() {
        let had = json!({"loadBalancer": {"ingress": [{"ip": "198.18.7.1"}]}});
        let status = wanted(&service(json!({"type": "ClusterIP"}), had), &pairs(), &BTreeSet::new());
        assert!(ingress(&status).is_empty());
        let never = service(json!({"type": "ClusterIP"}), Value::Null);
        assert!(wanted(&never, &pairs(), &BTreeSet::new()).is_null());
    }
}
