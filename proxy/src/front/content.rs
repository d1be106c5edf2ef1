//! The controller's content → listeners with compiled tables and TLS configurations. What is equal to what was there before is taken
//! over from there, so that one changed route costs what its own listener costs.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use prost::Message;
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use weft_proto::{
    convert,
    rpc::discovery::{self as rpc, ListenerProtocol},
};
use weft_route::{Host, Table};
use weft_service::tls::gateway::{ClientValidation, ServerKey, Within, gateway_server};

use super::port::PortKind;
use crate::{
    endpoint::Load,
    tables::{Backend, Destination, destination::loads},
};

/// Of what something was made from: the first half of its SHA-256, since there are many, and nobody gains by two that are equal.
pub type Digest = [u8; 16];

type Loads = HashMap<(std::net::SocketAddr, Arc<str>), Arc<Load>>;

/// Everything that a gateway serves.
pub struct Content {
    /// What the controller calls it.
    pub version: String,
    /// The listeners that can be used, and those that hold their names although they cannot.
    pub listeners: Vec<Arc<Listener>>,
    /// Every part that cannot be used, and why.
    pub mistakes: Vec<String>,
    /// By slot. A backend keeps its slot for as long as it is there, so that rules which name it stay equal.
    backends: Arc<[Arc<Backend>]>,
    slots: Vec<Slot>,
    keys: HashMap<Digest, Result<Arc<ServerKey>, String>>,
}

/// Whose place in `backends` it is.
#[derive(Clone, Default)]
struct Slot {
    /// The backend's id; those that have the same one are counted.
    name: Option<(Arc<str>, usize)>,
    made_from: Digest,
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name: the label in metrics and logs.
    pub name: Arc<str>,
    /// Its port.
    pub port: u16,
    /// What it takes.
    pub protocol: ListenerProtocol,
    /// Exact or `*.suffix`, in lower case; none: every name.
    pub hostname: Option<Box<str>>,
    /// Its rules, and the backends that they name.
    pub destination: Arc<Destination>,
    /// How its TLS is ended, where it is.
    pub tls: Option<Arc<Terminates>>,
    rules: Digest,
}

/// How TLS is ended.
#[derive(Debug)]
pub struct Terminates {
    /// The configuration; why there is none, and handshakes fail.
    pub config: Result<Arc<ServerConfig>, String>,
    made_from: Digest,
    /// Of the client validation alone.
    policy: Digest,
}

impl Listener {
    /// What clients have to show: connections of one policy are no connections of another.
    pub fn policy(&self) -> Option<Digest> {
        self.tls.as_ref().map(|tls| tls.policy)
    }

    /// Why it cannot serve.
    pub fn refused(&self) -> Option<&str> {
        let tls = self.tls.as_ref()?;
        tls.config.as_ref().err().map(String::as_str)
    }

    pub(super) fn dump(&self) -> serde_json::Value {
        serde_json::json!({
            "name": &*self.name,
            "port": self.port,
            "protocol": self.protocol.as_str_name(),
            "hostname": self.hostname.as_deref(),
            "rules": self.destination.table.rules().len(),
            "refused": self.refused(),
        })
    }
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    half(hash)
}

