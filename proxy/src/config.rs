//! Environment → [`Config`], typed once. All mistakes are reported together, each with what to write instead.
//!
//! The injector writes what is read here; the names, with their manuals, are in `weft_proto::names::env`.

use std::{collections::HashMap, fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use weft_proto::{
    limits,
    names::{self, container, env},
    probes::Probes,
    skip::{Cidrs, Ports},
};
use weft_service::{
    spiffe::{self, Id},
    tls::Bundle,
};

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To the end of a file.
    File(PathBuf),
}

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// `http://host:port` of a receiver of OTLP over gRPC.
    pub endpoint: String,
    /// The share of traces that begin here and are recorded, from 0 to 1.
    pub sampling: f64,
}

/// Everything that the environment says, ready for use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// UID of the pod object.
    pub pod_uid: String,
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// ServiceAccount of the pod.
    pub service_account: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Roots that hold until the first certificate comes with others.
    pub trust_bundle: Bundle,
    /// `host:port` of the discovery service.
    pub discovery_address: String,
    /// `host:port` of the identity service.
    pub identity_address: String,
    /// File that holds the projected token.
    pub token_file: PathBuf,
    /// Ranges of the cluster's pods and Services.
    pub cluster_cidrs: Cidrs,
    /// Ports that may be probed.
    pub probe_ports: Ports,
    /// Probes that are let in without mTLS.
    pub probes: Probes,
    /// Whether plaintext is refused until the controller has said anything.
    pub strict: bool,
    /// Inbound ports that are not weft's.
    pub skip_inbound_ports: Ports,
    /// Worker threads.
    pub workers: usize,
    /// Filter of the log.
    pub log: String,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// Path of the admin socket.
    pub admin_socket: PathBuf,
    /// Time that connections have to end after SIGTERM.
    pub drain: Duration,
    /// Namespace and name of the Gateway that is served; none by a sidecar.
    pub gateway: Option<(String, String)>,
    /// Where spans go; none are made where they go nowhere.
    pub otlp: Option<Otlp>,
}

/// One trace in a hundred tells what is slow, and costs little.
const DEFAULT_SAMPLING: f64 = 0.01;

/// Everything that is wrong with the environment.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the environment:",
            if self.0.len() == 1 { "one mistake" } else { "mistakes" }
        )?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Reads variables and gathers what is wrong with them.
struct Reader<'a> {
    variables: &'a HashMap<String, String>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn given(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// A variable that must be there; what `read` says of its value must hold.
    fn required<T>(&mut self, name: &str, expected: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.given(name).map(read) {
            Some(Ok(value)) => Some(value),
            Some(Err(wrong)) => {
                self.mistakes.push(format!("{name}: {wrong}; set it to {expected}"));
                None
            }
            None => {
                self.mistakes.push(format!("{name} is not set; set it to {expected}"));
                None
            }
        }
    }

    /// A variable that may be left out.
    fn optional<T>(
        &mut self,
        name: &str,
        expected: &str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.given(name) {
            Some(_) => self.required(name, expected, read),
            None => Some(default),
        }
    }
}

fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

fn parsed<T: FromStr<Err: fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn number(value: &str, low: u64, high: u64) -> Result<u64, String> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits && (low..=high).contains(&number) => Ok(number),
        _ => Err(format!("'{value}' is not a number from {low} to {high}")),
    }
}

fn host_and_port(value: &str) -> Result<String, String> {
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(value.to_owned())
        }
        _ => Err(format!("'{value}' is not host:port")),
    }
}

fn gateway(value: &str) -> Result<Option<(String, String)>, String> {
    match value.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Some((namespace.to_owned(), name.to_owned())))
        }
        _ => Err(format!("'{value}' is not namespace/name")),
    }
}

fn otlp_endpoint(value: &str) -> Result<String, String> {
    let wrong = || format!("'{value}' is not http://host:port");
    let uri: http::Uri = value.parse().map_err(|_| wrong())?;
    match (uri.scheme_str(), uri.host(), uri.port_u16(), uri.path()) {
        (Some("https"), ..) => Err(format!(
            "'{value}': spans are exported without TLS, so have a collector inside of the cluster send them on with it"
        )),
        (Some("http"), Some(host), Some(_), "/") if !host.is_empty() && uri.query().is_none() => Ok(value.to_owned()),
        _ => Err(wrong()),
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("'{value}' is not a number from 0 to 1")),
    }
}

fn addresses(value: &str) -> Result<Vec<IpAddr>, String> {
    value
        .split(',')
        .map(|entry| {
            entry
                .trim()
                .parse()
                .map_err(|_| format!("'{}' is not an IP address", entry.trim()))
        })
        .collect()
}

