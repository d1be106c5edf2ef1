//! Whatever changes in whatever order, everyone knows what a fresh look at the cluster would say.

use std::collections::BTreeMap;

use super::*;
use crate::{
    cluster::{Change, types::Object},
    watch::parse,
};

fn settings() -> Settings {
    Settings {
        trust_domain: "cluster.local".into(),
        cluster_cidrs: "10.0.0.0/8".parse().unwrap(),
        sessions: Default::default(),
    }
}

fn id(account: &str) -> Id {
    Id::workload("cluster.local", "shop", account).unwrap()
}

fn objects(text: &str) -> Vec<Object> {
    let documents = parse::documents(text).into_iter();
    let parsed = documents.flat_map(|document| parse::objects(document.value.unwrap()));
    parsed
        .map(|one| one.object.unwrap_or_else(|| panic!("{:?}", one.mistakes)))
        .collect()
}

fn batch(changes: Vec<Change>) -> Batch {
    Batch { changes, synced: true }
}

fn apply(text: &str) -> Batch {
    batch(
        objects(text)
            .into_iter()
            .map(|object| Change::Apply(Box::new(object)))
            .collect(),
    )
}

fn destination(address: &str) -> Name {
    Name::Destination(address.parse().unwrap())
}

/// A small generator; the same numbers in every run (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides
    }
}

/// Several versions of each object, among them ones that move an address or a reference from one to another.
fn pool() -> Vec<Object> {
    let mut text = String::new();
    let mut add = |document: String| text.push_str(&format!("---\n{document}\n"));
    for strict in ["strict", "permissive"] {
        add(format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{weft.dev/mtls: {strict}}}}}}}"
        ));
    }
    for (pod, address) in [("a", 1), ("a", 2), ("b", 2), ("b", 3), ("c", 1)] {
        for (mesh, end) in [
            ("sidecar", ""),
            ("other", ""),
            ("sidecar", ", deletionTimestamp: '2026-01-01T00:00:00Z'"),
        ] {
            add(format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: shop, uid: u-{pod}{end}}},
                 spec: {{initContainers: [{{name: weft-proxy, restartPolicy: Always, args: [{mesh}]}}]}},
                 status: {{podIP: 10.1.0.{address}}}}}"
            ));
        }
    }
    for (service, address, protocol) in [("s", 1, "http"), ("s", 2, "grpc"), ("t", 2, "http"), ("t", 3, "tls")] {
        add(format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {service}, namespace: shop}},
             spec: {{clusterIP: 10.96.0.{address}, ports: [{{port: 80, appProtocol: {protocol}}}]}}}}"
        ));
    }
    add("{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: shop}, spec: {hostNetwork: true}, status: {podIP: 10.1.0.3}}".into());
    for (slice, service, address, ready, pod) in [
        ("x", "s", 1, true, "a"),
        ("x", "s", 2, false, ""),
        ("x", "t", 2, true, "b"),
        ("z", "t", 3, true, "c"),
        ("z", "s", 3, true, "b"),
        ("z", "s", 1, true, ""),
    ] {
        let target = if pod.is_empty() {
            String::new()
        } else {
            format!(", targetRef: {{kind: Pod, name: {pod}}}")
        };
        add(format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
             metadata: {{name: {slice}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}},
             addressType: IPv4, ports: [{{name: '', port: 8080}}],
             endpoints: [{{addresses: [10.1.0.{address}], conditions: {{ready: {ready}}}{target}}}]}}"
        ));
    }
    for (route, parent, backend) in [("r", "s", "t"), ("r", "t", "s"), ("q", "s", "s"), ("q", "s", "gone")] {
        add(format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {route}, namespace: shop}},
             spec: {{parentRefs: [{{group: '', kind: Service, name: {parent}}}],
             rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]}}}}"
        ));
    }
    for (parent, backend) in [("s", "t"), ("t", "gone")] {
        add(format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: consumer, namespace: bank}},
             spec: {{parentRefs: [{{group: '', kind: Service, name: {parent}, namespace: shop}}],
             rules: [{{backendRefs: [{{name: {backend}, namespace: shop, port: 80}}]}}]}}}}"
        ));
    }
    gateways(&mut add);
    objects(&text)
}

