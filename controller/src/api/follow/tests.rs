//! Against an API server that fails in every way, with a clock that does not wait.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    api::scripted::{Fault, Server},
    objects::core::Service,
};

const PATH: &str = "/api/v1/services";

fn start(names: &[&str]) -> (Server, Follow<Service>) {
    let server = Server::default();
    for name in names {
        server.put(&format!("{PATH}/{name}"), json!({}));
    }
    let follow = Follow::new(server.client(), PATH);
    (server, follow)
}

/// One event as a word.
async fn next(follow: &mut Follow<Service>) -> String {
    let name = |service: Service| service.metadata.name.unwrap();
    match follow.next().await {
        Event::Restarted => "restarted".into(),
        Event::Apply(service) => format!("+{}", name(service)),
        Event::Delete(service) => format!("-{}", name(service)),
        Event::Listed => "listed".into(),
        Event::Watching => "watching".into(),
        Event::Failed(failure) => format!("failed: {failure}"),
    }
}

async fn expect(follow: &mut Follow<Service>, words: &[&str]) {
    for word in words {
        assert_eq!(next(follow).await, *word);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_several_pages_then_what_changes() {
    let (server, mut follow) = start(&["a", "b", "c"]);
    server.pages_of(2);
    expect(&mut follow, &["restarted", "+a", "+b", "+c", "listed"]).await;
    server.put(&format!("{PATH}/d"), json!({}));
    server.delete(&format!("{PATH}/a"));
    expect(&mut follow, &["+d", "-a"]).await;
}

#[tokio::test(start_paused = true)]
async fn f14_a_watch_that_ends_goes_on_from_where_it_was() {
    let (server, mut follow) = start(&["a"]);
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    server.put(&format!("{PATH}/b"), json!({}));
    expect(&mut follow, &["+b"]).await;
    server.cut();
    server.put(&format!("{PATH}/c"), json!({}));
    expect(&mut follow, &["watching", "+c"]).await;
    let lists = server
        .requests()
        .iter()
        .filter(|request| request.starts_with("GET"))
        .count();
    assert_eq!(lists, 1);
}

#[tokio::test(start_paused = true)]
async fn f14_what_is_too_old_is_listed_anew_at_once() {
    let (server, mut follow) = start(&["a"]);
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    server.put(&format!("{PATH}/b"), json!({}));
    expect(&mut follow, &["+b"]).await;
    server.expire();
    let began = Instant::now();
    assert_eq!(next(&mut follow).await, "watching");
    assert!(next(&mut follow).await.contains("410"));
    expect(&mut follow, &["restarted", "+a", "+b", "listed"]).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_is_asked_again_ever_more_rarely_and_says_how_to_fix_it() {
    let (server, mut follow) = start(&["a"]);
    server.faults(|_| Some(Fault::Status(403)));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(600) {
        let text = next(&mut follow).await;
        assert!(
            text.contains("forbids it: scripted 403") && text.contains("weft install"),
            "{text}"
        );
    }
    let asked = server.requests().len();
    assert!((30..90).contains(&asked), "{asked} in ten minutes");
    server.heal();
    let healed = Instant::now();
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    assert!(healed.elapsed() <= limits::WATCH_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_found_in_30_s() {
    let (server, mut follow) = start(&["a"]);
    server.faults(|_| Some(Fault::Status(404)));
    for _ in 0..20 {
        assert!(next(&mut follow).await.contains("404"));
    }
    server.heal();
    let healed = Instant::now();
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    assert!(healed.elapsed() <= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn f12_a_request_that_is_never_answered_is_given_up() {
    let (server, mut follow) = start(&["a"]);
    server.faults(|_| Some(Fault::Silent));
    let began = Instant::now();
    assert!(next(&mut follow).await.contains("does not answer"));
    assert_eq!(began.elapsed(), limits::API_TIME);
    server.heal();
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    server.faults(|request| request.starts_with("WATCH").then_some(Fault::Silent));
    assert!(next(&mut follow).await.contains("does not answer"));
    server.heal();
    server.put(&format!("{PATH}/b"), json!({}));
    expect(&mut follow, &["watching", "+b"]).await;
}

#[tokio::test(start_paused = true)]
async fn f12_a_watch_on_which_nothing_comes_is_given_up_and_a_bookmark_is_something() {
    let (server, mut follow) = start(&["a"]);
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    let began = Instant::now();
    let bookmarks = server.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            bookmarks.line(&json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}).to_string());
        }
    });
    assert!(next(&mut follow).await.contains("does not answer"));
    assert_eq!(began.elapsed(), Duration::from_secs(120) + limits::WATCH_SILENCE);
    server.requests();
    server.put(&format!("{PATH}/b"), json!({}));
    let _ = tokio::time::timeout(Duration::from_secs(5), follow.next()).await;
    assert_eq!(
        server.requests(),
        [format!("WATCH {PATH} 77")],
        "from where the bookmark was"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_ends_nothing() {
    let (server, mut follow) = start(&["a"]);
    expect(&mut follow, &["restarted", "+a", "listed"]).await;
    let reader = async {
        let text = next(&mut follow).await;
        assert!(text.contains("cannot be read"), "{text}");
        expect(&mut follow, &["watching", "+b"]).await;
    };
    let writer = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.line("{\"type\": \"MODIFIED\", \"object\": 7}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.put(&format!("{PATH}/b"), json!({}));
    };
    tokio::join!(reader, writer);
}
