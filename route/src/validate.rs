//! What is wrong with a rule, all of it at once, in words for the one who wrote it. The controller asks before it
//! accepts a route; [`crate::Table::compile`] asks again, since a table trusts nobody.

use std::{fmt, sync::Arc};

use crate::{
    edit::Edit,
    matcher::{Conditions, grpc::GrpcTest, header::HeaderTest, path::PathTest, query::QueryTest},
    rule::{Filter, Kind, Match, PathChange, PathMatch, Rule, Timeouts, ValueMatch},
    session,
};

/// A mistake in a rule: where it is, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// As `matches[1]`, `filters[0]`, `backends[2].filters[0]` or `hosts[0]`.
    pub at: String,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

impl Rule {
    /// Everything that is wrong with the rule; empty: nothing.
    pub fn mistakes(&self) -> Vec<Invalid> {
        let mut all = self.mistakes_beside_matches();
        let matches = self.matches.iter().enumerate();
        for (index, matched) in matches.filter(|_| self.origin.kind.is_http()) {
            if let Err(what) = conditions(self.origin.kind, matched) {
                all.push(Invalid {
                    at: format!("matches[{index}]"),
                    what,
                });
            }
        }
        all
    }

    /// Mistakes that concern every request that the rule takes.
    pub(crate) fn mistakes_beside_matches(&self) -> Vec<Invalid> {
        let mut all = Vec::new();
        let mut note = |at: String, what: String| all.push(Invalid { at, what });
        for (index, host) in self.hosts.iter().enumerate() {
            if let Err(what) = check_host_pattern(host) {
                note(format!("hosts[{index}]"), what);
            }
        }
        if !self.origin.kind.is_http() {
            self.check_connections(&mut note);
            return all;
        }
        let shares = self.backends.iter().enumerate();
        let shares = shares.map(|(index, backend)| (format!("backends[{index}].filters"), &backend.filters));
        for (place, filters) in std::iter::once(("filters".to_owned(), &self.filters)).chain(shares) {
            let (mut moves, mut cors) = (0, 0);
            for (index, filter) in filters.iter().enumerate() {
                if let Err(what) = Edit::new(filter)
                    .map(drop)
                    .and_then(|()| self.check_prefix_change(filter))
                {
                    note(format!("{place}[{index}]"), what);
                }
                moves += u32::from(matches!(filter, Filter::Redirect(_) | Filter::Rewrite(_)));
                cors += u32::from(matches!(filter, Filter::Cors(_)));
            }
            // "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both", and
            // neither of them twice.
            if cors > 1 {
                note(place.clone(), "more than one CORS filter".into());
            }
            if moves > 1 {
                note(place, "more than one redirect or rewrite".into());
            }
        }
        if let Some(code) = (self.retry.iter().flat_map(|retry| &retry.codes)).find(|code| !(400..600).contains(*code))
        {
            note(
                "retry".into(),
                format!("{code} is not the status of an error: 400 to 599"),
            );
        }
        for what in self.session.iter().flat_map(session::mistakes) {
            note("session".into(), what);
        }
        all
    }

    /// Rules for connections see no request.
    fn check_connections(&self, note: &mut dyn FnMut(String, String)) {
        let kind = self.origin.kind;
        let parts = [
            ("hosts", self.hosts.is_empty() || kind == Kind::TlsRoute),
            ("matches", self.matches.is_empty()),
            ("filters", self.filters.is_empty()),
            ("timeouts", self.timeouts == Timeouts::default()),
            ("retry", self.retry.is_none()),
            ("session", self.session.is_none()),
        ];
        for (part, _) in parts.into_iter().filter(|(_, is_fit)| !is_fit) {
            note(part.into(), format!("a {kind} has none"));
        }
        for (index, _) in self
            .backends
            .iter()
            .enumerate()
            .filter(|(_, backend)| !backend.filters.is_empty())
        {
            note(format!("backends[{index}].filters"), format!("a {kind} has none"));
        }
    }

    /// "ReplacePrefixMatch is only compatible with a `PathPrefix` HTTPRouteMatch."
    fn check_prefix_change(&self, filter: &Filter) -> Result<(), String> {
        let path = match filter {
            Filter::Redirect(redirect) => redirect.path.as_ref(),
            Filter::Rewrite(rewrite) => rewrite.path.as_ref(),
            _ => None,
        };
        let by_prefix = |matched: &Match| matches!(matched.path, None | Some(PathMatch::Prefix(_)));
        if matches!(path, Some(PathChange::Prefix(_))) && !self.matches.iter().all(by_prefix) {
            return Err("the matched prefix can be replaced only where every match has a path prefix".into());
        }
        Ok(())
    }
}

/// A match, ready for use, or what is wrong with it.
pub(crate) fn conditions(kind: Kind, matched: &Match) -> Result<Conditions, String> {
    let is_grpc = kind == Kind::GrpcRoute;
    if matched.grpc.is_some() && !is_grpc {
        return Err("only a GRPCRoute matches gRPC services and methods".into());
    }
    let method = matched.method.clone();
    if let Some(method) = &method
        && method.parse::<http::Method>().is_err()
    {
        return Err(format!("'{method}' is not a method"));
    }
    Ok(Conditions {
        path: PathTest::new(matched.path.as_ref())?,
        method,
        headers: first_of_each(&matched.headers, true)
            .map(HeaderTest::new)
            .collect::<Result<_, _>>()?,
        query: first_of_each(&matched.query, false)
            .map(QueryTest::new)
            .collect::<Result<_, _>>()?,
        grpc: is_grpc.then(|| GrpcTest::new(matched.grpc.as_ref())).transpose()?,
    })
}

/// "If multiple entries specify equivalent header names, only the first entry with an equivalent name MUST be
/// considered for a match." The same is said of query parameters, whose names have a case.
pub(crate) fn first_of_each(list: &[ValueMatch], any_case: bool) -> impl Iterator<Item = &ValueMatch> {
    let equal = move |a: &str, b: &str| if any_case { a.eq_ignore_ascii_case(b) } else { a == b };
    list.iter()
        .enumerate()
        .filter(move |(at, entry)| !list[..*at].iter().any(|e| equal(&e.name, &entry.name)))
        .map(|(_, e)| e)
}

fn check_host_pattern(pattern: &Arc<str>) -> Result<(), String> {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    match crate::Host::parse(name.as_bytes()) {
        Ok(host) if host.as_str() == name => Ok(()),
        _ => Err(format!(
            "'{pattern}' is not a host in lower case without a port, nor '*.' before one"
        )),
    }
}
