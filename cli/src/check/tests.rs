//! Judgements of recorded objects, as people read them.

use super::{
    certificates,
    finding::{self, Finding, Level},
    gather::{Seen, Tried},
    rights, system, workloads,
};
use crate::install;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        core::v1::{Event, Namespace, Pod},
    },
    apimachinery::pkg::version::Info,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// A CA's certificate that ends after so many days and an hour, or ended.
fn root(days: i64) -> String {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let whole = Duration::from_secs(days.unsigned_abs() * 86_400);
    let now = SystemTime::now() + Duration::from_secs(3600);
    let end = if days < 0 { now - whole } else { now + whole };
    params.not_before = (end - Duration::from_secs(800 * 86_400)).into();
    params.not_after = end.into();
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn installed(kind: &str) -> Vec<Value> {
    install::system()
        .unwrap()
        .into_iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

/// A cluster in which weft is whole, and a namespace `shop` in the mesh without pods.
fn whole() -> Seen {
    let deployments = installed("Deployment").into_iter().map(|mut deployment| {
        let replicas = deployment["spec"]["replicas"].clone();
        deployment["status"] = json!({"availableReplicas": replicas, "updatedReplicas": replicas});
        of::<Deployment>(deployment)
    });
    let mut webhook = installed("MutatingWebhookConfiguration").remove(0);
    let bundle = serde_json::to_value(ByteString(root(365).into_bytes())).unwrap();
    for webhook in webhook["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = bundle.clone();
    }
    let definitions = install::CRDS
        .iter()
        .map(|crd| (crd.name.to_owned(), "v1.6.3, experimental".to_owned()));
    Seen {
        definitions: Ok(definitions.collect()),
        served: Ok(["httproutes".into(), "grpcroutes".into()].into()),
        deployments: Ok(deployments.collect()),
        system_pods: Ok(Vec::new()),
        webhook: Ok(Some(of(webhook))),
        roots: Ok(Some(root(365))),
        now: SystemTime::now(),
        rights: rights::all()
            .into_iter()
            .map(|right| {
                let allowed = right.needed;
                (right, Ok(allowed))
            })
            .collect(),
        namespaces: Ok(vec![namespace("shop", json!({"weft.dev/inject": "enabled"}))]),
        tried: BTreeMap::from([("shop".into(), Tried::Meshed)]),
        pods: Ok(Vec::new()),
        refusals: Ok(Vec::new()),
    }
}

fn namespace(name: &str, labels: Value) -> Namespace {
    of(json!({"metadata": {"name": name, "labels": labels}}))
}

fn pod(namespace: &str, name: &str, more: Value) -> Pod {
    let mut pod =
        json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"containers": [{"name": "app"}]}});
    json_patch::merge(&mut pod, &more);
    of(pod)
}

/// What makes a pod one of a Deployment.
fn deployed(name: &str) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d9"), "uid": "u", "controller": true});
    json!({"metadata": {"labels": {"pod-template-hash": "5d9"}, "ownerReferences": [owner]}})
}

fn meshed(image: &str) -> Value {
    let proxy = json!({"name": "weft-proxy", "image": image, "restartPolicy": "Always", "args": ["sidecar"]});
    json!({"spec": {"initContainers": [proxy, {"name": "weft-init"}]}})
}

fn judged(seen: &Seen) -> Vec<Finding> {
    let parts = [system::judge(seen), certificates::judge(seen), workloads::judge(seen)];
    parts.into_iter().flatten().collect()
}

/// Asserts that some finding of a level has all these words.
#[track_caller]
fn has(findings: &[Finding], level: Level, words: &[&str]) {
    let text = finding::render(findings);
    let found = findings.iter().any(|finding| {
        let line = format!("{}: {}", finding.what, finding.text);
        finding.level == level && words.iter().all(|word| line.contains(word))
    });
    assert!(found, "{level:?} {words:?} in\n{text}");
}

#[test]
fn a_whole_mesh_is_good_lines_only() {
    let expected = "\
ok    Gateway API: v1.6.3, experimental
ok    weft-identity: 1 of 1 available, weft.dev/controller:0.1.0
ok    weft-routes: 2 of 2 available, weft.dev/controller:0.1.0
ok    weft-injector: 2 of 2 available, weft.dev/injector:0.1.0
ok    webhook: configured, closed when nobody answers, and the API server has its CA
ok    rights of weft-identity: all 11, and no list of secrets
";
    let text = finding::render(&judged(&whole()));
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("ok    pods meshed: 0\n"), "{text}");
    assert!(text.lines().all(|line| line.starts_with("ok    ")), "{text}");
}

