//! Heads written again for the next hop: byte for byte and in order, but for hop-by-hop fields and what the caller changes.

use super::fields::{At, Fields, Known};
use super::{RequestHead, ResponseHead, Version};
use bytes::BytesMut;

/// One change to the fields. Changes apply in their order; names match in any case.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    /// Takes every field of this name away.
    Remove(&'a str),
    /// One field of this name with this value: in the place and case of the first that was sent, else at the end.
    Set(&'a str, &'a [u8]),
    /// One more field, at the end.
    Add(&'a str, &'a [u8]),
}

impl<'a> Edit<'a> {
    fn name(&self) -> &'a str {
        match self {
            Edit::Remove(name) | Edit::Set(name, _) | Edit::Add(name, _) => name,
        }
    }
}

/// What the head says about the body's end on the next hop.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Framing {
    /// As it was sent: the body goes on with the same framing.
    #[default]
    AsSent,
    /// `Content-Length`, and no other.
    Length(u64),
    /// `Transfer-Encoding: chunked`, and no other.
    Chunked,
    /// Neither: no body, or one that lasts until the connection closes.
    Unsaid,
}

/// What the head says about the connection of the next hop. `Connection` and `Upgrade` that were sent are always taken
/// away; what is said here stands in their place.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Connection<'a> {
    /// What the version implies.
    #[default]
    Unsaid,
    /// It is closed after this message.
    Close,
    /// It is kept: HTTP/1.0 must say so.
    KeepAlive,
    /// `Connection: Upgrade` and `Upgrade:` with this token.
    Upgrade(&'a str),
}

/// How a head goes on. `Forward::default()` changes hop-by-hop fields only.
#[derive(Clone, Copy, Default, Debug)]
pub struct Forward<'a> {
    /// Another version than was sent.
    pub version: Option<Version>,
    /// Another method than was sent. Requests only.
    pub method: Option<&'a str>,
    /// Another target than was sent. Requests only; it must be checked already.
    pub target: Option<&'a str>,
    /// The body's end.
    pub framing: Framing,
    /// The connection.
    pub connection: Connection<'a>,
    /// Changes to fields. Those for framing and connection have no effect here.
    pub edits: &'a [Edit<'a>],
}

impl RequestHead {
    /// Writes this head for an HTTP/1 server. `weft-*` fields stay behind: they exist inside the mesh only.
    pub fn encode(&self, how: &Forward<'_>, out: &mut BytesMut) {
        out.reserve(self.byte_length() + 128);
        if how.method.is_none() && how.target.is_none() && how.version.is_none_or(|version| version == self.version()) {
            out.extend_from_slice(&self.fields().block[..self.target_range().end + b" HTTP/1.1\r\n".len()]);
        } else {
            request_line(
                how.method.unwrap_or(self.method()),
                how.target.unwrap_or(self.target()),
                how.version.unwrap_or(self.version()),
                out,
            );
        }
        let te = self.accepts_trailers();
        Writer {
            fields: self.fields(),
            how,
            is_request: true,
            te,
            te_option: te && self.te_option(),
            out,
        }
        .write();
    }
}

impl ResponseHead {
    /// Writes this head for an HTTP/1 client; interim heads too.
    pub fn encode(&self, how: &Forward<'_>, out: &mut BytesMut) {
        out.reserve(self.byte_length() + 128);
        let line = self.status_line();
        out.extend_from_slice(how.version.unwrap_or(self.version()).as_str().as_bytes());
        out.extend_from_slice(&line["HTTP/1.1".len()..]);
        out.extend_from_slice(b"\r\n");
        // What only confuses: a length where no body can be.
        let how = if self.is_unframed() && how.framing == Framing::AsSent {
            &Forward {
                framing: Framing::Unsaid,
                ..*how
            }
        } else {
            how
        };
        Writer {
            fields: self.fields(),
            how,
            is_request: false,
            te: false,
            te_option: false,
            out,
        }
        .write();
    }
}

