//! What the program is told on its command line, and what it reads from the files that are named there.
//!
//! Settings are read again and again while the program runs: a trust bundle and the cluster's ranges change.

use std::{net::SocketAddr, path::PathBuf, time::SystemTime};

use clap::{Parser, Subcommand};
use weft_proto::names;

use crate::{
    certificate::Source,
    context::{RawSettings, Settings},
};

/// The mutating webhook: a pod in, a meshed pod out.
#[derive(Debug, Parser)]
#[command(name = "weft-injector", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the webhook: POST /inject over HTTPS.
    Serve(Serve),
}

/// How to serve.
#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// Address and port of the webhook, HTTPS.
    #[arg(long, default_value_t = SocketAddr::from(([0u16; 8], names::port::WEBHOOK)))]
    pub listen: SocketAddr,
    /// Address and port of /live, /ready and /metrics, plain HTTP.
    #[arg(long, default_value = "127.0.0.1:15022")]
    pub admin_listen: SocketAddr,
    /// Image of the proxy.
    #[arg(long)]
    pub proxy_image: String,
    /// Image of weft-init.
    #[arg(long)]
    pub init_image: String,
    /// When the kubelet pulls both images: Always, IfNotPresent or Never.
    #[arg(long, default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// SPIFFE trust domain of the mesh.
    #[arg(long, default_value = names::DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: String,
    /// PEM file of the certificates that the mesh's identities lead to; read again when it changes.
    #[arg(long)]
    pub trust_bundle: PathBuf,
    /// host:port of the discovery service.
    #[arg(long, default_value = "weft-routes.weft-system.svc:15010")]
    pub discovery: String,
    /// host:port of the identity service.
    #[arg(long, default_value = "weft-identity.weft-system.svc:15012")]
    pub identity: String,
    /// Ranges of the cluster's pods and Services, comma-separated; empty when not known.
    #[arg(long, default_value = "")]
    pub cluster_cidrs: String,
    /// File with the ranges of the cluster's pods and Services, comma-separated; read again when it changes. While it is
    /// missing they are not known.
    #[arg(long, value_name = "FILE", conflicts_with = "cluster_cidrs")]
    pub cluster_cidrs_file: Option<PathBuf>,
    /// Where the proxies export spans to, as http://host:4317 (OTLP over gRPC); no spans are made without it.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The share of traces that begin at a proxy and are recorded, from 0 to 1; the proxies' own default without it.
    #[arg(long, value_name = "RATIO")]
    pub trace_sampling: Option<String>,
    /// Keep the webhook's CA in Secret weft-injector-webhook, which all replicas share, and MutatingWebhookConfiguration
    /// weft-injector in step with it; refuse to inject where Kubernetes is older than 1.29.
    #[arg(long, conflicts_with_all = ["certificate", "key", "ca_out"])]
    pub kubernetes: bool,
    /// Namespace that this program runs in, with --kubernetes.
    #[arg(long, env = names::env::POD_NAMESPACE, default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// PEM file of the webhook's certificate, leaf first; read again when it changes. Without it one is made, with a CA of its own.
    #[arg(long, requires = "key")]
    pub certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[arg(long, requires = "certificate")]
    pub key: Option<PathBuf>,
    /// DNS name or address in the certificate that is made here; may be given several times. Default: the name of Service
    /// weft-injector in the namespace that this program runs in.
    #[arg(long = "dns-name", conflicts_with = "certificate")]
    pub dns_names: Vec<String>,
    /// File for the CA's certificate, when it is made here: what the API server must trust.
    #[arg(long, conflicts_with = "certificate")]
    pub ca_out: Option<PathBuf>,
}

