//! Heads, as they came and as they go on: HTTP/1 to HTTP/1 byte for byte, and what HTTP/2 cannot say of HTTP/1 in
//! `weft-*` fields, which exist between two wefts only and are taken away at every border.

use crate::{
    fault::{Fault, Reason},
    respond,
};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::Authority};
use smallvec::SmallVec;
use std::net::SocketAddr;
use weft_proto::names;
use weft_route::{Decision, HttpView, edit::Fields};
use weft_wire::h1::{self, BodyLength, Connection, Edit, Form, Forward, Framing, RequestKind, Version};

const VERSION: HeaderName = HeaderName::from_static(names::http::VERSION);
const METHOD: HeaderName = HeaderName::from_static(names::http::METHOD);
const TARGET: HeaderName = HeaderName::from_static(names::http::TARGET);
const HOST: HeaderName = HeaderName::from_static(names::http::HOST);
const REASON: HeaderName = HeaderName::from_static(names::http::REASON);
const STATUS: HeaderName = HeaderName::from_static(names::http::STATUS);
const BODY: HeaderName = HeaderName::from_static(names::http::BODY);

/// A request, as the client sent it.
pub enum Request {
    /// Over HTTP/1.
    H1(h1::RequestHead),
    /// Over HTTP/2, with the HTTP/1 request that it was where it came over the mesh.
    H2(http::request::Parts, Option<Was>),
}