pub(super) fn request_line(method: &str, target: &str, version: Version, out: &mut BytesMut) {
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(version.as_str().as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn status_line(version: Version, status: u16, reason: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(version.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn field(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The value that `Connection` gets, if any.
pub(super) fn connection_value(connection: Connection<'_>, te: bool) -> Option<&'static str> {
    match (connection, te) {
        (Connection::Unsaid, false) => None,
        (Connection::Unsaid, true) => Some("TE"),
        (Connection::Close, false) => Some("close"),
        (Connection::Close, true) => Some("close, TE"),
        (Connection::KeepAlive, false) => Some("keep-alive"),
        (Connection::KeepAlive, true) => Some("keep-alive, TE"),
        (Connection::Upgrade(_), false) => Some("Upgrade"),
        (Connection::Upgrade(_), true) => Some("Upgrade, TE"),
    }
}

/// What the fields that a proxy writes itself come to, once for all of them.
pub(super) fn own_fields(how: &Forward<'_>, out: &mut BytesMut) {
    match how.framing {
        Framing::AsSent | Framing::Unsaid => {}
        Framing::Length(length) => field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes(), out),
        Framing::Chunked => field(b"Transfer-Encoding", b"chunked", out),
    }
}

struct Writer<'a, 'h> {
    fields: &'a Fields,
    how: &'a Forward<'h>,
    is_request: bool,
    te: bool,
    te_option: bool,
    out: &'a mut BytesMut,
}

/// What becomes of one field.
pub(super) enum Fate<'a> {
    Keep,
    Drop,
    /// The name as sent, another value.
    Value(&'a [u8]),
}

impl Writer<'_, '_> {
    fn write(self) {
        let Writer {
            fields,
            how,
            is_request,
            te,
            te_option,
            out,
        } = self;
        let mut connection = connection_value(how.connection, te_option);
        let mut upgrade = match how.connection {
            Connection::Upgrade(token) => Some(token),
            _ => None,
        };
        let mut te = te;
        // Lines that stay are copied in runs, with one copy for each run.
        let (mut run, mut end) = (0, 0);
        for (index, at) in fields.list.iter().enumerate() {
            let fate = match at.known {
                Known::Other if !at.hop && how.edits.is_empty() => Fate::Keep,
                Known::Other if at.hop => Fate::Drop,
                Known::Other | Known::Host | Known::Expect => edited(fields, index, how.edits),
                Known::Internal if is_request => Fate::Drop,
                Known::Internal => edited(fields, index, how.edits),
                Known::KeepAlive | Known::ProxyConnection | Known::Http2Settings => Fate::Drop,
                Known::Te if std::mem::take(&mut te) => Fate::Value(b"trailers"),
                Known::Te => Fate::Drop,
                Known::ContentLength if how.framing == Framing::AsSent => Fate::Value(fields.value(at)),
                Known::TransferEncoding if how.framing == Framing::AsSent => Fate::Value(b"chunked"),
                Known::ContentLength | Known::TransferEncoding => Fate::Drop,
                Known::Connection => connection
                    .take()
                    .map_or(Fate::Drop, |value| Fate::Value(value.as_bytes())),
                Known::Upgrade => upgrade.take().map_or(Fate::Drop, |value| Fate::Value(value.as_bytes())),
            };
            let start = at.start as usize;
            if let Fate::Keep = fate {
                if start != end {
                    // Between them lies what was written anew, or was forgotten.
                    out.extend_from_slice(&fields.block[run..end]);
                    run = start;
                }
                end = start + at.line as usize;
                continue;
            }
            out.extend_from_slice(&fields.block[run..end]);
            (run, end) = (0, 0);
            if let Fate::Value(value) = fate {
                field(fields.name_bytes(at), value, out);
            }
        }
        out.extend_from_slice(&fields.block[run..end]);
        if let Some(value) = connection {
            field(b"Connection", value.as_bytes(), out);
        }
        if let Some(token) = upgrade {
            field(b"Upgrade", token.as_bytes(), out);
        }
        own_fields(how, out);
        let went_on = |at: &At| !(at.hop || is_request && at.known == Known::Internal);
        added(
            how.edits,
            |name| {
                fields
                    .list
                    .iter()
                    .any(|at| went_on(at) && fields.name(at).eq_ignore_ascii_case(name))
            },
            out,
        );
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether an edit may touch this name: those that say framing and connection are written by the codec alone.
pub(super) fn is_own(name: &str) -> bool {
    !matches!(
        Known::of(name),
        Known::Other | Known::Host | Known::Expect | Known::Internal
    )
}

/// What the edits make of the field at `index`.
fn edited<'a>(fields: &Fields, index: usize, edits: &'a [Edit<'a>]) -> Fate<'a> {
    let name = fields.name(&fields.list[index]);
    fate(
        name,
        || {
            !fields.list[..index]
                .iter()
                .any(|at| fields.name(at).eq_ignore_ascii_case(name))
        },
        edits,
    )
}

/// What the edits make of one field.
pub(super) fn fate<'a>(name: &str, is_first: impl Fn() -> bool, edits: &'a [Edit<'a>]) -> Fate<'a> {
    let mut fate = Fate::Keep;
    for edit in edits.iter().filter(|edit| edit.name().eq_ignore_ascii_case(name)) {
        fate = match *edit {
            Edit::Remove(_) => Fate::Drop,
            Edit::Set(_, value) if !matches!(fate, Fate::Drop) && is_first() => Fate::Value(value),
            Edit::Set(..) => Fate::Drop,
            Edit::Add(..) => continue,
        };
    }
    fate
}

/// Writes the fields that the edits add at the end.
pub(super) fn added(edits: &[Edit<'_>], was_sent: impl Fn(&str) -> bool, out: &mut BytesMut) {
    for (index, edit) in edits.iter().enumerate() {
        let (name, value, is_set) = match *edit {
            Edit::Remove(_) => continue,
            Edit::Set(name, value) => (name, value, true),
            Edit::Add(name, value) => (name, value, false),
        };
        let same = |other: &&Edit<'_>| other.name().eq_ignore_ascii_case(name);
        let is_overridden = edits[index + 1..]
            .iter()
            .filter(same)
            .any(|later| !matches!(later, Edit::Add(..)));
        let removed_before = || {
            edits[..index]
                .iter()
                .filter(same)
                .any(|before| matches!(before, Edit::Remove(_)))
        };
        let stands_in_place = is_set && was_sent(name) && !removed_before();
        if !is_overridden && !stands_in_place && !is_own(name) {
            field(name.as_bytes(), value, out);
        }
    }
}
