//! A connection to a gateway's port: what it begins with, whose TLS it is, and which listener takes it.
//!
//! A connection that no listener takes is broken off without a word of TLS: there is no certificate that could speak for it.

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};
use weft_proto::{limits, rpc::discovery::ListenerProtocol};
use weft_route::Ask;
use weft_wire::hello::Hello;

use super::{Connection, Known, Toward, failed, pass, served};
use crate::{
    accept::Place,
    app::Shared,
    detect::{self, Seen},
    fault::{Fault, Reason},
    front::{At, Listener, Open, PortKind, content::Digest},
    hop::tcp,
    io::Io,
    record::{Direction, Facts, Record},
    terminate,
};

/// A connection as a port of the gateway accepted it.
pub fn accepted(
    stream: TcpStream,
    client: SocketAddr,
    open: Arc<Open>,
    shared: Arc<Shared>,
    place: Place,
) -> impl Future<Output = ()> + Send + 'static {
    // Boxed apart: what looking takes is given back before the connection begins to be idle.
    served(Box::pin(begin(stream, client, open, shared)), place)
}

async fn begin(stream: TcpStream, client: SocketAddr, open: Arc<Open>, shared: Arc<Shared>) -> Option<Known> {
    tcp::prepare(&stream);
    if open.kind != PortKind::Tcp {
        tcp::prepare_stranger(&stream);
    }
    // One that is gone already has no address, and nobody to be served.
    let local = stream.local_addr().ok()?;
    let facts = Facts::new(Direction::Gateway, client, local, None, false);
    look(Io::socket(stream), facts, open, shared).await
}

/// Serves a client of a gateway's port until its end, whatever carries its bytes.
pub async fn serve(io: Io, facts: Arc<Facts>, open: Arc<Open>, shared: Arc<Shared>) {
    let looked = Box::pin(look(io, facts, open, shared)).await;
    if let Some((serving, record)) = looked.and_then(pass) {
        serving.await;
        if let Some(record) = record {
            record.close();
        }
    }
}

fn leads_somewhere(listener: &Listener, hello: &Hello) -> Result<(), Fault> {
    let ask = Ask::Tls {
        sni: hello.sni.as_deref(),
    };
    listener.destination.take_bytes(&ask).map(drop)
}

/// A client that is being looked at.
struct Client {
    io: Io,
    facts: Arc<Facts>,
    open: Arc<Open>,
    shared: Arc<Shared>,
    began: Instant,
}

async fn look(io: Io, facts: Arc<Facts>, open: Arc<Open>, shared: Arc<Shared>) -> Option<Known> {
    let kind = open.kind;
    let client = Client {
        io,
        facts,
        open,
        shared,
        began: Instant::now(),
    };
    match kind {
        PortKind::Http => client.http().await,
        PortKind::Tls => client.tls().await,
        // The server may speak first.
        PortKind::Tcp => {
            let at = At::plain(client.open.clone());
            Some(client.known(Seen::Opaque, at))
        }
    }
}

impl Client {
    /// HTTP of either version, by its first bytes. What is neither is for the parser to refuse.
    async fn http(mut self) -> Option<Known> {
        let seen = match detect::first_bytes(&mut self.io, limits::FIRST_BYTES).await {
            Ok(Some(Seen::Http2)) => Seen::Http2,
            Ok(Some(Seen::Tls(_))) => return self.refuse(&Fault::new(Reason::NotHttp)),
            Ok(Some(Seen::Http1 | Seen::Opaque)) => Seen::Http1,
            // Browsers open connections that they may need, and do not say goodbye.
            Ok(None) if !self.io.has_unread() => return None,
            Ok(None) => Seen::Http1,
            Err(fault) => return self.refuse(&fault),
        };
        let at = At::plain(self.open.clone());
        Some(self.known(seen, at))
    }