fn half(hash: Sha256) -> Digest {
    let mut half = Digest::default();
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

impl Content {
    /// Reads what the controller says. Nothing is refused as a whole.
    pub fn build(version: &str, content: rpc::Gateway, before: Option<&Self>, is_own: &dyn Fn(IpAddr) -> bool) -> Self {
        let mut mistakes = Vec::new();
        let (slots, backends, places) = place_backends(content.backends, before, is_own, &mut mistakes);
        let keys = read_keys(&content.certificates, before, &mut mistakes);
        let mut builder = Builder {
            version,
            before: before.map(|before| {
                before
                    .listeners
                    .iter()
                    .map(|one| (one.name.clone(), one.clone()))
                    .collect()
            }),
            backends: &backends,
            places: &places,
            keys: &keys,
            mistakes: &mut mistakes,
        };
        let mut listeners: Vec<Arc<Listener>> = Vec::with_capacity(content.listeners.len());
        let (mut names, mut kinds) = (HashSet::new(), HashMap::<u16, PortKind>::new());
        for listener in content.listeners {
            let Some(listener) = builder.listener(listener) else {
                continue;
            };
            let kind = *kinds.entry(listener.port).or_insert(PortKind::of(listener.protocol));
            if kind != PortKind::of(listener.protocol) {
                builder.wrong(
                    &listener.name,
                    "another listener of this port has a protocol of another kind",
                );
            } else if !names.insert((listener.port, listener.hostname.clone())) {
                builder.wrong(&listener.name, "another listener of this port has the same hostname");
            } else {
                listeners.push(Arc::new(listener));
            }
        }
        let keys = keys.into_iter().collect();
        Self {
            version: version.to_owned(),
            listeners,
            mistakes,
            backends,
            slots,
            keys,
        }
    }

    /// How many listeners serve, and how many cannot.
    pub fn counts(&self) -> (usize, usize) {
        let refused = self.listeners.iter().filter(|one| one.refused().is_some()).count();
        (self.listeners.len() - refused, refused)
    }
}

/// Gives each backend a slot: those that were there before theirs. Also by which slot each index of the content goes.
fn place_backends(
    told: Vec<rpc::Backend>,
    before: Option<&Content>,
    is_own: &dyn Fn(IpAddr) -> bool,
    mistakes: &mut Vec<String>,
) -> (Vec<Slot>, Arc<[Arc<Backend>]>, Vec<u32>) {
    let old: &[Slot] = before.map(|before| &before.slots[..]).unwrap_or_default();
    let known: HashMap<&(Arc<str>, usize), usize> = old
        .iter()
        .enumerate()
        .filter_map(|(slot, of)| Some((of.name.as_ref()?, slot)))
        .collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let names: Vec<(Arc<str>, usize)> = told
        .iter()
        .map(|backend| {
            let count = counts.entry(backend.id.clone()).or_default();
            *count += 1;
            (backend.id.as_str().into(), *count)
        })
        .collect();
    let mut is_taken = vec![false; old.len()];
    let mut places: Vec<Option<usize>> = names.iter().map(|name| known.get(name).copied()).collect();
    places.iter().flatten().for_each(|slot| is_taken[*slot] = true);
    let mut free = (0..).filter(|slot| !is_taken.get(*slot).copied().unwrap_or(false));
    for place in places.iter_mut().filter(|place| place.is_none()) {
        *place = free.next();
    }
    let places: Vec<usize> = places.into_iter().flatten().collect();
    let count = places.iter().max().map_or(0, |most| most + 1);
    let mut slots = vec![Slot::default(); count];
    let loads = std::cell::OnceCell::<Loads>::new();
    let loads = || loads.get_or_init(|| loads_of(before));
    let nowhere = Arc::new(Backend::from_rpc(
        rpc::Backend::default(),
        &Loads::new(),
        is_own,
        mistakes,
    ));
    let mut backends = vec![nowhere; count];
    for ((backend, name), place) in told.into_iter().zip(names).zip(&places) {
        let made_from = digest(&[&backend.encode_to_vec()]);
        let same = old
            .get(*place)
            .filter(|slot| slot.made_from == made_from && slot.name.as_ref() == Some(&name));
        backends[*place] = match (same, before) {
            (Some(_), Some(before)) => before.backends[*place].clone(),
            _ => Arc::new(Backend::from_rpc(backend, loads(), is_own, mistakes)),
        };
        slots[*place] = Slot {
            // The same text, once.
            name: Some((backends[*place].id.clone(), name.1)),
            made_from,
        };
    }
    let places = places.into_iter().map(|place| place as u32).collect();
    (slots, backends.into(), places)
}

fn loads_of(before: Option<&Content>) -> Loads {
    loads(before.map(|before| &before.backends[..]).unwrap_or_default())
}

type Keys = Vec<(Digest, Result<Arc<ServerKey>, String>)>;

/// By index of the content.
fn read_keys(told: &[rpc::Certificate], before: Option<&Content>, mistakes: &mut Vec<String>) -> Keys {
    let read = |certificate: &rpc::Certificate| {
        let made_from = digest(&[certificate.chain.as_bytes(), certificate.key.as_bytes()]);
        let key = match before.and_then(|before| before.keys.get(&made_from)) {
            Some(key) => key.clone(),
            None => ServerKey::from_pem(&certificate.chain, &certificate.key)
                .map(Arc::new)
                .map_err(|error| error.to_string()),
        };
        (made_from, key)
    };
    let keys: Keys = told.iter().map(read).collect();
    let bad = keys
        .iter()
        .enumerate()
        .filter_map(|(index, (_, key))| Some((index, key.as_ref().err()?)));
    mistakes.extend(bad.map(|(index, why)| format!("certificate {index}: {why}")));
    keys
}

struct Builder<'a> {
    version: &'a str,
    before: Option<HashMap<Arc<str>, Arc<Listener>>>,
    backends: &'a Arc<[Arc<Backend>]>,
    places: &'a [u32],
    keys: &'a Keys,
    mistakes: &'a mut Vec<String>,
}

