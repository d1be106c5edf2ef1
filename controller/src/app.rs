//! Builds the parts once, runs them until SIGTERM, and ends them in order.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use weft_proto::{
    names::{
        IDENTITY_SERVICE_ACCOUNT, ROUTES_SERVICE_ACCOUNT,
        kubernetes::{CA_BUNDLE, CLUSTER_CIDRS, CLUSTER_CONFIG_MAP, LEASE},
    },
    skip::Cidrs,
};
use weft_service::{
    admin,
    drain::{Phase, Signal},
    task,
    tls::Holder,
};

use crate::{
    answers::Answers,
    api::{self, config_map::Keeper},
    config::{CaSource, Config, Identity, Objects, Place, Routes, Tokens},
    infrastructure,
    issue::{
        self, Counts, Issuer, Quota,
        ca::{
            Authority,
            files::{self, CaFiles},
            secret::CaSecret,
        },
        own,
        token::{Check, OfLivingPods, SandboxTokens, TokenReviews},
    },
    leader::Candidate,
    listen::Listener,
    metrics, plan, serve,
    session_keys::{self, Masters},
    status, unmeshed,
    watch::{Batch, Health, Sink, Source, directory::Directory, kubernetes::Kubernetes, secrets::Reader},
};

/// Time that streams have to end after SIGTERM: they are told at once.
const GRACE: Duration = Duration::from_secs(5);

/// Changes that are taken in together, at most by one batch more.
const TOGETHER: usize = 4096;

/// Runs until SIGTERM.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let drain = Signal::new();
    let stop = drain.clone();
    task::spawn("signals", async move {
        if let Err(error) = stop.on_termination(GRACE).await {
            tracing::error!(%error, "no signal handlers; SIGTERM ends the process at once");
        }
    });
    start(config, drain.clone()).await?.ended(drain).await
}

/// The addresses that a started controller listens on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// Discovery.
    pub discovery: Option<std::net::SocketAddr>,
    /// Identity.
    pub identity: Option<std::net::SocketAddr>,
    /// Admin.
    pub admin: Option<std::net::SocketAddr>,
}

/// A controller that runs.
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    servers: Vec<task::Task<Result<(), tonic::transport::Error>>>,
    /// What has something to put in order before the end.
    closing: Vec<task::Task<()>>,
}

impl Running {
    async fn ended(self, drain: Signal) -> anyhow::Result<()> {
        for server in self.servers {
            let ended = tokio::select! {
                ended = server.ended() => ended,
                () = drain.closed() => break,
            };
            match ended {
                Some(Ok(())) if drain.phase() > Phase::Running => {}
                Some(Ok(())) => anyhow::bail!("a listener has ended"),
                Some(Err(error)) => return Err(error).context("a listener has failed"),
                None => anyhow::bail!("a listener panicked"),
            }
        }
        for one in self.closing {
            tokio::select! {
                _ = one.ended() => {}
                () = drain.closed() => break,
            }
        }
        tracing::info!("ended");
        Ok(())
    }
}

/// Starts everything, and returns when all listeners are bound.
pub async fn start(config: Config, drain: Signal) -> anyhow::Result<Running> {
    let mut running = Running {
        addresses: Addresses::default(),
        servers: Vec::new(),
        closing: Vec::new(),
    };
    let mut parts = metrics::Parts::default();
    let answers = config.routes.as_ref().map(|routes| {
        Answers::new(plan::Settings {
            trust_domain: config.trust_domain.as_str().into(),
            cluster_cidrs: routes.cluster_cidrs.clone(),
            sessions: Masters::default(),
        })
    });
    let scope = Scope {
        trust_domain: &config.trust_domain,
        place: &config.place,
        drain: &drain,
    };
    let (mut ca, mut life) = (None, Duration::ZERO);
    if let Some(identity) = config.identity {
        life = identity.leaf_life;
        // An API server knows itself which pods are there.
        let in_files = |routes: &Routes| matches!(routes.objects, Objects::Directory(_));
        let pods = answers.clone().filter(|_| config.routes.as_ref().is_some_and(in_files));
        ca = Some(start_identity(identity, pods, &scope, &mut running, &mut parts).await?);
    }
    if let Some((routes, answers)) = config.routes.zip(answers) {
        let ca = ca.map(|ca| (ca, life));
        start_routes(routes, answers, ca, &scope, &mut running, &mut parts).await?;
    }
    let parts = Arc::new(parts);
    let (ready, rendered) = (parts.clone(), parts);
    let routes = admin::Routes::new(move || ready.ready()).metrics(move || rendered.render());
    let server = admin::Server::bind(config.admin, routes)
        .await
        .with_context(|| format!("--admin-listen {} cannot be bound", config.admin))?;
    running.addresses.admin = Some(server.address()?);
    task::spawn_forever("admin", server.serve());
    let Addresses {
        discovery,
        identity,
        admin,
    } = running.addresses;
    let text = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    tracing::info!(
        discovery = text(discovery),
        identity = text(identity),
        admin = text(admin),
        "listening"
    );
    Ok(running)
}

