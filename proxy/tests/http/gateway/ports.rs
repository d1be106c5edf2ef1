//! Ports that come and go: real sockets, bound by a worker of their own.

use super::{Edge, content, get, listener, named, rule};
use crate::world::{Raw, SOON, answering};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::front;

/// A port that nothing has.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn connect(port: u16) -> std::io::Result<Raw<TcpStream>> {
    Ok(Raw::new(
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?,
    ))
}

/// Whether the client was told that the connection ends.
fn is_last(head: &str) -> bool {
    head.to_lowercase().contains("connection: close")
}

/// Waits until it holds; whoever changes it does so soon.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

pub fn bound(edge: &Edge) {
    tokio::spawn(front::bind::run(0, edge.shared.clone()));
}

#[tokio::test]
async fn nothing_is_bound_before_there_is_content_and_then_it_is_ready() {
    let mut edge = Edge::new();
    bound(&edge);
    let port = free_port();
    assert!(edge.front().ready().unwrap_err().contains("shop/edge"));
    assert!(connect(port).await.is_err());
    edge.serve(content(
        vec![listener("web", port, "", vec![rule(&[], 0)])],
        &[named("one").await],
    ));
    until("ready", async || edge.front().ready().is_ok()).await;
    let mut client = connect(port).await.unwrap();
    client.send(get("a")).await;
    assert!(client.head().await.contains("x-app: one"));
    // The other family too.
    let v6 = TcpStream::connect(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))).await;
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let mut client = Raw::new(v6.unwrap());
        client.send(get("a")).await;
        assert!(client.head().await.contains("x-app: one"));
    }
}

#[tokio::test]
async fn t30_a_gateway_whose_backend_it_is_itself_says_so_at_once() {
    let mut edge = Edge::new();
    bound(&edge);
    let port = free_port();
    let itself = SocketAddr::from(([127, 0, 0, 1], port));
    edge.serve(content(vec![listener("web", port, "", vec![rule(&[], 0)])], &[itself]));
    until("ready", async || edge.front().ready().is_ok()).await;
    let mut client = connect(port).await.unwrap();
    client.send(get("a")).await;
    let head = client.head().await;
    assert!(
        head.starts_with("HTTP/1.1 508 ") && head.contains("weft-error: loop: "),
        "{head}"
    );
}

#[tokio::test]
async fn a_gateway_without_a_listener_is_ready_too() {
    let mut edge = Edge::new();
    bound(&edge);
    edge.serve(content(vec![], &[]));
    assert_eq!(edge.front().ready(), Ok(()));
}

