//! A second, slow implementation of the Gateway API's matching and precedence, written from the specification's text
//! and from nothing in the crate: no index, no canonical form but that of whole segments, no ranks.

use std::cmp::Ordering;

use weft_route::rule::*;

use crate::language::Request;

/// Which rule takes the request, and by which of its matches.
pub fn answer(rules: &[Rule], request: &Request) -> Option<(usize, usize)> {
    let everything = [Match::default()];
    // GEP-1294: "only a single route type should be applied".
    let is_grpc_only = rules.iter().any(|rule| rule.origin.kind == Kind::GrpcRoute);
    let mut takers = Vec::new();
    for (id, rule) in rules.iter().enumerate() {
        if is_grpc_only && rule.origin.kind == Kind::HttpRoute {
            continue;
        }
        let matches = if rule.matches.is_empty() {
            &everything[..]
        } else {
            &rule.matches
        };
        for (index, matched) in matches.iter().enumerate() {
            let hosts = rule
                .hosts
                .iter()
                .filter(|pattern| host_matches(pattern, request.host.as_deref()));
            // Of a rule's hosts, the most specific that matches counts.
            let host = hosts.map(|pattern| host_characters(pattern)).max();
            let host = if rule.hosts.is_empty() { Some((0, 0)) } else { host };
            if let Some(host) = host
                && takes(rule.origin.kind, matched, request)
            {
                takers.push((host, rule, matched, (id, index)));
            }
        }
    }
    takers.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| before((a.1, a.2, a.3), (b.1, b.2, b.3))));
    takers.first().map(|(_, _, _, place)| *place)
}

/// Which rule takes a connection: `None` is one without a ClientHello, `Some(None)` one whose ClientHello has no name.
/// TLSRouteSpec.hostnames: the most specific, then the oldest, then the first by name; TCPRoute: the oldest, then the
/// first by name.
pub fn connection(rules: &[Rule], hello: Option<Option<&str>>) -> Option<usize> {
    let of = |kind| {
        rules
            .iter()
            .enumerate()
            .filter(move |(_, rule)| rule.origin.kind == kind)
    };
    let mut takers = Vec::new();
    if let Some(name) = hello {
        let name =
            name.filter(|name| !name.contains(':') && !name.contains('*') && !name.split('.').any(str::is_empty));
        for (id, rule) in of(Kind::TlsRoute) {
            if rule.hosts.is_empty() {
                takers.push(((0, 0), rule, id));
            }
            let hosts = rule.hosts.iter().filter(|pattern| host_matches(pattern, name));
            takers.extend(hosts.map(|pattern| (host_characters(pattern), rule, id)));
        }
    }
    if takers.is_empty() {
        takers.extend(of(Kind::TcpRoute).map(|(id, rule)| ((0, 0), rule, id)));
    }
    let age = |rule: &Rule| {
        let origin = &rule.origin;
        (
            origin.created,
            format!("{}/{}", origin.namespace, origin.name),
            origin.rule,
        )
    };
    takers.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| age(a.1).cmp(&age(b.1))).then(a.2.cmp(&b.2)));
    takers.first().map(|taker| taker.2)
}

type Taker<'a> = (&'a Rule, &'a Match, (usize, usize));

/// The lists of criteria in `HTTPRouteRule.matches` and `GRPCRouteRule.matches`.
fn before(a: Taker<'_>, b: Taker<'_>) -> Ordering {
    let route = |rule: &Rule| format!("{}/{}", rule.origin.namespace, rule.origin.name);
    most(a, b, |t| grpc_characters(t.1, |grpc| grpc.service.as_ref()))
        .then(most(a, b, |t| grpc_characters(t.1, |grpc| grpc.method.as_ref())))
        .then(most(a, b, |t| {
            (usize::from(matches!(t.1.path, Some(PathMatch::Exact(_)))), 0)
        }))
        .then(most(a, b, |t| (prefix_characters(t.1), 0)))
        .then(most(a, b, |t| {
            (usize::from(matches!(t.1.path, Some(PathMatch::Regex(_)))), 0)
        }))
        .then(most(a, b, |t| (usize::from(t.1.method.is_some()), 0)))
        .then(most(a, b, |t| (t.1.headers.len(), 0)))
        .then(most(a, b, |t| (t.1.query.len(), 0)))
        .then(a.0.origin.created.cmp(&b.0.origin.created))
        .then(route(a.0).cmp(&route(b.0)))
        .then(a.0.origin.rule.cmp(&b.0.origin.rule))
        .then(a.2.1.cmp(&b.2.1))
        .then(a.2.0.cmp(&b.2.0))
}

