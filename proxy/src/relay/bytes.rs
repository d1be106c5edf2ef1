//! Bytes both ways, unread and unchanged: FIN, RST, half-close and back-pressure cross as they came.
//!
//! A buffer belongs to the thread and is held only while bytes are in it, so that a silent connection costs none; it is
//! larger where much has gone through. A side that is reset resets the other one, after what it had said before was
//! handed on where that is still possible. A WebSocket is looked at on its way, and ends with a word where it can.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_proto::limits;

use super::{
    idle::{Clocks, Idle},
    websocket::{
        Parting,
        frames::{Close, Frames},
    },
};
use crate::{
    fault::{Blame, Fault, Reason},
    io::Io,
};

/// Whose bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client to the server.
    Client,
    /// From the server to the client.
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Buffers to begin with, and for connections that carry much.
const SIZES: [usize; 2] = [8 << 10, limits::RELAY];
/// A direction that has carried this much is given the larger buffer.
const MUCH: u64 = 128 << 10;
/// Spare buffers that a thread keeps, of each size.
const SPARE: [usize; 2] = [64, 16];

thread_local! {
    static POOL: RefCell<[Vec<Box<[u8]>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A buffer from the thread's pool, given back when it is dropped.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn take(size: usize) -> Self {
        let bytes = POOL
            .with_borrow_mut(|pool| pool[size].pop())
            .unwrap_or_else(|| vec![0; SIZES[size]].into_boxed_slice());
        Self {
            bytes,
            start: 0,
            end: 0,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let size = usize::from(bytes.len() == SIZES[1]);
        // A thread that is ending has no pool any more.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool[size].len() < SPARE[size]
            {
                pool[size].push(bytes);
            }
        });
    }
}

/// One direction.
#[derive(Default)]
struct Half {
    buffer: Option<Buffer>,
    moved: u64,
    /// The source has ended.
    ended: bool,
    /// The end was handed on, or the direction was given up.
    done: bool,
    unflushed: bool,
    /// The sink takes no more: what the source still says is read and dropped, until it ends.
    discards: bool,
    /// Of a WebSocket.
    frames: Option<Frames>,
    /// Of a WebSocket whose source is the pod's own application.
    asks: bool,
    farewell: Farewell,
}

/// How far weft is with a word of its own, behind which the sink hears no more.
#[derive(Default)]
enum Farewell {
    /// There is none.
    #[default]
    No,
    /// The source has ended without a word, cleanly or not; whether there is one is still to be found out.
    Asked(Option<io::Error>),
    /// To be said when the frame that has begun is over.
    Due(Close),
    /// On its way.
    Saying(Close),
    /// Said; the sink's end comes next.
    Said,
    /// The sink has its end. What the source still says is read and dropped.
    Over,
}

/// Why a direction stopped before its end.
enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

impl Half {
    /// The sink is gone.
    fn discard(&mut self) {
        (self.discards, self.buffer, self.unflushed) = (true, None, false);
        if self.ended {
            self.done = true;
        }
    }

    /// Whether the sink has heard, of whomever, that nothing more comes.
    fn has_parted(&self) -> bool {
        matches!(self.farewell, Farewell::Said | Farewell::Over) || self.frames.as_ref().is_some_and(Frames::is_closed)
    }

    /// Whether a Close frame may be said in the source's place.
    fn may_close(&self) -> bool {
        matches!(self.farewell, Farewell::No) && self.frames.as_ref().is_some_and(Frames::may_close)
    }

    /// Says this as soon as it cuts nothing, unless the source has said so itself.
    fn part(&mut self, close: Close) {
        let is_free = matches!(self.farewell, Farewell::No | Farewell::Asked(_));
        if is_free && !self.done && !self.discards && self.frames.as_ref().is_some_and(|frames| !frames.is_closed()) {
            self.farewell = Farewell::Due(close);
        }
    }