/// How callers prove who they are. `pods`: where their pods are known, when no API server is asked.
async fn check(tokens: &Tokens, pods: Option<Arc<Answers>>) -> anyhow::Result<Box<dyn Check>> {
    let file = match tokens {
        Tokens::Review => {
            let client = api::client().await.context("no API server to check tokens")?;
            return Ok(Box::new(TokenReviews::new(client)));
        }
        Tokens::Sandbox(file) => file,
    };
    let place = || format!("--sandbox-token-key {}", file.display());
    let pem = std::fs::read(file).with_context(place)?;
    let tokens = SandboxTokens::new(&pem)
        .map_err(anyhow::Error::msg)
        .with_context(place)?;
    Ok(match pods {
        Some(answers) => Box::new(OfLivingPods { tokens, answers }),
        None => Box::new(tokens),
    })
}

/// What the starting parts have in common.
struct Scope<'a> {
    trust_domain: &'a str,
    place: &'a Place,
    drain: &'a Signal,
}

/// The CA, followed by tasks of its own.
async fn authority(source: &CaSource, scope: &Scope<'_>) -> anyhow::Result<Arc<Authority>> {
    match source {
        CaSource::Directory { path, create } => {
            if *create {
                files::create(path, scope.trust_domain)?;
            }
            let files = CaFiles::new(path, scope.trust_domain).context("--ca-dir")?;
            let authority = files.authority().clone();
            task::spawn_forever("ca files", files.follow());
            Ok(authority)
        }
        CaSource::Secret { name, trust } => {
            let client = api::client().await.context("--ca-secret: no way to an API server")?;
            let namespace = scope.place.namespace.clone();
            let secret = CaSecret::new(client.clone(), &namespace, name, scope.trust_domain);
            task::spawn_forever("ca secret", secret.clone().follow());
            if let Some(name) = trust.clone() {
                let keeper = Keeper {
                    client,
                    namespace,
                    name,
                    key: CA_BUNDLE,
                    component: IDENTITY_SERVICE_ACCOUNT,
                };
                task::spawn_forever("trust bundle", secret.clone().tell(keeper));
            }
            Ok(secret.authority().clone())
        }
    }
}

async fn start_identity(
    config: Identity,
    pods: Option<Arc<Answers>>,
    scope: &Scope<'_>,
    running: &mut Running,
    parts: &mut metrics::Parts,
) -> anyhow::Result<Arc<Authority>> {
    let ca = authority(&config.ca, scope).await?;
    let check = check(&config.tokens, pods).await?;
    let counts = Arc::new(Counts::default());
    let issuer = Issuer {
        ca: ca.clone(),
        check,
        life: config.leaf_life,
        quota: Quota::default(),
        counts: counts.clone(),
    };
    let listener = bind("--identity-listen", config.listen).await?;
    running.addresses.identity = Some(listener.address()?);
    let holder = Holder::new();
    if ca.current().is_some() {
        holder.set(own::signed(&ca, &config.id, config.leaf_life).context("the controller's own certificate")?);
    }
    parts.holders.push(holder.clone());
    parts.ca = Some(ca.clone());
    parts.counts = Some(counts);
    task::spawn_forever(
        "own certificate",
        own::from_ca(holder.clone(), ca.clone(), config.id, config.leaf_life),
    );
    let served = issue::serve(listener, holder, Arc::new(issuer), scope.drain.clone());
    running.servers.push(task::spawn("identity", served));
    Ok(ca)
}

