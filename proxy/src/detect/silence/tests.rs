use super::*;
use crate::{
    endpoint::{Endpoint, Lease},
    hop::Transport,
    tables::Destination,
};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, advance},
};

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

struct Watched {
    client: Io,
    server: Io,
    task: JoinHandle<(Result<Broken, Fault>, Io)>,
}

fn opened(io: Io) -> Opened {
    let address = "10.0.0.1:80".parse().unwrap();
    let destination = Destination::outside(address);
    let backend = destination.default_backend().unwrap().clone();
    Opened {
        io,
        lease: Lease::new(Arc::new(Endpoint::at(address))),
        backend,
        transport: Transport::Plain,
        rule: None,
        listener: None,
    }
}

fn http(seen: &Seen) -> bool {
    matches!(seen, Seen::Http1 | Seen::Http2)
}

/// A silent client, and a server that is reached after a while.
fn watched(dial: Duration) -> Watched {
    let (client, near) = Io::pair(4096);
    let (far, server) = Io::pair(4096);
    let task = tokio::spawn(async move {
        let mut near = near;
        let opening: Opening<'_> = Box::pin(async move {
            sleep(dial).await;
            Ok(opened(far))
        });
        let broken = watch(&mut near, Some(opening), http, limits::TUNNEL_IDLE).await;
        (broken, near)
    });
    Watched { client, server, task }
}

const SOON: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_makes_it_opaque_and_its_words_are_kept() {
    let Watched {
        mut server,
        task,
        client: _client,
    } = watched(SOON);
    server.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
    let (broken, _) = task.await.unwrap();
    let Broken::Opaque {
        mut hop,
        server_spoke: true,
        ..
    } = broken.unwrap()
    else {
        panic!()
    };
    let mut read = [0; 24];
    hop.io.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"220 mail.example ESMTP\r\n");
}