/// Objects of a Gateway, of which everything can come and go that its answer hangs on.
fn gateways(add: &mut impl FnMut(String)) {
    let api = "apiVersion: gateway.networking.k8s.io/v1";
    for controller in ["weft.dev/gateway-controller", "example.com/other"] {
        add(format!(
            "{{{api}, kind: GatewayClass, metadata: {{name: weft}}, spec: {{controllerName: {controller}}}}}"
        ));
    }
    for (host, from) in [
        ("'*.example'", "Same"),
        ("a.example", "All"),
        ("a.example", "Selector, selector: {matchLabels: {shop: 'yes'}}"),
    ] {
        add(format!(
            "{{{api}, kind: Gateway, metadata: {{name: g, namespace: shop}}, spec: {{gatewayClassName: weft,
             allowedListeners: {{namespaces: {{from: {from}}}}},
             listeners: [{{name: a, port: 80, protocol: HTTP, hostname: {host}, allowedRoutes: {{namespaces: {{from: {from}}}}}}},
             {{name: b, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: c, namespace: bank}}]}}}},
             {{name: c, port: 444, protocol: TLS, tls: {{mode: Passthrough}}}}]}}}}"
        ));
    }
    for (label, port) in [("yes", 81), ("no", 80)] {
        add(format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: bank, labels: {{shop: '{label}'}}}}}}"
        ));
        add(format!(
            "{{{api}, kind: ListenerSet, metadata: {{name: l, namespace: bank}}, spec: {{parentRef: {{name: g, namespace: shop}},
             listeners: [{{name: x, port: {port}, protocol: HTTP, hostname: a.example}}]}}}}"
        ));
    }
    for (kind, to) in [("Gateway", "Secret"), ("HTTPRoute", "Service")] {
        for namespace in ["shop", "bank"] {
            add(format!(
                "{{{api}, kind: ReferenceGrant, metadata: {{name: {to}, namespace: {namespace}}},
                 spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}},
                 {{group: gateway.networking.k8s.io, kind: {kind}, namespace: bank}}], to: [{{group: '', kind: {to}}}]}}}}"
            ));
        }
    }
    let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let pem = |text: String| serde_json::to_string(&text).unwrap();
    let (certificate, key) = (pem(pair.cert.pem()), pem(pair.signing_key.serialize_pem()));
    for key in [key.as_str(), "Hello"] {
        add(format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: c, namespace: bank}}, stringData: {{tls.crt: {certificate}, tls.key: {key}}}}}"
        ));
    }
    for roots in [certificate.as_str(), "''"] {
        add(format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: ca, namespace: shop}}, data: {{ca.crt: {roots}}}}}"
        ));
    }
    for (name, service, created) in [("p", "s", 1), ("p", "t", 1), ("q", "s", 2)] {
        add(format!(
            "{{{api}, kind: BackendTLSPolicy, metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-01T00:00:0{created}Z'}},
             spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}],
             validation: {{hostname: {name}.example, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}}}}}"
        ));
    }
    for (kind, namespace, parent, backend) in [
        ("HTTPRoute", "shop", "{name: g}", "s"),
        ("HTTPRoute", "bank", "{name: g, namespace: shop}", "s"),
        ("HTTPRoute", "bank", "{name: l, kind: ListenerSet}", "t"),
        ("GRPCRoute", "shop", "{name: g, sectionName: a}", "t"),
        ("TLSRoute", "shop", "{name: g, port: 444}", "s"),
    ] {
        add(format!(
            "{{{api}, kind: {kind}, metadata: {{name: front, namespace: {namespace}}}, spec: {{parentRefs: [{parent}],
             hostnames: [a.example], rules: [{{backendRefs: [{{name: {backend}, namespace: shop, port: 80}}]}}]}}}}"
        ));
    }
}