/// What one of all replicas does: writes what others read.
fn lead(
    client: &kube::Client,
    config: &Routes,
    answers: &Arc<Answers>,
    settings: Option<watch::Receiver<Option<infrastructure::Settings>>>,
    scope: &Scope<'_>,
    running: &mut Running,
) -> watch::Receiver<bool> {
    let Place { namespace, pod } = scope.place.clone();
    let (sender, leading) = watch::channel(false);
    let candidate = Candidate::new(client.clone(), &namespace, LEASE, &pod);
    let election = task::spawn("leader election", candidate.run(sender, scope.drain.clone()));
    running.closing.push(election);
    task::spawn_forever(
        "unmeshed pods",
        unmeshed::tell(client.clone(), answers.clone(), leading.clone(), pod),
    );
    task::spawn_forever(
        "session keys",
        session_keys::keep::keep(client.clone(), namespace.clone(), answers.clone(), leading.clone()),
    );
    task::spawn_forever(
        "statuses",
        status::write::write(client.clone(), answers.clone(), leading.clone()),
    );
    if let Some(settings) = settings {
        task::spawn_forever(
            "gateways",
            infrastructure::keep::keep(client.clone(), answers.clone(), settings, leading.clone()),
        );
    }
    let keeper = Keeper {
        client: client.clone(),
        namespace,
        name: CLUSTER_CONFIG_MAP.to_owned(),
        key: CLUSTER_CIDRS,
        component: ROUTES_SERVICE_ACCOUNT,
    };
    let (given, answers) = (config.cluster_cidrs.clone(), answers.clone());
    let (wanted, told) = watch::channel(None);
    task::spawn_forever("cluster ranges", follow_ranges(given, answers, wanted));
    task::spawn_forever(
        "cluster config map",
        keeper.keep(told, leading.clone(), || std::future::ready(true)),
    );
    leading
}

/// The ranges that were given, or else those that the cluster says, as soon as all is known.
async fn follow_ranges(given: Cidrs, answers: Arc<Answers>, wanted: watch::Sender<Option<String>>) {
    answers.synced().await;
    let mut batches = answers.batches();
    loop {
        let ranges = if given.is_empty() {
            answers.detected_ranges()
        } else {
            given.clone()
        };
        let text = ranges.to_string();
        wanted.send_if_modified(|old| {
            let changed = old.as_ref() != Some(&text);
            if changed {
                tracing::info!(ranges = text, "ranges of the cluster's pods and Services");
                *old = Some(text);
            }
            changed
        });
        // Cannot fail: `answers` holds the sender.
        let _ = batches.changed().await;
    }
}

async fn start_routes(
    config: Routes,
    answers: Arc<Answers>,
    ca: Option<(Arc<Authority>, Duration)>,
    scope: &Scope<'_>,
    running: &mut Running,
    parts: &mut metrics::Parts,
) -> anyhow::Result<()> {
    let settings = config.gateways.clone().map(|given| gateways(given, &ca, &config));
    let mut reader = None;
    let source: Box<dyn Source> = match &config.objects {
        Objects::Directory(path) => {
            let place = || format!("--from-dir {} cannot be listed", path.display());
            let source = Directory::new(path).with_context(place)?;
            write_files(&config, &answers, settings)?;
            Box::new(source)
        }
        Objects::Kubernetes => {
            let client = api::client().await.context("--kubernetes: no way to an API server")?;
            let health = Arc::new(Health::default());
            parts.health = Some(health.clone());
            parts.leading = Some(lead(&client, &config, &answers, settings, scope, running));
            reader = Some(Reader::new(client.clone(), answers.clone()));
            Box::new(Kubernetes::new(client, health))
        }
    };
    let listener = bind("--discovery-listen", config.listen).await?;
    running.addresses.discovery = Some(listener.address()?);
    let holder = Holder::new();
    match (ca, config.remote) {
        (Some((ca, life)), _) => {
            if ca.current().is_some() {
                holder.set(own::signed(&ca, &config.id, life).context("the controller's own certificate")?);
            }
            task::spawn_forever("own certificate", own::from_ca(holder.clone(), ca, config.id, life));
        }
        (None, Some(remote)) => {
            task::spawn_forever("own certificate", own::from_service(holder.clone(), remote));
        }
        (None, None) => anyhow::bail!("there is neither a CA nor an identity service to get a certificate from"),
    }
    parts.holders.push(holder.clone());
    parts.answers = Some(answers.clone());
    let (sink, batches) = mpsc::channel(64);
    task::spawn_forever(
        "cluster",
        follow(source, sink, batches, answers.clone(), reader, scope.drain.clone()),
    );
    running.servers.push(task::spawn(
        "discovery",
        serve::serve(listener, holder, answers, scope.drain.clone()),
    ));
    Ok(())
}