    /// TLS: the name that it asks for says what becomes of it.
    async fn tls(mut self) -> Option<Known> {
        let hello = match detect::first_bytes(&mut self.io, limits::HANDSHAKE_TIME).await {
            Ok(Some(Seen::Tls(hello))) => hello,
            Ok(Some(_)) if self.has_ended().await => return None,
            Ok(Some(_)) => return self.refuse(&Fault::new(Reason::NotTls)),
            Ok(None) if !self.io.has_unread() => return None,
            Ok(None) => return self.refuse(&Fault::new(Reason::DetectTimeout)),
            Err(fault) => return self.refuse(&fault),
        };
        let Some(listener) = self.open.find(hello.sni.as_deref()) else {
            return self.refuse(&Fault::new(Reason::UnknownServerName));
        };
        match listener.protocol {
            ListenerProtocol::ListenerPassthrough => {
                let at = At::tls(self.open.clone(), hello.sni.clone(), None);
                Some(self.known(Seen::Tls(hello), at))
            }
            ListenerProtocol::ListenerHttps => self.https(hello, &listener).await,
            ListenerProtocol::ListenerTls => self.bytes_within(hello, &listener).await,
            // Never on such a port.
            ListenerProtocol::ListenerHttp | ListenerProtocol::ListenerTcp => {
                self.refuse(&Fault::new(Reason::Internal))
            }
        }
    }

    /// Whether the client went away without a word, as those do that only try whether somebody listens.
    async fn has_ended(&mut self) -> bool {
        // It was put back what there is of it: this waits for nothing.
        !self.io.has_unread() && matches!(self.io.read(&mut [0]).await, Ok(0))
    }

    async fn https(self, hello: Hello, listener: &Listener) -> Option<Known> {
        let (client, is_h2, policy) = self.end_tls(&hello, listener).await?;
        let seen = if is_h2 { Seen::Http2 } else { Seen::Http1 };
        let at = At::tls(client.open.clone(), hello.sni, Some(policy));
        Some(client.known(seen, at))
    }

    async fn bytes_within(self, hello: Hello, listener: &Listener) -> Option<Known> {
        // A connection that leads nowhere is not talked to.
        if let Err(fault) = leads_somewhere(listener, &hello) {
            return self.refuse(&fault);
        }
        let (client, _, policy) = self.end_tls(&hello, listener).await?;
        let at = At::tls(client.open.clone(), hello.sni.clone(), Some(policy));
        Some(client.known(Seen::Tls(hello), at))
    }

    /// Ends the client's TLS as the listener says: the stream within, whether HTTP/2 is spoken there, and the client validation that was
    /// passed.
    async fn end_tls(self, hello: &Hello, listener: &Listener) -> Option<(Self, bool, Digest)> {
        let Some(tls) = &listener.tls else {
            self.refuse(&Fault::new(Reason::Internal));
            return None;
        };
        let config = match &tls.config {
            Ok(config) => config.clone(),
            Err(why) => {
                let fault = Fault::because(Reason::ListenerRefused, why.as_str());
                self.refuse(&fault);
                return None;
            }
        };
        let policy = listener.policy()?;
        match terminate::gateway::end(self.io, config, hello.sni.as_deref(), &self.shared).await {
            Ok((io, is_h2)) => {
                let facts = self.facts.without_tls();
                Some((Self { io, facts, ..self }, is_h2, policy))
            }
            Err(fault) => {
                failed(Record::connection(self.facts), &fault);
                None
            }
        }
    }

    fn known(self, seen: Seen, at: At) -> Known {
        let connection = Connection {
            facts: self.facts,
            peer: None,
            toward: Toward::Port(Box::new(at)),
            shared: self.shared,
        };
        Known {
            io: self.io,
            seen,
            hop: None,
            began: self.began,
            connection: Arc::new(connection),
        }
    }

    fn refuse(self, fault: &Fault) -> Option<Known> {
        failed(Record::connection(self.facts), fault);
        self.io.reset();
        None
    }
}
