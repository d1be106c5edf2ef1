//! `weft inject -f pod.yaml`: the webhook's own function, without a cluster.

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use serde_json::Value;
use std::{collections::BTreeMap, io::Read as _, path::PathBuf};
use weft_injector::{
    context::{Context, Namespace, Settings},
    pod::{self, Outcome},
};
use weft_proto::{
    limits,
    names::{self, label},
};
use weft_sandbox::{manifest, object, store};

/// Where a pod template stands in the kinds that have one.
const TEMPLATE: &str = "/spec/template";

/// The arguments.
#[derive(Args)]
pub struct Inject {
    /// YAML file with Pods, or with workloads that have a pod template; - for standard input. Other objects pass as they are.
    #[arg(short, long = "file")]
    file: PathBuf,
    /// Image of the proxy.
    #[arg(long, default_value = "weft-proxy")]
    proxy_image: String,
    /// Image of weft-init.
    #[arg(long, default_value = "weft-init")]
    init_image: String,
    /// SPIFFE trust domain.
    #[arg(long, default_value = names::DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
    /// PEM file of the mesh's roots; a placeholder is shown without it.
    #[arg(long)]
    trust_bundle: Option<PathBuf>,
    /// host:port of the discovery service.
    #[arg(long, default_value = "weft-routes.weft-system.svc:15010")]
    discovery: String,
    /// host:port of the identity service.
    #[arg(long, default_value = "weft-identity.weft-system.svc:15012")]
    identity: String,
    /// Ranges of the cluster's pods and Services.
    #[arg(long, default_value = "")]
    cluster_cidrs: String,
}

impl Inject {
    /// Prints the file with its pods injected; what was left alone and why goes to standard error. The exit code.
    pub fn run(&self) -> anyhow::Result<i32> {
        let text = self.read()?;
        let settings = self.settings()?;
        let documents = documents(&text).with_context(|| self.file.display().to_string())?;
        let labels = namespaces(&documents);
        let (mut shown, mut refused) = (Vec::new(), Vec::new());
        for mut document in documents {
            let kind = document["kind"].as_str().unwrap_or_default().to_string();
            let what = format!("{kind} {}", object::name(&document));
            let place = if kind == "Pod" { "" } else { TEMPLATE };
            if (kind == "Pod" || document.pointer("/spec/template/spec/containers").is_some())
                && let Err(reasons) = inject(&mut document, place, &settings, &labels, &what)?
            {
                refused.extend(reasons.into_iter().map(|r| format!("{what}: {r}")));
            }
            shown.push(store::yaml(&document)?);
        }
        if !refused.is_empty() {
            bail!("refused:\n  {}", refused.join("\n  "));
        }
        print!("{}", shown.join("---\n"));
        Ok(0)
    }

    fn read(&self) -> anyhow::Result<String> {
        if self.file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(limits::OBJECT_FILE as u64)
                .read_to_string(&mut text)?;
            return Ok(text);
        }
        Ok(manifest::file(&self.file).context("give -f a file that exists")?.text)
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let trust_bundle = match &self.trust_bundle {
            Some(file) => {
                std::fs::read_to_string(file).with_context(|| format!("--trust-bundle {}", file.display()))?
            }
            None => "(the mesh's trust bundle)".into(),
        };
        Ok(Settings {
            proxy_image: self.proxy_image.clone(),
            init_image: self.init_image.clone(),
            image_pull_policy: "IfNotPresent".into(),
            trust_domain: self.trust_domain.clone(),
            trust_bundle,
            discovery: self.discovery.clone(),
            identity: self.identity.clone(),
            cluster_cidrs: self.cluster_cidrs.parse().context("--cluster-cidrs")?,
            otlp_endpoint: None,
            trace_sampling: None,
        })
    }
}

fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let read = |(number, text): (usize, &str)| {
        manifest::parse::<Value>(text).map_err(|what| anyhow::anyhow!("document {number}: {what}"))
    };
    manifest::documents(text).into_iter().map(read).collect()
}

/// Labels of the namespaces that the same file declares.
fn namespaces(documents: &[Value]) -> BTreeMap<String, BTreeMap<String, String>> {
    let declared = documents.iter().filter(|d| d["kind"] == "Namespace");
    let typed = declared.filter_map(|d| serde_json::from_value::<NamespaceObject>(d.clone()).ok());
    typed
        .map(|n| {
            (
                n.metadata.name.unwrap_or_default(),
                n.metadata.labels.unwrap_or_default(),
            )
        })
        .collect()
}

/// Injects the pod at a place of a document. The inner error is the injector's refusal.
fn inject(
    document: &mut Value,
    place: &str,
    settings: &Settings,
    labels: &BTreeMap<String, BTreeMap<String, String>>,
    what: &str,
) -> anyhow::Result<Result<(), Vec<String>>> {
    let namespace = object::namespace(document).to_string();
    // A namespace that the file does not declare is taken for a labelled one: that is what the command is asked for.
    let enabled = || BTreeMap::from([(label::INJECT.to_string(), "enabled".to_string())]);
    let context_namespace = Namespace::new(&namespace, labels.get(&namespace).cloned().unwrap_or_else(enabled));
    let Some(value) = document.pointer_mut(place) else {
        return Ok(Ok(()));
    };
    let pod: Pod =
        serde_json::from_value(value.clone()).with_context(|| format!("{what} is not a pod; correct its fields"))?;
    match pod::inject(
        &pod,
        &Context {
            settings,
            namespace: &context_namespace,
        },
    ) {
        Ok(Outcome::Injected(injected)) => {
            let mut injected = serde_json::to_value(injected)?;
            if !place.is_empty()
                && let Some(fields) = injected.as_object_mut()
            {
                // A template is a pod without these.
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            *value = injected;
        }
        Ok(Outcome::Skipped(why)) => eprintln!("{what}: left alone: {why}"),
        Ok(Outcome::AlreadyInjected) => eprintln!("{what}: was injected already"),
        Err(refusals) => return Ok(Err(refusals.iter().map(ToString::to_string).collect())),
    }
    Ok(Ok(()))
}
