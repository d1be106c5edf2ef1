//! What a rule in use costs in memory, counted by the allocator.

// Counting what is allocated is the one thing here that cannot be said safely.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use weft_route::{Table, rule::*};

/// The system's allocator, and how many bytes it has given out.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract that both share.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract that both share.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of proxy memory for one route in use.
const MOST: usize = 2 << 10;
const RULES: usize = 10_000;

/// Bytes that a table holds for each of its rules.
fn each(rule: impl Fn(usize, &mut Rule)) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    let rules = (0..RULES).map(|index| {
        let mut made = Rule::new(Origin::new(
            Kind::HttpRoute,
            "team-shop",
            &format!("route-number-{index}"),
            0,
            index as i64,
        ));
        made.backends = vec![WeightedBackend::new(0, 90), WeightedBackend::new(1, 10)];
        rule(index, &mut made);
        made
    });
    let (table, conflicts) = Table::compile(rules.collect());
    assert!(conflicts.is_empty(), "{}", conflicts[0]);
    let held = LIVE.load(Ordering::Relaxed) - before;
    drop(table);
    held / RULES
}

/// One test: what another one allocates meanwhile would count.
#[test]
fn a_rule_in_use_costs_at_most_two_kibibytes() {
    let plain = each(|index, rule| {
        rule.hosts = vec![format!("shop-{index}.example.com").into()];
        rule.matches = vec![Match::prefix("/")];
    });
    let usual = each(|index, rule| {
        rule.hosts = vec![format!("shop-{index}.example.com").into()];
        let mut versioned = Match::prefix("/api/v1");
        versioned.headers = vec![ValueMatch::exact("x-version", "2")];
        rule.matches = vec![versioned, Match::prefix("/healthz")];
        let pair = |name: &str, value: &str| (name.into(), value.into());
        rule.filters = vec![
            Filter::RequestHeaders(HeaderChange {
                set: vec![pair("x-from", "gateway")],
                ..HeaderChange::default()
            }),
            Filter::Rewrite(Rewrite {
                host: Some("internal.example.com".into()),
                path: Some(PathChange::Prefix("/".into())),
            }),
        ];
        rule.retry = Some(Retry {
            codes: vec![500, 502, 503, 504],
            attempts: 2,
            backoff: None,
        });
    });
    println!("{plain} bytes for a rule with a host and a prefix, {usual} with two matches, two filters and retries");
    assert!(plain <= MOST && usual <= MOST, "{plain} and {usual} bytes");
}
