//! What an HTTP/1 request was before it crossed the mesh, in `weft-*` fields.

use crate::fault::{Fault, Reason};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weft_proto::names;
use weft_wire::h1::Version;

const VERSION: HeaderName = HeaderName::from_static(names::http::VERSION);
const METHOD: HeaderName = HeaderName::from_static(names::http::METHOD);
const TARGET: HeaderName = HeaderName::from_static(names::http::TARGET);
const HOST: HeaderName = HeaderName::from_static(names::http::HOST);

/// What the client on the other side of the mesh spoke, read from `weft-*` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Was {
    pub(super) version: Version,
    pub(super) method: Option<Method>,
    pub(super) target: Option<String>,
    pub(super) host: Option<HostField>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// What the `Host` field was when it named no host.
pub(super) enum HostField {
    None,
    Empty,
}
impl Was {
    /// Nothing beyond what HTTP/2 says of it.
    pub(super) const HTTP1: Self = Self {
        version: Version::H11,
        method: None,
        target: None,
        host: None,
    };

    /// Reads it from the fields of a request that a weft sent.
    pub(super) fn read(fields: &HeaderMap) -> Result<Option<Self>, Fault> {
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

    /// Writes it for a weft.
    pub(super) fn write(&self, fields: &mut HeaderMap) {
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
