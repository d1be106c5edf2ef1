//! The trailer section: parsed with the same guard as a head, without what must not come after a body.

use super::fields::{Fields, Known};
use super::{Refused, Version, guard, head};
use bytes::Bytes;
use weft_proto::limits;

/// Whether a trailer of this name may pass (RFC 9110 6.5.1): none that says where a message ends and how its bytes are to be
/// read, where it goes, or who sent it; nor one of a single connection or of weft's own. For HTTP/2 as well.
pub fn trailer_passes(name: &str) -> bool {
    const NEVER: [&str; 13] = [
        "authorization",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "forwarded",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "set-cookie",
        "trailer",
        "www-authenticate",
        "x-forwarded-for",
    ];
    Known::of(name) == Known::Other && !NEVER.iter().any(|never| never.eq_ignore_ascii_case(name))
}

/// Parses a complete trailer section, its blank line included. `block` begins with the CR LF that ended the line before it.
pub(super) fn parse(block: Vec<u8>) -> Result<Fields, Refused> {
    let block = Bytes::from(block);
    let mut headers = [httparse::EMPTY_HEADER; limits::FIELDS];
    let parsed = match httparse::parse_headers(&block[2..], &mut headers) {
        Ok(httparse::Status::Complete((length, parsed))) if length + 2 == block.len() => parsed,
        Ok(_) => return Err(Refused::Newline),
        Err(error) => return Err(head::explain(error, &block, Refused::FieldName)),
    };
    // Dropping these would do, but nobody sends them for a good reason.
    if parsed
        .iter()
        .any(|field| matches!(Known::of(field.name), Known::ContentLength | Known::TransferEncoding))
    {
        return Err(Refused::TrailerFraming);
    }
    let (mut fields, _) = guard::fields(&block, block.clone(), parsed, Version::H11, guard::From::Server)?;
    let kept = fields
        .list
        .iter()
        .filter(|at| trailer_passes(fields.name(at)))
        .copied()
        .collect();
    fields.list = kept;
    Ok(fields)
}
