//! A compiled table: immutable, shared, replaced whole; and its index, by host, then by path or gRPC service.

use std::{borrow::Cow, sync::Arc};

use foldhash::HashMap;
use smallvec::SmallVec;

use crate::{
    Host,
    ask::{Ask, HttpView},
    backend::Compiled,
    canonical::{self, split},
    connection::Connections,
    decide::{Decision, NoRoute},
    explain::{Step, Trace},
    host::{self, BadHost},
    matcher::{Conditions, Refusal, Seen, grpc},
};

/// All rules for one destination.
#[derive(Debug, Default)]
pub struct Table {
    /// By id. Rules that lost are here, too, so that ids are positions.
    pub(crate) rules: Vec<Arc<Compiled>>,
    /// Matches of rules for requests, each once for every host pattern of its rule; in order of precedence.
    pub(crate) candidates: Box<[Candidate]>,
    pub(crate) any_host: Group,
    /// By host.
    pub(crate) exact_hosts: HashMap<Arc<str>, Group>,
    /// By what follows the `*`, as `.example.com`.
    pub(crate) wildcard_hosts: HashMap<Box<str>, Group>,
    pub(crate) looks_at_hosts: bool,
    /// There are rules of HTTPRoutes or GRPCRoutes, if only such that lost.
    pub(crate) takes_requests: bool,
    pub(crate) has_grpc: bool,
    /// Doubts about a path that can make a difference here, as bits of [`canonical::doubt`].
    pub(crate) doubts: u8,
    /// Rules for connections.
    pub(crate) connections: Connections,
}

/// One match of one rule, for one host pattern.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) rule: Arc<Compiled>,
    pub(crate) matched: u32,
    pub(crate) host: Option<Arc<str>>,
    pub(crate) conditions: Arc<Conditions>,
}

/// Indices of candidates, in order of precedence.
pub(crate) type List = SmallVec<[u32; 4]>;

/// The candidates of one host pattern. Most hosts have a few, which are looked at one by one.
#[derive(Debug)]
pub(crate) enum Group {
    Few(List),
    Many(Box<Index>),
}

/// The candidates of a host pattern that has many; the lists come in order of precedence, too.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) services: HashMap<Arc<str>, List>,
    pub(crate) other_calls: List,
    pub(crate) exact: HashMap<Arc<[u8]>, List>,
    pub(crate) prefixes: HashMap<Arc<[u8]>, List>,
    /// The most segments that a prefix has: a longer path than that costs no more.
    pub(crate) depth: usize,
    pub(crate) regexes: List,
    pub(crate) any: List,
}

impl Default for Group {
    fn default() -> Self {
        Group::Few(List::new())
    }
}

impl Table {
    /// Whether there are no rules at all: then the caller uses the destination's default backend.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, by their id, those that lost included.
    pub fn rules(&self) -> &[Arc<Compiled>] {
        &self.rules
    }

    /// What `ask` is entitled to. `random` is uniform over all of `u64`, and draws the backend.
    pub fn decide(&self, ask: &Ask<'_>, random: u64) -> Result<Decision, NoRoute> {
        self.walk(ask, random, &mut ())
    }

    /// The same, and what became of each match on the way, in order of precedence.
    pub fn explain(&self, ask: &Ask<'_>, random: u64) -> (Result<Decision, NoRoute>, Vec<Step>) {
        let mut steps = Vec::new();
        (self.walk(ask, random, &mut steps), steps)
    }

    fn walk<T: Trace>(&self, ask: &Ask<'_>, random: u64, trace: &mut T) -> Result<Decision, NoRoute> {
        let connections = &self.connections;
        match ask {
            Ask::Http(view) if self.takes_requests => self.walk_http(*view, random, trace),
            // HTTPRoute and GRPCRoute say nothing about connections that are not HTTP, TLSRoute nothing about those
            // without a ClientHello. A TCPRoute speaks of every connection, unless a route knows more about it.
            Ask::Tls { sni } if connections.take_tls() => {
                let found = connections.tls(*sni, trace).ok_or(NoRoute::NoMatch)?;
                Ok(found.decision(random))
            }
            Ask::Http(_) | Ask::Tcp if connections.take_all() => {
                let found = connections.all(trace).ok_or(NoRoute::NoMatch)?;
                Ok(found.decision(random))
            }
            _ => Err(NoRoute::NoRules),
        }
    }

