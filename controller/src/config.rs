//! Flags → configuration. What was given is read as text, so that all mistakes are told together.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use clap::Parser;
use weft_proto::{
    names::{
        DEFAULT_TRUST_DOMAIN, IDENTITY_SERVICE_ACCOUNT, LEAF_LIFE, ROUTES_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, env, port,
    },
    skip::Cidrs,
};
use weft_service::spiffe::{self, Id};

use crate::{infrastructure, issue::own::Remote, translate};

/// Watches the cluster, answers proxies, signs workload certificates.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "weft-controller", version, max_term_width = 120)]
pub struct Raw {
    /// What this process does: `routes` answers proxies, `identity` signs certificates, `all` does both (for the sandbox).
    #[arg(long, value_name = "routes|identity|all", default_value = "all")]
    pub role: String,
    /// Read the cluster's objects from the YAML and JSON files below this directory, and follow them.
    #[arg(long, value_name = "DIR")]
    pub from_dir: Option<PathBuf>,
    /// Watch a Kubernetes API: the pod's own, or the kubeconfig's. Tokens are checked there, unless --sandbox-token-key is given.
    #[arg(long)]
    pub kubernetes: bool,
    /// The SPIFFE trust domain.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: String,
    /// Directory with ca.crt, ca.key and, for further roots, ca-bundle.crt; followed. For the roles identity and all.
    #[arg(long, value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,
    /// Make ca.crt and ca.key when both are missing: a root for one year.
    #[arg(long)]
    pub create_ca: bool,
    /// With --kubernetes, instead of --ca-dir: Secret with the keys ca.crt, ca.key and, for further roots, ca-bundle.crt;
    /// made when it is missing, with a root for one year; followed.
    #[arg(long, value_name = "NAME")]
    pub ca_secret: Option<String>,
    /// With --ca-secret: ConfigMap of which the key ca-bundle.crt is kept equal to the roots that peers may chain to.
    #[arg(long, value_name = "NAME")]
    pub trust_config_map: Option<String>,
    /// Life of a workload certificate, as 24h, 90m or 60s: 10 s to 168h.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub leaf_life: String,
    /// Where proxies ask for destinations: mutual TLS only.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = format!("[::]:{}", port::DISCOVERY))]
    pub discovery_listen: String,
    /// Where proxies ask for certificates: TLS only.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = format!("[::]:{}", port::IDENTITY))]
    pub identity_listen: String,
    /// PEM file with the ES256 public key of a sandbox's tokens, which takes the place of TokenReview.
    #[arg(long, value_name = "FILE")]
    pub sandbox_token_key: Option<PathBuf>,
    /// With --from-dir: directory for what would be written to an API server, objects of Gateways below objects/ and statuses below
    /// status/. Without it, neither is written.
    #[arg(long, value_name = "DIR")]
    pub write_dir: Option<PathBuf>,
    /// With --from-dir: file with the secrets of sessions' keys, made when it is missing. Without it they last as long as the process.
    #[arg(long, value_name = "FILE")]
    pub session_keys: Option<PathBuf>,
    /// Image of the proxy. With it, the Gateways of the class weft get Deployments and Services.
    #[arg(long, value_name = "IMAGE")]
    pub proxy_image: Option<String>,
    /// When kubelets pull the image of gateways' proxies: Always, IfNotPresent or Never.
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Where gateways' proxies ask for what they serve, as host:port.
    #[arg(long, value_name = "HOST:PORT", default_value_t = format!("{ROUTES_SERVICE_ACCOUNT}.{SYSTEM_NAMESPACE}.svc:{}", port::DISCOVERY))]
    pub discovery_address: String,
    /// Where gateways' proxies send spans, as http://collector.observability.svc:4317: OTLP over gRPC. Without it there are none.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of the requests that begin a trace at a gateway, 0 to 1. Without it the proxy's own default.
    #[arg(long, value_name = "RATIO")]
    pub trace_sampling: Option<String>,
    /// Ranges of the cluster's pods and Services, as 10.0.0.0/8,fd00::/8. An address inside that nothing has is unknown, not outside.
    /// Without it they are taken from the Nodes and ServiceCIDRs that are there.
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub cluster_cidrs: String,
    /// Where /live, /ready and /metrics are served: plain HTTP, GET only.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:15021")]
    pub admin_listen: String,
    /// Role routes: where it gets its own certificate, as host:port. Gateways' proxies get theirs there, too.
    #[arg(long, value_name = "HOST:PORT")]
    pub identity_address: Option<String>,
    /// Role routes: file with its own projected token (audience weft-ca).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Role routes: PEM file with the roots to trust at start.
    #[arg(long, value_name = "FILE")]
    pub trust_bundle: Option<PathBuf>,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// Files.
    Directory(PathBuf),
    /// An API server.
    Kubernetes,
}

