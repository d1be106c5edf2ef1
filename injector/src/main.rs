//! `weft-injector serve`: reads flags and files, all mistakes together, then serves the webhook until it is told to end.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::{net::TcpListener, sync::watch};
use weft_injector::{
    certificate::{Issued, Source},
    context::{RawSettings, Settings},
    webhook::{self, Counters, Webhook},
};
use weft_proto::{limits, names};
use weft_service::{admin, drain, log, task, tls};

/// How often files are looked at, and the certificate's age.
const LOOK: Duration = Duration::from_secs(10);

/// The mutating webhook: a pod in, a meshed pod out.
#[derive(Parser)]
#[command(name = "weft-injector", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the webhook: POST /inject over HTTPS.
    Serve(Serve),
}

#[derive(clap::Args, Clone)]
struct Serve {
    /// Address and port of the webhook, HTTPS.
    #[arg(long, default_value_t = SocketAddr::from(([0u16; 8], names::port::WEBHOOK)))]
    listen: SocketAddr,
    /// Address and port of /live, /ready and /metrics, plain HTTP.
    #[arg(long, default_value = "127.0.0.1:15022")]
    admin_listen: SocketAddr,
    /// Image of the proxy.
    #[arg(long)]
    proxy_image: String,
    /// Image of weft-init.
    #[arg(long)]
    init_image: String,
    /// When the kubelet pulls both images: Always, IfNotPresent or Never.
    #[arg(long, default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// SPIFFE trust domain of the mesh.
    #[arg(long, default_value = names::DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
    /// PEM file of the certificates that the mesh's identities lead to; read again when it changes.
    #[arg(long)]
    trust_bundle: PathBuf,
    /// host:port of the discovery service.
    #[arg(long, default_value = "weft-routes.weft-system.svc:15010")]
    discovery: String,
    /// host:port of the identity service.
    #[arg(long, default_value = "weft-identity.weft-system.svc:15012")]
    identity: String,
    /// Ranges of the cluster's pods and Services, comma-separated; empty when not known.
    #[arg(long, default_value = "")]
    cluster_cidrs: String,
    /// PEM file of the webhook's certificate, leaf first; read again when it changes. Without it one is made, with a CA of its own.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// DNS name or address in the certificate that is made here; may be given several times.
    #[arg(long = "dns-name", default_values_t = default_names(), conflicts_with = "certificate")]
    dns_names: Vec<String>,
    /// File for the CA's certificate, when it is made here: what the API server must trust.
    #[arg(long, conflicts_with = "certificate")]
    ca_out: Option<PathBuf>,
}

fn default_names() -> Vec<String> {
    let service = names::INJECTOR_SERVICE_ACCOUNT;
    vec![format!("{service}.{}.svc", names::SYSTEM_NAMESPACE)]
}

impl Serve {
    /// The settings as flags and files say them now.
    fn settings(&self) -> Result<Settings, Vec<String>> {
        let path = &self.trust_bundle;
        let trust_bundle = std::fs::read_to_string(path);
        let unreadable = trust_bundle
            .as_ref()
            .err()
            .map(|e| format!("--trust-bundle: cannot read {}: {e}", path.display()));
        let raw = RawSettings {
            proxy_image: self.proxy_image.clone(),
            init_image: self.init_image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            trust_domain: self.trust_domain.clone(),
            trust_bundle: trust_bundle.unwrap_or_default(),
            discovery: self.discovery.clone(),
            identity: self.identity.clone(),
            cluster_cidrs: self.cluster_cidrs.clone(),
        };
        match (Settings::check(raw), unreadable) {
            (result, None) => result,
            (result, Some(unreadable)) => {
                let mut mistakes = result.err().unwrap_or_default();
                mistakes.retain(|mistake| !mistake.starts_with("--trust-bundle"));
                mistakes.push(unreadable);
                Err(mistakes)
            }
        }
    }

