//! Random rules and asks from so small an alphabet that they meet.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use weft_route::rule::*;

use crate::language::Request;

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = Arc<str>> {
    select(words).prop_map(Into::into)
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        3 => one_of(&["a", "b", "ab", "aa"]).prop_map(Text::Exact),
        1 => one_of(&["[ab]+", "a|ab"]).prop_map(Text::Regex),
    ]
}

fn path() -> impl Strategy<Value = PathMatch> {
    let rooted = || one_of(&["/", "/a", "/a/", "/b", "/a/b", "/a/b/", "/a/a", "/ab", "/a/b/a"]);
    prop_oneof![
        rooted().prop_map(PathMatch::Exact),
        rooted().prop_map(PathMatch::Prefix),
        one_of(&["/a.*", "/[ab]/?"]).prop_map(PathMatch::Regex),
    ]
}

/// Names of one list differ: what a repeated name means is tested apart.
fn values(names: &'static [&'static str]) -> impl Strategy<Value = Vec<ValueMatch>> {
    vec(text(), 0..=names.len()).prop_map(move |texts| {
        texts
            .into_iter()
            .zip(names)
            .map(|(value, name)| ValueMatch {
                name: (*name).into(),
                value,
            })
            .collect()
    })
}

fn a_match(kind: Kind) -> impl Strategy<Value = Match> {
    let grpc = (option::of(text()), option::of(text())).prop_map(|(service, method)| GrpcMatch { service, method });
    let method = option::weighted(0.3, one_of(&["GET", "POST"]));
    let parts = (
        option::weighted(0.8, path()),
        values(&["x", "y"]),
        values(&["q", "r"]),
        method,
        option::of(grpc),
    );
    parts.prop_map(move |(path, headers, query, method, grpc)| match kind {
        Kind::TlsRoute | Kind::TcpRoute => Match::default(),
        Kind::HttpRoute => Match {
            path,
            headers,
            query,
            method,
            grpc: None,
        },
        Kind::GrpcRoute => Match {
            path: None,
            headers,
            query: Vec::new(),
            method: None,
            grpc,
        },
    })
}

fn hosts() -> impl Strategy<Value = Vec<Arc<str>>> {
    let host = one_of(&["a.test", "b.a.test", "*.test", "*.a.test"]);
    prop_oneof![2 => Just(Vec::new()), 1 => vec(host, 1..3)]
}

fn rule(kind: Kind, with_hosts: bool) -> impl Strategy<Value = Rule> {
    let hosts = if with_hosts {
        hosts().boxed()
    } else {
        Just(Vec::new()).boxed()
    };
    let backends = vec((0..4u32, prop::bool::weighted(0.8), 0..3u32), 0..3);
    let place = (one_of(&["n", "n-1"]), one_of(&["a", "b", "c"]), 0..3u32, 0..2i64);
    let matches = vec(a_match(kind), if kind.is_http() { 0..3 } else { 0..1 });
    (place, hosts, matches, backends).prop_map(move |(place, hosts, matches, backends)| {
        let (namespace, name, rule, created) = place;
        let mut rule = Rule::new(Origin::new(kind, &namespace, &name, rule, created));
        (rule.hosts, rule.matches) = (hosts, matches);
        let share = |(backend, is_valid, weight)| match is_valid {
            true => WeightedBackend::new(backend, weight),
            false => WeightedBackend::invalid("no such Service", weight),
        };
        rule.backends = backends.into_iter().map(share).collect();
        rule
    })
}

/// Rules for connections, beside a few for requests.
pub fn connection_rules() -> impl Strategy<Value = Vec<Rule>> {
    let kind = prop_oneof![
        5 => rule(Kind::TlsRoute, true),
        1 => rule(Kind::TcpRoute, false),
        1 => rule(Kind::HttpRoute, true),
    ];
    vec(kind, 0..10)
}

/// Server names, some of which are none.
pub fn server_name() -> impl Strategy<Value = Option<String>> {
    const NAMES: [&str; 10] = [
        "a.test",
        "A.Test",
        "b.a.test",
        "c.b.a.test",
        "test",
        "x",
        "a.test:1",
        "",
        "*.test",
        ".a.test",
    ];
    option::weighted(0.9, select(&NAMES[..]).prop_map(Into::into))
}

/// Rules as a controller would send them: of one kind mostly, or of both for a Service, whose routes have no hosts.
pub fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let mixed = vec(
        prop_oneof![rule(Kind::HttpRoute, false), rule(Kind::GrpcRoute, false)],
        0..8,
    );
    prop_oneof![
        4 => vec(rule(Kind::HttpRoute, true), 0..10),
        2 => vec(rule(Kind::GrpcRoute, true), 0..8),
        1 => mixed,
    ]
}

/// Requests that all readers read alike.
pub fn request() -> impl Strategy<Value = Request> {
    let segment = select(&["a", "b", "ab", "aa", "", ".", "..", "%61", "%2e%2E"][..]);
    let query = vec(
        (select(&["q", "r", "s"][..]), select(&["a", "b", "ab", "c", ""][..])),
        0..4,
    );
    let headers = vec((select(&["x", "y", "z"][..]), select(&["a", "b", "ab", "c"][..])), 0..4);
    let host = option::weighted(
        0.8,
        select(&["a.test", "A.test:80", "b.a.test", "c.b.a.test", "test"][..]),
    );
    let parts = (
        select(&["GET", "POST"][..]),
        vec(segment, 1..5),
        query,
        headers,
        host,
        any::<bool>(),
    );
    parts.prop_map(|(method, segments, query, headers, host, is_grpc)| {
        let mut target = format!("/{}", segments.join("/"));
        for (index, (name, value)) in query.into_iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&format!("{name}={value}"));
        }
        let mut headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if is_grpc {
            headers.push(("content-type".into(), "application/grpc".into()));
        }
        Request {
            method: method.into(),
            target: target.into_bytes(),
            host: host.map(Into::into),
            headers,
        }
    })
}

/// Requests with any path at all, made mostly of what is dangerous in one.
pub fn hostile_request() -> impl Strategy<Value = Request> {
    let piece = prop_oneof![
        6 => select(&["/", "a", "b", ".", "..", "%", "%2F", "%2f", "%2e", "%61", "\\", "%5c", "%00", "#", ";", "%c0%af", "%C0%AE", "%e0%80%af", "%25"][..])
            .prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    (request(), vec(piece, 0..12)).prop_map(|(request, pieces)| {
        let mut target = vec![b'/'];
        target.extend(pieces.concat().into_iter().filter(|byte| *byte != b'?'));
        Request { target, ..request }
    })
}
