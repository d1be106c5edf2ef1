//! How long deciding takes as routes grow, from 1 to 10,000, and how long compiling does. A plain program:
//! `cargo bench -p weft-route`. Each shape asks for all of its rules in turn, so that caches help as little as they would.

// A benchmark is a program that ends where something is wrong.
#![allow(clippy::unwrap_used)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use weft_route::{Ask, Table, rule::*};

const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// Of one measurement; the least of several counts.
const WINDOW: Duration = Duration::from_millis(200);
const WINDOWS: usize = 3;

/// What rules look like, and a request for each.
struct Shape {
    name: &'static str,
    rule: fn(usize, &mut Rule),
    request: fn(usize) -> http::Request<()>,
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "a host each",
        rule: |index, rule| {
            rule.hosts = vec![format!("h{index}.example.com").into()];
            rule.matches = vec![Match::prefix("/")];
        },
        request: |index| get(&format!("http://h{index}.example.com/a/b/c")),
    },
    Shape {
        name: "a wildcard each",
        rule: |index, rule| rule.hosts = vec![format!("*.h{index}.example.com").into()],
        request: |index| get(&format!("http://www.h{index}.example.com/a/b/c")),
    },
    Shape {
        name: "a prefix each",
        rule: |index, rule| rule.matches = vec![Match::prefix(&format!("/service-{index}/api"))],
        request: |index| get(&format!("http://example.com/service-{index}/api/items/7?x=1")),
    },
    Shape {
        name: "a path and two header conditions each",
        rule: |index, rule| {
            let mut matched = Match::exact(&format!("/e/{index}"));
            matched.headers = vec![ValueMatch::exact("x-version", "2"), ValueMatch::exact("x-group", "b")];
            rule.matches = vec![matched];
        },
        request: |index| get(&format!("http://example.com/e/{index}")),
    },
    Shape {
        name: "a gRPC method each",
        rule: |index, rule| {
            rule.origin.kind = Kind::GrpcRoute;
            rule.matches = vec![Match::grpc(Some(&format!("shop.Service{index}")), Some("Get"))];
        },
        request: |index| {
            let mut request = get(&format!("http://example.com/shop.Service{index}/Get"));
            let grpc = http::HeaderValue::from_static("application/grpc");
            request.headers_mut().insert("content-type", grpc);
            request
        },
    },
];

fn get(uri: &str) -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.uri_mut() = uri.parse().unwrap();
    for (name, value) in [
        ("x-version", "2"),
        ("x-group", "b"),
        ("accept", "*/*"),
        ("user-agent", "bench"),
    ] {
        request
            .headers_mut()
            .insert(name, http::HeaderValue::from_static(value));
    }
    request
}

fn rules(shape: &Shape, count: usize) -> Vec<Rule> {
    let rule = |index: usize| {
        let name = format!("route-{index}");
        let mut rule = Rule::new(Origin::new(
            Kind::HttpRoute,
            "shop",
            &name,
            0,
            1_700_000_000 + index as i64,
        ));
        rule.backends = vec![WeightedBackend::new(0, 9), WeightedBackend::new(1, 1)];
        (shape.rule)(index, &mut rule);
        rule
    };
    (0..count).map(rule).collect()
}

fn main() {
    println!("{:<40}{:>8}{:>14}{:>14}", "", "rules", "ns a decision", "ms to compile");
    for shape in &SHAPES {
        for count in SIZES {
            let rules = rules(shape, count);
            let began = Instant::now();
            let (table, conflicts) = Table::compile(rules);
            let compiled = began.elapsed();
            assert!(conflicts.is_empty(), "{}", conflicts[0]);
            // A stride that meets every rule, and never its neighbour.
            let requests: Vec<_> = (0..count).map(|index| (shape.request)(index * 7919 % count)).collect();
            let nanoseconds = (0..WINDOWS)
                .map(|_| window(&table, &requests))
                .fold(f64::INFINITY, f64::min);
            let compiled = compiled.as_secs_f64() * 1e3;
            println!("{:<40}{count:>8}{nanoseconds:>14.0}{compiled:>14.2}", shape.name);
        }
    }
}

/// Nanoseconds of a decision.
fn window(table: &Table, requests: &[http::Request<()>]) -> f64 {
    let began = Instant::now();
    let mut decided = 0u64;
    while began.elapsed() < WINDOW {
        for request in requests {
            let decision = table.decide(&Ask::Http(black_box(request)), decided << 40).unwrap();
            black_box(decision);
            decided += 1;
        }
    }
    began.elapsed().as_nanos() as f64 / decided as f64
}