    fn source(&self) -> anyhow::Result<Source> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Ok(Source::files(certificate.clone(), key.clone())),
            _ => Source::own(self.dns_names.clone(), self.ca_out.clone(), SystemTime::now()),
        }
    }
}

fn main() -> ExitCode {
    tls::install_provider();
    let Command::Serve(arguments) = Arguments::parse().command;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Serve) -> anyhow::Result<()> {
    log::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Serve) -> anyhow::Result<()> {
    let mut mistakes = Vec::new();
    let settings = arguments.settings().map_err(|more| mistakes.extend(more)).ok();
    let mut source = None;
    let mut issued = None;
    match arguments
        .source()
        .and_then(|mut made| Ok((made.renewed(SystemTime::now())?, made)))
    {
        Ok((first, made)) => (issued, source) = (first, Some(made)),
        Err(error) => mistakes.push(format!("{error:#}")),
    }
    let (Some(settings), Some(source), Some(issued)) = (settings, source, issued) else {
        anyhow::bail!("weft-injector cannot start:\n  {}", mistakes.join("\n  "));
    };

    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}", arguments.listen))?;
    let (settings_out, settings) = watch::channel(Arc::new(settings));
    let (tls_out, tls) = watch::channel(issued.config);
    let (expiry_out, expiry) = watch::channel(issued.not_after);
    let signal = drain::Signal::new();
    let counters = Arc::new(Counters::default());

    let routes = admin::Routes::new({
        let signal = signal.clone();
        move || {
            if signal.phase() == drain::Phase::Running {
                Ok(())
            } else {
                Err("draining".into())
            }
        }
    })
    .metrics({
        let counters = counters.clone();
        move || counters.render() + &expiry_metric(*expiry.borrow())
    });
    let admin = admin::Server::bind(arguments.admin_listen, routes)
        .await
        .with_context(|| format!("--admin-listen: cannot listen on {}", arguments.admin_listen))?;
    tracing::info!(address = %listener.local_addr()?, admin = %admin.address()?, "serving the webhook");

    task::spawn_forever("admin", admin.serve());
    task::spawn_forever("certificate", keep_certificate(source, tls_out, expiry_out));
    task::spawn_forever("settings", keep_settings(arguments, settings_out));
    let end = {
        let signal = signal.clone();
        task::spawn("termination", async move {
            signal.on_termination(limits::ADMISSION_TIME).await
        })
    };
    webhook::serve(
        listener,
        Webhook {
            settings,
            tls,
            signal,
            counters,
        },
    )
    .await;
    end.abort();
    Ok(())
}

fn expiry_metric(not_after: SystemTime) -> String {
    let seconds = not_after
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    format!(
        "# HELP weft_webhook_certificate_expiry_timestamp_seconds When the webhook's certificate ends.\n\
         # TYPE weft_webhook_certificate_expiry_timestamp_seconds gauge\n\
         weft_webhook_certificate_expiry_timestamp_seconds {seconds}\n"
    )
}

async fn keep_certificate(
    mut source: Source,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    expiry: watch::Sender<SystemTime>,
) {
    loop {
        tokio::time::sleep(LOOK).await;
        match source.renewed(SystemTime::now()) {
            Ok(None) => {}
            Ok(Some(Issued { config, not_after, .. })) => {
                tracing::info!("a new certificate for the webhook");
                tls.send_replace(config);
                expiry.send_replace(not_after);
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the webhook keeps its old certificate"),
        }
    }
}

async fn keep_settings(arguments: Serve, settings: watch::Sender<Arc<Settings>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match arguments.settings() {
            Ok(now) => {
                let changed = settings.send_if_modified(|before| {
                    let changed = **before != now;
                    if changed {
                        *before = Arc::new(now);
                    }
                    changed
                });
                if changed {
                    tracing::info!("a new trust bundle for the pods that come");
                }
            }
            Err(mistakes) => tracing::warn!(error = mistakes.join("; "), "the injector keeps its old trust bundle"),
        }
    }
}