/// The CPUs that the container may use: its cgroup's quota where it has one.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Mistakes> {
        Self::from(
            &std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// Reads variables from anywhere.
    pub fn from(variables: &HashMap<String, String>) -> Result<Self, Mistakes> {
        let mut reader = Reader {
            variables,
            mistakes: Vec::new(),
        };
        let r = &mut reader;
        let pod_name = r.required(env::POD_NAME, "the pod's name (metadata.name)", text);
        let pod_namespace = r.required(env::POD_NAMESPACE, "the pod's namespace (metadata.namespace)", text);
        let pod_uid = r.required(env::POD_UID, "the pod's UID (metadata.uid)", text);
        let pod_ips = r.required(
            env::POD_IPS,
            "the pod's addresses, as 10.0.0.7,fd00::7 (status.podIPs)",
            addresses,
        );
        let service_account = r.required(
            env::SERVICE_ACCOUNT,
            "the pod's ServiceAccount (spec.serviceAccountName)",
            text,
        );
        let default_domain = names::DEFAULT_TRUST_DOMAIN.to_owned();
        let trust_domain = r.optional(
            env::TRUST_DOMAIN,
            "a SPIFFE trust domain, as cluster.local",
            default_domain,
            |value| {
                spiffe::check_trust_domain(value)
                    .map(|()| value.to_owned())
                    .map_err(|why| format!("'{value}': {why}"))
            },
        );
        let trust_bundle = r.required(env::TRUST_BUNDLE, "the PEM certificates of the mesh's roots", |value| {
            Bundle::from_pem(value.as_bytes()).map_err(|error| error.to_string())
        });
        let discovery_address = r.required(
            env::DISCOVERY_ADDRESS,
            "host:port of the controller's discovery service",
            host_and_port,
        );
        let identity_address = r.required(
            env::IDENTITY_ADDRESS,
            "host:port of the controller's identity service",
            host_and_port,
        );
        let token_file = PathBuf::from(container::TOKEN_MOUNT).join(container::TOKEN_FILE);
        let token_file = r.optional(
            env::TOKEN_FILE,
            "the path of the projected token",
            token_file,
            |value| Ok(value.into()),
        );
        let ranges = "address ranges, as 10.0.0.0/8,fd00::/8";
        let cluster_cidrs = r.optional(env::CLUSTER_CIDRS, ranges, Cidrs::default(), parsed);
        let ports = "ports, as 80,8000-8010";
        let probe_ports = r.optional(env::PROBE_PORTS, ports, Ports::default(), parsed);
        let probes = r.optional(
            env::PROBES,
            "probes, as http:8080:/healthz,grpc:50051",
            Probes::default(),
            parsed,
        );
        let strict = r.optional(env::MTLS, "strict or permissive", false, |value| match value {
            "strict" => Ok(true),
            "permissive" => Ok(false),
            other => Err(format!("'{other}' is neither strict nor permissive")),
        });
        let skip_inbound_ports = r.optional(env::SKIP_INBOUND_PORTS, ports, Ports::default(), parsed);
        let gateway = r.optional(env::GATEWAY, "namespace/name of a Gateway", None, gateway);
        // More than four workers are for gateways; a sidecar has one application to serve.
        let most = if matches!(gateway, Some(Some(_))) { 256 } else { 4 };
        let default_workers = cpus().min(most);
        let workers = r.optional(
            env::WORKERS,
            "a number of threads from 1 to 256",
            default_workers,
            |value| number(value, 1, 256).map(|n| n as usize),
        );
        let log = r.optional(env::LOG, "a filter, as info,weft_proxy=debug", "info".to_owned(), text);
        let access_log = r.optional(
            env::ACCESS_LOG,
            "off, stdout or an absolute path",
            AccessLog::Stdout,
            |value| match value {
                "off" => Ok(AccessLog::Off),
                "stdout" => Ok(AccessLog::Stdout),
                path if path.starts_with('/') => Ok(AccessLog::File(path.into())),
                other => Err(format!("'{other}' is neither off nor stdout nor an absolute path")),
            },
        );
        let admin_socket = r.optional(env::ADMIN_SOCKET, "a path", container::ADMIN_SOCKET.into(), |value| {
            Ok(value.into())
        });
        let drain = r.optional(env::DRAIN_SECONDS, "seconds from 1 to 3600", limits::DRAIN, |value| {
            number(value, 1, 3600).map(Duration::from_secs)
        });
        let otlp_endpoint = r.optional(
            env::OTLP_ENDPOINT,
            "http://host:4317, where OTLP over gRPC is taken",
            None,
            |value| otlp_endpoint(value).map(Some),
        );
        let sampling = r.optional(env::TRACE_SAMPLING, "a share, as 0.01", DEFAULT_SAMPLING, ratio);
        if let (Some(domain), Some(namespace), Some(account)) = (&trust_domain, &pod_namespace, &service_account)
            && let Err(bad) = Id::workload(domain, namespace, account)
        {
            reader.mistakes.push(format!(
                "{}, {} and {} make no identity: {bad}; set the last two to what the pod has",
                env::TRUST_DOMAIN,
                env::POD_NAMESPACE,
                env::SERVICE_ACCOUNT
            ));
        }
        let mistakes = std::mem::take(&mut reader.mistakes);
        let config = (|| {
            Some(Self {
                pod_name: pod_name?,
                pod_namespace: pod_namespace?,
                pod_uid: pod_uid?,
                pod_ips: pod_ips?,
                service_account: service_account?,
                trust_domain: trust_domain?,
                trust_bundle: trust_bundle?,
                discovery_address: discovery_address?,
                identity_address: identity_address?,
                token_file: token_file?,
                cluster_cidrs: cluster_cidrs?,
                probe_ports: probe_ports?,
                probes: probes?,
                strict: strict?,
                skip_inbound_ports: skip_inbound_ports?,
                workers: workers?,
                log: log?,
                access_log: access_log?,
                admin_socket: admin_socket?,
                drain: drain?,
                gateway: gateway?,
                otlp: otlp_endpoint?
                    .zip(sampling)
                    .map(|(endpoint, sampling)| Otlp { endpoint, sampling }),
            })
        })();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(Mistakes(mistakes)),
        }
    }

    /// The pod's identity.
    pub fn identity(&self) -> Id {
        Id::workload(&self.trust_domain, &self.pod_namespace, &self.service_account).expect("checked when it was read")
    }

    /// Whom to expect at one of the controller's services.
    pub fn controller(&self, service_account: &str) -> Id {
        Id::workload(&self.trust_domain, names::SYSTEM_NAMESPACE, service_account).expect("both names are weft's own")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HashMap<String, String> {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        [
            (env::POD_NAME, "web-0"),
            (env::POD_NAMESPACE, "shop"),
            (env::POD_UID, "u-1"),
            (env::POD_IPS, "10.0.0.7, fd00::7"),
            (env::SERVICE_ACCOUNT, "web"),
            (env::TRUST_BUNDLE, &root.pem()),
            (env::DISCOVERY_ADDRESS, "weft-routes.weft-system:15010"),
            (env::IDENTITY_ADDRESS, "[fd00::1]:15012"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = Config::from(&good()).unwrap();
        assert_eq!(config.pod_ips.len(), 2);
        assert_eq!(config.identity().as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(config.drain, limits::DRAIN);
        assert_eq!(config.access_log, AccessLog::Stdout);
        assert!((1..=4).contains(&config.workers));
        assert_eq!(config.otlp, None);
        let mut variables = good();
        variables.insert(env::OTLP_ENDPOINT.into(), "http://collector.observe:4317".into());
        let otlp = Config::from(&variables).unwrap().otlp.unwrap();
        assert_eq!(
            (otlp.endpoint.as_str(), otlp.sampling),
            ("http://collector.observe:4317", 0.01)
        );
    }

    #[test]
    fn all_mistakes_are_told_together_and_each_says_what_to_write() {
        let mut variables = good();
        variables.remove(env::POD_NAME);
        for (name, value) in [
            (env::POD_IPS, "10.0.0.7,web"),
            (env::TRUST_BUNDLE, "not PEM"),
            (env::DISCOVERY_ADDRESS, "nowhere"),
            (env::PROBE_PORTS, "80,abc"),
            (env::PROBES, "http:80"),
            (env::WORKERS, "0"),
            (env::DRAIN_SECONDS, "-1"),
            (env::ACCESS_LOG, "stderr"),
            (env::SERVICE_ACCOUNT, "Web"),
            (env::OTLP_ENDPOINT, "https://collector:4317"),
            (env::TRACE_SAMPLING, "1.5"),
            (env::GATEWAY, "edge"),
        ] {
            variables.insert(name.into(), value.into());
        }
        let Mistakes(mistakes) = Config::from(&variables).unwrap_err();
        assert_eq!(mistakes.len(), 13, "{mistakes:#?}");
        let all = Mistakes(mistakes).to_string();
        for part in [
            "WEFT_POD_NAME is not set; set it to the pod's name (metadata.name)",
            "WEFT_POD_IPS: 'web' is not an IP address",
            "WEFT_PROBE_PORTS: 'abc' is not a port",
            "WEFT_PROBES: 'http:80' is not a probe",
            "WEFT_WORKERS: '0' is not a number from 1 to 256",
            "WEFT_DRAIN_SECONDS: '-1' is not a number",
            "its ServiceAccount is not a DNS name",
            "WEFT_OTLP_ENDPOINT: 'https://collector:4317': spans are exported without TLS",
            "WEFT_TRACE_SAMPLING: '1.5' is not a number from 0 to 1",
            "WEFT_GATEWAY: 'edge' is not namespace/name; set it to namespace/name of a Gateway",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }
}
