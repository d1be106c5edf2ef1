//! HTTPRoute → rules.

use weft_proto::limits;
use weft_route::rule::{self, Kind, Origin, PathMatch};

use super::{Problem, Reason, Route, Rule, filter, matching, parse_duration, service};
use crate::{
    cluster::{read::Mistakes, types::Kind as ObjectKind},
    objects::{self, HttpMatch, HttpRouteSpec, HttpRule, core::Meta},
};

/// Translates an HTTPRoute. The error holds everything for which an API server would refuse it.
pub fn translate(metadata: &Meta, spec: &HttpRouteSpec) -> Result<Route, Mistakes> {
    let everything = [HttpRule {
        matches: vec![HttpMatch::default()],
        ..HttpRule::default()
    }];
    let given = spec.rules.as_deref().unwrap_or(&everything);
    let kind = (ObjectKind::HttpRoute, Kind::HttpRoute);
    super::route(kind, metadata, &spec.parent_refs, given, |rule| &rule.name, one)
}

fn one(given: &HttpRule, origin: Origin, at: &str, problems: &mut Vec<Problem>, mistakes: &mut Mistakes) -> Rule {
    for (field, set) in [
        ("retry", given.retry.is_some()),
        ("sessionPersistence", given.session_persistence.is_some()),
    ] {
        if set {
            let message = format!("{at}.{field} is not supported; the rule acts without it");
            problems.push(Problem {
                reason: Reason::UnsupportedValue,
                message,
            });
        }
    }
    let before = mistakes.len();
    let mut rule = rule::Rule::new(origin);
    let matches = given.matches.iter().enumerate();
    rule.matches = matches
        .map(|(index, one)| condition(one, &format!("{at}.matches[{index}]"), mistakes))
        .collect();

    let backends = service::backends(
        Kind::HttpRoute,
        &given.backend_refs,
        &rule.origin.namespace,
        at,
        mistakes,
    );
    let refused = match filter::filters(Kind::HttpRoute, &given.filters, at, mistakes) {
        Ok(filters) => {
            rule.filters = filters;
            None
        }
        Err(problem) => Some(problem),
    };
    service::check_redirect(&rule.filters, &backends, at, mistakes);
    let all_filters = || backends.iter().map(|backend| &backend.filters).chain([&rule.filters]);
    if all_filters().any(|filters| filter::replaces_prefix(filters)) {
        let prefixes = rule
            .matches
            .iter()
            .filter(|one| matches!(one.path, Some(PathMatch::Prefix(_))))
            .count();
        if (prefixes, rule.matches.len()) != (1, 1) {
            mistakes.push(format!(
                "{at}: ReplacePrefixMatch needs exactly one match, of type PathPrefix"
            ));
        }
    }
    rule.timeouts = timeouts(given.timeouts.as_ref(), at, mistakes);
    super::checked(
        Rule {
            rule,
            backends,
            refused,
        },
        at,
        before,
        mistakes,
    )
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

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

fn path(given: Option<&objects::PathMatch>, at: &str, mistakes: &mut Mistakes) -> PathMatch {
    let kind = given.and_then(|path| path.kind.as_deref()).unwrap_or("PathPrefix");
    let value = given.and_then(|path| path.value.as_deref()).unwrap_or("/");
    if value.len() > limits::REGEX {
        mistakes.push(format!("{at}.path.value is longer than {} bytes", limits::REGEX));
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
    let mut read = |text: Option<&str>, field: &str| {
        let text = text?;
        let duration = parse_duration(text);
        if duration.is_none() {
            mistakes.push(format!(
                "{at}.timeouts.{field} '{text}' is not a duration such as 10s, 500ms or 1h30m"
            ));
        }
        // "Setting a timeout to the zero duration SHOULD disable the timeout completely."
        duration.filter(|duration| !duration.is_zero())
    };
    let request = read(given.request.as_deref(), "request");
    let backend_request = read(given.backend_request.as_deref(), "backendRequest");
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