#[tokio::test]
async fn a_port_that_goes_away_takes_nothing_new_and_finishes_what_is_open() {
    let (ask, asked) = tokio::sync::mpsc::channel::<()>(1);
    let (go, went) = tokio::sync::mpsc::channel::<()>(1);
    let went = Arc::new(tokio::sync::Mutex::new(went));
    let slow = crate::world::app(move |_, mut peer| {
        let (ask, went) = (ask.clone(), went.clone());
        async move {
            peer.head().await;
            ask.send(()).await.unwrap();
            went.lock().await.recv().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let mut asked = asked;
    let mut edge = Edge::new();
    bound(&edge);
    let (gone, stays) = (free_port(), free_port());
    let listeners = |ports: &[u16]| {
        let listeners = ports
            .iter()
            .map(|port| listener(&format!("l{port}"), *port, "", vec![rule(&[], 0)]));
        content(listeners.collect(), &[slow])
    };
    edge.serve(listeners(&[gone, stays]));
    until("ready", async || edge.front().ready().is_ok()).await;
    let mut busy = connect(gone).await.unwrap();
    let mut idle = connect(gone).await.unwrap();
    busy.send(get("a")).await;
    asked.recv().await.unwrap();
    // It is served once, so that the drain finds it between two requests.
    go.send(()).await.unwrap();
    assert!(busy.head().await.starts_with("HTTP/1.1 200"));
    busy.expect("ok").await;
    busy.send(get("a")).await;
    asked.recv().await.unwrap();

    edge.serve(listeners(&[stays]));
    until("closed", async || connect(gone).await.is_err()).await;
    assert!(connect(stays).await.is_ok());
    go.send(()).await.unwrap();
    let head = busy.head().await;
    assert!(head.starts_with("HTTP/1.1 200") && is_last(&head), "{head}");
    busy.expect("ok").await;
    assert!(busy.rest().await.1, "it ends cleanly");
    // A client that had connected and not asked yet cannot know: it is served, and told to go elsewhere.
    idle.send(get("a")).await;
    asked.recv().await.unwrap();
    go.send(()).await.unwrap();
    let head = idle.head().await;
    assert!(is_last(&head), "{head}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_tried_again_while_the_others_serve() {
    let mut edge = Edge::new();
    bound(&edge);
    let blocker = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (taken, free) = (blocker.local_addr().unwrap().port(), free_port());
    let listeners = [taken, free].map(|port| listener(&format!("l{port}"), port, "", vec![rule(&[], 0)]));
    edge.serve(content(listeners.into(), &[named("one").await]));
    until("ready", async || edge.front().ready().is_ok()).await;
    assert!(!edge.open(taken).troubles().is_empty());
    assert!(
        edge.front().dump().to_string().contains(&format!("0.0.0.0:{taken}: ")),
        "{}",
        edge.front().dump()
    );
    let mut client = connect(free).await.unwrap();
    client.send(get("a")).await;
    assert!(client.head().await.contains("x-app: one"));
    drop(blocker);
    until("bound", async || edge.open(taken).troubles().is_empty()).await;
    let mut client = connect(taken).await.unwrap();
    client.send(get("a")).await;
    assert!(client.head().await.contains("x-app: one"));
}

#[tokio::test]
async fn f03_a_hundred_changes_under_load_fail_no_request_and_drop_no_connection() {
    let app = answering(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
    let mut edge = Edge::new();
    bound(&edge);
    let (port, other) = (free_port(), free_port());
    let told = |number: usize| {
        let mut listeners = vec![listener(
            "web",
            port,
            "",
            vec![rule(&["a"], 0), rule(&[format!("h{number}").as_str()], 0)],
        )];
        if number.is_multiple_of(2) {
            listeners.push(listener("other", other, "", vec![rule(&[], 0)]));
        }
        content(listeners, &[app])
    };
    edge.serve(told(0));
    until("ready", async || edge.front().ready().is_ok()).await;
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, count) = (over.clone(), count.clone());
            tokio::spawn(async move {
                let mut client = connect(port).await.unwrap();
                while !over.load(Ordering::Relaxed) {
                    client.send(get("a")).await;
                    let head = client.head().await;
                    assert!(head.starts_with("HTTP/1.1 200 ") && !is_last(&head), "{head}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in 1..=100 {
        edge.serve(told(number));
        let before = count.load(Ordering::Relaxed);
        until("requests go on", async || count.load(Ordering::Relaxed) > before).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn f01_the_drain_lets_requests_finish_and_says_goaway() {
    let mut edge = Edge::new();
    edge.serve(content(
        vec![listener("web", 80, "", vec![rule(&[], 0)])],
        &[named("one").await],
    ));
    let mut open = super::h2_on(edge.client(80)).await;
    let ask = || http::Request::get("http://a/").body(()).unwrap();
    assert_eq!(open.send_request(ask(), true).unwrap().0.await.unwrap().status(), 200);
    edge.shared.drain_gateway();
    until("goaway", async || {
        let mut send = open.clone();
        match send.send_request(ask(), true) {
            Ok((answer, _)) => answer.await.is_err(),
            Err(_) => true,
        }
    })
    .await;
    // Who comes during the drain has no other endpoint yet.
    let head = edge.ask(80, &get("a")).await;
    assert!(head.starts_with("HTTP/1.1 200") && is_last(&head), "{head}");
}