#[test]
fn answers_are_never_stale_whatever_changes() {
    // Clients of the namespace whose Services these are, one of a namespace that has routes of its own for them, and a gateway.
    never_stale("shop", "default");
    never_stale("bank", "default");
    never_stale("shop", "g-weft");
}

fn never_stale(namespace: &str, account: &str) {
    let pool = pool();
    let names: Vec<Name> = (1..=3)
        .flat_map(|n| {
            let workload = Name::Workload(format!("10.1.0.{n}").parse().unwrap());
            [
                destination(&format!("10.96.0.{n}:80")),
                destination(&format!("10.1.0.{n}:8080")),
                workload,
                Name::Gateway(ObjectKey::new("shop", "g")),
            ]
        })
        .chain([destination("10.96.0.1:81"), destination("192.0.2.1:80")])
        .collect();
    let mut dice = Dice(7);
    let answers = Answers::new(settings());
    let caller = Id::workload("cluster.local", namespace, account).unwrap();
    let mut follower = answers.follower(caller);
    let mut told: BTreeMap<Name, Answer> = BTreeMap::new();
    let mut now: BTreeMap<Key, Object> = BTreeMap::new();
    for step in 0..6000 {
        let name = &names[dice.roll(names.len())];
        match dice.roll(12) {
            0 => {
                follower.forget(name.clone());
                told.remove(name);
            }
            1 | 2 => {
                // Sometimes with the version that it had, as after a reconnect.
                let version = told.get(name).map(|answer| answer.version.clone()).unwrap_or_default();
                follower.follow(name.clone(), version).unwrap();
            }
            _ => {}
        }
        let object = pool[dice.roll(pool.len())].clone();
        let key = object.key();
        let change = if dice.roll(3) == 0 {
            now.remove(&key);
            Change::Delete(key)
        } else {
            now.insert(key, object.clone());
            Change::Apply(Box::new(object))
        };
        answers.apply(batch(vec![change]));
        while let Some((name, news)) = follower.take() {
            match news {
                News::Answer(answer) => {
                    let old = told.insert(name.clone(), answer.clone());
                    assert_ne!(
                        old.map(|old| old.version),
                        Some(answer.version),
                        "step {step}: nothing new of {name:?}"
                    );
                }
                News::Unchanged(version) => assert_eq!(told[&name].version, version),
            }
        }
        let mut fresh = Cluster::default();
        for object in now.values() {
            fresh.apply(Change::Apply(Box::new(object.clone())), &mut Touched::default());
        }
        for name in follower.told.keys() {
            // While there is nothing to say of an own pod, the last word stands.
            let caller = (namespace, account);
            if let Some(expected) = plan::answer(&fresh, &settings(), name).answer_for(namespace)
                && expected
                    .only_for
                    .as_ref()
                    .is_none_or(|(owner, of)| (&**owner, &**of) == caller)
            {
                assert_eq!(told.get(name), Some(expected), "step {step}: {name:?}");
            }
        }
    }
    drop(follower);
    let state = lock(&answers.state);
    assert!(
        state.followed.is_empty() && state.dependents.is_empty() && state.mailboxes.is_empty(),
        "nothing is left"
    );
}

const SHOP: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop, uid: u1}, spec: {serviceAccountName: cart}, status: {podIP: 10.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, uid: u2}, spec: {serviceAccountName: web}, status: {podIP: 10.1.0.2}}
";

