//! GRPCRoute → rules.

use weft_route::rule::{self, Kind, Text};

use super::{Given, Route, Rule, backends, filter, matching, session};
use crate::{
    cluster::{read::Mistakes, types::Kind as ObjectKind},
    objects::{GrpcMatch, GrpcMethodMatch, GrpcRouteSpec, GrpcRule, core::Meta},
};

/// Translates a GRPCRoute. With it comes everything for which an API server would refuse it.
pub fn translate(metadata: &Meta, spec: &GrpcRouteSpec) -> Result<(Route, Mistakes), Mistakes> {
    let given = Given {
        kind: ObjectKind::GrpcRoute,
        metadata,
        parents: &spec.parent_refs,
        hostnames: &spec.hostnames,
        default_gateways: spec.use_default_gateways.as_deref(),
    };
    super::route(given, Kind::GrpcRoute, &spec.rules, |rule| &rule.name, one)
}

fn one(given: &GrpcRule, mut rule: Rule, at: &str, mistakes: &mut Mistakes) -> Rule {
    let matches = given.matches.iter().enumerate();
    rule.rule.matches = matches
        .map(|(index, one)| condition(one, &format!("{at}.matches[{index}]"), mistakes))
        .collect();
    if rule.rule.matches.is_empty() {
        // Every call, and still a gRPC call: it must not take what is not one.
        rule.rule.matches.push(rule::Match::grpc(None, None));
    }
    backends::backends(Kind::GrpcRoute, &given.backend_refs, at, &mut rule, mistakes);
    match filter::filters(Kind::GrpcRoute, &given.filters, at, &mut rule, mistakes) {
        Ok(filters) => rule.rule.filters = filters,
        Err(problem) => rule.refuse(problem),
    }
    if let Some(given) = &given.session_persistence {
        rule.rule.session = session::session(given, at, &mut rule, mistakes);
    }
    rule
}

fn condition(given: &GrpcMatch, at: &str, mistakes: &mut Mistakes) -> rule::Match {
    let method = given
        .method
        .as_ref()
        .map(|given| method(given, &format!("{at}.method"), mistakes));
    rule::Match {
        headers: matching::headers(&given.headers, at, mistakes),
        grpc: Some(method.unwrap_or(rule::GrpcMatch {
            service: None,
            method: None,
        })),
        ..rule::Match::default()
    }
}

fn method(given: &GrpcMethodMatch, at: &str, mistakes: &mut Mistakes) -> rule::GrpcMatch {
    if given.service.is_none() && given.method.is_none() {
        mistakes.push(format!("{at}: one of service and method must be there"));
    }
    let kind = given.kind.as_deref();
    let mut read = |value: Option<&str>, field: &str, dots: bool| {
        let value = value.filter(|value| !value.is_empty())?;
        let text = matching::text(kind, value, &format!("{at}.{field}"), mistakes);
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (dots && b == b'.');
        if matches!(text, Text::Exact(_)) && !value.bytes().all(word) {
            mistakes.push(format!("{at}.{field} '{value}' is not a name"));
        }
        Some(text)
    };
    rule::GrpcMatch {
        service: read(given.service.as_deref(), "service", true),
        method: read(given.method.as_deref(), "method", false),
    }
}
