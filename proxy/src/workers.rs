//! The process's life: bind everything, one thread with a runtime of its own for each worker, one more for what is not
//! traffic, and the drain at the end.

use std::{
    fs::File,
    net::TcpListener as Bound,
    sync::{Arc, atomic::Ordering},
    thread,
};

use anyhow::Context;
use tokio::{net::TcpListener, runtime, sync::mpsc};
use weft_proto::limits;
use weft_service::{drain::Termination, log, task};

use crate::{
    accept, access_log, admin,
    app::Shared,
    config::{AccessLog, Config},
    connection, discovery, front, identity, metrics,
    role::Role,
    trace,
};

/// Runs until the drain is over.
pub fn run(config: Arc<Config>, filter: log::Filter) -> anyhow::Result<()> {
    metrics::install();
    start_access_log(&config.access_log)?;
    raise_descriptors();
    let (asks, asked) = mpsc::unbounded_channel();
    let shared = Shared::new(Config::clone(&config), asks);
    // Everything is bound before anything is served, so that a port that is taken is told at once.
    let port = admin::bind().context("the port of metrics and probes cannot be bound")?;
    let mut workers = Vec::with_capacity(config.workers);
    for worker in 0..config.workers {
        // A gateway's come with its content.
        let listeners = match &shared.front {
            None => bind_all(&shared)?,
            Some(_) => Vec::new(),
        };
        let shared = shared.clone();
        let thread = thread::Builder::new().name(format!("worker-{worker}"));
        workers.push(
            thread
                .spawn(move || work(worker, listeners, shared))
                .context("no thread for a worker")?,
        );
    }
    shared.listening.store(true, Ordering::Release);
    tracing::info!(identity = %config.identity(), workers = config.workers, "weft-proxy runs");

    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    control.block_on(async {
        let mut stop = Termination::new().context("no signal handlers")?;
        task::spawn_forever("identity", identity::run(shared.clone()));
        task::spawn_forever("discovery", discovery::run(shared.clone(), asked));
        task::spawn_forever("sweep", sweep(shared.clone()));
        if shared.front.is_some() {
            task::spawn_forever("front", front::run(shared.clone()));
        }
        if shared.tracer.is_some() {
            task::spawn_forever("spans", trace::run(shared.clone()));
        }
        let (of_port, of_socket) = (shared.clone(), shared.clone());
        task::spawn_forever("port", async move { told(admin::serve_port(port, of_port).await) });
        task::spawn_forever("socket", async move { told(admin::serve_socket(of_socket, filter).await) });
        let signal = stop.received().await;
        tracing::info!(signal, grace = ?config.drain, "asked to end");
        shared.inbound_drain.drain();
        shared.outbound_drain.drain();
        shared.drain_gateway();
        tokio::select! {
            () = all_ended(&shared) => tracing::info!("every connection has ended"),
            () = tokio::time::sleep(config.drain) => tracing::warn!(left = shared.open_connections(), "the drain's time has passed"),
            _ = stop.received() => {}
        }
        // Tunnels that are still open say that they end.
        shared.farewell.drain();
        let _ = tokio::time::timeout(limits::FAREWELL, all_ended(&shared)).await;
        shared.inbound_drain.close();
        shared.outbound_drain.close();
        anyhow::Ok(())
    })?;
    for worker in workers {
        // One that panicked has said so.
        let _ = worker.join();
    }
    if let Some(tracer) = &shared.tracer {
        // What the last requests left: whoever is not there by now will not have it.
        let _ = control.block_on(async { tokio::time::timeout(limits::SPAN_EXPORT_TIME, tracer.flush()).await });
    }
    access_log::flush();
    Ok(())
}

fn told(ended: std::io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "cannot serve");
    }
}

fn start_access_log(to: &AccessLog) -> anyhow::Result<()> {
    let started = match to {
        AccessLog::Off => return Ok(()),
        AccessLog::Stdout => access_log::start(std::io::stdout()),
        AccessLog::File(path) => {
            let file = File::options().create(true).append(true).open(path);
            access_log::start(file.with_context(|| format!("the access log {} cannot be opened", path.display()))?)
        }
    };
    started.context("no thread for the access log")
}

/// As many descriptors as the container may have: each connection takes two.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "the number of descriptors stays as it is");
    }
}

type Listeners = Vec<(Bound, Arc<Role>)>;

fn bind_all(shared: &Shared) -> anyhow::Result<Listeners> {
    let mut bound = Vec::new();
    for role in [&shared.inbound, &shared.outbound] {
        for &address in &role.listeners {
            match accept::bind(address) {
                Ok(listener) => bound.push((listener, role.clone())),
                Err(error) if accept::is_missing_family(address, &error) => {
                    tracing::debug!(%address, "the node has no IPv6");
                }
                Err(error) => return Err(error).with_context(|| format!("{address} cannot be bound")),
            }
        }
    }
    Ok(bound)
}

/// One worker: its own runtime, its own pools. Nothing on the path of a connection crosses to another.
fn work(worker: usize, listeners: Listeners, shared: Arc<Shared>) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker has no runtime"),
    };
    runtime.block_on(async move {
        for (listener, role) in listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let of = shared.clone();
                    let serve = move |stream, client, place| {
                        connection::accepted(stream, client, role.clone(), of.clone(), place)
                    };
                    let for_ever = std::future::pending::<()>();
                    tokio::spawn(Box::pin(accept::serve(listener, shared.clone(), for_ever, serve)));
                }
                Err(error) => tracing::error!(%error, "a worker cannot listen"),
            }
        }
        if shared.front.is_some() {
            tokio::spawn(Box::pin(front::bind::run(worker, shared.clone())));
        }
        // Connections that are still open are closed with the runtime; their records say that they were abandoned.
        shared.outbound_drain.closed().await;
    });
}

async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(limits::DESTINATION_IDLE / 10).await;
        shared.tables.sweep();
    }
}

/// Returns when no client is connected.
async fn all_ended(shared: &Shared) {
    while shared.open_connections() > 0 {
        tokio::time::sleep(limits::ACCEPT_BACK_OFF).await;
    }
}
