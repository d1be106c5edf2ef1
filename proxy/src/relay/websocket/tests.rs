//! How WebSockets end: with the pod's word, with the application's own, or as they always did.

use super::*;
use crate::{
    fault::Fault,
    io::Io,
    relay::{bytes, idle::Clocks},
};
use std::{io::ErrorKind, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
};

/// 1001, as a server says it.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
/// A text of two letters.
const FRAME: [u8; 4] = [0x81, 2, b'h', b'i'];
/// The application's own Close: 1012, it restarts.
const RESTART: [u8; 4] = [0x88, 2, 0x03, 0xf4];

struct World {
    client: Io,
    server: Io,
    /// Told when the process is about to end.
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Fault>>,
}

/// A WebSocket of an application on this side, that ends with its pod or not.
fn websocket(app: Side, is_gone: bool) -> World {
    let (client, near) = Io::pair(1024);
    let (far, server) = Io::pair(1024);
    let (leave, leaves) = oneshot::channel::<()>();
    let parting = Box::new(Parting {
        app,
        is_gone: Asked::Waits(Box::pin(async move { is_gone })),
        leaves: Some(Box::pin(async move {
            if leaves.await.is_err() {
                std::future::pending().await
            }
        })),
    });
    let task = tokio::spawn(bytes::tunnel(near, far, Clocks::default(), Some(parting), |_, _| {}));
    World {
        client,
        server,
        leave: Some(leave),
        task,
    }
}

async fn rest(io: &mut Io) -> Vec<u8> {
    let mut read = Vec::new();
    io.read_to_end(&mut read).await.unwrap();
    read
}

/// Takes the mask off a Close frame of a client: its code.
fn code(frame: &[u8]) -> u16 {
    let [0x88, 0x82, a, b, _, _, high, low] = frame else {
        panic!("{frame:?}")
    };
    u16::from_be_bytes([high ^ a, low ^ b])
}

#[tokio::test(start_paused = true)]
async fn an_application_that_ends_with_its_pod_goes_away_and_does_not_break() {
    for resets in [false, true] {
        let mut world = websocket(Side::Server, true);
        world.server.write_all(&FRAME).await.unwrap();
        let mut read = [0; 4];
        world.client.read_exact(&mut read).await.unwrap();
        if resets {
            world.server.reset();
        } else {
            drop(world.server);
        }
        assert_eq!(rest(&mut world.client).await, GOING_AWAY, "reset: {resets}");
        // As a client does, it says the same, and closes.
        let _ = world.client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]).await;
        drop(world.client);
        let _ = world.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_that_ends_alone_ends_as_it_does() {
    let mut world = websocket(Side::Server, false);
    world.server.write_all(&FRAME).await.unwrap();
    drop(world.server);
    assert_eq!(rest(&mut world.client).await, FRAME);

    let mut world = websocket(Side::Server, false);
    world.server.reset();
    let broken = world.client.read_u8().await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn what_the_application_says_itself_is_the_last_word() {
    for resets in [false, true] {
        let mut world = websocket(Side::Server, true);
        world.server.write_all(&RESTART).await.unwrap();
        let mut read = [0; 4];
        world.client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, RESTART);
        // An application that is gone at once leaves the client's answer unread: its socket resets.
        if resets {
            world.server.reset();
        } else {
            drop(world.server);
        }
        assert_eq!(rest(&mut world.client).await, [0; 0], "reset: {resets}");
        drop(world.client);
        world.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_is_never_cut_by_a_word_of_weft() {
    let mut world = websocket(Side::Server, true);
    world.server.write_all(&FRAME[..3]).await.unwrap();
    drop(world.server);
    assert_eq!(rest(&mut world.client).await, FRAME[..3]);

    let mut world = websocket(Side::Server, true);
    world.server.write_all(&FRAME[..3]).await.unwrap();
    let mut read = [0; 3];
    world.client.read_exact(&mut read).await.unwrap();
    world.server.reset();
    assert!(world.client.read_u8().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_about_to_end_tells_both_sides() {
    for app in [Side::Server, Side::Client] {
        let mut world = websocket(app, true);
        world.server.write_all(&FRAME).await.unwrap();
        let mut read = [0; 4];
        world.client.read_exact(&mut read).await.unwrap();
        world.leave.take().unwrap().send(()).unwrap();
        assert_eq!(rest(&mut world.client).await, GOING_AWAY);
        assert_eq!(code(&rest(&mut world.server).await), 1001);
        // Each answers, and nobody hears it twice.
        world
            .client
            .write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe9])
            .await
            .unwrap();
        world.server.write_all(&GOING_AWAY).await.unwrap();
        drop((world.client, world.server));
        world.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_frame_that_has_begun_is_finished_and_no_other_is_begun() {
    let mut world = websocket(Side::Server, true);
    world.server.write_all(&FRAME[..3]).await.unwrap();
    let mut read = [0; 3];
    world.client.read_exact(&mut read).await.unwrap();
    world.leave.take().unwrap().send(()).unwrap();
    assert_eq!(code(&rest(&mut world.server).await), 1001);
    let more = [&FRAME[3..], &FRAME, &FRAME].concat();
    world.server.write_all(&more).await.unwrap();
    let expected = [&FRAME[3..], &GOING_AWAY].concat();
    assert_eq!(rest(&mut world.client).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_never_finished_ends_with_the_process() {
    let mut world = websocket(Side::Server, true);
    world.server.write_all(&FRAME[..3]).await.unwrap();
    let mut read = [0; 3];
    world.client.read_exact(&mut read).await.unwrap();
    world.leave.take().unwrap().send(()).unwrap();
    tokio::time::sleep(limits::FAREWELL + Duration::from_secs(1)).await;
    assert!(world.task.is_finished());
    assert!(world.client.read_u8().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_with_its_pod_says_so_to_the_server() {
    for resets in [false, true] {
        let mut world = websocket(Side::Client, true);
        world.server.write_all(&FRAME).await.unwrap();
        let mut read = [0; 4];
        world.client.read_exact(&mut read).await.unwrap();
        if resets {
            world.client.reset();
        } else {
            drop(world.client);
        }
        assert_eq!(code(&rest(&mut world.server).await), 1001, "reset: {resets}");
        drop(world.server);
        let _ = world.task.await.unwrap();
    }
}
