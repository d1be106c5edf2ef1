//! The client's side of one exchange: what it is answered, in the version that it speaks.

use super::head::{self, Edits, Response, ToClient, Wants};
use crate::{
    endpoint::Lease,
    fault::{Blame, Fault, Reason},
    h1::Conn,
    io::{Io, Tunnel},
    record::Record,
    relay::http::{Cause, H1Half, H2Half, Half, Kept, Pump, stream::Receiver, stream::Sender},
    respond,
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderName, HeaderValue};
use std::{
    future::poll_fn,
    task::{Context, Poll},
};
use weft_proto::limits;
use weft_wire::h1::{BodyDecoder, BodyEncoder, BodyLength, RequestHead, RequestKind, Version};

/// How an exchange ended, for the client's connection.
pub enum End {
    /// It may go on with another request.
    Keep,
    /// It is closed.
    Close,
    /// It is broken off, so that nothing looks complete that is not.
    Reset,
    /// It is a tunnel to this server from now on, which takes a place at its endpoint for as long.
    Tunnel(Io, Option<Lease>),
}

/// The client of one exchange.
pub struct Client<'a> {
    /// The bodies.
    pub half: Half<'a>,
    /// What was taken from it before the answer began.
    pub kept: Kept,
    /// The request's body on its way.
    pub up: Pump,
    /// The response's body on its way.
    pub down: Pump,
    /// Fields of an answer that is weft's own.
    pub own: Vec<(HeaderName, HeaderValue)>,
    face: Face,
    /// A body follows the request's head.
    has_body: bool,
    /// The answer's head was composed.
    begun: bool,
}

enum Face {
    H1 {
        version: Version,
        kind: RequestKind,
        /// The client is ready for another request after this one.
        keep: bool,
        /// It waits for 100 before it sends its body.
        expects: bool,
    },
    H2 {
        /// Until the answer's head is sent.
        respond: Option<SendResponse<Bytes>>,
        mesh: bool,
        is_grpc: bool,
    },
}

impl<'a> Client<'a> {
    /// A request on an HTTP/1 connection. `closing`: no other request is taken after it.
    pub fn h1(conn: &'a mut Conn, head: &RequestHead, closing: bool) -> Self {
        let mut half = H1Half::new(conn);
        half.decoder = BodyDecoder::request(head.body());
        let expects = head.expects_continue() && half.conn.unread.is_empty();
        let keep = head.keep_alive() && !closing && head.upgrade().is_none() && !head.is_connect();
        Self::new(
            Half::H1(half),
            Face::H1 {
                version: head.version(),
                kind: head.kind(),
                keep,
                expects,
            },
        )
    }