#[test]
fn an_old_kubernetes_is_named_with_what_is_needed() {
    let info = |minor: &str| {
        of::<Info>(
            json!({"major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.3"), "buildDate": "",
        "compiler": "", "gitCommit": "", "gitTreeState": "", "goVersion": "", "platform": ""}),
        )
    };
    has(
        &[system::version(&info("28"))],
        Level::Fail,
        &["1.28", "1.29", "upgrade"],
    );
    has(&[system::version(&info("34"))], Level::Ok, &["v1.34.3"]);
}

#[test]
fn where_nothing_is_installed_that_is_all_that_is_said() {
    let seen = Seen {
        deployments: Ok(Vec::new()),
        webhook: Ok(None),
        ..whole()
    };
    let findings = system::judge(&seen);
    has(
        &findings,
        Level::Fail,
        &["not installed", "weft install | kubectl apply"],
    );
    assert_eq!(findings.len(), 2, "{}", finding::render(&findings));
}

#[test]
fn definitions_that_are_missing_or_old_are_told() {
    let mut seen = whole();
    seen.served = Ok(["httproutes".into()].into());
    has(
        &system::judge(&seen),
        Level::Fail,
        &["Gateway API", "grpcroutes not there", "weft install"],
    );
    let mut seen = whole();
    seen.definitions = Ok([("httproutes.gateway.networking.k8s.io".into(), "v1.2.0, standard".into())].into());
    has(
        &system::judge(&seen),
        Level::Warn,
        &["v1.2.0, standard", "tlsroutes.gateway.networking.k8s.io"],
    );
}

#[test]
fn a_part_that_does_not_run_is_told_in_its_own_words() {
    let mut seen = whole();
    for deployment in seen.deployments.as_mut().unwrap() {
        deployment.status = None;
    }
    let status = json!({"status": {"containerStatuses": [{"name": "weft-routes", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "no way to an API server\n"}}}]}});
    let mut own = json!({"metadata": {"labels": {"app.kubernetes.io/name": "weft-routes"}}});
    json_patch::merge(&mut own, &status);
    seen.system_pods = Ok(vec![pod("weft-system", "weft-routes-1", own)]);
    let findings = system::judge(&seen);
    has(
        &findings,
        Level::Fail,
        &[
            "weft-routes: 0 of 2",
            "pod weft-routes-1: weft-routes: CrashLoopBackOff: no way to an API server",
        ],
    );
    has(&findings, Level::Fail, &["weft-injector: 0 of 2", "describe pods"]);
}

#[test]
fn a_webhook_that_cannot_do_its_work_is_told() {
    let mut seen = whole();
    seen.webhook = Ok(None);
    has(
        &system::judge(&seen),
        Level::Fail,
        &["webhook", "not there", "weft install"],
    );
    let mut webhook: MutatingWebhookConfiguration = whole().webhook.unwrap().unwrap();
    let webhooks = webhook.webhooks.as_mut().unwrap();
    webhooks[0].client_config.ca_bundle = None;
    webhooks[0].failure_policy = Some("Ignore".into());
    webhooks.truncate(1);
    seen.webhook = Ok(Some(webhook));
    let findings = system::judge(&seen);
    has(
        &findings,
        Level::Fail,
        &[
            "no caBundle",
            "failurePolicy changed",
            "strict.inject.weft.dev is missing",
            "pod-security.inject.weft.dev is missing",
        ],
    );
}

#[test]
fn f23_certificates_tell_their_end_a_month_before_it_and_fail_where_nothing_comes_after_them() {
    let mut seen = whole();
    has(&judged(&seen), Level::Ok, &["certificates", "mesh's root", "365 days"]);
    has(&judged(&seen), Level::Ok, &["certificates", "webhook's CA", "365 days"]);
    seen.roots = Ok(Some(root(12)));
    has(
        &judged(&seen),
        Level::Fail,
        &["certificates", "mesh's root", "12 days", "weft-ca"],
    );
    seen.roots = Ok(Some(root(-3)));
    has(&judged(&seen), Level::Fail, &["mesh's root", "ended 2 days ago"]);
    // Another one takes over: that is how a root is changed.
    seen.roots = Ok(Some(root(12) + &root(365)));
    has(&judged(&seen), Level::Warn, &["mesh's root", "12 days", "1 of 2"]);
    seen.roots = Ok(None);
    has(&judged(&seen), Level::Fail, &["weft-trust"]);
    seen.roots = Err("forbidden".into());
    has(&judged(&seen), Level::Warn, &["cannot be looked at: forbidden"]);
    seen.roots = Ok(Some("junk".into()));
    has(&judged(&seen), Level::Fail, &["mesh's root", "none"]);
}

