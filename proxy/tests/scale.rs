//! F60: what ten thousand routes at one gateway cost in memory, and that one changed route changes nothing else. Memory is counted by
//! the allocator, so that the figure is the same on every machine; times are told, and belong to an optimised build elsewhere.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unsafe_code,
    reason = "a test that fails says where; an allocator that counts"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use weft_proto::rpc::discovery as rpc;
use weft_proxy::front::Front;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUTES: u32 = 10_000;

fn rule(number: u32) -> rpc::Rule {
    rpc::Rule {
        origin: Some(rpc::Origin {
            route: Some(rpc::ObjectName {
                namespace: format!("team-{}", number % 100),
                name: format!("route-{number}"),
            }),
            created: 1_700_000_000,
            ..Default::default()
        }),
        hosts: vec![format!("app-{number}.apps.example.com")],
        matches: vec![rpc::Match {
            path: Some(rpc::r#match::Path::PathPrefix("/".into())),
            ..Default::default()
        }],
        backends: vec![rpc::WeightedBackend {
            backend: Some(number),
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn backend(number: u32) -> rpc::Backend {
    let name = format!("app-{number}");
    let [_, a, b, c] = number.to_be_bytes();
    rpc::Backend {
        id: format!("team-{}/{name}:80", number % 100),
        endpoints: vec![rpc::Endpoint {
            address: Some(rpc::Address {
                ip: vec![10, a, b, c],
                port: 8080,
            }),
            pod: Some(rpc::ObjectName {
                namespace: format!("team-{}", number % 100),
                name: format!("{name}-7c9d8f-x{number}"),
            }),
            pod_uid: format!("00000000-0000-0000-0000-{number:012}"),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn content(routes: u32) -> rpc::Gateway {
    let listener = |name: &str, port, rules| rpc::Listener {
        name: name.into(),
        port,
        rules,
        ..Default::default()
    };
    rpc::Gateway {
        listeners: vec![
            listener("web", 80, (0..routes).map(rule).collect()),
            listener("other", 81, vec![rule(0)]),
        ],
        backends: (0..routes.max(1)).map(backend).collect(),
        certificates: Vec::new(),
    }
}

#[test]
fn f60_a_route_costs_at_most_two_kibibytes_and_a_change_leaves_what_it_does_not_touch() {
    weft_proxy::metrics::install();
    let front = Front::new("shop", "edge", 1);
    let apply = |version: &str, content| {
        let began = Instant::now();
        front.apply(version, content, &|_| false);
        began.elapsed()
    };
    apply("0", content(0));
    let before = HELD.load(Relaxed);
    let cold = apply("1", content(ROUTES));
    let each = HELD.load(Relaxed).saturating_sub(before) / ROUTES as usize;

    let now = front.current().unwrap();
    let mut changed = content(ROUTES);
    changed.listeners[0].rules[7].hosts = vec!["other.example.com".into()];
    // A backend that comes first moves the place of every other.
    changed.backends.insert(0, backend(ROUTES));
    for rule in changed.listeners.iter_mut().flat_map(|listener| &mut listener.rules) {
        *rule.backends[0].backend.as_mut().unwrap() += 1;
    }
    let warm = apply("2", changed);
    let then = front.current().unwrap();
    let [old, new] = [&now, &then].map(|content| content.listeners[1].destination.clone());
    assert!(
        Arc::ptr_eq(&old.table, &new.table),
        "another listener's rules are the same"
    );
    let kept = old
        .backends
        .iter()
        .zip(new.backends.iter())
        .filter(|(old, new)| Arc::ptr_eq(old, new));
    assert_eq!(kept.count(), ROUTES as usize, "every backend that was there");
    drop((now, old, then, new));

    // Changes leave nothing behind.
    let held = HELD.load(Relaxed);
    for number in 0..5 {
        apply(&number.to_string(), content(ROUTES));
    }
    let grown = HELD.load(Relaxed).saturating_sub(held);
    eprintln!(
        "{each} bytes for each of {ROUTES} routes with its backend and endpoint; {cold:?} cold, {warm:?} for one changed route"
    );
    assert!(each <= 2048, "{each} bytes for each route");
    assert!(grown < held / 20, "{grown} bytes more after changes, of {held}");
}
