//! Keepers against the API server of [`server`].

mod server;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;
use kube::Client;
use serde_json::json;
use tokio::sync::watch;

use self::server::{CONFIGURATION, SECRET, Server};
use super::*;
use crate::{
    certificate::{Issued, Lives, authority},
    health::Health,
    metrics::Metrics,
};

/// One replica.
struct Replica {
    issued: watch::Receiver<Option<Issued>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn replica(client: Client, lives: Lives) -> Replica {
    let (sender, issued) = watch::channel(None);
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let names = vec!["weft-injector.weft-system.svc".to_owned()];
    let keeper = Keeper::new(
        client,
        "weft-system",
        names,
        lives,
        sender,
        health.clone(),
        metrics.clone(),
    );
    Replica {
        issued,
        health,
        metrics,
        running: tokio::spawn(keeper.run()),
    }
}

/// Waits for what the state of the server makes true.
async fn until(server: &Server, what: &str, holds: impl Fn() -> bool) {
    let mut changes = server.changed.subscribe();
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            // What does not change the server, such as a replica's health, is looked for often enough.
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

async fn served(replica: &mut Replica) {
    let first = replica.issued.wait_for(Option::is_some);
    drop(
        tokio::time::timeout(Duration::from_secs(20), first)
            .await
            .unwrap()
            .unwrap(),
    );
}

/// Whether what is published is what the Secret holds.
fn in_step(server: &Server) -> bool {
    let Some(data) = server.secret() else { return false };
    let authority = crate::certificate::Authority::from_data(&data).unwrap();
    server.bundle() == authority.bundle().as_bytes()
}

#[tokio::test]
async fn the_ca_is_made_published_and_only_then_served_from() {
    let server = Server::new();
    // The configuration cannot be written yet.
    server.set(|state| state.forbidden = Some((Method::PATCH, "weft-injector")));
    let mut one = replica(server.client(), Lives::default());
    until(&server, "a word on what is not allowed", || {
        one.health
            .answer()
            .is_err_and(|text| text.contains("not allowed to patch"))
    })
    .await;
    let text = one.health.answer().unwrap_err();
    for word in [
        "mutatingwebhookconfigurations.admissionregistration.k8s.io weft-injector",
        "ServiceAccount weft-injector",
        "weft install | kubectl apply --server-side -f -",
        "system:serviceaccount:weft-system:weft-injector",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(
        server.secret().is_some() && one.issued.borrow().is_none(),
        "nobody would trust it"
    );
    assert!(
        one.metrics
            .render()
            .contains("bundle_updates_total{outcome=\"failed\"}")
    );

    server.set(|state| state.forbidden = None);
    served(&mut one).await;
    assert!(in_step(&server));
    assert_eq!(one.health.answer().unwrap(), "ready");

    let mut two = replica(server.client(), Lives::default());
    served(&mut two).await;
    let writes = server.lock().writes.clone();
    assert_eq!(
        writes,
        [(Method::POST, SECRET), (Method::PATCH, CONFIGURATION)],
        "the second finds it all there"
    );
}

#[tokio::test]
async fn two_replicas_that_begin_at_once_agree_on_one_ca() {
    let server = Server::new();
    let mut replicas: Vec<_> = (0..4).map(|_| replica(server.client(), Lives::default())).collect();
    for replica in &mut replicas {
        served(replica).await;
    }
    until(&server, "what is published is the Secret's", || in_step(&server)).await;
    let writes = server.lock().writes.clone();
    assert_eq!(
        writes.iter().filter(|write| **write == (Method::POST, SECRET)).count(),
        1,
        "{writes:?}"
    );
    assert!(writes.len() <= 2 + replicas.len(), "{writes:?}");
}

#[tokio::test]
async fn t42_what_is_deleted_or_reset_is_put_back_with_the_same_ca() {
    let server = Server::new();
    let mut one = replica(server.client(), Lives::default());
    let mut two = replica(server.client(), Lives::default());
    served(&mut one).await;
    served(&mut two).await;
    let (before, bundle) = (server.secret().unwrap(), server.bundle());

    server.set(|state| drop(state.objects.remove(SECRET)));
    until(&server, "the Secret is back", || {
        server.secret().as_ref() == Some(&before)
    })
    .await;

    let mut configuration = server.object(CONFIGURATION).unwrap();
    configuration["webhooks"][1]["clientConfig"]["caBundle"] = json!("");
    configuration["webhooks"][0]["clientConfig"]
        .as_object_mut()
        .unwrap()
        .remove("caBundle");
    server.put(CONFIGURATION, configuration.clone());
    until(&server, "the bundle is back", || server.bundle() == bundle).await;

    server.set(|state| drop(state.objects.remove(CONFIGURATION)));
    until(&server, "a word on the missing configuration", || {
        one.health
            .answer()
            .unwrap()
            .contains("there is no MutatingWebhookConfiguration weft-injector")
    })
    .await;
    server.put(CONFIGURATION, configuration);
    until(&server, "the bundle is back", || server.bundle() == bundle).await;
    until(&server, "all is well", || one.health.answer().as_deref() == Ok("ready")).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_made_anew() {
    let server = Server::new();
    server.put(
        SECRET,
        json!({"metadata": {"name": "weft-injector-webhook"}, "data": {"ca.crt": "eA==", "other": "eA=="}}),
    );
    let mut one = replica(server.client(), Lives::default());
    served(&mut one).await;
    assert!(in_step(&server));
    assert_eq!(server.secret().unwrap().len(), 2, "what is nobody's is gone");
}

#[tokio::test]
async fn f14_without_the_api_server_what_is_known_goes_on_and_renews_itself() {
    let server = Server::new();
    server.set(|state| state.away = true);
    let lives = Lives {
        serving: Duration::from_secs(3),
        ..Lives::default()
    };
    let mut one = replica(server.client(), lives);
    until(&server, "a word on the API server", || {
        one.health
            .answer()
            .is_err_and(|text| text.contains("cannot be reached"))
    })
    .await;
    server.set(|state| state.away = false);
    served(&mut one).await;
    server.set(|state| state.away = true);
    let first = one.issued.borrow_and_update().as_ref().unwrap().not_after;
    let renewed = one
        .issued
        .wait_for(|issued| issued.as_ref().is_some_and(|issued| issued.not_after > first));
    drop(
        tokio::time::timeout(Duration::from_secs(20), renewed)
            .await
            .unwrap()
            .unwrap(),
    );
    until(&server, "it says so, and stays ready", || {
        one.health.answer().unwrap().contains("cannot be reached")
    })
    .await;
    server.set(|state| state.away = false);
    until(&server, "it is over", || one.health.answer().as_deref() == Ok("ready")).await;
}

/// CAs of a few seconds, three of them one after the other, kept by two replicas: at no moment does one of them serve from a
/// CA that is not published, and nobody writes what another has just written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_rotate_a_short_lived_ca_and_never_fight() {
    let server = Server::new();
    let lives = Lives {
        ca: Duration::from_secs(6),
        ca_left: Duration::from_secs(3),
        settle: Duration::from_secs(1),
        serving: Duration::from_secs(2),
    };
    let mut replicas = [replica(server.client(), lives), replica(server.client(), lives)];
    for replica in &mut replicas {
        served(replica).await;
    }
    let mut cas = Vec::new();
    let end = SystemTime::now() + Duration::from_secs(13);
    let mut changes = server.changed.subscribe();
    while SystemTime::now() < end {
        let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        // Read in the order in which they are written: what is served now was published before.
        let served = replicas.each_ref().map(|replica| {
            let issued = replica.issued.borrow();
            let issued = issued.as_ref().unwrap();
            assert!(issued.not_after > SystemTime::now(), "an old certificate is served");
            issued.ca.clone()
        });
        let bundle = server.bundle();
        for ca in served {
            assert!(
                authority::holds(&bundle, &ca),
                "a certificate of a CA that is not published"
            );
            if !cas.contains(&ca) {
                cas.push(ca);
            }
        }
    }
    assert!(cas.len() >= 3, "{} CAs", cas.len());
    until(&server, "what is published is the Secret's", || in_step(&server)).await;
    let writes = server.lock().writes.clone();
    // For each CA: it is made, it signs, the one before it goes; and the configuration follows each time.
    let most = 6 * (cas.len() + 2);
    assert!(writes.len() <= most, "{} writes for {} CAs", writes.len(), cas.len());
}
