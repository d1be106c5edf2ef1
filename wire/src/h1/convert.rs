//! Heads between HTTP/1 and the `http` crate's types, for hops that speak HTTP/2.

use super::encode::{self, Connection, Edit, Fate, Forward, Framing};
use super::fields::{At, Fields, Known, is_internal};
use super::{BodyLength, Form, Refused, RequestHead, ResponseHead, Version, request, trailer_passes};
use crate::host::Host;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// A request for an HTTP/2 hop, and what HTTP/2 could not say of it.
#[derive(Debug)]
pub struct Converted {
    /// Without hop-by-hop fields; `te: trailers` stays. Values share the head's block.
    pub request: http::Request<()>,
    /// Whether `:path` (of CONNECT: `:authority`) is the target byte for byte. An absolute form, a fragment, and bytes that
    /// `http::Uri` refuses are not; the other side needs the target said otherwise then.
    pub is_target_exact: bool,
    /// Whether `:authority` is what `Host` said byte for byte. Otherwise there was no `Host` or an empty one.
    pub is_host_exact: bool,
}

impl RequestHead {
    /// The request for an HTTP/2 hop. `otherwise` stands where the client named no host (HTTP/1.0). An Upgrade is not
    /// mapped here: set method and `:protocol` of the result, from [`RequestHead::upgrade`].
    pub fn to_http(&self, scheme: Scheme, otherwise: &Authority) -> Result<Converted, Refused> {
        let fields = self.fields();
        let host = fields.known(Known::Host).next().filter(|at| at.value > 0);
        let authority = match (host, self.form()) {
            (_, Form::Authority) => authority(self.shared(self.target_range()))?,
            (Some(at), _) => authority(fields.shared(at))?,
            (None, Form::Absolute) => match self.host() {
                Some(host) => authority(Bytes::copy_from_slice(written(&host).as_bytes()))?,
                None => otherwise.clone(),
            },
            (None, _) => otherwise.clone(),
        };
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::from_bytes(self.method().as_bytes()).map_err(|_| Refused::RequestLine)?;
        let mut parts = http::uri::Parts::default();
        parts.authority = Some(authority);
        let is_target_exact = if self.is_connect() {
            true
        } else {
            let (path, is_exact) = self.shared_path()?;
            parts.path_and_query = Some(path);
            parts.scheme = Some(scheme);
            is_exact
        };
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refused::Target)?;
        *request.version_mut() = http::Version::HTTP_2;
        let map = request.headers_mut();
        let has_length = matches!(self.body(), BodyLength::Length(_));
        fields.append_to(map, |at| crosses(at, has_length) && at.known != Known::Internal);
        if self.accepts_trailers() {
            map.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Ok(Converted {
            request,
            is_target_exact,
            is_host_exact: host.is_some() || self.is_connect(),
        })
    }

    fn shared(&self, range: std::ops::Range<usize>) -> Bytes {
        self.fields().block.slice(range)
    }

    /// Path and query for `:path`, and whether it is the target as sent.
    fn shared_path(&self) -> Result<(PathAndQuery, bool), Refused> {
        let target = self.target_range();
        let path = self.path_and_query();
        let shared = || self.shared(target.end - path.len()..target.end);
        match PathAndQuery::from_maybe_shared(shared()) {
            Ok(exact) if exact.as_str() == path && self.form() != Form::Absolute => Ok((exact, true)),
            _ => Ok((said_path(self.method(), path)?, false)),
        }
    }
}

/// The `:path` for a target that `:path` cannot say as it is: with a root where it has none, and with escapes for bytes
/// that `http::Uri` does not take and for `#`, so that it is routed as what it is.
fn said_path(method: &str, path: &str) -> Result<PathAndQuery, Refused> {
    if path.is_empty() {
        return Ok(PathAndQuery::from_static(if method == "OPTIONS" { "*" } else { "/" }));
    }
    let mut said = if path.starts_with('?') {
        "/".to_owned()
    } else {
        String::new()
    };
    for character in path.chars() {
        match character {
            '#' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => {
                said.push_str(&format!("%{:02X}", character as u32));
            }
            _ => said.push(character),
        }
    }
    // Escaped it may be longer than a Uri can be.
    PathAndQuery::try_from(said).map_err(|_| Refused::TargetTooLong)
}

/// Whether an HTTP/1 target that a peer says beside an HTTP/2 request (see [`Converted::is_target_exact`]) means the same
/// host and path as that request's URI. If not, what is routed is not what would be sent.
pub fn is_target_of(method: &str, target: &str, uri: &Uri) -> bool {
    let Ok((form, authority)) = request::form(method, target) else {
        return false;
    };
    if form == Form::Authority || target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return false;
    }
    let same_host = || {
        let default = request::default_port(&target[..authority.start]);
        let own = Host::parse(&target[authority.clone()]).ok();
        let said = uri
            .authority()
            .and_then(|authority| Host::parse(authority.as_str()).ok());
        own.zip(said).is_some_and(|(own, said)| own.same(&said, default))
    };
    let path = &target[authority.end..];
    let said = said_path(method, path);
    (form != Form::Absolute || same_host())
        && uri
            .path_and_query()
            .is_some_and(|uri| uri.as_str() == path || said.is_ok_and(|said| said == *uri))
}

