//! The way to a cluster: which one is meant, a client whose waits are bounded, and its errors in words.

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{env, future::Future, path::PathBuf};
use weft_proto::limits;

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// The kubeconfig; as kubectl finds it by default: $KUBECONFIG, then ~/.kube/config, then the pod's own ServiceAccount.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one by default.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Which {
    /// Whether a cluster was named by a flag.
    pub fn named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Whether anything says where a cluster is. Nothing is read or asked.
    pub fn configured(&self) -> bool {
        let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        self.named()
            || env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty())
            || home.is_some_and(|file| file.exists())
            || env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// A client, and how it was found, for people. The API server is not asked yet.
    pub async fn client(&self) -> anyhow::Result<Client> {
        weft_service::tls::install_provider();
        if !self.configured() {
            bail!("no cluster is configured: give --kubeconfig FILE, or set KUBECONFIG");
        }
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let mut config = match &self.kubeconfig {
            Some(file) => {
                let place = || format!("--kubeconfig {}", file.display());
                let read = Kubeconfig::read_from(file).with_context(place)?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .with_context(place)?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await.context("--context")?,
            None => Config::infer().await.context("no cluster can be found")?,
        };
        config.connect_timeout = Some(limits::API_CONNECT);
        config.read_timeout = Some(limits::API_ANSWER);
        config.write_timeout = Some(limits::API_ANSWER);
        Ok(Client::try_from(config)?)
    }
}

/// Runs what asks a cluster. The runtime is made here, so that commands without a cluster have none.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// The cluster's version; the error says why no answer came.
pub async fn version(client: &Client) -> anyhow::Result<Info> {
    match tokio::time::timeout(limits::API_ANSWER, client.apiserver_version()).await {
        Ok(version) => version.map_err(|error| anyhow::anyhow!("the API server does not answer: {}", reason(&error))),
        Err(_) => bail!("the API server did not answer within {:?}", limits::API_ANSWER),
    }
}

/// An error of the client in words: the innermost reason, which says most.
pub fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            let mut innermost: &dyn std::error::Error = other;
            while let Some(inner) = innermost.source() {
                innermost = inner;
            }
            innermost.to_string()
        }
    }
}