/// What the client on the other side of the mesh spoke, read from `weft-*` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Was {
    version: Version,
    method: Option<Method>,
    target: Option<String>,
    host: Option<HostField>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostField {
    None,
    Empty,
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

    /// Carries out a decision's edits of the request. For HTTP/1 they are written down and take effect when it is sent on.
    pub fn edit(&mut self, decision: &Decision) -> Result<Changes, Fault> {
        let bad = || Fault::new(Reason::BadEdit);
        let mut changes = Changes::default();
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

    /// The request for an HTTP/2 server. `mesh`: a weft, which is told what HTTP/2 cannot say. `destination` stands where
    /// the client named no host.
    pub fn to_h2(
        &self,
        changes: &Changes,
        wants: &Wants,
        mesh: bool,
        destination: SocketAddr,
    ) -> Result<http::Request<()>, Fault> {
        let mut request = match self {
            Self::H1(head) => h1_to_h2(head, changes, wants, mesh, destination)?,
            Self::H2(parts, was) => {
                let mut request = http::Request::from_parts(parts.clone(), ());
                if let (Some(was), true) = (was, mesh) {
                    was.write(request.headers_mut());
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
    mesh: bool,
    destination: SocketAddr,
) -> Result<http::Request<()>, Fault> {
    let refused = |refused| Fault::because(Reason::BadRequest, refused);
    let otherwise: Authority = destination
        .to_string()
        .parse()
        .expect("an address and a port are an authority");
    let mut converted = head.to_http(http::uri::Scheme::HTTP, &otherwise).map_err(refused)?;
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
    if mesh {
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

impl Was {
    fn read(fields: &HeaderMap) -> Result<Option<Self>, Fault> {
        let bad = || Fault::new(Reason::BadMeshField);
        let version = match fields.get(&VERSION).map(HeaderValue::as_bytes) {
            None => return Ok(None),
            Some(b"1.0") => Version::H10,
            Some(b"1.1") => Version::H11,
            Some(_) => return Err(bad()),
        };
        let method = match fields.get(&METHOD) {
            None => None,
            Some(value) => Some(Method::from_bytes(value.as_bytes()).map_err(|_| bad())?),
        };
        let target = match fields.get(&TARGET) {
            None => None,
            // What stands in a request line must not end it.
            Some(value) if value.is_empty() || value.as_bytes().iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) => {
                return Err(bad());
            }
            Some(value) => Some(std::str::from_utf8(value.as_bytes()).map_err(|_| bad())?.to_owned()),
        };
        let host = match fields.get(&HOST).map(HeaderValue::as_bytes) {
            None => None,
            Some(b"none") if version == Version::H10 => Some(HostField::None),
            Some(b"empty") => Some(HostField::Empty),
            Some(_) => return Err(bad()),
        };
        Ok(Some(Self {
            version,
            method,
            target,
            host,
        }))
    }

    fn write(&self, fields: &mut HeaderMap) {
        let version = match self.version {
            Version::H10 => "1.0",
            Version::H11 => "1.1",
        };
        fields.insert(VERSION, HeaderValue::from_static(version));
        if let Some(method) = &self.method {
            fields.insert(
                METHOD,
                HeaderValue::from_str(method.as_str()).expect("a method is a token"),
            );
        }
        if let Some(target) = self
            .target
            .as_ref()
            .and_then(|target| HeaderValue::from_bytes(target.as_bytes()).ok())
        {
            fields.insert(TARGET, target);
        }
        match self.host {
            None => {}
            Some(HostField::None) => _ = fields.insert(HOST, HeaderValue::from_static("none")),
            Some(HostField::Empty) => _ = fields.insert(HOST, HeaderValue::from_static("empty")),
        }
    }
}

/// Takes every `weft-*` field away but `weft-error`, which is for whoever reads the answer.
pub fn strip(fields: &mut HeaderMap) {
    let is_internal = |name: &HeaderName| {
        name.as_str().starts_with(names::http::INTERNAL_PREFIX) && name.as_str() != names::http::ERROR
    };
    let internal: SmallVec<[HeaderName; 4]> = fields.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in internal {
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

/// Changes of a request or a response that is written as HTTP/1.
#[derive(Default)]
pub struct Changes {
    /// Changes of fields.
    pub fields: FieldChanges,
    /// Another target.
    pub target: Option<String>,
}

/// Changes of fields, in their order.
#[derive(Default)]
pub struct FieldChanges(Vec<Change>);

enum Change {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

impl Fields for FieldChanges {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.push(Change::Set(name.clone(), value.clone()));
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.push(Change::Add(name.clone(), value.clone()));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.push(Change::Remove(name.clone()));
    }
}

impl FieldChanges {
    /// As the codec wants them.
    pub fn list(&self) -> SmallVec<[Edit<'_>; 4]> {
        self.0
            .iter()
            .map(|change| match change {
                Change::Set(name, value) => Edit::Set(name.as_str(), value.as_bytes()),
                Change::Add(name, value) => Edit::Add(name.as_str(), value.as_bytes()),
                Change::Remove(name) => Edit::Remove(name.as_str()),
            })
            .collect()
    }

    fn host(&self) -> Option<&HeaderValue> {
        self.0.iter().rev().find_map(|change| match change {
            Change::Set(name, value) if name == header::HOST => Some(value),
            _ => None,
        })
    }

    fn apply(&self, fields: &mut HeaderMap) {
        for change in &self.0 {
            match change {
                Change::Set(name, value) => Fields::set(fields, name, value),
                Change::Add(name, value) => Fields::add(fields, name, value),
                Change::Remove(name) => Fields::remove(fields, name),
            }
        }
    }
}

/// A response, as the server sent it.
pub enum Response {
    /// Over HTTP/1.
    H1(h1::ResponseHead),
    /// Over HTTP/2, with what it was before it crossed the mesh.
    H2(http::response::Parts, Crossed),
}

/// What HTTP/2 could not say of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    reason: Option<Vec<u8>>,
    /// It refuses an Upgrade, with a status that HTTP/2 would take for success.
    is_refusal: bool,
    until_close: bool,
}

impl Response {
    /// Reads a response that came over HTTP/2. `mesh`: from a weft.
    pub fn from_h2(mut parts: http::response::Parts, mesh: bool) -> Self {
        let fields = &mut parts.headers;
        let mut crossed = Crossed::default();
        if mesh {
            crossed.reason = fields.remove(&REASON).map(|value| value.as_bytes().to_vec());
            let status = fields
                .remove(&STATUS)
                .and_then(|value| http::StatusCode::from_bytes(value.as_bytes()).ok());
            if let Some(status) = status.filter(|status| status.is_success()) {
                parts.status = status;
                crossed.is_refusal = true;
            }
            crossed.until_close = fields.remove(&BODY).is_some_and(|value| value == "close");
        }
        strip(fields);
        Self::H2(parts, crossed)
    }

    /// The status as the server meant it.
    pub fn status(&self) -> u16 {
        match self {
            Self::H1(head) => head.status(),
            Self::H2(parts, _) => parts.status.as_u16(),
        }
    }

    /// Whether it refuses an Upgrade with a status that could be taken for its success.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::H2(_, Crossed { is_refusal: true, .. }))
    }

    /// `grpc-status` of a trailers-only response.
    pub fn grpc_status(&self) -> Option<u32> {
        match self {
            Self::H1(_) => None,
            Self::H2(parts, _) => grpc_status(&parts.headers),
        }
    }

    /// Writes it for a client that speaks HTTP/1: how the body's end is said, and whether the connection must be closed
    /// for that. `over`: nothing follows the head.
    pub fn encode(&self, how: &ToClient<'_>, over: bool, out: &mut BytesMut) -> (BodyLength, bool) {
        let is_11 = how.version == Version::H11;
        let said = match self {
            Self::H1(head) => head.body(),
            Self::H2(parts, crossed) => match declared(&parts.headers) {
                _ if how.kind == RequestKind::Head || matches!(self.status(), 100..=199 | 204 | 304) => {
                    BodyLength::None
                }
                Some(length) => BodyLength::Length(length),
                None if crossed.until_close => BodyLength::UntilClose,
                None if over && is_11 => BodyLength::Length(0),
                None if over => BodyLength::None,
                None => BodyLength::Chunked,
            },
        };
        let length = if said == BodyLength::Chunked && !is_11 {
            BodyLength::UntilClose
        } else {
            said
        };
        let close = how.close || length == BodyLength::UntilClose;
        let connection = match how.upgrade {
            Some(token) => Connection::Upgrade(token),
            None if how.tunnel => Connection::Unsaid,
            None if close => Connection::Close,
            None if !is_11 => Connection::KeepAlive,
            None => Connection::Unsaid,
        };
        let mut changes = FieldChanges::default();
        if let Some(decision) = how.decision {
            decision.edit_response(&mut changes);
        }
        let mut edits = changes.list();
        match self {
            Self::H1(head) => {
                // Fields of weft's own mean nothing when they come from a server.
                edits.extend(internal(head.fields()).map(Edit::Remove));
                let framing = if length == BodyLength::UntilClose {
                    Framing::Unsaid
                } else {
                    Framing::AsSent
                };
                head.encode(
                    &Forward {
                        framing,
                        connection,
                        edits: &edits,
                        ..Forward::default()
                    },
                    out,
                );
            }
            Self::H2(parts, crossed) => {
                let framing = match length {
                    BodyLength::Chunked => Framing::Chunked,
                    BodyLength::Length(0) if declared(&parts.headers).is_none() => Framing::Length(0),
                    _ => Framing::AsSent,
                };
                let how = Forward {
                    framing,
                    connection,
                    edits: &edits,
                    ..Forward::default()
                };
                h1::encode_response(parts, crossed.reason.as_deref(), &how, out);
            }
        }
        (length, close)
    }

    /// The response for a client that speaks HTTP/2. `mesh`: a weft, which is told what HTTP/2 cannot say.
    pub fn into_h2(self, decision: Option<&Decision>, mesh: bool) -> http::Response<()> {
        let mut response = match self {
            Self::H1(head) => {
                let mut response = head.to_http();
                strip(response.headers_mut());
                if mesh {
                    tell_reason(&head, &mut response);
                    if head.body() == BodyLength::UntilClose {
                        response.headers_mut().insert(BODY, HeaderValue::from_static("close"));
                    }
                }
                response
            }
            Self::H2(parts, _) => http::Response::from_parts(parts, ()),
        };
        if let Some(decision) = decision {
            decision.edit_response(response.headers_mut());
        }
        response
    }
}

impl Response {
    /// The 101 that a 2xx to extended CONNECT stands for. One that came over HTTP/1 is one already.
    pub fn into_101(self) -> Self {
        match self {
            Self::H2(mut parts, crossed) => {
                parts.status = http::StatusCode::SWITCHING_PROTOCOLS;
                Self::H2(parts, crossed)
            }
            h1 => h1,
        }
    }

    /// The 2xx to extended CONNECT that a 101 stands for. One that came over HTTP/2 is one already.
    pub fn into_switched(self, mesh: bool) -> http::Response<()> {
        match self {
            Self::H1(head) => {
                let mut response = head.to_http();
                strip(response.headers_mut());
                if mesh {
                    tell_reason(&head, &mut response);
                }
                *response.status_mut() = http::StatusCode::OK;
                response
            }
            Self::H2(parts, _) => http::Response::from_parts(parts, ()),
        }
    }
}

/// How a response is written for an HTTP/1 client.
pub struct ToClient<'a> {
    /// What the client speaks.
    pub version: Version,
    /// What it asked for.
    pub kind: RequestKind,
    /// The connection is closed after it in any case.
    pub close: bool,
    /// The connection is a tunnel after it.
    pub tunnel: bool,
    /// The protocol that both sides changed to.
    pub upgrade: Option<&'a str>,
    /// Whose edits are carried out.
    pub decision: Option<&'a Decision>,
}

fn tell_reason(head: &h1::ResponseHead, response: &mut http::Response<()>) {
    let usual = response.status().canonical_reason().unwrap_or_default();
    if head.reason() != usual.as_bytes()
        && let Ok(reason) = HeaderValue::from_bytes(head.reason())
    {
        response.headers_mut().insert(REASON, reason);
    }
}

/// The refusal of an Upgrade with a status that would mean success over HTTP/2.
pub fn refuse_upgrade(response: &mut http::Response<()>) {
    let status = HeaderValue::from(response.status().as_u16());
    response.headers_mut().insert(STATUS, status);
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
}

/// `grpc-status` among fields or trailers.
pub fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