/// What gateways' pods are told, kept up to date.
fn gateways(
    given: infrastructure::Settings,
    ca: &Option<(Arc<Authority>, Duration)>,
    config: &Routes,
) -> watch::Receiver<Option<infrastructure::Settings>> {
    let (told, settings) = watch::channel(None);
    match (ca, &config.remote) {
        (Some((ca, _)), _) => {
            let told = infrastructure::settings::of_authority(given, ca.clone(), told);
            drop(task::spawn_forever("gateway settings", told));
        }
        (None, Some(remote)) => {
            let told = infrastructure::settings::of_file(given, remote.trust_bundle.clone(), told);
            drop(task::spawn_forever("gateway settings", told));
        }
        // Nobody could get a certificate; the start fails for that reason.
        (None, None) => {}
    }
    settings
}

/// Writes to files what would be written to an API server.
fn write_files(
    config: &Routes,
    answers: &Arc<Answers>,
    settings: Option<watch::Receiver<Option<infrastructure::Settings>>>,
) -> anyhow::Result<()> {
    let sessions = match &config.session_keys {
        Some(file) => session_keys::keep::file(file).context("--session-keys")?,
        None => session_keys::keep::fleeting(),
    };
    answers.set_sessions(sessions);
    let Some(directory) = config.write_dir.clone() else {
        return Ok(());
    };
    // Here, so that a directory that cannot be written is told at once.
    for part in ["objects", "status"] {
        let path = directory.join(part);
        std::fs::create_dir_all(&path).with_context(|| format!("--write-dir: {}", path.display()))?;
    }
    if let Some(settings) = settings {
        let (directory, answers) = (directory.join("objects"), answers.clone());
        task::spawn_forever("files of gateways", async move {
            if let Err(error) = infrastructure::files::keep(&directory, answers, settings).await {
                tracing::error!(
                    error = format!("{error:#}"),
                    "files of Gateways' objects are not written"
                );
            }
        });
    }
    let (directory, answers) = (directory.join("status"), answers.clone());
    task::spawn_forever("files of statuses", async move {
        if let Err(error) = status::write::write_files(&directory, answers).await {
            tracing::error!(error = format!("{error:#}"), "files of statuses are not written");
        }
    });
    Ok(())
}

/// Source → answers, until the drain is over. `reader` reads what objects refer to, where the source does not.
async fn follow(
    source: Box<dyn Source>,
    sink: Sink,
    mut batches: mpsc::Receiver<Batch>,
    answers: Arc<Answers>,
    mut reader: Option<Reader>,
    drain: Signal,
) {
    let source = task::spawn("source", source.follow(sink));
    loop {
        let referred = async {
            match &mut reader {
                Some(reader) => reader.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changes = referred => answers.apply(Batch { changes, synced: false }),
            batch = batches.recv() => match batch {
                Some(mut batch) => {
                    // What came while the last one was taken in is taken in together: in a flood of changes each answer is made once.
                    while !batch.synced
                        && batch.changes.len() < TOGETHER
                        && let Ok(more) = batches.try_recv()
                    {
                        batch.changes.extend(more.changes);
                        batch.synced = more.synced;
                    }
                    tracing::debug!(changes = batch.changes.len(), synced = batch.synced, "objects");
                    take(&answers, &mut reader, batch).await;
                }
                None => {
                    // What is known stays, and goes on being served.
                    source.ended().await;
                    return;
                }
            },
            () = drain.closed() => return std::future::pending().await,
        }
    }
}

/// Takes a batch in, and what it refers to before it.
async fn take(answers: &Answers, reader: &mut Option<Reader>, batch: Batch) {
    let Some(reader) = reader else {
        return answers.apply(batch);
    };
    let mut changes = reader.ahead(&batch.changes).await;
    changes.extend(batch.changes);
    answers.apply(Batch { changes, synced: false });
    if batch.synced {
        // What is referred to is part of all that there is.
        let changes = reader.all().await;
        answers.apply(Batch { changes, synced: true });
    }
}

async fn bind(flag: &str, address: std::net::SocketAddr) -> anyhow::Result<Listener> {
    Listener::bind(address)
        .await
        .with_context(|| format!("{flag} {address} cannot be bound"))
}