impl ResponseHead {
    /// The response for an HTTP/2 client. The reason has no place in HTTP/2. Interim heads too; 101 has no counterpart and
    /// is the caller's to map.
    pub fn to_http(&self) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(self.status()).expect("parsed from three digits, 100 on");
        *response.version_mut() = http::Version::HTTP_2;
        let has_length = !self.is_unframed() && self.body() != BodyLength::Chunked;
        self.fields()
            .append_to(response.headers_mut(), |at| crosses(at, has_length));
        response
    }
}

impl Fields {
    fn shared(&self, at: &At) -> Bytes {
        self.block.slice_ref(self.value(at))
    }
}

fn authority(bytes: Bytes) -> Result<Authority, Refused> {
    Authority::from_maybe_shared(bytes).map_err(|_| Refused::Host)
}

fn written(host: &Host<'_>) -> String {
    match host.port {
        Some(port) => format!("{}:{port}", host.name),
        None => host.name.to_string(),
    }
}

/// Whether a field of HTTP/1 crosses to HTTP/2 as it is.
fn crosses(at: &At, has_length: bool) -> bool {
    match at.known {
        Known::Other => !at.hop,
        Known::Internal | Known::Expect => true,
        Known::ContentLength => has_length,
        _ => false,
    }
}

/// Writes a request that came over HTTP/2 for an HTTP/1 server. `weft-*` fields stay behind; `Host` comes from the URI's
/// authority, else from the map. `how.version` is 1.1 if not said. With `Framing::AsSent` the map's `content-length` is
/// written and nothing else: a body without one needs `Framing::Chunked`. The parts must have passed `h2::check_request`.
pub fn encode_request(parts: &http::request::Parts, how: &Forward<'_>, out: &mut BytesMut) {
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let is_connect = parts.method == http::Method::CONNECT && how.method.is_none();
    let target = how
        .target
        .unwrap_or(if is_connect { authority.unwrap_or(path) } else { path });
    let method = how.method.unwrap_or(parts.method.as_str());
    encode::request_line(method, target, how.version.unwrap_or(Version::H11), out);
    if let Some(authority) = authority.filter(|_| !how.edits.iter().any(|edit| is_host_edit(edit))) {
        encode::field(b"host", authority.as_bytes(), out);
    }
    let te = parts
        .headers
        .get_all(header::TE)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if te {
        encode::field(b"te", b"trailers", out);
    }
    let skip_host = authority.is_some();
    let passes = |name: &HeaderName| !(is_internal(name.as_str()) || skip_host && *name == header::HOST);
    write_map(&parts.headers, how, passes, out);
}

fn is_host_edit(edit: &Edit<'_>) -> bool {
    matches!(edit, Edit::Set(name, _) | Edit::Remove(name) if name.eq_ignore_ascii_case("host"))
}

/// Writes a response that came over HTTP/2 for an HTTP/1 client. Without `reason` the usual one of the status is written.
/// For framing see [`encode_request`].
pub fn encode_response(parts: &http::response::Parts, reason: Option<&[u8]>, how: &Forward<'_>, out: &mut BytesMut) {
    let usual = || parts.status.canonical_reason().unwrap_or_default().as_bytes();
    let version = how.version.unwrap_or(Version::H11);
    encode::status_line(version, parts.status.as_u16(), reason.unwrap_or_else(usual), out);
    write_map(&parts.headers, how, |_| true, out);
}

fn write_map(map: &HeaderMap, how: &Forward<'_>, passes: impl Fn(&HeaderName) -> bool, out: &mut BytesMut) {
    for name in map.keys() {
        let known = Known::of(name.as_str());
        let stays = match known {
            Known::Other | Known::Host | Known::Expect | Known::Internal => passes(name),
            Known::ContentLength => how.framing == Framing::AsSent,
            _ => false,
        };
        if !stays {
            continue;
        }
        if *name == header::COOKIE && map.get_all(name).iter().nth(1).is_some() {
            // RFC 9113 8.2.3: HTTP/2 may split cookies over fields, HTTP/1 may not.
            let crumbs: Vec<&[u8]> = map.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            edited(name, &crumbs.join(&b"; "[..]), true, how, out);
            continue;
        }
        for (index, value) in map.get_all(name).iter().enumerate() {
            edited(name, value.as_bytes(), index == 0, how, out);
        }
    }
    if let Some(value) = encode::connection_value(how.connection, false) {
        encode::field(b"Connection", value.as_bytes(), out);
    }
    if let Connection::Upgrade(token) = how.connection {
        encode::field(b"Upgrade", token.as_bytes(), out);
    }
    encode::own_fields(how, out);
    let was_sent =
        |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| map.contains_key(&name) && passes(&name));
    encode::added(how.edits, was_sent, out);
    out.extend_from_slice(b"\r\n");
}

fn edited(name: &HeaderName, value: &[u8], is_first: bool, how: &Forward<'_>, out: &mut BytesMut) {
    let name = name.as_str();
    let value = if how.edits.is_empty() || encode::is_own(name) {
        value
    } else {
        match encode::fate(name, || is_first, how.edits) {
            Fate::Keep => value,
            Fate::Drop => return,
            Fate::Value(other) => other,
        }
    };
    encode::field(name.as_bytes(), value, out);
}

/// Writes the trailers of a map that may pass, one line each, without the blank line.
pub fn encode_trailers(map: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in map.iter().filter(|(name, _)| trailer_passes(name.as_str())) {
        encode::field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
}