/// How tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// The sandbox's own.
    Sandbox(PathBuf),
    /// TokenReview.
    Review,
}

/// Where the CA comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaSource {
    /// Files.
    Directory {
        /// Where they are.
        path: PathBuf,
        /// Make them when they are missing.
        create: bool,
    },
    /// An API server.
    Secret {
        /// The Secret with the CA.
        name: String,
        /// The ConfigMap that tells its roots.
        trust: Option<String>,
    },
}

/// Which pod this is, where it is one.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace of weft's own objects.
    pub namespace: String,
    /// The pod's name, or one that nobody else has.
    pub pod: String,
}

impl Place {
    /// As the environment says.
    fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self {
            namespace: variable(env::POD_NAMESPACE).unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned()),
            pod: variable(env::POD_NAME).unwrap_or_else(|| {
                let random = RandomState::new().hash_one(std::process::id());
                format!("weft-controller-{random:016x}")
            }),
        }
    }
}

/// The part of role `routes`.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where objects come from.
    pub objects: Objects,
    /// Listener of discovery.
    pub listen: SocketAddr,
    /// Ranges of pods and Services.
    pub cluster_cidrs: Cidrs,
    /// Who we are.
    pub id: Id,
    /// Where our certificate comes from; `None`: from the CA of this process.
    pub remote: Option<Remote>,
    /// What runs for Gateways, but for the trust bundle; `None`: nothing does.
    pub gateways: Option<infrastructure::Settings>,
    /// Where files are written in place of an API server.
    pub write_dir: Option<PathBuf>,
    /// The file with the secrets of sessions' keys.
    pub session_keys: Option<PathBuf>,
}

/// The part of role `identity`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Listener of the identity service.
    pub listen: SocketAddr,
    /// Where the CA comes from.
    pub ca: CaSource,
    /// Life of a leaf.
    pub leaf_life: Duration,
    /// How tokens are checked.
    pub tokens: Tokens,
    /// Who we are.
    pub id: Id,
}

/// What to run. At least one of the parts is there.
#[derive(Clone, Debug)]
pub struct Config {
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// Which pod this is.
    pub place: Place,
    /// Listener of the admin server.
    pub admin: SocketAddr,
    /// Answers proxies.
    pub routes: Option<Routes>,
    /// Signs certificates.
    pub identity: Option<Identity>,
}

/// Collects mistakes beside values.
#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn of<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(error.to_string())).ok()
    }

    fn need<T>(&mut self, value: Option<T>, why: &str) -> Option<T> {
        if value.is_none() {
            self.0.push(why.to_owned());
        }
        value
    }

    fn address(&mut self, flag: &str, text: &str) -> Option<SocketAddr> {
        let read = text
            .parse()
            .map_err(|_| format!("{flag}: '{text}' is not an address such as 127.0.0.1:15010 or [::]:15010"));
        self.of(read)
    }
}

