//! Rules → table, and the conflicts met on the way.

use std::sync::Arc;

use foldhash::HashMap;

use crate::{
    backend::{Compiled, Share},
    canonical::doubt,
    conflict::{Conflict, Lost},
    connection::Connections,
    edit::Edit,
    limits,
    matcher::{path::PathTest, text::TextTest},
    precedence::{Comparison, Rank},
    rule::{Filter, GrpcMatch, Kind, Match, Retry, Rule, ValueMatch},
    session::Sessions,
    table::{Candidate, Group, Index, Table, segments},
    validate::{Invalid, conditions, first_of_each},
};

/// A match for one host: where it stands, what it is, and what it asks for.
type Found = (Rank, Candidate, Condition);

impl Table {
    /// Compiles rules, which may come in any order; a rule's id is its position here. Nothing is refused as a whole: a
    /// match or a rule that has no effect, or that cannot be carried out, is among the conflicts.
    pub fn compile(rules: Vec<Rule>) -> (Table, Vec<Conflict>) {
        let mut conflicts = Vec::new();
        let mut table = Table::default();
        let every_request = [Match::default()];
        let kinds = Kinds::new(&rules);
        let (mut requests, mut tls, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
        for (id, rule) in rules.iter().enumerate() {
            let mut note = |matched, lost| {
                let loser = rule.origin.clone();
                conflicts.push(Conflict { loser, matched, lost });
            };
            let mistakes = rule.mistakes_beside_matches();
            let compiled = Arc::new(compile_rule(id as u32, rule, &mistakes));
            table.rules.push(compiled.clone());
            for mistake in mistakes {
                note(None, Lost::Invalid(mistake));
            }
            let found = match rule.origin.kind {
                Kind::GrpcRoute | Kind::HttpRoute => {
                    table.takes_requests = true;
                    &mut requests
                }
                Kind::TlsRoute => &mut tls,
                Kind::TcpRoute => &mut tcp,
            };
            if let Some(winner) = kinds.before(rule) {
                let lost = Lost::Shadowed {
                    winner: winner.origin.clone(),
                    by: Comparison::Kind,
                };
                note(None, lost);
                continue;
            }
            // Matches of a rule for connections are mistakes of the rule: whom it takes, it refuses.
            let matches = if rule.matches.is_empty() || !rule.origin.kind.is_http() {
                &every_request[..]
            } else {
                &rule.matches
            };
            for (index, matched) in matches.iter().enumerate() {
                let index = index as u32;
                let conditions = match conditions(rule.origin.kind, matched) {
                    Ok(conditions) => Arc::new(conditions),
                    Err(what) => {
                        let at = format!("matches[{index}]");
                        note(Some(index), Lost::Invalid(Invalid { at, what }));
                        continue;
                    }
                };
                for host in hosts(rule) {
                    let route = compiled.route.clone();
                    let rank = Rank::new(host.as_deref(), &conditions, &rule.origin, route, index, id as u32);
                    let condition = Condition::new(host.clone(), rule.origin.kind, matched, &conditions.path);
                    let candidate = Candidate {
                        rule: compiled.clone(),
                        matched: index,
                        host,
                        conditions: conditions.clone(),
                    };
                    found.push((rank, candidate, condition));
                }
            }
        }
        let mut in_order = |mut found: Vec<Found>| -> Box<[Candidate]> {
            found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
            conflicts.extend(shadowed(&found));
            found.into_iter().map(|(_, candidate, _)| candidate).collect()
        };
        table.candidates = in_order(requests);
        table.connections = Connections::new(in_order(tls), in_order(tcp));
        table.index();
        (table, conflicts)
    }

    fn index(&mut self) {
        let mut has_parameters = false;
        let mut looks_at_paths = false;
        for (index, candidate) in self.candidates.iter().enumerate() {
            let group = match &candidate.host {
                None => &mut self.any_host,
                Some(host) => {
                    self.looks_at_hosts = true;
                    match host.strip_prefix('*') {
                        Some(suffix) => self.wildcard_hosts.entry(suffix.into()).or_default(),
                        None => self.exact_hosts.entry(host.clone()).or_default(),
                    }
                }
            };
            if let Some(grpc) = &candidate.conditions.grpc {
                self.has_grpc = true;
                looks_at_paths |= grpc.service.is_some() || grpc.method.is_some();
            }
            match &candidate.conditions.path {
                PathTest::Any => {}
                PathTest::Exact(path) | PathTest::Prefix(path) => {
                    looks_at_paths = true;
                    has_parameters |= path.contains(&b';');
                }
                PathTest::Regex(pattern) => {
                    looks_at_paths = true;
                    has_parameters |= pattern.as_str().contains(';');
                }
            }
            group.insert(index as u32, &self.candidates);
        }
        // Where no rule looks at the path, all readings of it lead to the same place. Where a rule looks at
        // parameters, whoever wrote it knows that its servers do, too.
        if looks_at_paths {
            self.doubts = if has_parameters { !doubt::PARAMETERS } else { !0 };
        }
    }
}

/// So many candidates of one host are looked at one by one, without an index.
const FEW: usize = 8;

impl Group {
    /// Candidates come in order of precedence.
    fn insert(&mut self, index: u32, candidates: &[Candidate]) {
        match self {
            Group::Few(list) if list.len() < FEW => list.push(index),
            Group::Few(list) => {
                let mut all = Index::default();
                for index in list.drain(..).chain([index]) {
                    all.insert(index, &candidates[index as usize]);
                }
                *self = Group::Many(Box::new(all));
            }
            Group::Many(all) => all.insert(index, &candidates[index as usize]),
        }
    }
}

impl Index {
    fn insert(&mut self, index: u32, candidate: &Candidate) {
        let conditions = &candidate.conditions;
        let list = match (&conditions.grpc, &conditions.path) {
            (Some(grpc), _) => match &grpc.service {
                Some(TextTest::Exact(service)) => self.services.entry(service.clone()).or_default(),
                _ => &mut self.other_calls,
            },
            (None, PathTest::Exact(path)) => self.exact.entry(path.clone()).or_default(),
            (None, PathTest::Prefix(prefix)) => {
                self.depth = self.depth.max(segments(prefix));
                self.prefixes.entry(prefix.clone()).or_default()
            }
            (None, PathTest::Regex(_)) => &mut self.regexes,
            (None, PathTest::Any) => &mut self.any,
        };
        list.push(index);
    }
}

fn hosts(rule: &Rule) -> Vec<Option<Arc<str>>> {
    match &rule.hosts[..] {
        [] => vec![None],
        hosts => hosts.iter().cloned().map(Some).collect(),
    }
}

fn compile_rule(id: u32, rule: &Rule, mistakes: &[Invalid]) -> Compiled {
    // A filter with a mistake is left out, and every request of its rule is answered 500: "it MUST NOT be skipped".
    let edits = |filters: &[Filter]| -> Box<[Edit]> {
        let filters = filters.iter().filter(|_| mistakes.is_empty());
        filters.filter_map(|filter| Edit::new(filter).ok()).collect()
    };
    let mut sum = 0;
    let mut compiled = Compiled {
        id,
        route: format!("{}/{}", rule.origin.namespace, rule.origin.name).into(),
        rule: rule.origin.rule_label().into(),
        origin: rule.origin.clone(),
        timeouts: rule.timeouts,
        retry: rule.retry.as_ref().map(|retry| {
            Box::new(Retry {
                codes: retry.codes.clone(),
                attempts: retry.attempts.min(limits::RETRIES as u32),
                backoff: retry.backoff.map(|pause| pause.min(limits::RETRY_PAUSE)),
            })
        }),
        sessions: (rule.session.as_ref().filter(|_| mistakes.is_empty()))
            .and_then(|session| Sessions::new(session, &rule.origin))
            .map(Box::new),
        edits: edits(&rule.filters),
        sums: rule
            .backends
            .iter()
            .map(|backend| {
                sum += u64::from(backend.weight);
                sum
            })
            .collect(),
        shares: rule
            .backends
            .iter()
            .map(|backend| Share {
                backend: backend.backend.clone(),
                weight: backend.weight,
                edits: edits(&backend.filters),
            })
            .collect(),
        has_cors: false,
        invalid: mistakes.first().map(|mistake| mistake.to_string().into()),
    };
    let of_shares = compiled.shares.iter().flat_map(|share| &share.edits);
    let mut all = compiled.edits.iter().chain(of_shares);
    compiled.has_cors = all.any(|edit| matches!(edit, Edit::Cors(_)));
    compiled
}

/// The GRPCRoutes' rules by host, for the HTTPRoutes that are asked for the same ones: "only a single route type should
/// be applied. The rejected routes should be ignored" (GEP-1294, Route types).
#[derive(Default)]
struct Kinds<'a> {
    /// In order of age and name; the maps have the first index of each host.
    grpc: Vec<&'a Rule>,
    any_host: Option<usize>,
    exact: HashMap<&'a str, usize>,
    /// By what follows the `*`.
    wildcard: HashMap<&'a str, usize>,
    /// By every suffix of a host that is asked for: what a wildcard of the other kind would take.
    within: HashMap<&'a str, usize>,
}

