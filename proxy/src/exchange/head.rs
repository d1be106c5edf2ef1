//! Heads, as they came and as they go on: HTTP/1 to HTTP/1 byte for byte, and what HTTP/2 cannot say of HTTP/1 in
//! `weft-*` fields, which exist between two wefts only and are taken away at every border.

mod changes;
mod response;
mod was;

use crate::{
    fault::{Fault, Reason},
    hop::Transport,
    record::{Direction, Facts},
    respond,
    trace::{
        self,
        context::{TRACEPARENT, TRACESTATE},
    },
};
use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, header,
    uri::{Authority, Scheme},
};
use smallvec::SmallVec;
use std::net::SocketAddr;
use weft_proto::names;
use weft_route::{Decision, HttpView, edit::Fields};
use weft_wire::h1::{self, BodyLength, Connection, Edit, Form, Forward, Framing, RequestKind, Version};

pub use changes::{Changes, Edits, FieldChanges};
pub use response::{Response, ToClient, refuse_upgrade};
use was::HostField;
pub use was::Was;

/// A request, as the client sent it.
#[derive(Clone)]
pub enum Request {
    /// Over HTTP/1.
    H1(h1::RequestHead),
    /// Over HTTP/2, with the HTTP/1 request that it was where it came over the mesh.
    H2(http::request::Parts, Option<Was>),
}

/// What an HTTP/2 server is told of a request.
pub struct ToServer {
    /// What HTTP/2 cannot say of HTTP/1: it is a weft, and its application is to get HTTP/1.
    pub as_h1: bool,
    /// The scheme of the hop, where it is not for the client to say.
    pub scheme: Option<Scheme>,
    /// Stands where the client named no host.
    pub destination: SocketAddr,
}

impl ToServer {
    /// What the server at the other end of this hop is told. `for_h1`: its application is to get HTTP/1.
    pub fn new(transport: &Transport, for_h1: bool, facts: &Facts) -> Self {
        Self {
            as_h1: transport.is_mesh() && for_h1,
            scheme: match transport {
                Transport::Tls(_) => Some(Scheme::HTTPS),
                _ if facts.direction == Direction::Gateway => Some(Scheme::HTTP),
                _ => None,
            },
            destination: facts.destination,
        }
    }
}

/// What a request wants beyond an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Nothing.
    Answer,
    /// Another protocol on this connection or stream.
    Upgrade(String),
    /// A connection to its target.
    Connect,
}

impl Request {
    /// Reads a request that came over HTTP/2 and passed the guard. `weft-*` fields mean something where the peer is a
    /// weft, and are taken away in any case.
    pub fn from_h2(mut parts: http::request::Parts, mesh: bool) -> Result<Self, Fault> {
        let was = if mesh { Was::read(&parts.headers)? } else { None };
        if let Some(Was {
            target: Some(target),
            method,
            ..
        }) = &was
            && !h1::is_target_of(method.as_ref().unwrap_or(&parts.method).as_str(), target, &parts.uri)
        {
            return Err(Fault::because(
                Reason::BadMeshField,
                "the target is not the one that is routed",
            ));
        }
        strip(&mut parts.headers);
        Ok(Self::H2(parts, was))
    }

    /// What it wants.
    pub fn wants(&self) -> Wants {
        match self {
            Self::H1(head) => match head.upgrade() {
                Some(token) => Wants::Upgrade(token.to_owned()),
                None if head.is_connect() => Wants::Connect,
                None => Wants::Answer,
            },
            Self::H2(parts, _) => match parts.extensions.get::<h2::ext::Protocol>() {
                Some(token) => Wants::Upgrade(token.as_str().to_owned()),
                None if parts.method == Method::CONNECT => Wants::Connect,
                None => Wants::Answer,
            },
        }
    }

    /// Whether the client, here or on the other side of the mesh, speaks HTTP/1.
    pub fn is_h1(&self) -> bool {
        matches!(self, Self::H1(_) | Self::H2(_, Some(_)))
    }