impl Config {
    /// Reads the flags; the error holds every mistake.
    pub fn new(raw: Raw) -> Result<Self, Vec<String>> {
        let Raw {
            role,
            from_dir,
            kubernetes,
            trust_domain,
            ca_dir,
            create_ca,
            ca_secret,
            trust_config_map,
            leaf_life,
            discovery_listen,
            identity_listen,
            sandbox_token_key,
            write_dir,
            session_keys,
            proxy_image,
            image_pull_policy,
            discovery_address,
            otlp_endpoint,
            trace_sampling,
            cluster_cidrs,
            admin_listen,
            identity_address,
            token_file,
            trust_bundle,
        } = raw;
        let mut mistakes = Mistakes::default();
        let (is_routes, is_identity) = match role.as_str() {
            "all" => (true, true),
            "routes" => (true, false),
            "identity" => (false, true),
            other => {
                mistakes
                    .0
                    .push(format!("--role: '{other}' is none of routes, identity and all"));
                (false, false)
            }
        };
        if let Err(why) = spiffe::check_trust_domain(&trust_domain) {
            mistakes.0.push(format!("--trust-domain: '{trust_domain}': {why}"));
        }
        let admin = mistakes.address("--admin-listen", &admin_listen);
        let discovery = mistakes.address("--discovery-listen", &discovery_listen);
        let listen_identity = mistakes.address("--identity-listen", &identity_listen);
        let cidrs: Result<Cidrs, _> = cluster_cidrs.parse().map_err(|bad| format!("--cluster-cidrs: {bad}"));
        let cidrs = mistakes.of(cidrs);
        let life = translate::parse_duration(&leaf_life).filter(|life| LEAF_LIFE.contains(life));
        let life = mistakes.need(
            life,
            &format!("--leaf-life: '{leaf_life}' is not a duration from 10s to 168h, such as 24h or 60s"),
        );
        let needs_objects = is_routes || (is_identity && sandbox_token_key.is_none());
        let objects = match (from_dir, kubernetes) {
            (Some(_), true) => {
                mistakes.0.push("--from-dir and --kubernetes exclude each other".into());
                None
            }
            (Some(directory), false) => Some(Objects::Directory(directory)),
            (None, true) => Some(Objects::Kubernetes),
            (None, false) if needs_objects => mistakes.need(None, "give --from-dir DIR or --kubernetes"),
            (None, false) => None,
        };
        let is_directory = matches!(objects, Some(Objects::Directory(_)));
        for (flag, given) in [
            ("--write-dir", write_dir.is_some()),
            ("--session-keys", session_keys.is_some()),
        ] {
            if given && !is_directory {
                mistakes.0.push(format!("{flag} goes with --from-dir"));
            }
        }
        if !["Always", "IfNotPresent", "Never"].contains(&image_pull_policy.as_str()) {
            mistakes.0.push(format!(
                "--image-pull-policy: '{image_pull_policy}' is none of Always, IfNotPresent and Never"
            ));
        }
        let sampling = trace_sampling.and_then(|text| {
            let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            mistakes.need(
                ratio,
                &format!("--trace-sampling: '{text}' is not a share from 0 to 1, such as 0.01"),
            )
        });
        let default_identity = || format!("{IDENTITY_SERVICE_ACCOUNT}.{SYSTEM_NAMESPACE}.svc:{}", port::IDENTITY);
        let gateways = proxy_image.map(|image| infrastructure::Settings {
            image,
            image_pull_policy,
            trust_domain: trust_domain.clone(),
            trust_bundle: String::new(),
            discovery: discovery_address,
            identity: identity_address.clone().unwrap_or_else(default_identity),
            otlp_endpoint,
            trace_sampling: sampling,
        });
        let tokens = match (sandbox_token_key, &objects) {
            (Some(file), _) => Some(Tokens::Sandbox(file)),
            (None, Some(Objects::Directory(_))) if is_identity => mistakes.need(
                None,
                "--from-dir has no API server to check tokens: give --sandbox-token-key FILE",
            ),
            (None, _) => Some(Tokens::Review),
        };
        let who = |account| Id::workload(&trust_domain, SYSTEM_NAMESPACE, account).ok();
        let (routes_id, identity_id) = (who(ROUTES_SERVICE_ACCOUNT), who(IDENTITY_SERVICE_ACCOUNT));
        let ca = match (ca_dir, ca_secret) {
            _ if !is_identity => None,
            (Some(_), Some(_)) => mistakes.need(None, "--ca-dir and --ca-secret exclude each other"),
            (Some(path), None) => Some(CaSource::Directory {
                path,
                create: create_ca,
            }),
            (None, Some(_)) if create_ca => mistakes.need(
                None,
                "--create-ca goes with --ca-dir: a Secret that is missing is always made",
            ),
            (None, Some(_)) if objects != Some(Objects::Kubernetes) => {
                mistakes.need(None, "--ca-secret needs --kubernetes")
            }
            (None, Some(name)) => Some(CaSource::Secret {
                name,
                trust: trust_config_map.clone(),
            }),
            (None, None) => mistakes.need(
                None,
                "--ca-dir DIR, or with --kubernetes --ca-secret NAME, is needed to sign certificates",
            ),
        };
        if trust_config_map.is_some() && matches!(ca, Some(CaSource::Directory { .. })) {
            mistakes.0.push("--trust-config-map goes with --ca-secret".into());
        }
        let remote = if is_routes && !is_identity {
            let address = mistakes.need(
                identity_address,
                "--identity-address HOST:PORT is needed in role routes",
            );
            let token_file = mistakes.need(token_file, "--token-file FILE is needed in role routes");
            let trust_bundle = mistakes.need(trust_bundle, "--trust-bundle FILE is needed in role routes");
            let parts = (address, token_file, trust_bundle, identity_id.clone());
            match parts {
                (Some(address), Some(token_file), Some(trust_bundle), Some(service)) => Some(Remote {
                    address,
                    service,
                    token_file,
                    trust_bundle,
                }),
                _ => None,
            }
        } else {
            None
        };
        let routes = is_routes.then_some(()).and_then(|()| {
            Some(Routes {
                objects: objects?,
                listen: discovery?,
                cluster_cidrs: cidrs?,
                id: routes_id?,
                remote,
                gateways,
                write_dir,
                session_keys,
            })
        });
        let identity = is_identity.then_some(()).and_then(|()| {
            Some(Identity {
                listen: listen_identity?,
                ca: ca?,
                leaf_life: life?,
                tokens: tokens?,
                id: identity_id?,
            })
        });
        match (admin, mistakes.0.is_empty()) {
            (Some(admin), true) => Ok(Self {
                trust_domain,
                place: Place::of_environment(),
                admin,
                routes,
                identity,
            }),
            _ => Err(mistakes.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, Vec<String>> {
        Config::new(Raw::try_parse_from(std::iter::once(&"weft-controller").chain(arguments)).unwrap())
    }

    #[test]
    fn the_sandbox_s_flags_are_enough() {
        let config = config(&[
            "--role",
            "all",
            "--from-dir",
            "d",
            "--ca-dir",
            "ca",
            "--create-ca",
            "--sandbox-token-key",
            "k",
        ])
        .unwrap();
        let (routes, identity) = (config.routes.unwrap(), config.identity.unwrap());
        assert_eq!(routes.objects, Objects::Directory("d".into()));
        assert_eq!(
            routes.id.as_str(),
            "spiffe://cluster.local/ns/weft-system/sa/weft-routes"
        );
        assert_eq!(routes.listen.port(), 15010);
        assert!(routes.remote.is_none());
        assert_eq!(
            identity.id.as_str(),
            "spiffe://cluster.local/ns/weft-system/sa/weft-identity"
        );
        assert_eq!(
            (identity.tokens, identity.leaf_life),
            (Tokens::Sandbox("k".into()), Duration::from_secs(24 * 3600))
        );
    }

    #[test]
    fn each_role_asks_for_what_it_needs() {
        let remote = [
            "--identity-address",
            "i:15012",
            "--token-file",
            "t",
            "--trust-bundle",
            "b",
        ];
        let routes = config(&[&["--role", "routes", "--kubernetes"], &remote[..]].concat()).unwrap();
        assert!(routes.identity.is_none() && routes.routes.unwrap().remote.is_some());
        let identity = config(&["--role", "identity", "--kubernetes", "--ca-dir", "ca"]).unwrap();
        assert!(identity.routes.is_none());
        assert_eq!(identity.identity.unwrap().tokens, Tokens::Review);
        let secret = [
            "--role",
            "identity",
            "--kubernetes",
            "--ca-secret",
            "s",
            "--trust-config-map",
            "t",
        ];
        let ca = config(&secret).unwrap().identity.unwrap().ca;
        let (name, trust) = ("s".to_owned(), Some("t".to_owned()));
        assert_eq!(ca, CaSource::Secret { name, trust });
        for wrong in [
            &["--ca-dir", "d"][..],
            &["--create-ca"],
            &["--ca-dir", "d", "--create-ca"],
        ] {
            assert_eq!(
                config(&[&secret[..], wrong].concat()).unwrap_err().len(),
                1,
                "{wrong:?}"
            );
        }
        assert_eq!(config(&["--role", "routes", "--kubernetes"]).unwrap_err().len(), 3);
    }

    #[test]
    fn gateways_run_where_there_is_an_image_for_them() {
        let sandbox = ["--from-dir", "d", "--ca-dir", "ca", "--sandbox-token-key", "k"];
        let routes = |more: &[&str]| config(&[&sandbox[..], more].concat()).unwrap().routes.unwrap();
        assert_eq!(routes(&[]).gateways, None);
        let given = routes(&[
            "--proxy-image",
            "p",
            "--write-dir",
            "w",
            "--session-keys",
            "s",
            "--trace-sampling",
            "0.5",
        ]);
        let gateways = given.gateways.unwrap();
        assert_eq!(gateways.discovery, "weft-routes.weft-system.svc:15010");
        assert_eq!(gateways.identity, "weft-identity.weft-system.svc:15012");
        assert_eq!((gateways.image.as_str(), gateways.trace_sampling), ("p", Some(0.5)));
        assert_eq!(
            (given.write_dir, given.session_keys),
            (Some("w".into()), Some("s".into()))
        );
        let wrong = [
            "--kubernetes",
            "--ca-dir",
            "ca",
            "--write-dir",
            "w",
            "--session-keys",
            "s",
            "--image-pull-policy",
            "x",
        ];
        assert_eq!(config(&wrong).unwrap_err().len(), 3);
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let mistakes = config(&[
            "--trust-domain",
            "Bad_Domain",
            "--discovery-listen",
            "15010",
            "--admin-listen",
            "x",
            "--cluster-cidrs",
            "10.0.0.0/33",
            "--leaf-life",
            "1s",
            "--from-dir",
            "d",
        ])
        .unwrap_err();
        let text = mistakes.join("\n");
        for part in [
            "--trust-domain: 'Bad_Domain'",
            "--discovery-listen: '15010'",
            "--admin-listen: 'x'",
            "--cluster-cidrs: '10.0.0.0/33'",
            "--leaf-life: '1s'",
            "--sandbox-token-key",
            "--ca-dir",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