impl Serve {
    /// The settings as flags and files say them now, or every mistake in them.
    pub fn settings(&self) -> Result<Settings, Vec<String>> {
        let mut unreadable = Vec::new();
        let mut read = |flag: &str, path: &PathBuf, may_be_missing: bool| match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                unreadable.push((
                    flag.to_owned(),
                    format!("{flag}: cannot read {}: {error}", path.display()),
                ));
                String::new()
            }
        };
        let trust_bundle = read("--trust-bundle", &self.trust_bundle, false);
        let cluster_cidrs = match &self.cluster_cidrs_file {
            Some(path) => read("--cluster-cidrs-file", path, true).trim().to_owned(),
            None => self.cluster_cidrs.clone(),
        };
        let raw = RawSettings {
            proxy_image: self.proxy_image.clone(),
            init_image: self.init_image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            trust_domain: self.trust_domain.clone(),
            trust_bundle,
            discovery: self.discovery.clone(),
            identity: self.identity.clone(),
            cluster_cidrs,
            otlp_endpoint: self.otlp_endpoint.clone(),
            trace_sampling: self.trace_sampling.clone(),
        };
        let checked = Settings::check(raw);
        if unreadable.is_empty() {
            return checked;
        }
        let mut mistakes = checked.err().unwrap_or_default();
        // That the text which could not be read is empty is no second mistake.
        mistakes.retain(|mistake| {
            !unreadable
                .iter()
                .any(|(flag, _)| mistake.starts_with(&format!("{flag}:")))
        });
        mistakes.extend(unreadable.into_iter().map(|(_, text)| text));
        Err(mistakes)
    }

    /// The names in the certificates that are made here.
    pub fn names(&self) -> Vec<String> {
        if self.dns_names.is_empty() {
            vec![format!("{}.{}.svc", names::INJECTOR_SERVICE_ACCOUNT, self.namespace)]
        } else {
            self.dns_names.clone()
        }
    }

    /// Where the certificate comes from, without a cluster.
    pub fn source(&self) -> anyhow::Result<Source> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Ok(Source::files(certificate.clone(), key.clone())),
            _ => Source::own(self.names(), self.ca_out.clone(), SystemTime::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(more: &[&str]) -> Result<Serve, clap::Error> {
        let fixed = ["weft-injector", "serve", "--proxy-image=p", "--init-image=i"];
        let Command::Serve(serve) = Arguments::try_parse_from(fixed.iter().chain(more))?.command;
        Ok(serve)
    }

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
        assert!(parse(&["--trust-bundle=t", "--kubernetes"]).is_ok());
        for wrong in [
            &["--trust-bundle=t", "--kubernetes", "--ca-out=x"][..],
            &["--trust-bundle=t", "--kubernetes", "--certificate=x", "--key=y"],
            &[
                "--trust-bundle=t",
                "--cluster-cidrs=10.0.0.0/8",
                "--cluster-cidrs-file=x",
            ],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let serve = parse(&["--trust-bundle=t", "--namespace=mesh"]).unwrap();
        assert_eq!(serve.names(), ["weft-injector.mesh.svc"]);
    }

    #[test]
    fn files_are_read_at_each_look_and_a_missing_list_of_ranges_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (bundle, ranges) = (path("ca-bundle.crt"), path("cidrs"));
        let serve = parse(&["--trust-bundle", &bundle, "--cluster-cidrs-file", &ranges]).unwrap();
        let mistakes = serve.settings().unwrap_err();
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with("--trust-bundle: cannot read"),
            "{mistakes:?}"
        );
        std::fs::write(&bundle, include_str!("../tests/injector/bundle.pem")).unwrap();
        assert!(serve.settings().unwrap().cluster_cidrs.is_empty());
        std::fs::write(&ranges, "10.244.0.0/16,fd00::/8\n").unwrap();
        assert_eq!(
            serve.settings().unwrap().cluster_cidrs.to_string(),
            "10.244.0.0/16,fd00::/8"
        );
        std::fs::write(&ranges, "10.244.0.0/99").unwrap();
        let mistakes = serve.settings().unwrap_err();
        assert!(mistakes[0].contains("10.244.0.0/99"), "{mistakes:?}");
    }
}