    /// The version of HTTP that the client speaks, here or on the other side of the mesh.
    pub fn version(&self) -> &'static str {
        let version = match self {
            Self::H1(head) => Some(head.version()),
            Self::H2(_, was) => was.as_ref().map(|was| was.version),
        };
        match version {
            Some(Version::H10) => "1.0",
            Some(Version::H11) => "1.1",
            None => "2",
        }
    }

    /// Sends the request on from within a span.
    pub fn enter(&mut self, span: &trace::Open, changes: &mut Changes) {
        let fields = self.fields_to_edit(changes);
        fields.set(&TRACEPARENT, &span.context().traceparent());
        if span.is_root() {
            // What stands there belongs to a trace that was malformed.
            fields.remove(&TRACESTATE);
        }
    }

    /// Where its fields are changed: at once over HTTP/2, when it is written over HTTP/1.
    pub fn fields_to_edit<'a>(&'a mut self, changes: &'a mut Changes) -> &'a mut dyn Fields {
        match self {
            Self::H1(_) => &mut changes.fields,
            Self::H2(parts, _) => &mut parts.headers,
        }
    }

    /// Takes fields away, as if they had not been sent.
    pub fn forget(&mut self, is_forgotten: impl Fn(&str) -> bool) {
        match self {
            Self::H1(head) => head.forget(is_forgotten),
            Self::H2(parts, _) => remove(&mut parts.headers, |name| is_forgotten(name.as_str())),
        }
    }

    /// Whether it is a gRPC call.
    pub fn is_grpc(&self) -> bool {
        match self {
            Self::H1(_) => false,
            Self::H2(parts, _) => respond::is_grpc(&parts.headers),
        }
    }

    /// What the response's framing depends on.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::H1(head) => head.kind(),
            Self::H2(parts, _) => match self.method() {
                "HEAD" => RequestKind::Head,
                "CONNECT" if parts.extensions.get::<h2::ext::Protocol>().is_none() => RequestKind::Connect,
                _ => RequestKind::Other,
            },
        }
    }

    /// Whether sending it twice does what sending it once does (RFC 9110 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// The method, for the log: of an Upgrade that crossed the mesh, the client's own.
    pub fn own_method(&self) -> &str {
        match self {
            Self::H2(
                _,
                Some(Was {
                    method: Some(method), ..
                }),
            ) => method.as_str(),
            _ => self.method(),
        }
    }

    /// How the body's end is known, for a server that speaks HTTP/1. `has_body`: whether one follows.
    pub fn length(&self, has_body: bool) -> BodyLength {
        match self {
            Self::H1(head) => head.body(),
            Self::H2(parts, _) => match declared(&parts.headers) {
                Some(length) => BodyLength::Length(length),
                None if has_body => BodyLength::Chunked,
                None => BodyLength::None,
            },
        }
    }

    /// Carries out a decision's edits of the request, after those that were made before. For HTTP/1 they are written down and take
    /// effect when it is sent on.
    pub fn edit(&mut self, decision: &Decision, mut changes: Changes) -> Result<Changes, Fault> {
        let bad = || Fault::new(Reason::BadEdit);
        let target = decision.rewritten_target(self.target());
        let host = decision.rewritten_host();
        match self {
            Self::H1(head) => {
                decision.edit_request(&mut changes.fields);
                changes.target = target.map(String::from_utf8).transpose().map_err(|_| bad())?;
                if let Some(host) = host {
                    changes
                        .fields
                        .set(&header::HOST, &HeaderValue::from_str(host).map_err(|_| bad())?);
                    if changes.target.is_none() && head.form() == Form::Absolute {
                        changes.target = Some(path_or_root(head).to_owned());
                    }
                }
            }
            Self::H2(parts, was) => {
                decision.edit_request(&mut parts.headers);
                if target.is_some() || host.is_some() {
                    let mut uri = std::mem::take(&mut parts.uri).into_parts();
                    if let Some(target) = target {
                        uri.path_and_query = Some(target.as_slice().try_into().map_err(|_| bad())?);
                    }
                    if let Some(host) = host {
                        uri.authority = Some(host.parse().map_err(|_| bad())?);
                        parts.headers.remove(header::HOST);
                    }
                    parts.uri = Uri::from_parts(uri).map_err(|_| bad())?;
                    if let Some(was) = was {
                        (was.target, was.host) = (None, None);
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Writes it for a server that speaks HTTP/1: what the body's framing will be.
    pub fn encode(&self, changes: &Changes, wants: &Wants, has_body: bool, out: &mut BytesMut) -> BodyLength {
        let length = self.length(has_body);
        let edits = changes.fields.list();
        match self {
            Self::H1(head) => {
                let connection = match wants {
                    Wants::Upgrade(token) => Connection::Upgrade(token),
                    _ if head.version() == Version::H10 && head.keep_alive() => Connection::KeepAlive,
                    _ => Connection::Unsaid,
                };
                let target = changes.target.as_deref();
                head.encode(
                    &Forward {
                        target,
                        connection,
                        edits: &edits,
                        ..Forward::default()
                    },
                    out,
                );
            }
            Self::H2(parts, was) => {
                let was = was.as_ref();
                let connection = match wants {
                    Wants::Upgrade(token) => Connection::Upgrade(token),
                    _ => Connection::Unsaid,
                };
                let method = match wants {
                    Wants::Upgrade(_) => Some(was.and_then(|was| was.method.as_ref()).map_or("GET", Method::as_str)),
                    _ => None,
                };
                let mut edits = edits;
                match was.and_then(|was| was.host) {
                    Some(HostField::None) => edits.push(Edit::Remove("host")),
                    Some(HostField::Empty) => edits.push(Edit::Set("host", b"")),
                    None => {}
                }
                let how = Forward {
                    version: was.map(|was| was.version),
                    method,
                    target: was.and_then(|was| was.target.as_deref()),
                    framing: if length == BodyLength::Chunked {
                        Framing::Chunked
                    } else {
                        Framing::AsSent
                    },
                    connection,
                    edits: &edits,
                };
                h1::encode_request(parts, &how, out);
            }
        }
        length
    }

    /// The request for an HTTP/2 server.
    pub fn to_h2(&self, changes: &Changes, wants: &Wants, how: &ToServer) -> Result<http::Request<()>, Fault> {
        let mut request = match self {
            Self::H1(head) => h1_to_h2(head, changes, wants, how)?,
            Self::H2(parts, was) => {
                let mut request = http::Request::from_parts(parts.clone(), ());
                match was {
                    _ if !how.as_h1 => {}
                    Some(was) => was.write(request.headers_mut()),
                    // What is to be HTTP/1 at the application; how an Upgrade is, weft finds out there.
                    None if *wants == Wants::Answer => Was::HTTP1.write(request.headers_mut()),
                    None => {}
                }
                if let Some(scheme) = &how.scheme
                    && request.uri().scheme().is_some_and(|sent| sent != scheme)
                {
                    let mut uri = std::mem::take(request.uri_mut()).into_parts();
                    uri.scheme = Some(scheme.clone());
                    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Fault::new(Reason::BadRequest))?;
                }
                request
            }
        };
        if let Wants::Upgrade(token) = wants {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(h2::ext::Protocol::from(token.as_str()));
        }
        Ok(request)
    }
}

fn path_or_root(head: &h1::RequestHead) -> &str {
    match head.path_and_query() {
        "" => "/",
        path => path,
    }
}

fn h1_to_h2(
    head: &h1::RequestHead,
    changes: &Changes,
    wants: &Wants,
    how: &ToServer,
) -> Result<http::Request<()>, Fault> {
    let refused = |refused| Fault::because(Reason::BadRequest, refused);
    let otherwise: Authority = how
        .destination
        .to_string()
        .parse()
        .expect("an address and a port are an authority");
    let scheme = how.scheme.clone().unwrap_or(Scheme::HTTP);
    let mut converted = head.to_http(scheme, &otherwise).map_err(refused)?;
    let request = &mut converted.request;
    changes.fields.apply(request.headers_mut());
    let host = changes.fields.host();
    if changes.target.is_some() || host.is_some() {
        let mut uri = request.uri().clone().into_parts();
        if let Some(target) = &changes.target {
            uri.path_and_query = Some(target.parse().map_err(|_| Fault::new(Reason::BadEdit))?);
        }
        if let Some(host) = host {
            uri.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| Fault::new(Reason::BadEdit))?);
            request.headers_mut().remove(header::HOST);
        }
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Fault::new(Reason::BadEdit))?;
    }
    if how.as_h1 {
        let target = (!converted.is_target_exact && changes.target.is_none()).then(|| head.target().to_owned());
        let host = match host {
            None if !converted.is_host_exact => Some(if head.fields().get("host").is_some() {
                HostField::Empty
            } else {
                HostField::None
            }),
            _ => None,
        };
        let method = matches!(wants, Wants::Upgrade(_)).then(|| request.method().clone());
        Was {
            version: head.version(),
            method,
            target,
            host,
        }
        .write(request.headers_mut());
    }
    Ok(converted.request)
}

