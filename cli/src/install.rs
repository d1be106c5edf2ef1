//! `weft install`: prints what weft needs in a cluster, for `kubectl apply --server-side -f -`. It changes nothing itself.
//!
//! The objects are those of `manifests/`, edited as the flags say. Of the cluster it asks two things, when it can: the version, and which of
//! the Gateway API's definitions are there.

mod choices;
mod objects;

use crate::cluster::{self, Which};
use anyhow::bail;
use choices::{Choices, Crds};
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, api::ListParams};
use std::collections::{BTreeMap, BTreeSet};
use weft_injector::kubernetes::version::refusal;
use weft_proto::names;

pub use choices::value;
pub use objects::{CRDS, system};

/// Annotation of the Gateway API's definitions with their version.
pub const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// Annotation of the Gateway API's definitions: standard or experimental.
pub const CHANNEL: &str = "gateway.networking.k8s.io/channel";

/// The arguments. All are read as text, so that every mistake is told at once.
#[derive(Args, Debug)]
pub struct Install {
    #[command(flatten)]
    which: Which,
    /// The Gateway API's definitions: those that the cluster does not have, all, or none of them.
    #[arg(long, value_name = "missing|all|none", default_value = "missing")]
    crds: String,
    /// Where images come from: PREFIX/proxy, PREFIX/init, PREFIX/injector and PREFIX/controller.
    #[arg(long, value_name = "PREFIX", default_value = "weft.dev")]
    image_prefix: String,
    /// Tag of the images.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    image_tag: String,
    /// When kubelets pull images, weft's own and the proxies': Always, IfNotPresent or Never.
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// SPIFFE trust domain of the mesh.
    #[arg(long, value_name = "NAME", default_value = names::DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
    /// Ranges of the cluster's pods and Services, as 10.0.0.0/8,fd00::/8. By default what its Nodes and ServiceCIDRs say.
    #[arg(long, value_name = "CIDRS")]
    cluster_cidrs: Option<String>,
    /// Life of a workload certificate, as 24h, 90m or 60s: 10s to 168h.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    leaf_life: String,
    /// Where proxies send spans, OTLP over gRPC, as http://collector.observability.svc:4317. Without it there are none.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of requests that begin a trace, 0 to 1; 0.01 by default. A parent's decision wins.
    #[arg(long, value_name = "RATIO")]
    trace_sampling: Option<String>,
    /// Replicas of weft-routes and of weft-injector.
    #[arg(long, value_name = "NUMBER", default_value = "2")]
    replicas: String,
}

impl Install {
    /// Prints the objects; what was found out goes to standard error. The exit code.
    pub fn run(self) -> anyhow::Result<i32> {
        let choices = match Choices::new(&self) {
            Ok(choices) => choices,
            Err(mistakes) => bail!("nothing is printed:\n  {}", mistakes.join("\n  ")),
        };
        let there = cluster::block_on(ask(&self.which, choices.crds))?;
        for crd in CRDS.iter().filter(|crd| choices.crds.wanted(crd, &there)) {
            print!("{}\n---\n", crd.text.trim_end());
        }
        let printed: Result<Vec<_>, _> = choices.edit(system()?)?.iter().map(weft_sandbox::store::yaml).collect();
        print!("{}", printed?.join("---\n"));
        Ok(0)
    }
}

/// The definitions that the cluster has, with their versions; none when there is nobody to ask.
async fn ask(which: &Which, crds: Crds) -> anyhow::Result<BTreeMap<String, String>> {
    let client = match connect(which).await {
        Ok(client) => client,
        // A cluster that was named must be there.
        Err(error) if which.named() => return Err(error),
        Err(error) => {
            if crds == Crds::Missing {
                eprintln!(
                    "weft: which definitions of the Gateway API are missing cannot be told ({error:#}); all are printed"
                );
            }
            return Ok(BTreeMap::new());
        }
    };
    if let Some(old) = refusal(&cluster::version(&client).await?) {
        bail!("{old}");
    }
    if crds != Crds::Missing {
        return Ok(BTreeMap::new());
    }
    let there = match definitions(&client).await {
        Ok(there) => there,
        Err(error) => {
            let why = cluster::reason(&error);
            eprintln!("weft: which definitions of the Gateway API are missing cannot be told ({why}); all are printed");
            return Ok(BTreeMap::new());
        }
    };
    let stay: Vec<&str> = CRDS
        .iter()
        .map(|crd| crd.name)
        .filter(|name| there.contains_key(*name))
        .collect();
    if !stay.is_empty() {
        let versions: BTreeSet<&str> = stay
            .iter()
            .filter_map(|name| there.get(*name))
            .map(String::as_str)
            .collect();
        let versions = versions.into_iter().collect::<Vec<_>>().join("; ");
        eprintln!(
            "weft: {} of {} definitions of the Gateway API are there ({versions}) and stay as they are",
            stay.len(),
            CRDS.len()
        );
    }
    Ok(there)
}

async fn connect(which: &Which) -> anyhow::Result<Client> {
    let client = which.client().await?;
    cluster::version(&client).await?;
    Ok(client)
}

/// The Gateway API's definitions of a cluster: name → version and channel.
pub async fn definitions(client: &Client) -> Result<BTreeMap<String, String>, kube::Error> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let listed = api.list_metadata(&ListParams::default()).await?;
    let group = format!(".{}", names::gateway_api::GROUP);
    let ours = listed.items.into_iter().filter_map(|item| {
        let name = item.metadata.name.filter(|name| name.ends_with(&group))?;
        let annotations = item.metadata.annotations.unwrap_or_default();
        let said = |key: &str| annotations.get(key).map_or("unknown", String::as_str).to_owned();
        Some((name, format!("{}, {}", said(BUNDLE_VERSION), said(CHANNEL))))
    });
    Ok(ours.collect())
}

#[cfg(test)]
mod tests;
