//! HTTPRoute → rules.

use std::time::Duration;

use weft_route::rule::{self, Kind, PathMatch};

use super::{Given, Route, Rule, backends, filter, matching, parse_duration, session};
use crate::{
    cluster::{read::Mistakes, types::Kind as ObjectKind},
    objects::{self, HttpMatch, HttpRouteSpec, HttpRule, core::Meta},
};

/// Attempts after the first one, where a route does not say how many.
const RETRIES: u32 = 2;
/// The most of them.
const MOST_RETRIES: i64 = 100;

/// Translates an HTTPRoute. With it comes everything for which an API server would refuse it.
pub fn translate(metadata: &Meta, spec: &HttpRouteSpec) -> Result<(Route, Mistakes), Mistakes> {
    let everything = [HttpRule {
        matches: vec![HttpMatch::default()],
        ..HttpRule::default()
    }];
    let rules = spec.rules.as_deref().unwrap_or(&everything);
    let given = Given {
        kind: ObjectKind::HttpRoute,
        metadata,
        parents: &spec.parent_refs,
        hostnames: &spec.hostnames,
        default_gateways: spec.use_default_gateways.as_deref(),
    };
    super::route(given, Kind::HttpRoute, rules, |rule| &rule.name, one)
}

fn one(given: &HttpRule, mut rule: Rule, at: &str, mistakes: &mut Mistakes) -> Rule {
    let matches = given.matches.iter().enumerate();
    rule.rule.matches = matches
        .map(|(index, one)| condition(one, &format!("{at}.matches[{index}]"), mistakes))
        .collect();
    backends::backends(Kind::HttpRoute, &given.backend_refs, at, &mut rule, mistakes);
    match filter::filters(Kind::HttpRoute, &given.filters, at, &mut rule, mistakes) {
        Ok(filters) => rule.rule.filters = filters,
        Err(problem) => rule.refuse(problem),
    }
    backends::check_redirect(&rule, at, mistakes);
    let of_backends = rule.backends.iter().map(|backend| &backend.filters);
    if of_backends
        .chain([&rule.rule.filters])
        .any(|filters| filter::replaces_prefix(filters))
    {
        let by_prefix = |one: &&rule::Match| matches!(one.path, Some(PathMatch::Prefix(_)));
        let prefixes = rule.rule.matches.iter().filter(by_prefix).count();
        // Without matches a rule has the prefix `/` (the CRD's default).
        if !rule.rule.matches.is_empty() && (prefixes, rule.rule.matches.len()) != (1, 1) {
            mistakes.push(format!(
                "{at}: ReplacePrefixMatch needs exactly one match, of type PathPrefix"
            ));
        }
    }
    rule.rule.timeouts = timeouts(given.timeouts.as_ref(), at, mistakes);
    rule.rule.retry = given.retry.as_ref().map(|given| retry(given, at, mistakes));
    if let Some(given) = &given.session_persistence {
        rule.rule.session = session::session(given, at, &mut rule, mistakes);
    }
    rule
}

fn condition(given: &HttpMatch, at: &str, mistakes: &mut Mistakes) -> rule::Match {
    if let Some(method) = given.method.as_deref().filter(|method| !METHODS.contains(method)) {
        mistakes.push(format!("{at}.method '{method}' is none of {}", METHODS.join(", ")));
    }
    rule::Match {
        path: Some(path(given.path.as_ref(), at, mistakes)),
        headers: matching::headers(&given.headers, at, mistakes),
        query: matching::query(&given.query_params, at, mistakes),
        method: given.method.as_deref().map(Into::into),
        grpc: None,
    }
}

/// The most bytes of a path (the CRD's limit).
const PATH: usize = 1024;

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

fn path(given: Option<&objects::PathMatch>, at: &str, mistakes: &mut Mistakes) -> PathMatch {
    let kind = given.and_then(|path| path.kind.as_deref()).unwrap_or("PathPrefix");
    let value = given.and_then(|path| path.value.as_deref()).unwrap_or("/");
    if value.len() > PATH {
        mistakes.push(format!("{at}.path.value is longer than {PATH} bytes"));
    }
    if kind != "RegularExpression" {
        if !value.starts_with('/') {
            mistakes.push(format!("{at}.path.value '{value}' does not start with '/'"));
        }
        for bad in ["//", "/./", "/../", "%2f", "%2F", "#"] {
            if value.contains(bad) {
                mistakes.push(format!("{at}.path.value '{value}' must not contain '{bad}'"));
            }
        }
        if value.ends_with("/..") || value.ends_with("/.") {
            mistakes.push(format!("{at}.path.value '{value}' must not end with '/..' or '/.'"));
        }
    }
    match kind {
        "Exact" => PathMatch::Exact(value.into()),
        "PathPrefix" => PathMatch::Prefix(value.into()),
        "RegularExpression" => PathMatch::Regex(value.into()),
        other => {
            mistakes.push(format!(
                "{at}.path.type is '{other}'; it can be Exact, PathPrefix or RegularExpression"
            ));
            PathMatch::Prefix(value.into())
        }
    }
}

fn timeouts(given: Option<&objects::Timeouts>, at: &str, mistakes: &mut Mistakes) -> rule::Timeouts {
    let Some(given) = given else {
        return rule::Timeouts::default();
    };
    // "Setting a timeout to the zero duration SHOULD disable the timeout completely."
    let mut read = |text: &Option<String>, field: &str| {
        duration(text.as_deref(), &format!("{at}.timeouts.{field}"), mistakes).filter(|duration| !duration.is_zero())
    };
    let request = read(&given.request, "request");
    let backend_request = read(&given.backend_request, "backendRequest");
    if request
        .zip(backend_request)
        .is_some_and(|(request, backend)| backend > request)
    {
        mistakes.push(format!("{at}.timeouts: backendRequest cannot be longer than request"));
    }
    rule::Timeouts {
        request,
        backend_request,
    }
}

/// A duration, or a mistake.
pub(super) fn duration(text: Option<&str>, at: &str, mistakes: &mut Mistakes) -> Option<Duration> {
    let text = text?;
    let duration = parse_duration(text);
    if duration.is_none() {
        mistakes.push(format!("{at} '{text}' is not a duration such as 10s, 500ms or 1h30m"));
    }
    duration
}

fn retry(given: &objects::Retry, at: &str, mistakes: &mut Mistakes) -> rule::Retry {
    let mut codes = Vec::new();
    for code in &given.codes {
        match u16::try_from(*code).ok().filter(|code| (400..=599).contains(code)) {
            Some(code) => codes.push(code),
            None => mistakes.push(format!("{at}.retry.codes: {code} is not a status from 400 to 599")),
        }
    }
    let attempts = match given.attempts {
        None => RETRIES,
        Some(attempts) => u32::try_from(attempts.min(MOST_RETRIES)).unwrap_or_else(|_| {
            mistakes.push(format!("{at}.retry.attempts {attempts} is negative"));
            0
        }),
    };
    rule::Retry {
        codes,
        attempts,
        backoff: duration(given.backoff.as_deref(), &format!("{at}.retry.backoff"), mistakes),
    }
}
