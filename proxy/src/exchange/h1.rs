//! Requests of an HTTP/1 client, one after the other: heads in time, keep-alive, pipelining, the end of the connection.

use super::{
    client::{Client, End},
    head::Request,
    record, run,
};
use crate::{
    authorize,
    connection::Connection,
    fault::{Fault, Reason},
    h1::Conn,
    io::Io,
    record::{Protocol, Record},
    relay::upgrade,
    respond,
};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};
use weft_proto::limits;
use weft_service::drain::Phase;
use weft_wire::h1::{Refused, RequestHead, Scan, Version};

/// Serves a client's HTTP/1 connection until its end.
pub async fn serve(io: Io, connection: Arc<Connection>) {
    let mut conn = Conn::new(io);
    let mut wait = Wait::new(&connection);
    loop {
        let head = match poll_fn(|cx| wait.poll_head(&mut conn, cx)).await {
            Ok(Some(head)) => head,
            Ok(None) => return drop(Box::pin(conn.shutdown()).await),
            Err(refused) => return Box::pin(refuse(conn, refused, &connection)).await,
        };
        // What a request needs is in a future of its own, so that an idle connection holds little.
        match Box::pin(one(&mut conn, head, &connection)).await {
            (End::Keep, _) => {}
            (End::Close, _) => return Box::pin(conn.linger()).await,
            (End::Reset, _) => return conn.reset(),
            (End::Tunnel(server, lease), Some(record)) => {
                return Box::pin(upgrade::carry(conn.into_io(), server, *record, lease, connection)).await;
            }
            (End::Tunnel(server, _), None) => {
                server.reset();
                return conn.reset();
            }
        }
    }
}

/// One request. The record comes back where it goes on with a tunnel.
async fn one(conn: &mut Conn, head: RequestHead, connection: &Arc<Connection>) -> (End, Option<Box<Record>>) {
    let closing = connection.drain().phase() > Phase::Running || authorize::takes_one_request(connection);
    let mut client = Client::h1(conn, &head, closing);
    let mut request = Request::H1(head);
    let wants = request.wants();
    let mut record = record(&request, &wants, connection);
    let end = run(&mut client, &mut request, &wants, connection, &mut record).await;
    if matches!(end, End::Tunnel(..)) {
        return (end, Some(Box::new(record)));
    }
    record.close();
    (end, None)
}

/// Why there will be no head.
enum NoHead {
    Refused(Refused),
    /// It did not come in time; whether anything of it did.
    Late(bool),
    Broken(std::io::Error),
}

/// What is kept between requests.
struct Wait {
    scan: Scan,
    timer: Pin<Box<Sleep>>,
    /// The timer runs for a head that has begun.
    has_begun: bool,
    /// The timer was set since the last request.
    is_set: bool,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_draining: bool,
    is_first: bool,
}

impl Wait {
    fn new(connection: &Connection) -> Self {
        let signal = connection.drain().clone();
        Self {
            scan: Scan::default(),
            timer: Box::pin(sleep(limits::HEAD_TIME)),
            has_begun: false,
            is_set: false,
            draining: Box::pin(async move { signal.draining().await }),
            is_draining: false,
            is_first: true,
        }
    }

    fn set(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
        self.is_set = true;
    }

    /// The next head; none when the connection has come to its end between two requests.
    fn poll_head(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<Result<Option<RequestHead>, NoHead>> {
        loop {
            if !conn.unread.is_empty() {
                match RequestHead::parse(conn.unread.bytes(), &mut self.scan) {
                    Ok(Some((head, used))) => {
                        conn.unread.used(used);
                        (self.has_begun, self.is_set, self.is_first) = (false, false, false);
                        return Poll::Ready(Ok(Some(head)));
                    }
                    Ok(None) => {}
                    Err(refused) => return Poll::Ready(Err(NoHead::Refused(refused))),
                }
            }
            match conn.poll_fill(cx, limits::HEAD + 8) {
                Poll::Ready(Ok(0)) if conn.unread.is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(NoHead::Broken(std::io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(NoHead::Broken(error))),
                Poll::Pending => {}
            }
            let has_begun = !conn.unread.is_empty();
            if !self.is_set || has_begun != self.has_begun {
                self.has_begun = has_begun;
                self.set(if has_begun {
                    limits::HEAD_TIME
                } else {
                    limits::CLIENT_IDLE
                });
            }
            if !self.is_draining && self.draining.as_mut().poll(cx).is_ready() {
                self.is_draining = true;
            }
            // The first request of a connection is still taken: its client cannot know.
            if self.is_draining && !has_begun && !self.is_first {
                return Poll::Ready(Ok(None));
            }
            return match self.timer.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(NoHead::Late(has_begun))),
                Poll::Pending => Poll::Pending,
            };
        }
    }
}

/// Answers what is no request, and closes.
async fn refuse(mut conn: Conn, no: NoHead, connection: &Arc<Connection>) {
    let (fault, status) = match no {
        // Nobody waits for an answer.
        NoHead::Late(false) => return drop(conn.shutdown().await),
        NoHead::Late(true) => (Fault::new(Reason::HeadTimeout), None),
        NoHead::Broken(error) => {
            let mut record = Record::exchange(connection.facts.clone());
            record.protocol(Protocol::Http1);
            record.fault(&Fault::because(Reason::ClientGone, error));
            record.close();
            return conn.reset();
        }
        NoHead::Refused(refused) => {
            let reason = match refused.status() {
                414 => Reason::TargetTooLarge,
                431 => Reason::HeadTooLarge,
                505 => Reason::HttpVersion,
                _ => Reason::BadRequest,
            };
            if reason == Reason::HeadTooLarge {
                crate::metrics::limit_reached(if refused == Refused::TooManyFields {
                    "FIELDS"
                } else {
                    "HEAD"
                });
            }
            (Fault::because(reason, refused), Some(refused.status()))
        }
    };
    let mut record = Record::exchange(connection.facts.clone());
    record.protocol(Protocol::Http1);
    record.status(status.unwrap_or(fault.reason.status()));
    record.fault(&fault);
    record.close();
    let answer = respond::Answer {
        version: Version::H11,
        is_head: false,
        close: true,
        status,
        fields: &[],
    };
    answer.fault(fault.reason, conn.compose());
    conn.unread.clear();
    conn.linger().await;
}