impl<'a> Kinds<'a> {
    fn new(rules: &'a [Rule]) -> Self {
        let mut kinds = Kinds::default();
        let grpc = rules.iter().filter(|rule| rule.origin.kind == Kind::GrpcRoute);
        kinds.grpc.extend(grpc);
        kinds.grpc.sort_by_cached_key(|rule| {
            let origin = &rule.origin;
            let name = format!("{}/{}", origin.namespace, origin.name);
            (origin.created, name, origin.rule)
        });
        for (index, rule) in kinds.grpc.iter().enumerate() {
            if rule.hosts.is_empty() {
                kinds.any_host.get_or_insert(index);
            }
            for host in &rule.hosts {
                match host.strip_prefix('*') {
                    Some(suffix) => kinds.wildcard.entry(suffix).or_insert(index),
                    None => kinds.exact.entry(host).or_insert(index),
                };
                for suffix in suffixes(host) {
                    kinds.within.entry(suffix).or_insert(index);
                }
            }
        }
        kinds
    }

    /// The rule in whose favour this one is ignored: the first of all that are asked for one of its hosts.
    fn before(&self, rule: &Rule) -> Option<&'a Rule> {
        if rule.origin.kind != Kind::HttpRoute || self.grpc.is_empty() {
            return None;
        }
        if rule.hosts.is_empty() {
            return self.grpc.first().copied();
        }
        let same = |host: &str| match host.strip_prefix('*') {
            Some(suffix) => self.within.get(suffix).copied(),
            None => self.exact.get(host).copied(),
        };
        let of_host = |host: &Arc<str>| {
            let wider = suffixes(host).filter_map(|suffix| self.wildcard.get(suffix).copied());
            same(host).into_iter().chain(wider).min()
        };
        let first = rule.hosts.iter().filter_map(of_host).chain(self.any_host).min();
        first.map(|index| self.grpc[index])
    }
}

