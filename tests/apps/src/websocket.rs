//! WebSocket over HTTP/1.1 (RFC 6455) and over HTTP/2 (RFC 8441): `/echo` sends back, `/chat` sends to everybody.
//!
//! A text `close 4001 some reason` has the server close with that code and reason.

use anyhow::Result;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, ext::Protocol};
use hyper_util::rt::TokioIo;
use tokio::sync::broadcast;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use crate::{
    listen::{Listen, Tls},
    web::{self, AnyBody},
};

/// Messages of the chat that a slow member may be behind.
const BEHIND: usize = 256;

type Chat = broadcast::Sender<Message>;

pub async fn serve(listen: Listen) -> Result<()> {
    let (chat, _) = broadcast::channel(BEHIND);
    let handle = move |connection| {
        let chat: Chat = chat.clone();
        web::serve(connection, move |request| {
            let chat = chat.clone();
            async move { answer(request, chat) }
        })
    };
    listen.serve("websocket", Tls::IfGiven, &["http/1.1"], handle).await
}

fn answer(mut request: Request<Incoming>, chat: Chat) -> Response<AnyBody> {
    let Some(mut response) = agree(&request) else {
        return web::text(
            StatusCode::UPGRADE_REQUIRED,
            "a WebSocket is served at /echo and at /chat",
        );
    };
    let is_chat = request.uri().path() == "/chat";
    if !is_chat && request.uri().path() != "/echo" {
        return web::text(StatusCode::NOT_FOUND, "/echo and /chat are here");
    }
    // A sub-protocol that is offered is taken, so that one can see it arrive.
    let offered = request
        .headers()
        .get(header::SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok());
    if let Some(first) = offered
        .and_then(|list| list.split(',').next())
        .and_then(|name| HeaderValue::from_str(name.trim()).ok())
    {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, first);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        // An end without a closing handshake is the client's to explain.
        let _ = if is_chat {
            member(socket, chat).await
        } else {
            echo(socket).await
        };
    });
    response
}

/// The answer that agrees to a WebSocket, for a request that asks for one.
fn agree(request: &Request<Incoming>) -> Option<Response<AnyBody>> {
    let headers = request.headers();
    let mut response = Response::new(web::full(""));
    if request.version() == Version::HTTP_2 {
        let asked = request.method() == Method::CONNECT
            && request
                .extensions()
                .get::<Protocol>()
                .is_some_and(|protocol| protocol.as_str() == "websocket");
        return asked.then_some(response);
    }
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?;
    if request.method() != Method::GET || !upgrade.eq_ignore_ascii_case("websocket") || version != "13" {
        return None;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        derive_accept_key(key.as_bytes()).parse().ok()?,
    );
    Some(response)
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The code and reason of a text `close CODE REASON`.
fn wish_to_close(message: &Message) -> Option<CloseFrame> {
    let text = message
        .to_text()
        .ok()
        .filter(|_| message.is_text())?
        .strip_prefix("close ")?;
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    Some(CloseFrame {
        code: CloseCode::from(code.parse::<u16>().ok()?),
        reason: reason.into(),
    })
}

/// Pings are answered by the library, and so is the client's close, with its own code.
async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if let Some(frame) = wish_to_close(&message) {
            return close(socket, frame).await;
        }
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn member(mut socket: Socket, chat: Chat) -> Result<(), Error> {
    let mut heard = chat.subscribe();
    loop {
        tokio::select! {
            said = socket.next() => match said.transpose()? {
                None => return Ok(()),
                Some(message) => {
                    if let Some(frame) = wish_to_close(&message) {
                        return close(socket, frame).await;
                    }
                    if message.is_text() || message.is_binary() {
                        // There is a member who hears: this one.
                        let _ = chat.send(message);
                    }
                }
            },
            message = heard.recv() => match message {
                Ok(message) => socket.send(message).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
        }
    }
}

/// Closes, and waits for the client's own close.
async fn close(mut socket: Socket, frame: CloseFrame) -> Result<(), Error> {
    socket.close(Some(frame)).await?;
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}