/// Takes every `weft-*` field away but `weft-error`, which is for whoever reads the answer.
pub fn strip(fields: &mut HeaderMap) {
    let is_internal = |name: &HeaderName| {
        name.as_str().starts_with(names::http::INTERNAL_PREFIX) && name.as_str() != names::http::ERROR
    };
    remove(fields, is_internal);
}

fn remove(fields: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let removed: SmallVec<[HeaderName; 4]> = fields.keys().filter(|name| is_removed(name)).cloned().collect();
    for name in removed {
        fields.remove(name);
    }
}

fn internal(fields: &h1::Fields) -> impl Iterator<Item = &str> {
    fields
        .iter()
        .filter(|field| field.known == h1::Known::Internal && !field.name.eq_ignore_ascii_case(names::http::ERROR))
        .map(|field| field.name)
}

/// `content-length`, which passed the guard or h2's own.
pub fn declared(fields: &HeaderMap) -> Option<u64> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `grpc-status` among fields or trailers.
pub fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl HttpView for Request {
    fn method(&self) -> &str {
        match self {
            Self::H1(head) => head.method(),
            Self::H2(parts, was) => was
                .as_ref()
                .and_then(|was| was.method.as_ref())
                .unwrap_or(&parts.method)
                .as_str(),
        }
    }

    fn target(&self) -> &[u8] {
        match self {
            Self::H1(head) if head.is_connect() => b"",
            Self::H1(head) => path_or_root(head).as_bytes(),
            Self::H2(parts, _) => parts.target(),
        }
    }

    fn host(&self) -> Option<&[u8]> {
        match self {
            Self::H1(head) if head.form() == Form::Origin || head.form() == Form::Asterisk => {
                head.fields().get("host").filter(|host| !host.is_empty())
            }
            Self::H1(head) => {
                let target = head.target();
                let start = target.find("://").map_or(0, |at| at + 3);
                let end = target[start..]
                    .find(['/', '?', '#'])
                    .map_or(target.len(), |at| start + at);
                Some(&target.as_bytes()[start..end])
            }
            Self::H2(_, Some(Was { host: Some(_), .. })) => None,
            Self::H2(parts, _) => parts.host(),
        }
    }

    fn each_header<'v>(&'v self, name: &str, visit: &mut dyn FnMut(&'v [u8])) {
        match self {
            Self::H1(head) => head
                .fields()
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case(name))
                .for_each(|field| visit(field.value)),
            Self::H2(parts, _) => parts.each_header(name, visit),
        }
    }
}
