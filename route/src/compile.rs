//! Rules → table, and the conflicts met on the way.

use std::sync::Arc;

use foldhash::HashMap;

use crate::{
    backend::{Compiled, Share},
    canonical::doubt,
    conflict::{Conflict, Lost},
    edit::Edit,
    matcher::{path::PathTest, text::TextTest},
    precedence::{Comparison, Rank},
    rule::{Filter, GrpcMatch, Kind, Match, Rule, ValueMatch},
    table::{Candidate, Group, Table, segments},
    validate::{Invalid, conditions, first_of_each},
};

impl Table {
    /// Compiles rules, which may come in any order; a rule's id is its position here. Nothing is refused as a whole: a
    /// match or a rule that has no effect, or that cannot be carried out, is among the conflicts.
    pub fn compile(rules: Vec<Rule>) -> (Table, Vec<Conflict>) {
        let mut conflicts = Vec::new();
        let mut table = Table::default();
        let every_request = [Match::default()];
        let mut found = Vec::new();
        for (id, rule) in rules.iter().enumerate() {
            let mistakes = rule.mistakes_beside_matches();
            let compiled = Arc::new(compile_rule(id as u32, rule, &mistakes));
            table.rules.push(compiled.clone());
            let invalid = mistakes.into_iter().map(|invalid| (None, Lost::Invalid(invalid)));
            conflicts.extend(invalid.map(|(matched, lost)| Conflict {
                loser: rule.origin.clone(),
                matched,
                lost,
            }));
            if !rule.origin.kind.is_http() {
                continue;
            }
            if let Some(winner) = other_kind(rule, &rules) {
                let lost = Lost::Shadowed {
                    winner: winner.origin.clone(),
                    by: Comparison::Kind,
                };
                conflicts.push(Conflict {
                    loser: rule.origin.clone(),
                    matched: None,
                    lost,
                });
                continue;
            }
            let matches = if rule.matches.is_empty() {
                &every_request[..]
            } else {
                &rule.matches
            };
            for (index, matched) in matches.iter().enumerate() {
                match conditions(rule.origin.kind, matched) {
                    Err(what) => {
                        let lost = Lost::Invalid(Invalid {
                            at: format!("matches[{index}]"),
                            what,
                        });
                        conflicts.push(Conflict {
                            loser: rule.origin.clone(),
                            matched: Some(index as u32),
                            lost,
                        });
                    }
                    Ok(conditions) => {
                        let conditions = Arc::new(conditions);
                        for host in hosts(rule) {
                            let rank = Rank::new(host.as_deref(), &conditions, &rule.origin, index as u32, id as u32);
                            let condition = Condition::new(host.clone(), rule.origin.kind, matched, &conditions.path);
                            let conditions = conditions.clone();
                            let rule = compiled.clone();
                            let candidate = Candidate {
                                rank,
                                rule,
                                matched: index as u32,
                                host,
                                conditions,
                            };
                            found.push((candidate, condition));
                        }
                    }
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.rank.cmp(&b.rank));
        conflicts.extend(shadowed(&found));
        table.candidates = found.into_iter().map(|(candidate, _)| candidate).collect();
        table.index();
        (table, conflicts)
    }

    fn index(&mut self) {
        let mut has_parameters = false;
        let mut looks_at_paths = false;
        for (index, candidate) in self.candidates.iter().enumerate() {
            let group = match candidate.host.as_deref() {
                None => &mut self.any_host,
                Some(host) => {
                    self.looks_at_hosts = true;
                    match host.strip_prefix('*') {
                        Some(suffix) => self.wildcard_hosts.entry(suffix.into()).or_default(),
                        None => self.exact_hosts.entry(host.into()).or_default(),
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
            group.insert(index as u32, candidate);
        }
        // Where no rule looks at the path, all readings of it lead to the same place. Where a rule looks at
        // parameters, whoever wrote it knows that its servers do, too.
        if looks_at_paths {
            self.doubts = if has_parameters { !doubt::PARAMETERS } else { !0 };
        }
    }
}

impl Group {
    /// Candidates come in order of precedence.
    fn insert(&mut self, index: u32, candidate: &Candidate) {
        let conditions = &candidate.conditions;
        let list = match (&conditions.grpc, &conditions.path) {
            (Some(grpc), _) => match &grpc.service {
                Some(TextTest::Exact(service)) => self.services.entry(service.as_bytes().into()).or_default(),
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
    let edits = |filters: &[Filter]| filters.iter().filter_map(|filter| Edit::new(filter).ok()).collect();
    let mut sum = 0;
    Compiled {
        id,
        route: format!("{}/{}", rule.origin.namespace, rule.origin.name).into(),
        rule: rule.origin.rule_label().into(),
        origin: rule.origin.clone(),
        timeouts: rule.timeouts,
        edits: if mistakes.is_empty() {
            edits(&rule.filters)
        } else {
            Vec::new()
        },
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
        invalid: mistakes.first().map(|mistake| mistake.to_string().into()),
    }
}

/// The rule of a kind that comes before this one's and is asked for the same hosts: "only a single route type should
/// be applied. The rejected routes should be ignored" (GEP-1294, Route types). The first of them by age and name.
fn other_kind<'a>(rule: &Rule, rules: &'a [Rule]) -> Option<&'a Rule> {
    let before = rules
        .iter()
        .filter(|other| other.origin.kind < rule.origin.kind && hosts_meet(&other.hosts, &rule.hosts));
    before.min_by_key(|other| {
        (
            other.origin.created,
            format!("{}/{}", other.origin.namespace, other.origin.name),
            other.origin.rule,
        )
    })
}

fn hosts_meet(a: &[Arc<str>], b: &[Arc<str>]) -> bool {
    let covers = |pattern: &str, host: &str| match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => false,
    };
    let meet = |a: &Arc<str>, b: &Arc<str>| a == b || covers(a, b) || covers(b, a);
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| meet(a, b)))
}

/// Everything that a match asks for, so that two matches with equal ones take the same requests.
#[derive(PartialEq, Eq, Hash)]
struct Condition {
    host: Option<Arc<str>>,
    kind: Kind,
    path: (u8, Box<[u8]>),
    method: Option<Arc<str>>,
    headers: Vec<ValueMatch>,
    query: Vec<ValueMatch>,
    grpc: Option<GrpcMatch>,
}

impl Condition {
    fn new(host: Option<Arc<str>>, kind: Kind, matched: &Match, path: &PathTest) -> Self {
        let path = match path {
            PathTest::Any => (0, Box::default()),
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
fn shadowed(found: &[(Candidate, Condition)]) -> Vec<Conflict> {
    let mut first: HashMap<&Condition, &Candidate> = HashMap::default();
    let mut lost: Vec<(&Candidate, &Candidate)> = Vec::new();
    let mut effective: HashMap<(u32, u32), ()> = HashMap::default();
    for (candidate, condition) in found {
        match first.get(condition) {
            Some(winner) if winner.rule.id != candidate.rule.id => lost.push((candidate, winner)),
            Some(_) => {}
            None => {
                first.insert(condition, candidate);
                effective.insert((candidate.rule.id, candidate.matched), ());
            }
        }
    }
    let mut told: HashMap<(u32, u32), ()> = HashMap::default();
    lost.retain(|(loser, _)| {
        let key = (loser.rule.id, loser.matched);
        !effective.contains_key(&key) && told.insert(key, ()).is_none()
    });
    lost.into_iter()
        .map(|(loser, winner)| Conflict {
            loser: loser.rule.origin.clone(),
            matched: Some(loser.matched),
            lost: Lost::Shadowed {
                winner: winner.rule.origin.clone(),
                by: winner.rank.compare(&loser.rank).1,
            },
        })
        .collect()
}
