//! Ten thousand routes and ten thousand endpoints: how long it takes to read them, to answer a gateway and to say their statuses.
//! The bounds hold for an unoptimised build on a busy machine; `--nocapture` prints the figures.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_controller::{
    cluster::{Change, Cluster, Dependency, ObjectKey, Touched},
    plan::{self, Name, Settings},
    status,
    watch::parse,
};
use weft_proto::rpc::discovery::change::Content;

const ROUTES: usize = 10_000;

fn route(n: usize, path: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": format!("route-{n}"), "namespace": "shop", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"name": "front", "namespace": "infra"}],
            "hostnames": [format!("host-{}.example", n % 1000)],
            "rules": [{
                "matches": [{"path": {"value": format!("/{path}/{n}")}, "headers": [{"name": "x-a", "value": "b"}]}],
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-c", "value": "d"}]}}],
                "backendRefs": [{"name": format!("service-{}", n % 1000), "port": 80}],
            }],
        },
    })
}

fn objects() -> Vec<Value> {
    let mut objects = vec![
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "weft"},
               "spec": {"controllerName": "weft.dev/gateway-controller"}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "front", "namespace": "infra"},
               "spec": {"gatewayClassName": "weft", "listeners": [
                   {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]}}),
    ];
    for n in 0..1000 {
        let address = |last: usize| format!("10.{}.{}.{last}", n / 200, n % 200);
        objects.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{n}"), "namespace": "shop"},
                            "spec": {"clusterIP": format!("10.96.{}.{}", n / 200, n % 200), "ports": [{"port": 80}]}}));
        let endpoints = (1..=10).map(|last| json!({"addresses": [address(last)], "conditions": {"ready": true}}));
        objects.push(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                            "metadata": {"name": format!("slice-{n}"), "namespace": "shop",
                                         "labels": {"kubernetes.io/service-name": format!("service-{n}")}},
                            "ports": [{"name": "", "port": 8080}], "endpoints": endpoints.collect::<Vec<_>>()}),
        );
    }
    objects.extend((0..ROUTES).map(|n| route(n, "a")));
    objects
}

fn apply(cluster: &mut Cluster, object: Value) -> Touched {
    let mut touched = Touched::default();
    for parsed in parse::objects(object) {
        assert!(parsed.mistakes.is_empty(), "{:?}", parsed.mistakes);
        cluster.apply(Change::Apply(Box::new(parsed.object.unwrap())), &mut touched);
    }
    touched
}

fn timed<T>(what: &str, most: Duration, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let took = start.elapsed();
    println!("{what}: {} ms", took.as_millis());
    assert!(took < most, "{what} took {took:?}");
    result
}

#[test]
fn ten_thousand_routes_are_answered_and_judged_in_good_time() {
    let settings = Settings::new("cluster.local");
    let name = Name::Gateway(ObjectKey::new("infra", "front"));
    let objects = objects();
    let seconds = Duration::from_secs;
    let mut cluster = Cluster::default();
    timed(
        "read 10000 routes, 1000 Services and 10000 endpoints",
        seconds(60),
        || {
            for object in objects {
                apply(&mut cluster, object);
            }
        },
    );
    let answer = || plan::answer(&cluster, &settings, &name).answer.unwrap();
    let first = timed("answer for the gateway", seconds(30), answer);
    let Content::Gateway(gateway) = &first.content else {
        panic!("{first:?}")
    };
    assert_eq!(
        (gateway.listeners[0].rules.len(), gateway.backends.len()),
        (ROUTES, 1000)
    );
    let statuses = timed("statuses of all objects", seconds(60), || {
        status::statuses(&cluster, &settings)
    });
    assert_eq!(statuses.len(), ROUTES + 2);
    assert!(
        statuses
            .values()
            .all(|desired| desired.problems().is_empty() || desired.0.get("listeners").is_some())
    );

    let touched = timed("one changed route", seconds(1), || apply(&mut cluster, route(5, "b")));
    assert!(touched.dependencies.contains(&Dependency::Routing));
    let second = timed("answer after it", seconds(30), || {
        plan::answer(&cluster, &settings, &name).answer.unwrap()
    });
    assert_ne!(first.version, second.version);
}
