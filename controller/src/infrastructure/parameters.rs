//! What `spec.infrastructure.parametersRef` of a Gateway may say: the keys of a ConfigMap, each of which may be left out.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::names::port;

/// Most pods of one Gateway.
const MOST_REPLICAS: u32 = 1000;
/// The keys that there are.
const KEYS: [&str; 8] = [
    "replicas",
    "service-type",
    "external-traffic-policy",
    "cpu-request",
    "memory-request",
    "cpu-limit",
    "memory-limit",
    "host-ports",
];

/// What a Gateway's pods and its Service are to be, beside what the Gateway itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Number of pods. `None`: one, or what an autoscaler or a person sets.
    pub replicas: Option<u32>,
    /// `type` of the Service.
    pub service_type: ServiceType,
    /// `externalTrafficPolicy` of the Service: `Local` keeps the clients' addresses.
    pub external_traffic_policy: Option<String>,
    /// Resources that are asked for, by their names, instead of weft's own.
    pub requests: BTreeMap<&'static str, String>,
    /// Resources that are the most, by their names, instead of weft's own.
    pub limits: BTreeMap<&'static str, String>,
    /// Ports that are bound on the nodes themselves.
    pub host_ports: BTreeSet<u16>,
}

/// `type` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Someone gives it addresses.
    #[default]
    LoadBalancer,
    /// A port of every node.
    NodePort,
    /// Inside of the cluster.
    ClusterIp,
}

impl ServiceType {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceType::LoadBalancer => "LoadBalancer",
            ServiceType::NodePort => "NodePort",
            ServiceType::ClusterIp => "ClusterIP",
        }
    }
}

impl Parameters {
    /// Reads the data of a ConfigMap. The error holds every mistake, each with what would be right.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            data,
            mistakes: Vec::new(),
        };
        for key in data.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            reader
                .mistakes
                .push(format!("'{key}' is not one of {}", KEYS.join(", ")));
        }
        let replicas = reader.read("replicas", &format!("a number from 1 to {MOST_REPLICAS}"), |text| {
            text.parse().ok().filter(|count| (1..=MOST_REPLICAS).contains(count))
        });
        let service_type = reader.read("service-type", "LoadBalancer, NodePort or ClusterIP", |text| {
            let all = [ServiceType::LoadBalancer, ServiceType::NodePort, ServiceType::ClusterIp];
            all.into_iter().find(|one| one.as_str() == text)
        });
        let external_traffic_policy = reader.read("external-traffic-policy", "Cluster or Local", |text| {
            ["Cluster", "Local"].contains(&text).then(|| text.to_owned())
        });
        let mut resources = |keys: [(&'static str, &str); 2]| {
            let read = |(name, key): (&'static str, &str)| {
                let quantity = reader.read(key, "a quantity, such as 500m or 256Mi", |text| {
                    is_quantity(text).then(|| text.to_owned())
                });
                Some((name, quantity?))
            };
            keys.into_iter().filter_map(read).collect()
        };
        let requests = resources([("cpu", "cpu-request"), ("memory", "memory-request")]);
        let limits = resources([("cpu", "cpu-limit"), ("memory", "memory-limit")]);
        let host_ports = reader.read(
            "host-ports",
            "ports other than 15020, separated by commas, such as 80,443",
            |text| {
                let port = |text: &str| {
                    text.trim()
                        .parse()
                        .ok()
                        .filter(|port| *port > 0 && *port != port::METRICS)
                };
                text.split(',').map(port).collect()
            },
        );
        if !reader.mistakes.is_empty() {
            return Err(reader.mistakes);
        }
        Ok(Self {
            replicas,
            service_type: service_type.unwrap_or_default(),
            external_traffic_policy,
            requests,
            limits,
            host_ports: host_ports.unwrap_or_default(),
        })
    }
}

struct Reader<'a> {
    data: &'a BTreeMap<String, String>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn read<T>(&mut self, key: &str, right: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.data.get(key)?.trim();
        let value = read(text);
        if value.is_none() {
            // It may be a whole file.
            let short: String = text.chars().take(40).collect();
            self.mistakes.push(format!("{key}: '{short}' is not {right}"));
        }
        value
    }
}

/// A decimal number with a suffix, as resources are given (the API's `Quantity`, without exponents).
fn is_quantity(text: &str) -> bool {
    let digits = text
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
        .count();
    let (number, suffix) = text.split_at(digits);
    let suffixes = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    number.len() < 20 && number.parse::<f64>().is_ok_and(|number| number > 0.0) && suffixes.contains(&suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<Parameters, Vec<String>> {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Parameters::read(&entries.collect())
    }

    #[test]
    fn what_is_left_out_is_weft_s_own_choice() {
        assert_eq!(read(&[]), Ok(Parameters::default()));
        let given = read(&[
            ("replicas", "3"),
            ("service-type", "NodePort"),
            ("external-traffic-policy", "Local"),
            ("cpu-request", "0.5"),
            ("memory-limit", "2Gi"),
            ("host-ports", "80, 443"),
        ])
        .unwrap();
        assert_eq!((given.replicas, given.service_type), (Some(3), ServiceType::NodePort));
        assert_eq!(given.requests, BTreeMap::from([("cpu", "0.5".to_owned())]));
        assert_eq!(given.limits, BTreeMap::from([("memory", "2Gi".to_owned())]));
        assert_eq!(given.host_ports, BTreeSet::from([80, 443]));
    }

    #[test]
    fn every_mistake_is_told_with_what_would_be_right() {
        let mistakes = read(&[
            ("replicas", "0"),
            ("service-type", "loadbalancer"),
            ("external-traffic-policy", "x"),
            ("cpu-request", "1e3"),
            ("memory-request", "-1Mi"),
            ("cpu-limit", "0"),
            ("memory-limit", "a lot"),
            ("host-ports", "80,15020"),
            ("replica", "3"),
        ])
        .unwrap_err();
        assert_eq!(mistakes.len(), 9, "{mistakes:#?}");
        assert!(mistakes[0].starts_with("'replica' is not one of replicas, "));
        assert_eq!(mistakes[1], "replicas: '0' is not a number from 1 to 1000");
    }
}