#[test]
fn t48_nobody_is_told_of_a_pod_that_is_not_his() {
    let answers = Answers::new(settings());
    answers.apply(apply(SHOP));
    let mut follower = answers.follower(id("cart"));
    let workload = |address: &str| Name::Workload(address.parse().unwrap());
    follower.follow(workload("10.1.0.2"), String::new()).unwrap();
    follower.follow(workload("10.1.0.1"), String::new()).unwrap();
    assert_eq!(follower.take().unwrap().0, workload("10.1.0.1"));
    assert_eq!(follower.take(), None);
    // Not even when it changes, nor for a version guessed right.
    answers.apply(apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {weft.dev/mtls: strict}}}",
    ));
    assert_eq!(follower.take().unwrap().0, workload("10.1.0.1"));
    assert_eq!(follower.take(), None);
    let version = lock(&answers.state).followed[&workload("10.1.0.2")]
        .planned
        .answer
        .clone()
        .unwrap()
        .version;
    follower.follow(workload("10.1.0.2"), version).unwrap();
    assert_eq!(follower.take(), None);
    // Someone of another namespace with the same name of account is someone else.
    let mut stranger = answers.follower(Id::workload("cluster.local", "bank", "web").unwrap());
    stranger.follow(workload("10.1.0.2"), String::new()).unwrap();
    assert_eq!(stranger.take(), None);
}

#[tokio::test]
async fn many_changes_to_a_slow_reader_are_one_news() {
    let answers = Answers::new(settings());
    answers.apply(apply(SHOP));
    let mut follower = answers.follower(id("cart"));
    let name = destination("10.1.0.2:80");
    follower.follow(name.clone(), String::new()).unwrap();
    follower.news().await;
    let (_, first) = follower.take().unwrap();
    for uid in 0..100 {
        answers.apply(apply(&SHOP.replace("u2", &format!("v{uid}"))));
    }
    follower.news().await;
    assert!(follower.take().is_some());
    assert_eq!(follower.take(), None);
    answers.apply(apply(&SHOP.replace("u2", "w")));
    answers.apply(apply(&SHOP.replace("u2", "v99")));
    assert_eq!(follower.take(), None, "there and back is no news");
    let News::Answer(first) = first else {
        panic!("{first:?}")
    };
    let mut other = answers.follower(id("web"));
    other.follow(name, first.version).unwrap();
    assert!(
        matches!(other.take(), Some((_, News::Answer(_)))),
        "an old version holds no longer"
    );
}

#[test]
fn a_stream_cannot_follow_without_end() {
    let answers = Answers::new(settings());
    let mut follower = answers.follower(id("cart"));
    let name = |n: usize| Name::Destination(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 80).into());
    for n in 0..limits::FOLLOWED {
        follower.follow(name(n), String::new()).unwrap();
    }
    assert!(follower.follow(name(limits::FOLLOWED), String::new()).is_err());
    follower.follow(name(0), String::new()).expect("asking again is free");
    follower.forget(name(0));
    follower
        .follow(name(limits::FOLLOWED), String::new())
        .expect("there is a place again");
}

#[tokio::test]
async fn nothing_is_unknown_before_everything_is_known() {
    let answers = Answers::new(settings());
    answers.apply(Batch {
        synced: false,
        ..apply(SHOP)
    });
    assert!(!answers.is_synced());
    answers.apply(batch(Vec::new()));
    answers.synced().await;
}

#[test]
fn what_is_wrong_with_a_route_is_known_until_it_is_right() {
    let answers = Answers::new(settings());
    let route = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop},
        spec: {parentRefs: [{group: '', kind: Service, name: s}], rules: [{backendRefs: [{name: t, port: 80}]}]}}";
    let service = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{ports: [{{port: 80}}]}}}}\n"
        )
    };
    answers.apply(apply(route));
    let problems = || answers.statuses().into_values().next().unwrap().problems();
    assert_eq!(problems().len(), 2);
    answers.apply(apply(&service("t")));
    assert_eq!((problems().len(), answers.problems()), (1, 1));
    answers.apply(apply(&service("s")));
    assert_eq!((problems().len(), answers.problems()), (0, 0));
}
