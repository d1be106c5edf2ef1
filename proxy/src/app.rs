//! Builds each long-lived part once, and gathers them in [`Shared`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, Semaphore, mpsc};
use weft_proto::limits;
use weft_service::{
    drain::Signal,
    tls::{Credentials, Holder},
};

use crate::{
    config::Config,
    front::Front,
    last_word,
    role::{self, Direction, Role},
    tables::{Ask, Tables},
    trace::Tracer,
};

/// The parts that live as long as the process.
pub struct Shared {
    /// What the environment says.
    pub config: Config,
    /// The side that other pods meet.
    pub inbound: Arc<Role>,
    /// The side that the application meets.
    pub outbound: Arc<Role>,
    /// The side that the world meets, of a gateway.
    pub gateway: Arc<Role>,
    /// Destinations.
    pub tables: Tables,
    /// Certificate, key and trust bundle; empty before the first certificate.
    pub credentials: Arc<Holder>,
    /// The drain of connections that come in.
    pub inbound_drain: Signal,
    /// The drain of connections that go out.
    pub outbound_drain: Signal,
    /// The drain of a gateway; its ports have their own beside it.
    pub gateway_drain: Signal,
    /// What a gateway serves; none in a pod's sidecar.
    pub front: Option<Arc<Front>>,
    /// A place for each TLS handshake with a gateway's client.
    pub handshakes: Arc<Semaphore>,
    /// A place for each connection from a client.
    pub places: Arc<Semaphore>,
    /// Places that listeners hold while they wait for their next client.
    pub waiting_places: AtomicUsize,
    /// A place for each dial on behalf of a silent client.
    pub silent_places: Arc<Semaphore>,
    /// Rung when `weft-init` has proven the redirects, which it has just set. Connections that the proxy made before them
    /// are not known to the connection tracking: what comes in on one of them would be taken for a new connection to the
    /// pod, redirected and lost.
    pub redirects_set: Notify,
    /// Whether the listeners are bound.
    pub listening: AtomicBool,
    /// Makes spans, where they are exported to somewhere.
    pub tracer: Option<Tracer>,
    /// Past its running: tunnels say that they end, since the process does.
    pub farewell: Signal,
}

impl Shared {
    /// Gathers the parts; `asks` is where discovery learns what to follow.
    pub fn new(config: Config, asks: mpsc::UnboundedSender<Ask>) -> Arc<Self> {
        let credentials = Holder::new();
        let strict = last_word::read(&config).unwrap_or(config.strict);
        Arc::new(Self {
            inbound: Arc::new(role::inbound::role()),
            outbound: Arc::new(role::outbound::role()),
            gateway: Arc::new(role::gateway::role()),
            tables: Tables::new(config.cluster_cidrs.clone(), config.pod_ips.clone(), strict, asks),
            credentials,
            inbound_drain: Signal::new(),
            outbound_drain: Signal::new(),
            gateway_drain: Signal::new(),
            front: config
                .gateway
                .as_ref()
                .map(|(namespace, name)| Arc::new(Front::new(namespace, name, config.workers))),
            handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES)),
            places: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            waiting_places: AtomicUsize::new(0),
            silent_places: Arc::new(Semaphore::new(limits::SILENT_DIALS)),
            redirects_set: Notify::new(),
            listening: AtomicBool::new(false),
            tracer: Tracer::new(&config),
            farewell: Signal::new(),
            config,
        })
    }

    /// The role of one direction.
    pub fn role(&self, direction: Direction) -> &Arc<Role> {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
            Direction::Gateway => &self.gateway,
        }
    }

    /// The drain of one direction.
    pub fn drain(&self, direction: Direction) -> &Signal {
        match direction {
            Direction::Inbound => &self.inbound_drain,
            Direction::Outbound => &self.outbound_drain,
            Direction::Gateway => &self.gateway_drain,
        }
    }

    /// Starts the drain of everything that comes in through a gateway.
    pub fn drain_gateway(&self) {
        self.gateway_drain.drain();
        if let Some(front) = &self.front {
            front.drain();
        }
    }

    /// The credentials, unless there are none or they have expired.
    pub fn valid_credentials(&self) -> Option<Arc<Credentials>> {
        self.credentials
            .current()
            .filter(|credentials| !credentials.expired(std::time::SystemTime::now()))
    }

    /// Connections from clients that are open now.
    pub fn open_connections(&self) -> usize {
        let taken = limits::CONNECTIONS.saturating_sub(self.places.available_permits());
        taken.saturating_sub(self.waiting_places.load(Ordering::Acquire))
    }

    /// Whether the pod may be sent traffic; the error says what is missing. Nothing here depends on the controller once
    /// the first certificate is there, until that expires.
    pub fn ready(&self) -> Result<(), String> {
        if !self.listening.load(Ordering::Acquire) {
            return Err("the listeners are not bound yet".into());
        }
        match self.credentials.current() {
            None => Err(format!(
                "no certificate yet; the identity service is {}",
                self.config.identity_address
            )),
            Some(_) if self.valid_credentials().is_none() => Err(format!(
                "the certificate has expired; the identity service is {}",
                self.config.identity_address
            )),
            Some(_) => self.front.as_ref().map_or(Ok(()), |front| front.ready()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashMap;
    use weft_proto::names::env;

    /// The parts of a gateway's proxy, without a controller.
    pub fn gateway(name: &str) -> Arc<Shared> {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let variables: HashMap<String, String> = [
            (env::POD_NAME, "edge-0"),
            (env::POD_NAMESPACE, "shop"),
            (env::POD_UID, "u-1"),
            (env::POD_IPS, "127.0.0.1"),
            (env::SERVICE_ACCOUNT, "edge-weft"),
            (env::TRUST_BUNDLE, &root),
            (env::DISCOVERY_ADDRESS, "127.0.0.1:1"),
            (env::IDENTITY_ADDRESS, "127.0.0.1:1"),
            (env::GATEWAY, name),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Shared::new(Config::from(&variables).unwrap(), mpsc::unbounded_channel().0)
    }
}
