//! The program: reads flags and files, all mistakes together, then serves the webhook until it is told to end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use http::StatusCode;
use tokio::{net::TcpListener, sync::watch};
use weft_proto::{limits, names::path};
use weft_service::{admin, drain, log, task};

use crate::{
    arguments::Serve,
    certificate::{Issued, Lives, Source},
    context::Settings,
    health::Health,
    kubernetes::{self, Keeper},
    metrics::Metrics,
    webhook::{self, Webhook},
};

/// How often files are looked at, and the certificate's age.
const LOOK: Duration = Duration::from_secs(10);

/// Runs until SIGTERM.
pub fn run(arguments: Serve) -> anyhow::Result<()> {
    log::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(arguments))
}

/// Where certificates come from, once it has begun.
enum Begun {
    Here(Box<Source>, Issued),
    Cluster(kube::Client),
}

async fn begin(arguments: &Serve) -> anyhow::Result<Begun> {
    if arguments.kubernetes {
        return Ok(Begun::Cluster(kubernetes::client().await?));
    }
    let mut source = arguments.source()?;
    let first = source.renewed(SystemTime::now())?.context("there is no certificate")?;
    Ok(Begun::Here(Box::new(source), first))
}

async fn serve(arguments: Serve) -> anyhow::Result<()> {
    let mut mistakes = Vec::new();
    let settings = arguments.settings().map_err(|more| mistakes.extend(more)).ok();
    let begun = begin(&arguments)
        .await
        .map_err(|error| mistakes.push(format!("{error:#}")))
        .ok();
    let (Some(settings), Some(begun)) = (settings, begun) else {
        anyhow::bail!("weft-injector cannot start:\n  {}", mistakes.join("\n  "));
    };

    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}", arguments.listen))?;
    let signal = drain::Signal::new();
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let admin = admin::Server::bind(
        arguments.admin_listen,
        routes(signal.clone(), health.clone(), metrics.clone()),
    )
    .await
    .with_context(|| format!("--admin-listen: cannot listen on {}", arguments.admin_listen))?;
    tracing::info!(address = %listener.local_addr()?, admin = %admin.address()?, "the webhook's addresses are bound");
    task::spawn_forever("admin", admin.serve());

    let (settings_out, settings) = watch::channel(Arc::new(settings));
    let (unsupported_out, unsupported) = watch::channel(None);
    let (issued_out, mut issued) = watch::channel(None);
    // A Service goes on sending for a moment after its pod was told to end.
    let mut leave = Duration::ZERO;
    match begun {
        Begun::Here(source, first) => {
            metrics.certificate_expiry(first.not_after);
            health.ready();
            issued_out.send_replace(Some(first));
            task::spawn_forever("certificate", keep_certificate(*source, issued_out, metrics.clone()));
        }
        Begun::Cluster(client) => {
            leave = limits::ADMISSION_LEAVE;
            let keeper = Keeper::new(
                client.clone(),
                &arguments.namespace,
                arguments.names(),
                Lives::default(),
                issued_out,
                health.clone(),
                metrics.clone(),
            );
            task::spawn_forever("webhook CA", keeper.run());
            let keep = kubernetes::version::keep(client, unsupported_out, health.clone());
            task::spawn_forever("Kubernetes version", keep);
        }
    }
    task::spawn_forever("settings", keep_settings(arguments, settings_out));
    let end = {
        let signal = signal.clone();
        task::spawn("termination", async move { terminate(&signal, leave).await })
    };

    // Nobody can be served without a certificate; who calls meanwhile waits in the kernel's queue.
    let first = tokio::select! {
        first = issued.wait_for(Option::is_some) => first.is_ok(),
        () = signal.draining() => false,
    };
    if first {
        let webhook = Webhook {
            settings,
            unsupported,
            issued,
            signal,
            metrics,
        };
        webhook::serve(listener, webhook).await;
    }
    end.abort();
    Ok(())
}

fn routes(signal: drain::Signal, health: Arc<Health>, metrics: Arc<Metrics>) -> admin::Routes {
    admin::Routes::default()
        .get(path::LIVE, || admin::Answer::text(StatusCode::OK, "live"))
        .get(path::READY, move || {
            let answer = if signal.phase() == drain::Phase::Running {
                health.answer()
            } else {
                Err("draining".into())
            };
            match answer {
                Ok(text) => admin::Answer::text(StatusCode::OK, text),
                Err(text) => admin::Answer::text(StatusCode::SERVICE_UNAVAILABLE, text),
            }
        })
        .metrics(move || metrics.render())
}

/// Goes on accepting for `leave` after SIGTERM, then lets finish what is open.
async fn terminate(signal: &drain::Signal, leave: Duration) -> std::io::Result<()> {
    let mut stop = drain::Termination::new()?;
    let name = stop.received().await;
    tracing::info!(signal = name, leave = ?leave, "asked to end");
    tokio::select! {
        () = tokio::time::sleep(leave) => {}
        _ = stop.received() => {}
    }
    signal.drain();
    tokio::select! {
        () = tokio::time::sleep(limits::ADMISSION_TIME) => {}
        _ = stop.received() => {}
    }
    signal.close();
    Ok(())
}

async fn keep_certificate(mut source: Source, issued: watch::Sender<Option<Issued>>, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match source.renewed(SystemTime::now()) {
            Ok(None) => {}
            Ok(Some(next)) => {
                tracing::info!("a new certificate for the webhook");
                metrics.certificate_expiry(next.not_after);
                issued.send_replace(Some(next));
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
                    tracing::info!("new settings for the pods that come: a file has changed");
                }
            }
            Err(mistakes) => tracing::warn!(error = mistakes.join("; "), "the injector keeps its old settings"),
        }
    }
}
