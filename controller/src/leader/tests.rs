//! Candidates against a scripted API server, with a clock that does not wait.

use super::*;
use crate::api::scripted::{Fault, Server};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases";

struct One {
    leading: watch::Receiver<bool>,
    drain: Signal,
}

fn start(server: &Server, name: &str) -> One {
    let (sender, leading) = watch::channel(false);
    let drain = Signal::new();
    let candidate = Candidate::new(server.client(), "weft-system", "weft-routes", name);
    tokio::spawn(candidate.run(sender, drain.clone()));
    One { leading, drain }
}

async fn leads(one: &mut One, wanted: bool) {
    one.leading.wait_for(|leads| *leads == wanted).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_two_one_leads_and_the_other_takes_over_when_it_gives_the_lease_back() {
    let server = Server::default();
    let mut first = start(&server, "first");
    leads(&mut first, true).await;
    let mut second = start(&server, "second");
    sleep(Duration::from_secs(120)).await;
    assert!(*first.leading.borrow() && !*second.leading.borrow());
    let began = Instant::now();
    first.drain.drain();
    leads(&mut first, false).await;
    leads(&mut second, true).await;
    assert!(began.elapsed() <= limits::LEASE_LOOK * 2, "{:?}", began.elapsed());
    let lease = server
        .until(&format!("{LEASES}/weft-routes"), |lease| {
            lease["spec"]["holderIdentity"] == "second"
        })
        .await;
    assert_eq!(lease["spec"]["leaseTransitions"], 2, "given back, and taken");
}

#[tokio::test(start_paused = true)]
async fn f14_who_cannot_renew_leads_no_longer_before_another_can() {
    let server = Server::default();
    let mut first = start(&server, "first");
    leads(&mut first, true).await;
    let mut second = start(&server, "second");
    sleep(Duration::from_secs(10)).await;
    // The first is cut off from the API server: what it asks is never answered.
    let cut = Instant::now();
    let mut writers = 0;
    server.faults(move |request| {
        // The leader writes without reading first; the other reads.
        writers += usize::from(request.starts_with("PUT"));
        (request.starts_with("PUT") && writers < 6).then_some(Fault::Silent)
    });
    leads(&mut first, false).await;
    let down = cut.elapsed();
    assert!(down <= limits::LEASE_RENEWAL + limits::LEASE_LOOK, "{down:?}");
    assert!(!*second.leading.borrow(), "never two");
    server.heal();
    tokio::select! {
        () = leads(&mut first, true) => {}
        () = leads(&mut second, true) => {}
    }
    assert!(!(*first.leading.borrow() && *second.leading.borrow()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_one_who_is_silent_is_taken_after_15_s_of_ones_own_clock() {
    let server = Server::default();
    // Renewed in a future that this machine has not seen: its clock does not count.
    let spec = serde_json::json!({"holderIdentity": "gone", "leaseDurationSeconds": 15, "renewTime": "2099-01-01T00:00:00.000000Z"});
    server.put(&format!("{LEASES}/weft-routes"), serde_json::json!({"spec": spec}));
    let began = Instant::now();
    let mut one = start(&server, "one");
    leads(&mut one, true).await;
    let took = began.elapsed();
    assert!(
        (limits::LEASE..limits::LEASE + limits::LEASE_LOOK * 2).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_knows_it_at_the_next_renewal() {
    let server = Server::default();
    let mut one = start(&server, "one");
    leads(&mut one, true).await;
    let spec = serde_json::json!({"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": "2099-01-01T00:00:00.000000Z"});
    server.put(&format!("{LEASES}/weft-routes"), serde_json::json!({"spec": spec}));
    let began = Instant::now();
    leads(&mut one, false).await;
    assert!(began.elapsed() <= limits::LEASE_LOOK * 2);
}