impl Builder<'_> {
    fn wrong(&mut self, listener: &str, why: impl std::fmt::Display) {
        self.mistakes.push(format!("listener {listener}: {why}"));
    }

    fn listener(&mut self, mut told: rpc::Listener) -> Option<Listener> {
        let before = self
            .before
            .as_ref()
            .and_then(|before| before.get(told.name.as_str()))
            .cloned();
        let name = before
            .as_ref()
            .map_or_else(|| told.name.as_str().into(), |before| before.name.clone());
        let Ok(protocol) = ListenerProtocol::try_from(told.protocol) else {
            self.wrong(&name, format_args!("protocol {} is not known", told.protocol));
            return None;
        };
        let Some(port) = u16::try_from(told.port).ok().filter(|port| *port > 0) else {
            self.wrong(&name, format_args!("{} is not a port", told.port));
            return None;
        };
        let hostname = match hostname(&told.hostname) {
            Ok(hostname) => hostname,
            Err(why) => {
                self.wrong(&name, format_args!("hostname {:?}: {why}", told.hostname));
                return None;
            }
        };
        let (rules, table) = self.table(&name, std::mem::take(&mut told.rules), before.as_deref());
        let tls = match protocol {
            ListenerProtocol::ListenerHttps => Some(self.tls(&name, &told, Within::Http, before.as_deref())),
            ListenerProtocol::ListenerTls => Some(self.tls(&name, &told, Within::Bytes, before.as_deref())),
            ListenerProtocol::ListenerHttp | ListenerProtocol::ListenerPassthrough | ListenerProtocol::ListenerTcp => {
                None
            }
        };
        let destination = Destination::listener(&name, self.version, table, self.backends.clone());
        Some(Listener {
            name,
            port,
            protocol,
            hostname,
            destination: Arc::new(destination),
            tls,
            rules,
        })
    }

    /// The rules' table; the one that was there before where they are the same.
    fn table(&mut self, name: &str, mut told: Vec<rpc::Rule>, before: Option<&Listener>) -> (Digest, Arc<Table>) {
        let mut hash = Sha256::new();
        let mut bytes = Vec::new();
        for rule in &mut told {
            self.place(rule);
            bytes.clear();
            // A Vec has place for everything.
            let _ = rule.encode_length_delimited(&mut bytes);
            hash.update(&bytes);
        }
        let made_from = half(hash);
        if let Some(before) = before.filter(|before| before.rules == made_from) {
            return (made_from, before.destination.table.clone());
        }
        let mut rules = Vec::with_capacity(told.len());
        for rule in told {
            // One rule that cannot be read leaves the others.
            match convert::rules_of(std::slice::from_ref(&rule), self.backends.len()) {
                Ok(read) => rules.extend(read),
                Err(wrong) => {
                    let origin = rule.origin.unwrap_or_default();
                    let route = origin.route.unwrap_or_default();
                    let whose = format!("rule {} of {}/{}", origin.rule, route.namespace, route.name);
                    for wrong in wrong {
                        self.wrong(name, format_args!("{whose}: {wrong}"));
                    }
                }
            }
        }
        let (table, conflicts) = Table::compile(rules);
        for conflict in conflicts {
            tracing::debug!(listener = name, ?conflict, "a rule or a part of it has no effect");
        }
        (made_from, Arc::new(table))
    }

    /// Indices of the content become slots. One that is none of the content's stays none.
    fn place(&self, rule: &mut rpc::Rule) {
        let place = |index: &mut Option<u32>| {
            if let Some(index) = index {
                *index = self.places.get(*index as usize).copied().unwrap_or(u32::MAX);
            }
        };
        let filters = |filters: &mut [rpc::Filter]| {
            for filter in filters {
                if let Some(rpc::filter::Kind::Mirror(mirror)) = &mut filter.kind {
                    place(&mut mirror.backend);
                }
            }
        };
        filters(&mut rule.filters);
        for backend in &mut rule.backends {
            place(&mut backend.backend);
            filters(&mut backend.filters);
        }
    }

    fn tls(&mut self, name: &str, told: &rpc::Listener, within: Within, before: Option<&Listener>) -> Arc<Terminates> {
        let keys: Vec<_> = told
            .certificates
            .iter()
            .filter_map(|index| self.keys.get(*index as usize))
            .collect();
        let validation = told.client_validation.as_ref();
        let policy = digest(&[&validation.map(Message::encode_to_vec).unwrap_or_default()]);
        let within_http = [u8::from(within == Within::Http)];
        let mut parts: Vec<&[u8]> = vec![&policy, &within_http];
        parts.extend(keys.iter().map(|(made_from, _)| &made_from[..]));
        let made_from = digest(&parts);
        let same = before
            .and_then(|before| before.tls.as_ref())
            .filter(|tls| tls.made_from == made_from);
        if let Some(tls) = same {
            if let Err(why) = &tls.config {
                self.wrong(name, why);
            }
            return tls.clone();
        }
        let keys: Vec<_> = keys.into_iter().filter_map(|(_, key)| key.clone().ok()).collect();
        let config = configure(keys, validation, within);
        if let Err(why) = &config {
            self.wrong(name, why);
        }
        Arc::new(Terminates {
            config,
            made_from,
            policy,
        })
    }
}

fn configure(
    keys: Vec<Arc<ServerKey>>,
    validation: Option<&rpc::ClientValidation>,
    within: Within,
) -> Result<Arc<ServerConfig>, String> {
    if keys.is_empty() {
        return Err("it has no certificate that can be used".into());
    }
    let validation = match validation {
        None => None,
        Some(validation) if validation.allow_insecure_fallback => Some(ClientValidation::asked()),
        Some(validation) => {
            let required = ClientValidation::required(&validation.roots);
            Some(required.map_err(|error| format!("roots of clients' certificates: {error}"))?)
        }
    };
    gateway_server(keys, validation.as_ref(), within).map_err(|error| error.to_string())
}

/// A name in its one form; `*.` may stand before it.
fn hostname(told: &str) -> Result<Option<Box<str>>, String> {
    if told.is_empty() {
        return Ok(None);
    }
    let (wildcard, rest) = match told.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", told),
    };
    let host = Host::parse(rest.as_bytes()).map_err(|bad| bad.to_string())?;
    Ok(Some(format!("{wildcard}{host}").into()))
}