/// `.b.test` and `.test` of `a.b.test`, and of `*.b.test`.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(at, _)| &host[at..])
}

/// Everything that a match asks for, so that two matches with equal ones take the same requests.
#[derive(PartialEq, Eq, Hash)]
struct Condition {
    host: Option<Arc<str>>,
    kind: Kind,
    path: (u8, Arc<[u8]>),
    method: Option<Arc<str>>,
    headers: Vec<ValueMatch>,
    query: Vec<ValueMatch>,
    grpc: Option<GrpcMatch>,
}

impl Condition {
    fn new(host: Option<Arc<str>>, kind: Kind, matched: &Match, path: &PathTest) -> Self {
        let path = match path {
            PathTest::Any => (0, Arc::default()),
            PathTest::Exact(path) => (1, path.clone()),
            PathTest::Prefix(path) => (2, path.clone()),
            PathTest::Regex(pattern) => (3, pattern.as_str().as_bytes().into()),
        };
        let lower = |header: &ValueMatch| ValueMatch {
            name: header.name.to_ascii_lowercase().into(),
            ..header.clone()
        };
        let mut headers: Vec<_> = first_of_each(&matched.headers, true).map(lower).collect();
        let mut query: Vec<_> = first_of_each(&matched.query, false).cloned().collect();
        headers.sort();
        query.sort();
        let grpc = matched
            .grpc
            .clone()
            .filter(|grpc| grpc.service.is_some() || grpc.method.is_some());
        Condition {
            host,
            kind,
            path,
            method: matched.method.clone(),
            headers,
            query,
            grpc,
        }
    }
}

/// Matches that are equal to an earlier one of another rule, for every host that they are asked for.
fn shadowed(found: &[Found]) -> Vec<Conflict> {
    let mut first: HashMap<&Condition, &Found> = HashMap::default();
    let mut lost: Vec<(&Found, &Found)> = Vec::new();
    let mut effective: HashMap<(u32, u32), ()> = HashMap::default();
    for one in found {
        let (_, candidate, condition) = one;
        match first.get(condition) {
            Some(winner) if winner.1.rule.id != candidate.rule.id => lost.push((one, winner)),
            Some(_) => {}
            None => {
                first.insert(condition, one);
                effective.insert((candidate.rule.id, candidate.matched), ());
            }
        }
    }
    let mut told: HashMap<(u32, u32), ()> = HashMap::default();
    lost.retain(|((_, loser, _), _)| {
        let key = (loser.rule.id, loser.matched);
        !effective.contains_key(&key) && told.insert(key, ()).is_none()
    });
    lost.into_iter()
        .map(|((loser_rank, loser, _), (winner_rank, winner, _))| Conflict {
            loser: loser.rule.origin.clone(),
            matched: Some(loser.matched),
            lost: Lost::Shadowed {
                winner: winner.rule.origin.clone(),
                by: winner_rank.compare(loser_rank).1,
            },
        })
        .collect()
}