#[tokio::test(start_paused = true)]
async fn settings_of_an_h2c_server_teach_nothing_even_after_15_seconds() {
    let Watched {
        mut client,
        mut server,
        task,
    } = watched(SOON);
    server.write_all(SETTINGS).await.unwrap();
    sleep(Duration::from_secs(15)).await;
    assert!(!task.is_finished());
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let (broken, mut client_side) = task.await.unwrap();
    assert!(matches!(broken.unwrap(), Broken::ByClient(Seen::Http2)));
    let mut read = [0; 24];
    client_side.read_exact(&mut read).await.unwrap();
    assert!(read.starts_with(b"PRI"));
    // Its own hop is chosen; this one was dropped.
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_408_to_a_silent_client_is_held_and_then_passed_on_with_the_close() {
    let Watched {
        mut server,
        task,
        client: _client,
    } = watched(SOON);
    server
        .write_all(b"HTTP/1.0 408 Request Time-out\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(!task.is_finished());
    drop(server);
    let (broken, _) = task.await.unwrap();
    let Broken::Opaque {
        mut hop,
        server_spoke: false,
        ..
    } = broken.unwrap()
    else {
        panic!()
    };
    let mut read = Vec::new();
    hop.io.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"HTTP/1.0 408 Request Time-out\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_greeting_in_pieces_is_certain_in_the_end() {
    let Watched {
        mut server,
        task,
        client: _client,
    } = watched(SOON);
    server.write_all(b"HTT").await.unwrap();
    sleep(SOON * 10).await;
    assert!(!task.is_finished());
    server.write_all(b"X").await.unwrap();
    assert!(matches!(
        task.await.unwrap().0.unwrap(),
        Broken::Opaque { server_spoke: true, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_speaks_during_the_dial_is_not_kept_waiting() {
    let Watched {
        mut client,
        task,
        server: _server,
    } = watched(Duration::from_secs(4));
    advance(SOON).await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let since = Instant::now();
    assert!(matches!(task.await.unwrap().0.unwrap(), Broken::ByClient(Seen::Http1)));
    assert!(since.elapsed() < SOON * 10);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_no_known_protocol_go_over_the_hop_that_is_open() {
    let Watched {
        mut client,
        task,
        server: _server,
    } = watched(Duration::from_secs(1));
    client.write_all(b"\0\x01\x02").await.unwrap();
    let (broken, mut client_side) = task.await.unwrap();
    assert!(matches!(
        broken.unwrap(),
        Broken::Opaque {
            seen: Seen::Opaque,
            server_spoke: false,
            ..
        }
    ));
    let mut read = [0; 3];
    client_side.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"\0\x01\x02");
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_word_still_lets_the_server_speak() {
    let Watched {
        mut client,
        task,
        server: _server,
    } = watched(SOON);
    client.shutdown().await.unwrap();
    assert!(matches!(
        task.await.unwrap().0.unwrap(),
        Broken::Opaque { seen: Seen::Opaque, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_failed_dial_and_a_reset_are_told_at_once() {
    let (_client, mut near) = Io::pair(64);
    let opening: Opening<'_> = Box::pin(async { Err(Fault::new(Reason::ConnectRefused)) });
    assert_eq!(
        watch(&mut near, Some(opening), http, limits::TUNNEL_IDLE)
            .await
            .unwrap_err()
            .reason,
        Reason::ConnectRefused
    );

    let Watched {
        server,
        task,
        client: _client,
    } = watched(SOON);
    server.reset();
    assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::ServerReset);

    let Watched {
        client,
        task,
        server: _server,
    } = watched(SOON);
    client.reset();
    assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::DetectClosed);
}

#[tokio::test(start_paused = true)]
async fn without_a_dial_the_client_is_waited_for_all_the_same() {
    let (mut client, mut near) = Io::pair(64);
    let (done, finished) = oneshot::channel();
    tokio::spawn(async move {
        sleep(Duration::from_secs(20)).await;
        client.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let _ = finished.await;
    });
    assert!(matches!(
        watch(&mut near, None, http, limits::CLIENT_IDLE).await.unwrap(),
        Broken::ByClient(Seen::Opaque)
    ));
    let _ = done.send(());
    let (_client, mut near) = Io::pair(64);
    assert_eq!(
        watch(&mut near, None, http, limits::CLIENT_IDLE)
            .await
            .unwrap_err()
            .reason,
        Reason::DetectTimeout
    );
}

#[tokio::test(start_paused = true)]
async fn one_letter_that_may_become_anything_goes_to_the_server_whose_answer_decides() {
    let Watched {
        mut client,
        mut server,
        task,
    } = watched(SOON);
    client.write_all(b"S").await.unwrap();
    let mut read = [0; 1];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"S");
    server.write_all(b"ZZZZ").await.unwrap();
    let (broken, mut client_side) = task.await.unwrap();
    let Broken::Opaque {
        server_spoke: true,
        passed: 1,
        ..
    } = broken.unwrap()
    else {
        panic!()
    };
    // Passed once, and not again.
    client.write_all(b"+").await.unwrap();
    client_side.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"+");
}

#[tokio::test(start_paused = true)]
async fn t57_a_request_typed_letter_by_letter_is_still_http() {
    let Watched {
        mut client,
        mut server,
        task,
    } = watched(SOON);
    for byte in b"GET / HTTP/1.1\r\n" {
        client.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let (broken, mut client_side) = task.await.unwrap();
    assert!(matches!(broken.unwrap(), Broken::ByClient(Seen::Http1)));
    let mut read = [0; 16];
    client_side.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"GET / HTTP/1.1\r\n");
    // What the server saw of it is no request, and ends.
    let mut seen = Vec::new();
    server.read_to_end(&mut seen).await.unwrap();
    assert!(
        b"GET / HTTP/1.1\r\n".starts_with(&seen[..]) && seen.len() < 16,
        "{seen:?}"
    );
}