    /// A request on an HTTP/2 stream. `mesh`: from a weft.
    pub fn h2(
        body: RecvStream,
        respond: SendResponse<Bytes>,
        expected: Option<u64>,
        mesh: bool,
        is_grpc: bool,
    ) -> Client<'static> {
        let receiver = Some(Receiver::new(body));
        let half = H2Half {
            receiver,
            sender: None,
            expected,
        };
        Client::new(
            Half::H2(half),
            Face::H2 {
                respond: Some(respond),
                mesh,
                is_grpc,
            },
        )
    }

    fn new(half: Half<'a>, face: Face) -> Self {
        let has_body = match &half {
            Half::H1(half) => !half.decoder.is_end(),
            Half::H2(half) => half.receiver.as_ref().is_some_and(|receiver| !receiver.is_over()),
        };
        Self {
            half,
            kept: Kept::default(),
            up: Pump::default(),
            down: Pump::default(),
            own: Vec::new(),
            face,
            has_body,
            begun: false,
        }
    }

    /// Whether a body follows the request's head.
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whether the answer's head was composed.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it speaks HTTP/1.
    pub fn is_h1(&self) -> bool {
        matches!(self.face, Face::H1 { .. })
    }

    /// Whether it waits for 100 before it sends its body.
    pub fn expects(&self) -> bool {
        matches!(self.face, Face::H1 { expects: true, .. })
    }

    /// It need not wait any longer. `tell`: nobody else has told it.
    pub fn go_on(&mut self, tell: bool) {
        if let (Face::H1 { expects, .. }, Half::H1(half)) = (&mut self.face, &mut self.half)
            && std::mem::take(expects)
            && tell
        {
            half.conn.put(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Looks whether the client went away while nothing is wanted from it.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        match (&mut self.half, &mut self.face) {
            (Half::H1(half), _) => half
                .conn
                .poll_broken(cx)
                .map(|error| Fault::because(Reason::ClientGone, error)),
            (Half::H2(half), Face::H2 { respond, .. }) => {
                let reset = match (&mut half.sender, respond) {
                    (Some(sender), _) if sender.is_over() => Poll::Pending,
                    (Some(sender), _) => sender.poll_reset(cx),
                    (None, Some(respond)) => respond.poll_reset(cx),
                    (None, None) => Poll::Pending,
                };
                reset.map(|reason| match reason {
                    Ok(reason) => Fault::because(Reason::ClientGone, h2::Error::from(reason)),
                    Err(error) => Fault::because(Reason::ClientGone, error),
                })
            }
            (Half::H2(_), Face::H1 { .. }) => Poll::Pending,
        }
    }

    /// Holds what comes before the answer that it is meant for, as far as [`limits::EARLY`].
    pub fn hold_early(&mut self, cx: &mut Context<'_>) {
        if let Half::H2(H2Half {
            receiver: Some(receiver),
            ..
        }) = &mut self.half
        {
            receiver.take_in_up_to(cx, limits::EARLY);
        }
    }

    /// Passes an interim head on. HTTP/1.0 knows none.
    pub fn interim(&mut self, response: Response) -> Result<(), Fault> {
        match (&mut self.face, &mut self.half) {
            (
                Face::H1 {
                    version: Version::H10, ..
                },
                _,
            ) => {}
            (
                Face::H1 {
                    version, kind, expects, ..
                },
                Half::H1(half),
            ) => {
                if response.status() == 100 {
                    *expects = false;
                }
                let how = ToClient {
                    version: *version,
                    kind: *kind,
                    close: false,
                    tunnel: false,
                    upgrade: None,
                    edits: Edits::default(),
                };
                response.encode(&how, false, half.conn.compose());
            }
            (
                Face::H2 {
                    respond: Some(respond),
                    mesh,
                    ..
                },
                _,
            ) => {
                let response = response.into_h2(Edits::default(), *mesh);
                respond
                    .send_informational(response)
                    .map_err(|error| Fault::because(Reason::ClientGone, error))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Begins the answer: its head is composed, and its body can follow. `over`: none does. `last`: the connection takes
    /// no other request after it.
    pub fn answer(
        &mut self,
        response: Response,
        wants: &Wants,
        edits: Edits<'_>,
        over: bool,
        last: bool,
        record: &mut Record,
    ) -> Result<(), Fault> {
        record.status(response.status());
        match (&mut self.face, &mut self.half) {
            (
                Face::H1 {
                    version,
                    kind,
                    keep,
                    expects,
                },
                Half::H1(half),
            ) => {
                // A client that still waits with its body may send it or not: nobody knows what comes next.
                let close = !*keep || last || *expects || half.conn.has_ended();
                let how = ToClient {
                    version: *version,
                    kind: *kind,
                    close,
                    tunnel: false,
                    upgrade: None,
                    edits,
                };
                let (length, close) = response.encode(&how, over, half.conn.compose());
                half.encoder = BodyEncoder::new(length);
                *keep = !close;
            }
            (Face::H2 { respond, mesh, .. }, Half::H2(half)) => {
                let is_refused = matches!(wants, Wants::Upgrade(_)) && (200..300).contains(&response.status());
                if is_refused && !*mesh {
                    return Err(Fault::because(
                        Reason::BadUpgrade,
                        "the server answered an Upgrade without it",
                    ));
                }
                if let Some(status) = response.grpc_status() {
                    record.grpc_status(status);
                }
                let mut response = response.into_h2(edits, *mesh);
                if is_refused {
                    head::refuse_upgrade(&mut response);
                }
                half.sender = Some(send(respond, response, over)?);
            }
            _ => {}
        }
        self.begun = true;
        Ok(())
    }

    /// Opens the tunnel: 101 with the same protocol over HTTP/1, 200 over HTTP/2.
    pub fn switch(
        &mut self,
        response: Response,
        wants: &Wants,
        edits: Edits<'_>,
        key_is_ours: bool,
        record: &mut Record,
    ) -> Result<(), Fault> {
        let upgrade = match wants {
            Wants::Upgrade(token) => Some(token.as_str()),
            _ => None,
        };
        match (&mut self.face, &mut self.half) {
            (Face::H1 { version, kind, .. }, Half::H1(half)) => {
                let response = if upgrade.is_some() {
                    response.into_101()
                } else {
                    response
                };
                record.status(response.status());
                let how = ToClient {
                    version: *version,
                    kind: *kind,
                    close: false,
                    tunnel: true,
                    upgrade,
                    edits,
                };
                response.encode(&how, true, half.conn.compose());
                half.encoder = BodyEncoder::new(BodyLength::UntilClose);
            }
            (Face::H2 { respond, mesh, .. }, Half::H2(half)) => {
                record.status(200);
                let mut response = response.into_switched(*mesh);
                if key_is_ours {
                    response.headers_mut().remove(http::header::SEC_WEBSOCKET_ACCEPT);
                }
                edits.apply(response.headers_mut());
                half.sender = Some(send(respond, response, false)?);
            }
            _ => {}
        }
        self.begun = true;
        Ok(())
    }

    /// Answers in place of a backend, without a body: a redirect, or what a preflight asked.
    pub async fn own(&mut self, status: u16, fields: &[(HeaderName, HeaderValue)], record: &mut Record) -> End {
        record.status(status);
        self.begun = true;
        match (&mut self.face, &mut self.half) {
            (
                Face::H1 {
                    version, kind, keep, ..
                },
                Half::H1(half),
            ) => {
                let close = !*keep || !half.decoder.is_end();
                let answer = respond::Answer {
                    version: *version,
                    is_head: *kind == RequestKind::Head,
                    close,
                    status: Some(status),
                    fields,
                };
                answer.empty(half.conn.compose());
                self.written(close).await
            }
            (Face::H2 { respond, .. }, _) => {
                let mut response = http::Response::new(());
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::NO_CONTENT);
                response.headers_mut().extend(fields.iter().cloned());
                // The stream may be gone already.
                let _ = send(respond, response, true);
                End::Keep
            }
            _ => End::Reset,
        }
    }

    /// Tells the client that its request failed: with an answer where none had begun, else by breaking off.
    pub async fn fail(&mut self, fault: &Fault, record: &mut Record) -> End {
        record.fault(fault);
        let is_gone = matches!(fault.reason, Reason::ClientGone);
        match (&mut self.face, &mut self.half) {
            (
                Face::H1 {
                    version, kind, keep, ..
                },
                Half::H1(half),
            ) => {
                if self.begun || is_gone {
                    return End::Reset;
                }
                let is_broken = fault.blame == Blame::Client && fault.reason == Reason::BadRequestBody;
                let close = !*keep || !half.decoder.is_end() || is_broken;
                let answer = respond::Answer {
                    version: *version,
                    is_head: *kind == RequestKind::Head,
                    close,
                    status: None,
                    fields: &self.own,
                };
                record.status(fault.reason.status());
                answer.fault(fault.reason, half.conn.compose());
                self.written(close).await
            }
            (Face::H2 { respond, mesh, is_grpc }, Half::H2(half)) => {
                let code = respond::reset_code(fault);
                if half.sender.is_some() && !is_gone {
                    // A reset throws away what h2 has not written: what the server said before it broke off goes first.
                    let _ = poll_fn(|cx| Poll::Ready(half.sender.as_mut().map(|sender| sender.poll_flush(cx)))).await;
                    for _ in 0..TURNS {
                        tokio::task::yield_now().await;
                    }
                }
                match (&mut half.sender, respond.take()) {
                    (Some(sender), _) => sender.reset(code),
                    (None, None) => {}
                    (None, Some(mut respond)) if is_gone || is_reset(fault, *mesh) => respond.send_reset(code),
                    (None, Some(mut respond)) => {
                        let (mut response, text) = respond::over_h2(fault.reason, *is_grpc);
                        response.headers_mut().extend(self.own.iter().cloned());
                        record.status(response.status().as_u16());
                        if *is_grpc {
                            record.grpc_status(fault.reason.grpc() as u32);
                        }
                        let sent = respond.send_response(response, text.is_none());
                        if let (Ok(mut stream), Some(text)) = (sent, text) {
                            // The stream may be gone already.
                            let _ = stream.send_data(text.into(), true);
                        }
                    }
                }
                End::Keep
            }
            _ => End::Reset,
        }
    }

    async fn written(&mut self, close: bool) -> End {
        match poll_fn(|cx| self.half.poll_flush(cx)).await {
            Err(_) => End::Reset,
            Ok(()) if close => End::Close,
            Ok(()) => End::Keep,
        }
    }

    /// How the exchange ended after everything was written.
    pub fn end(&self) -> End {
        match (&self.face, &self.half) {
            (Face::H1 { keep: true, .. }, Half::H1(half)) if half.decoder.is_end() => End::Keep,
            (Face::H1 { .. }, _) => End::Close,
            (Face::H2 { .. }, _) => End::Keep,
        }
    }

    /// The client's stream as a tunnel; none over HTTP/1, where it is the whole connection.
    pub fn into_tunnel(self) -> Option<Io> {
        match self.half {
            Half::H1(_) => None,
            Half::H2(half) => {
                let (stream, ahead) = half.receiver?.into_parts();
                let mut io = Io::tunnel(Tunnel::new(half.sender?.into_stream(), stream, None));
                io.unread(ahead);
                Some(io)
            }
        }
    }
}

/// Turns that a connection's task is given to write what is queued.
const TURNS: usize = 4;

/// Whether a stream is reset instead of answered: the server's own reset goes on as it is, and another weft is told that
/// it may try elsewhere.
fn is_reset(fault: &Fault, mesh: bool) -> bool {
    let is_malformed = matches!(fault.reason, Reason::BadRequestBody | Reason::BadMeshField);
    fault.reason == Reason::ServerReset || is_malformed || (mesh && fault.may_replay())
}

fn send(respond: &mut Option<SendResponse<Bytes>>, response: http::Response<()>, over: bool) -> Result<Sender, Fault> {
    let mut respond = respond
        .take()
        .ok_or_else(|| Fault::because(Reason::Internal, "a request was answered twice"))?;
    let stream = respond
        .send_response(response, over)
        .map_err(|error| Fault::because(Reason::ClientGone, error))?;
    Ok(if over {
        Sender::over(stream)
    } else {
        Sender::new(stream)
    })
}

/// What a broken request body means.
pub fn broken(cause: Cause) -> Fault {
    match cause {
        cause @ (Cause::Refused(_) | Cause::Length) => Fault::because(Reason::BadRequestBody, cause),
        Cause::Cut => Fault::because(Reason::BadRequestBody, Cause::Cut),
        Cause::Io(error) => Fault::because(Reason::ClientGone, error),
        Cause::H2(error) => Fault::because(Reason::ClientGone, error),
    }
}
