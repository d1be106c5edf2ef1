//! `weft explain`: what would become of a request or a connection, asked of the proxy that would carry it.

use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use weft_proto::names::container;

use crate::sandbox;

/// The words of the command. Those behind the flags below are the proxy's own: `weft-proxy explain --help`.
#[derive(Args)]
pub struct Explain {
    /// http, https, grpc, grpcs, tls or tcp, `://host[:port]`, and a path or a gRPC service and method.
    url: String,
    /// The pod whose application asks: POD or POD.NAMESPACE; in a sandbox a workload's name means its first ready pod.
    #[arg(long, value_name = "POD", required_unless_present = "via", conflicts_with = "via")]
    from: Option<String>,
    /// The Gateway that a client outside of the mesh asks: gateway/NAME or gateway/NAME.NAMESPACE.
    #[arg(long, value_name = "gateway/NAME")]
    via: Option<String>,
    /// The method; GET by default, POST for gRPC.
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// A header field; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address that is dialled; by default what the URL's host resolves to in the pod.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: Option<String>,
    /// `json` instead of text.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
    /// Ask in the sandbox of this name instead of a cluster.
    #[arg(long, value_name = "NAME")]
    sandbox: Option<String>,
}

impl Explain {
    /// Asks; the exit code is that of the one who answers.
    pub fn run(self) -> anyhow::Result<i32> {
        let mut words = vec!["weft-proxy".to_owned(), "explain".into(), self.url.clone()];
        let flags = [("-X", &self.method), ("--to", &self.to)];
        for (flag, value) in flags
            .into_iter()
            .filter_map(|(flag, value)| Some((flag, value.clone()?)))
        {
            words.extend([flag.to_owned(), value]);
        }
        for header in &self.headers {
            words.extend(["-H".to_owned(), header.clone()]);
        }
        words.extend(["--output".to_owned(), self.output.clone()]);
        let (pod, namespace) = self.pod()?;
        if let Some(name) = &self.sandbox {
            // Containers of a sandbox are processes of this machine: the program lies where the sandbox put it.
            words[0] = sandbox::program(name, container::PROXY)?;
            return sandbox::exec_in(name, &pod, namespace, container::PROXY, words);
        }
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("exec");
        kubectl.args(namespace.iter().flat_map(|namespace| ["-n", namespace]));
        // A Deployment means one of its pods.
        let target = if self.via.is_some() {
            format!("deployment/{pod}")
        } else {
            pod
        };
        kubectl.args([&target, "-c", container::PROXY, "--"]).args(words);
        let status = kubectl
            .status()
            .context("running kubectl; --sandbox NAME asks in a sandbox")?;
        Ok(status.code().unwrap_or(1))
    }

    /// Whose proxy is asked, and its namespace where one is said.
    fn pod(&self) -> anyhow::Result<(String, Option<String>)> {
        let (name, is_gateway) = match (&self.from, &self.via) {
            (Some(pod), _) => (pod.as_str(), false),
            (None, Some(via)) => match via.strip_prefix("gateway/") {
                Some(name) => (name, true),
                None => bail!("--via is gateway/NAME or gateway/NAME.NAMESPACE, not '{via}'"),
            },
            (None, None) => bail!("--from or --via says which proxy"),
        };
        // A namespace has no dot; a pod's name may have.
        let (name, namespace) = match name.rsplit_once('.') {
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
            None => (name, None),
        };
        let name = if is_gateway {
            format!("{name}-weft")
        } else {
            name.to_owned()
        };
        Ok((name, namespace))
    }
}