    fn walk_http<T: Trace>(&self, view: &dyn HttpView, random: u64, trace: &mut T) -> Result<Decision, NoRoute> {
        let (sent, query) = split(view.target());
        let is_plain = canonical::is_plain(sent);
        let path = if is_plain {
            Cow::Borrowed(sent)
        } else {
            canonical::path(sent)
        };
        let host = match view.host().filter(|_| self.looks_at_hosts).map(Host::parse).transpose() {
            // HTTP/1.1 allows an empty `Host` (RFC 9112 3.2): no host.
            Err(BadHost::Empty) => None,
            Err(_) => return Err(NoRoute::BadHost),
            Ok(host) => host,
        };
        let seen = Seen {
            view,
            path: &path,
            query: query.unwrap_or_default(),
            host: host.as_ref(),
            is_grpc: self.has_grpc && grpc::is_grpc(view),
        };
        let found = self.first(&seen, trace);
        if !is_plain && self.doubts != 0 {
            let rule = |found: Option<&Candidate>| found.map(|candidate| candidate.rule.id);
            let taken = rule(found);
            if canonical::readings(sent, self.doubts, |path| {
                rule(self.first(&Seen { path, ..seen }, &mut ())) != taken
            }) {
                return Err(NoRoute::Ambiguous);
            }
        }
        let mut decision = found.ok_or(NoRoute::NoMatch)?.decision(random);
        decision.ask_cors(view);
        Ok(decision)
    }

    /// The first candidate of all whose conditions hold. To explain, each is looked at in turn; to decide, the index
    /// leaves out those whose host or path cannot be.
    fn first<T: Trace>(&self, seen: &Seen<'_>, trace: &mut T) -> Option<&Candidate> {
        if T::EVERYTHING {
            let mut found = None;
            for candidate in &self.candidates {
                let refusal = if found.is_none() { candidate.refusal(seen) } else { None };
                trace.note(candidate, refusal.clone(), found.is_some());
                if refusal.is_none() && found.is_none() {
                    found = Some(candidate);
                }
            }
            return found;
        }
        if let Some(host) = seen.host {
            let host = host.as_str();
            if let Some(found) = self.exact_hosts.get(host).and_then(|group| self.first_in(group, seen)) {
                return Some(found);
            }
            // The longest wildcard has the most characters, and begins at the first dot.
            let suffixes = host.match_indices('.').map(|(at, _)| &host[at..]);
            for group in suffixes.filter_map(|suffix| self.wildcard_hosts.get(suffix)) {
                if let Some(found) = self.first_in(group, seen) {
                    return Some(found);
                }
            }
        }
        self.first_in(&self.any_host, seen)
    }

    fn first_in(&self, group: &Group, seen: &Seen<'_>) -> Option<&Candidate> {
        let index = match group {
            Group::Few(list) => return self.first_of(Some(list), seen),
            Group::Many(index) => index,
        };
        if seen.is_grpc {
            let service = grpc::call(seen.path).and_then(|(service, _)| std::str::from_utf8(service).ok());
            let service = service.and_then(|service| index.services.get(service));
            if let Some(found) = self
                .first_of(service, seen)
                .or_else(|| self.first_of(Some(&index.other_calls), seen))
            {
                return Some(found);
            }
        }
        self.first_of(index.exact.get(seen.path), seen)
            .or_else(|| self.first_by_prefix(index, seen))
            .or_else(|| self.first_of(Some(&index.regexes), seen))
            .or_else(|| self.first_of(Some(&index.any), seen))
    }

    /// The longest prefix first.
    fn first_by_prefix(&self, index: &Index, seen: &Seen<'_>) -> Option<&Candidate> {
        if index.depth == 0 || seen.path.first() != Some(&b'/') {
            return None;
        }
        let mut end = segments_end(seen.path, index.depth);
        while end > 0 {
            if let Some(found) = self.first_of(index.prefixes.get(&seen.path[..end]), seen) {
                return Some(found);
            }
            end = seen.path[..end].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        }
        None
    }

    fn first_of(&self, list: Option<&List>, seen: &Seen<'_>) -> Option<&Candidate> {
        let mut candidates = list?.iter().map(|index| &self.candidates[*index as usize]);
        candidates.find(|candidate| {
            candidate.conditions.path.holds(seen.path) && candidate.conditions.refusal(seen).is_none()
        })
    }
}

impl Candidate {
    fn decision(&self, random: u64) -> Decision {
        let (share, target) = self.rule.draw(random);
        Decision {
            rule: self.rule.clone(),
            matched: self.matched,
            share,
            target,
            prefix: self.conditions.path.prefix_length(),
            cors: None,
        }
    }

    pub(crate) fn host_holds(&self, host: Option<&str>) -> bool {
        match (&self.host, host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(pattern), Some(host)) => host::covers(pattern, host),
        }
    }

    /// Host and path included.
    fn refusal(&self, seen: &Seen<'_>) -> Option<Refusal> {
        if !self.host_holds(seen.host.map(Host::as_str)) {
            return Some(Refusal::Host);
        }
        if !self.conditions.path.holds(seen.path) {
            return Some(Refusal::Path);
        }
        self.conditions.refusal(seen)
    }
}

/// Where the first `count` segments of a path end.
fn segments_end(path: &[u8], count: usize) -> usize {
    let slashes = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at);
    slashes.skip(1).nth(count - 1).unwrap_or(path.len())
}

/// How many segments a prefix has.
pub(crate) fn segments(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}