    /// Says what is due. Pending where the sink does not take it yet.
    fn poll_farewell(&mut self, to: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            match &mut self.farewell {
                Farewell::Due(close) => {
                    let is_free = self.frames.as_ref().is_some_and(Frames::may_close);
                    self.farewell = match is_free {
                        true => Farewell::Saying(*close),
                        // The frame is not over: there may be more of it.
                        false if !self.ended => return Poll::Ready(Ok(())),
                        false => Farewell::No,
                    };
                }
                Farewell::Saying(close) => {
                    let count = ready!(Pin::new(&mut *to).poll_write(cx, close.rest())).map_err(Broken::Sink)?;
                    if count == 0 {
                        return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into())));
                    }
                    close.written(count);
                    if close.rest().is_empty() {
                        self.farewell = Farewell::Said;
                    }
                }
                Farewell::Said => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::Sink)?;
                    (self.farewell, self.unflushed) = (Farewell::Over, false);
                }
                Farewell::Asked(_) => return Poll::Pending,
                Farewell::No | Farewell::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Moves what can be moved. Ready when the end was handed on.
    fn poll(
        &mut self,
        from: &mut Io,
        to: &mut Io,
        cx: &mut Context<'_>,
        moved: &mut dyn FnMut(u64),
    ) -> Poll<Result<(), Broken>> {
        loop {
            if let (Farewell::Due(_), Some(frames), Some(buffer)) = (&self.farewell, &self.frames, &mut self.buffer)
                && let Some(rest) = frames.rest(&buffer.bytes[buffer.start..buffer.end])
            {
                // Frames that have not begun are not begun any more.
                buffer.end = buffer.start + rest;
            }
            if let Some(buffer) = &mut self.buffer {
                while buffer.start < buffer.end {
                    match Pin::new(&mut *to).poll_write(cx, &buffer.bytes[buffer.start..buffer.end]) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into()))),
                        Poll::Ready(Ok(n)) => {
                            if let Some(frames) = &mut self.frames {
                                frames.see(&buffer.bytes[buffer.start..buffer.start + n]);
                            }
                            buffer.start += n;
                            self.moved += n as u64;
                            self.unflushed = true;
                            moved(n as u64);
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Sink(error))),
                        Poll::Pending => {
                            from.poll_take_in(cx);
                            return Poll::Pending;
                        }
                    }
                }
                self.buffer = None;
            }
            if self.frames.is_some() && !self.discards {
                ready!(self.poll_farewell(to, cx))?;
            }
            let discards = self.discards || matches!(self.farewell, Farewell::Over);
            if self.ended && discards {
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::Sink)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = Buffer::take(usize::from(self.moved >= MUCH));
            let mut read = ReadBuf::new(&mut buffer.bytes);
            match Pin::new(&mut *from).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => match read.filled().len() {
                    0 => {
                        self.ended = true;
                        if self.asks && self.may_close() {
                            self.farewell = Farewell::Asked(None);
                        }
                    }
                    _ if discards => {}
                    n => {
                        buffer.end = n;
                        self.buffer = Some(buffer);
                    }
                },
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Source(error))),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::Sink)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Carries bytes until both sides have ended. `moved` is told of every piece, when it was handed on.
///
/// An error has been passed on to both sides already: a reset as a reset, silence for too long as a reset too.
pub async fn bytes(client: Io, server: Io, clocks: Clocks, moved: impl FnMut(Side, u64)) -> Result<(), Fault> {
    tunnel(client, server, clocks, None, moved).await
}

/// What is said in the place of this side.
fn close_from(side: Side) -> Close {
    match side {
        Side::Client => Close::from_client(),
        Side::Server => Close::from_server(),
    }
}