fn most(a: Taker<'_>, b: Taker<'_>, count: impl Fn(Taker<'_>) -> (usize, usize)) -> Ordering {
    count(b).cmp(&count(a))
}

fn prefix_characters(matched: &Match) -> usize {
    match &matched.path {
        Some(PathMatch::Prefix(prefix)) => prefix.trim_end_matches('/').len(),
        _ => 0,
    }
}

fn grpc_characters(matched: &Match, part: impl Fn(&GrpcMatch) -> Option<&Text>) -> (usize, usize) {
    match matched.grpc.as_ref().and_then(part) {
        None => (0, 0),
        Some(Text::Exact(text)) => (text.len(), 0),
        Some(Text::Regex(text)) => (0, text.len()),
    }
}

/// "Characters in a matching non-wildcard hostname", then "characters in a matching hostname".
pub fn host_characters(pattern: &str) -> (usize, usize) {
    if pattern.starts_with('*') {
        (0, pattern.len())
    } else {
        (pattern.len(), pattern.len())
    }
}

/// "A match for `*.example.com` would match both `test.example.com`, and `foo.test.example.com`, but not `example.com`."
pub fn host_matches(pattern: &str, host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let host = host.split(':').next().unwrap().to_lowercase();
    let (host, pattern): (Vec<_>, Vec<_>) = (host.split('.').rev().collect(), pattern.split('.').rev().collect());
    match pattern.last() {
        Some(&"*") => host.len() >= pattern.len() && host[..pattern.len() - 1] == pattern[..pattern.len() - 1],
        _ => host == pattern,
    }
}

fn takes(kind: Kind, matched: &Match, request: &Request) -> bool {
    let target = std::str::from_utf8(&request.target).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (segments, ends_open) = segments(path);
    if kind == Kind::GrpcRoute {
        let is_grpc = request
            .headers
            .iter()
            .any(|(name, value)| name == "content-type" && value == "application/grpc");
        if !is_grpc {
            return false;
        }
        if let Some(GrpcMatch { service, method }) = &matched.grpc
            && (service.is_some() || method.is_some())
        {
            // `/service/method`; what a slash ends has an empty method.
            let mut parts = segments.clone();
            let called = if ends_open {
                ""
            } else {
                parts.pop().expect("a path that is not open has a segment")
            };
            if parts.is_empty()
                || !text_holds(service.as_ref(), &parts.join("/"))
                || !text_holds(method.as_ref(), called)
            {
                return false;
            }
        }
    }
    let path_holds = match &matched.path {
        None => true,
        Some(PathMatch::Exact(exact)) => {
            let (wanted, wanted_open) = self::segments(exact);
            wanted == segments && wanted_open == ends_open
        }
        Some(PathMatch::Prefix(prefix)) => segments.starts_with(&self::segments(prefix).0),
        Some(PathMatch::Regex(pattern)) => {
            let joined = format!(
                "/{}{}",
                segments.join("/"),
                if ends_open && !segments.is_empty() { "/" } else { "" }
            );
            pattern_holds(pattern, &joined)
        }
    };
    path_holds
        && matched.method.as_deref().is_none_or(|method| method == request.method)
        && matched.headers.iter().all(|condition| {
            let values: Vec<_> = request
                .headers
                .iter()
                .filter(|(name, _)| *name == *condition.name)
                .collect();
            let joined = values
                .iter()
                .map(|(_, value)| value.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            !values.is_empty() && text_holds(Some(&condition.value), &joined)
        })
        && matched.query.iter().all(|condition| {
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs
                .find(|(name, _)| *name == &*condition.name)
                .is_some_and(|(_, value)| text_holds(Some(&condition.value), value))
        })
}

/// The segments of a path that mean something, and whether it ends in a slash. The generator encodes `a` only.
fn segments(path: &str) -> (Vec<&str>, bool) {
    let mut kept = Vec::new();
    let mut open = false;
    for segment in path[1..].split('/') {
        open = matches!(segment, "" | "." | ".." | "%2e%2E");
        match segment {
            "" | "." => {}
            ".." | "%2e%2E" => drop(kept.pop()),
            "%61" => kept.push("a"),
            segment => kept.push(segment),
        }
    }
    (kept, open)
}

fn text_holds(wanted: Option<&Text>, text: &str) -> bool {
    match wanted {
        None => true,
        Some(Text::Exact(exact)) => **exact == *text,
        Some(Text::Regex(pattern)) => pattern_holds(pattern, text),
    }
}

/// The few patterns that the generator uses, by hand.
fn pattern_holds(pattern: &str, text: &str) -> bool {
    match pattern {
        "/a.*" => text.starts_with("/a"),
        "/[ab]/?" => matches!(text, "/a" | "/b" | "/a/" | "/b/"),
        "[ab]+" => !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a' | b'b')),
        "a|ab" => matches!(text, "a" | "ab"),
        other => panic!("the oracle does not know {other}"),
    }
}