#[test]
fn t41_rights_that_are_missing_or_too_many_are_told() {
    let mut seen = whole();
    for (right, answer) in &mut seen.rights {
        if right.account == "weft-identity" && right.resource == "tokenreviews" {
            *answer = Ok(false);
        }
        if right.account == "weft-routes" && !right.needed {
            *answer = Ok(true);
        }
        if right.account == "weft-injector" {
            *answer = Err("forbidden".into());
        }
    }
    let findings = system::judge(&seen);
    has(
        &findings,
        Level::Fail,
        &[
            "rights of weft-identity",
            "it may not create tokenreviews.authentication.k8s.io",
        ],
    );
    has(
        &findings,
        Level::Warn,
        &["rights of weft-routes", "it may list secrets", "does not need"],
    );
    has(
        &findings,
        Level::Warn,
        &["rights of weft-injector", "cannot be asked for: forbidden"],
    );
}

#[test]
fn namespaces_that_cannot_be_meshed_are_told_with_the_way_out() {
    let mut seen = whole();
    seen.namespaces = Ok(vec![
        namespace(
            "strict",
            json!({"weft.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted"}),
        ),
        namespace(
            "both",
            json!({"weft.dev/inject": "enabled", "istio-injection": "enabled"}),
        ),
        namespace("typo", json!({"weft.dev/inject": "true"})),
        namespace("kube-system", json!({"weft.dev/inject": "enabled"})),
        of(
            json!({"metadata": {"name": "l5d", "labels": {"weft.dev/inject": "enabled"}, "annotations": {"linkerd.io/inject": "enabled"}}}),
        ),
        namespace("quiet", json!({"istio-injection": "enabled"})),
    ]);
    let findings = judged(&seen);
    has(&findings, Level::Ok, &["in the mesh: strict, both, l5d"]);
    has(
        &findings,
        Level::Fail,
        &[
            "namespace strict",
            "restricted",
            "NET_ADMIN",
            "kubectl label namespace strict pod-security.kubernetes.io/enforce=privileged --overwrite",
        ],
    );
    has(
        &findings,
        Level::Warn,
        &["namespace both", "Istio takes it too (istio-injection=enabled)"],
    );
    has(&findings, Level::Warn, &["namespace l5d", "Linkerd takes it too"]);
    has(
        &findings,
        Level::Warn,
        &[
            "namespace typo",
            "neither enabled nor disabled",
            "weft.dev/inject=enabled --overwrite",
        ],
    );
    has(
        &findings,
        Level::Warn,
        &["namespace kube-system", "nothing is ever meshed"],
    );
    assert!(!finding::render(&findings).contains("quiet"), "it is not ours");
}

#[test]
fn what_became_of_a_pod_on_trial_is_told() {
    let mut seen = whole();
    let failed = "Internal error occurred: failed calling webhook \"inject.weft.dev\": connection refused";
    seen.tried = BTreeMap::from([
        ("a".into(), Tried::Left),
        ("b".into(), Tried::Forbidden),
        ("c".into(), Tried::Refused(failed.into())),
        ("d".into(), Tried::Refused("exceeded quota".into())),
    ]);
    let findings = workloads::judge(&seen);
    has(&findings, Level::Fail, &["without the proxy: a"]);
    has(&findings, Level::Warn, &["you may not create pods: b"]);
    has(
        &findings,
        Level::Fail,
        &[
            "in c was refused",
            "nobody answers for it",
            "logs deployment/weft-injector",
        ],
    );
    has(&findings, Level::Fail, &["in d was refused: exceeded quota"]);
}