/// The same for a tunnel that began with an Upgrade; `parting` where that was a WebSocket.
pub async fn tunnel(
    mut client: Io,
    mut server: Io,
    clocks: Clocks,
    mut parting: Option<Box<Parting>>,
    mut moved: impl FnMut(Side, u64),
) -> Result<(), Fault> {
    let app = parting.as_ref().map(|parting| parting.app());
    let half = |side| Half {
        frames: app.map(|_| Frames::default()),
        asks: app == Some(side),
        ..Half::default()
    };
    let (mut up, mut down) = (half(Side::Client), half(Side::Server));
    let mut idle = Idle::start(clocks);
    // The first thing that broke; the other direction may still have something to hand on.
    let mut broken: Option<Fault> = None;
    let mut lingers = false;
    let ended = poll_fn(|cx| {
        let mut active = false;
        if let Some(parting) = &mut parting
            && parting.poll_leaves(cx).is_ready()
        {
            up.part(close_from(Side::Client));
            down.part(close_from(Side::Server));
            idle.linger(limits::FAREWELL);
        }
        for side in [Side::Client, Side::Server] {
            let (half, back, from, to) = match side {
                Side::Client => (&mut up, &mut down, &mut client, &mut server),
                Side::Server => (&mut down, &mut up, &mut server, &mut client),
            };
            if half.done {
                continue;
            }
            let mut told = |n| {
                active = true;
                moved(side, n);
            };
            let mut polled = half.poll(from, to, cx, &mut told);
            if let Poll::Ready(Err(Broken::Sink(error))) = polled {
                half.discard();
                broken.get_or_insert(fault(side.other(), error));
                polled = half.poll(from, to, cx, &mut told);
            }
            if let (Some(parting), true) = (&mut parting, half.frames.is_some()) {
                polled = match polled {
                    // Who has said Close may end as it likes: the other side hears of an end.
                    Poll::Ready(Err(Broken::Source(_))) if half.has_parted() => {
                        half.ended = true;
                        back.discard();
                        half.poll(from, to, cx, &mut told)
                    }
                    Poll::Ready(Err(Broken::Source(error))) if half.asks && half.may_close() => {
                        half.ended = true;
                        back.discard();
                        half.farewell = Farewell::Asked(Some(error));
                        Poll::Pending
                    }
                    polled => polled,
                };
                if let Farewell::Asked(error) = &mut half.farewell
                    && let Poll::Ready(is_gone) = parting.poll_gone(cx)
                {
                    let error = error.take();
                    if is_gone {
                        half.part(close_from(side));
                    } else if let Some(error) = error {
                        return Poll::Ready(Err(fault(side, error)));
                    } else {
                        half.farewell = Farewell::No;
                    }
                    polled = half.poll(from, to, cx, &mut told);
                }
            }
            match polled {
                Poll::Ready(Ok(())) => idle.half_closed(),
                Poll::Ready(Err(Broken::Source(error) | Broken::Sink(error))) => {
                    return Poll::Ready(Err(fault(side, error)));
                }
                Poll::Pending => {}
            }
        }
        if up.done && down.done {
            return Poll::Ready(Ok(()));
        }
        // Who hears nothing any more and says nothing that could be handed on is gone: the server is told at once.
        if up.done && down.discards && !up.has_parted() {
            return Poll::Ready(Err(Fault::new(Reason::ClientGone)));
        }
        // The client has the whole answer. It is given time to take it before it learns that nobody hears it. So is a
        // server that was told why.
        let server_waits = up.done && down.discards;
        if (down.done && up.discards || server_waits) && !std::mem::replace(&mut lingers, true) {
            idle.linger(limits::LINGER);
        }
        // A side that has nothing more to say can still be reset.
        if up.done
            && let Poll::Ready(error) = client.poll_reset(cx)
        {
            return Poll::Ready(Err(fault(Side::Client, error)));
        }
        if down.done
            && !up.discards
            && let Poll::Ready(error) = server.poll_reset(cx)
        {
            if error.kind() != io::ErrorKind::BrokenPipe {
                return Poll::Ready(Err(fault(Side::Server, error)));
            }
            up.discard();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if active {
            idle.restart();
        }
        idle.poll(cx).map(|()| Err(Fault::new(Reason::Idle)))
    })
    .await;
    if ended.is_err() {
        client.reset();
        server.reset();
    }
    // What broke first says more than what came of it.
    match (ended, broken) {
        (Ok(()), None) => Ok(()),
        (Err(fault), None) | (_, Some(fault)) => Err(fault),
    }
}

fn fault(side: Side, error: io::Error) -> Fault {
    match side {
        Side::Client => Fault::because(Reason::ClientGone, error),
        Side::Server => Fault::because(Reason::ServerReset, error).blaming(Blame::Server),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
        time::sleep,
    };

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// How it ended, and how many bytes went each way.
    type Ended = (Result<(), Fault>, u64, u64);

    fn relay(clocks: Clocks) -> (Io, Io, JoinHandle<Ended>) {
        let (client, near) = Io::pair(64);
        let (far, server) = Io::pair(64);
        let task = tokio::spawn(async move {
            let (mut received, mut sent) = (0, 0);
            let ended = bytes(near, far, clocks, |side, n| match side {
                Side::Client => received += n,
                Side::Server => sent += n,
            });
            let ended = ended.await;
            (ended, received, sent)
        });
        (client, server, task)
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_restarts_the_idle_clock() {
        let (mut client, mut server, task) = relay(Clocks {
            open: MINUTE,
            half_closed: MINUTE,
        });
        for byte in 0..10 {
            sleep(MINUTE - SECOND).await;
            client.write_u8(byte).await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), byte);
        }
        let (ended, received, sent) = task.await.unwrap();
        assert_eq!((ended.unwrap_err().reason, received, sent), (Reason::Idle, 10, 0));
        assert_eq!(
            server.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_silence_does_no_harm_and_a_day_ends_it() {
        let (mut client, mut server, task) = relay(Clocks::default());
        sleep(60 * MINUTE).await;
        server.write_all(b"still here").await.unwrap();
        let mut read = [0; 10];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"still here");
        sleep(limits::TUNNEL_IDLE - SECOND).await;
        assert!(!task.is_finished());
        sleep(2 * SECOND).await;
        assert!(task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn t13_each_end_crosses_by_itself() {
        let (mut client, mut server, task) = relay(Clocks::default());
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"question");
        sleep(MINUTE).await;
        server
            .write_all(b"a long answer that does not fit into the pipe at once, so that it takes several turns")
            .await
            .unwrap();
        drop(server);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 85);
        let (ended, received, sent) = task.await.unwrap();
        ended.unwrap();
        assert_eq!((received, sent), (8, 85));
    }

    #[tokio::test(start_paused = true)]
    async fn t13_a_reset_crosses_in_either_direction() {
        let (client, mut server, task) = relay(Clocks::default());
        client.reset();
        assert_eq!(
            server.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::ClientGone);

        let (mut client, server, task) = relay(Clocks::default());
        server.reset();
        assert_eq!(
            client.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::ServerReset);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_said_before_it_broke_off_still_arrives() {
        let (mut client, mut server, task) = relay(Clocks::default());
        server.write_all(b"go away").await.unwrap();
        drop(server);
        // The client goes on sending to a server that is gone.
        let _ = client.write_all(b"more and more").await;
        let mut read = [0; 7];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"go away");
        drop(client);
        let _ = task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_on_talking_to_a_server_that_has_said_all_loses_nothing_of_it() {
        let (mut client, mut server, task) = relay(Clocks::default());
        server.write_all(b"all").await.unwrap();
        drop(server);
        // More than the pipes hold: it is read, and goes nowhere.
        client.write_all(&[0; 1000]).await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"all");
        // And in the end it is told.
        sleep(limits::LINGER + SECOND).await;
        assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::ServerReset);
        assert!(client.write_all(b"more").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_learns_at_once_that_its_client_is_gone() {
        let (mut client, mut server, task) = relay(Clocks::default());
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        drop(client);
        server.write_all(b"nobody hears this").await.unwrap();
        assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::ClientGone);
        assert!(server.write_all(&[0; 1000]).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_half_may_stay_open_for_an_hour_only() {
        let (mut client, mut server, task) = relay(Clocks::default());
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        sleep(limits::HALF_CLOSED - SECOND).await;
        assert!(!task.is_finished());
        sleep(2 * SECOND).await;
        assert_eq!(task.await.unwrap().0.unwrap_err().reason, Reason::Idle);
    }

    #[tokio::test]
    async fn bulk_arrives_whole_through_a_slow_reader() {
        let (mut client, mut server, task) = relay(Clocks::default());
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert!(read == expected);
        drop(server);
        drop(writer.await.unwrap());
        assert_eq!(task.await.unwrap().1, 300_000);
    }
}