#[test]
fn t41_pods_that_were_missed_are_told_by_owner_with_the_command_that_repairs() {
    let mut seen = whole();
    let both = |mut one: Value, more: Value| {
        json_patch::merge(&mut one, &more);
        one
    };
    seen.pods = Ok(vec![
        pod("shop", "web-5d9-a", deployed("web")),
        pod("shop", "web-5d9-b", deployed("web")),
        pod("shop", "bare", json!({})),
        pod(
            "shop",
            "ends",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ),
        pod("shop", "done", json!({"status": {"phase": "Succeeded"}})),
        pod(
            "shop",
            "out",
            json!({"metadata": {"annotations": {"weft.dev/inject": "disabled"}}}),
        ),
        pod("shop", "good", meshed("weft.dev/proxy:0.1.0")),
        pod(
            "shop",
            "old-5d9-a",
            both(deployed("old"), meshed("weft.dev/proxy:0.0.9")),
        ),
        pod("elsewhere", "x", json!({})),
    ]);
    let findings = workloads::judge(&seen);
    has(
        &findings,
        Level::Fail,
        &[
            "pods not meshed: 3 pods should be and are not",
            "Deployment shop/web (2 pods): ",
            "; kubectl -n shop rollout restart deployment/web\n",
            "Pod shop/bare (1 pod): ",
            "; kubectl -n shop delete pod bare, and create it again",
        ],
    );
    has(
        &findings,
        Level::Warn,
        &[
            "pods of another version: weft.dev/proxy:0.1.0 is installed",
            "Deployment shop/old (1 pod): weft.dev/proxy:0.0.9; kubectl -n shop rollout restart deployment/old",
        ],
    );
    has(
        &findings,
        Level::Ok,
        &[
            "pods kept out",
            "shop/out (1 pod): the pod is annotated weft.dev/inject=disabled",
        ],
    );
    has(&findings, Level::Ok, &["pods meshed: 2"]);
    let text = finding::render(&findings);
    assert!(
        ["ends", "done", "elsewhere"].iter().all(|name| !text.contains(name)),
        "{text}"
    );
}

#[test]
fn a_redirect_that_could_not_be_set_is_told_in_weft_init_s_words() {
    let mut seen = whole();
    let mut failed = meshed("weft.dev/proxy:0.1.0");
    let message = "weft-init: this node cannot redirect IPv6: load the module ip6table_nat";
    json_patch::merge(
        &mut failed,
        &json!({"status": {"initContainerStatuses": [{"name": "weft-init", "image": "", "imageID": "", "ready": false,
        "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "message": message}}}]}}),
    );
    seen.pods = Ok(vec![pod("shop", "a", failed)]);
    has(
        &workloads::judge(&seen),
        Level::Fail,
        &[
            "pods that do not start",
            "Pod shop/a",
            "weft-init: CrashLoopBackOff",
            message,
        ],
    );
}

#[test]
fn t44_a_pod_that_was_refused_is_told_until_one_runs() {
    let mut seen = whole();
    let event = |name: &str, time: &str, message: &str| -> Event {
        of(
            json!({"metadata": {"name": name, "namespace": "shop"}, "reason": "FailedCreate", "message": message, "lastTimestamp": time,
            "involvedObject": {"kind": "ReplicaSet", "namespace": "shop", "name": "web-5d9"}}),
        )
    };
    let ours = "admission webhook \"inject.weft.dev\" denied the request: port 15001 is weft's";
    seen.refusals = Ok(vec![
        event("a", "2026-01-01T00:00:01Z", "exceeded quota"),
        event("b", "2026-01-01T00:00:02Z", ours),
    ]);
    has(
        &workloads::judge(&seen),
        Level::Warn,
        &["pods refused", "ReplicaSet shop/web-5d9: ", ours],
    );
    let mut good = deployed("web");
    json_patch::merge(&mut good, &meshed("weft.dev/proxy:0.1.0"));
    seen.pods = Ok(vec![pod("shop", "web-5d9-a", good)]);
    assert!(!finding::render(&workloads::judge(&seen)).contains("refused"));
}

#[test]
fn what_cannot_be_looked_at_is_said_and_the_rest_goes_on() {
    let mut seen = whole();
    seen.deployments = Err("deployments.apps is forbidden".into());
    seen.pods = Err("pods is forbidden".into());
    let findings = judged(&seen);
    has(
        &findings,
        Level::Warn,
        &["weft-system: cannot be looked at: deployments.apps is forbidden"],
    );
    has(&findings, Level::Fail, &["pods: cannot be looked at"]);
    has(&findings, Level::Ok, &["webhook's answer"]);
}
