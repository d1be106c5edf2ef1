//! Properties over any input: pieces do not matter, and what is written reads the same.

use crate::support::{Message, pairs, read_requests};
use bytes::BytesMut;
use proptest::prelude::*;
use weft_wire::h1::{BodyEncoder, BodyLength, Fields, Forward, RequestHead, RequestKind, ResponseHead, Scan};
use weft_wire::{hello, sniff};

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}"
}

/// Fields that mean nothing to a proxy.
fn plain_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((token().prop_map(|name| format!("x-{name}")), "[ -~\t]{0,30}"), 0..8)
}

fn body() -> impl Strategy<Value = Option<Vec<Vec<u8>>>> {
    prop::option::of(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5))
}

/// One whole request: `chunked` says how its body is framed.
pub fn one_request() -> impl Strategy<Value = Vec<u8>> {
    (token(), "/[!-~é]{0,20}", plain_fields(), body(), any::<bool>()).prop_map(
        |(method, target, fields, body, chunked)| {
            let method = if method == "CONNECT" { "POST".to_owned() } else { method };
            let mut out = BytesMut::from(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").as_bytes());
            for (name, value) in fields {
                out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            let length = match &body {
                None => BodyLength::None,
                Some(_) if chunked => BodyLength::Chunked,
                Some(pieces) => BodyLength::Length(pieces.iter().map(Vec::len).sum::<usize>() as u64),
            };
            match length {
                BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
                BodyLength::Length(length) => out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes()),
                _ => {}
            }
            out.extend_from_slice(b"\r\n");
            let mut encoder = BodyEncoder::new(length);
            for piece in body.unwrap_or_default() {
                encoder.data(&piece, &mut out).expect("the length is right");
            }
            encoder.finish(&mut out).expect("the length is right");
            out.to_vec()
        },
    )
}

/// A stream that is a good one but for a few bytes.
pub fn damaged(stream: Vec<u8>, damage: Vec<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    let mut stream = stream;
    for (place, byte, kind) in damage {
        if stream.is_empty() {
            break;
        }
        let place = place.index(stream.len());
        match kind % 4 {
            0 => stream[place] = byte,
            1 => stream.insert(place, byte),
            2 => drop(stream.remove(place)),
            _ => stream.insert(place, b"\r\n :;,"[byte as usize % 6]),
        }
    }
    stream
}

pub fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 0..4)
}

/// What one message becomes on the next hop, written by the codec.
fn rewritten(stream: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut rest = stream;
    while let Ok(Some((head, used))) = RequestHead::parse(rest, &mut Scan::default()) {
        rest = &rest[used..];
        head.encode(&Forward::default(), &mut out);
        let mut decoder = weft_wire::h1::BodyDecoder::request(head.body());
        let mut encoder = BodyEncoder::new(head.body());
        loop {
            let Ok((used, piece)) = decoder.step(rest) else {
                return out.to_vec();
            };
            rest = &rest[used..];
            match piece {
                weft_wire::h1::Piece::Data(data) => encoder.data(data, &mut out).expect("the length is right"),
                weft_wire::h1::Piece::Trailers(fields) => {
                    encoder.finish_with(&fields, &mut out).expect("the length is right");
                }
                weft_wire::h1::Piece::End => {
                    // After trailers the end is written already.
                    let _ = encoder.finish(&mut out);
                    break;
                }
                weft_wire::h1::Piece::NeedMore => return out.to_vec(),
            }
        }
    }
    out.to_vec()
}

fn without_hop_by_hop(message: Message) -> Message {
    let fields = message
        .fields
        .into_iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("connection"))
        .collect();
    Message { fields, ..message }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn t01_pieces_do_not_matter(
        requests in prop::collection::vec(one_request(), 1..3),
        damage in damage(),
        sizes in prop::collection::vec(1usize..40, 1..10),
    ) {
        let stream = damaged(requests.concat(), damage);
        let whole = read_requests(&stream, &[stream.len()]);
        prop_assert_eq!(&read_requests(&stream, &[1]), &whole);
        prop_assert_eq!(&read_requests(&stream, &sizes), &whole);
    }

    #[test]
    fn t01_what_is_written_reads_the_same(requests in prop::collection::vec(one_request(), 1..3), damage in damage()) {
        let stream = damaged(requests.concat(), damage);
        let (before, _) = read_requests(&stream, &[stream.len()]);
        let (after, ended) = read_requests(&rewritten(&stream), &[usize::MAX]);
        // Whatever was cut or refused in the middle: as many requests as were understood, and each the same.
        let complete = after.len();
        prop_assert!(complete >= before.len().saturating_sub(1), "{ended:?}");
        for (before, after) in before.into_iter().zip(after).take(complete) {
            prop_assert_eq!(&before.method, &after.method);
            prop_assert_eq!(&before.target, &after.target);
            prop_assert!(before.body.starts_with(&after.body));
            prop_assert_eq!(without_hop_by_hop(before).fields.len() >= after.fields.len(), true);
        }
    }

    #[test]
    fn an_undamaged_request_goes_on_byte_for_byte(request in one_request()) {
        let (messages, _) = read_requests(&request, &[usize::MAX]);
        prop_assert_eq!(messages.len(), 1);
        let again = rewritten(&request);
        let (after, _) = read_requests(&again, &[usize::MAX]);
        prop_assert_eq!(&messages, &after);
        // Chunks may be cut differently; everything else is the same bytes.
        if messages[0].length != BodyLength::Chunked {
            prop_assert_eq!(again, request);
        }
    }

    #[test]
    fn responses_in_pieces_read_the_same(status in 100u16..1000, reason in "[ -~é]{0,20}", fields in plain_fields(), damage in damage(), kind in 0..3) {
        let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let kind = [RequestKind::Head, RequestKind::Connect, RequestKind::Other][kind as usize];
        let stream = damaged(text.into_bytes(), damage);
        let whole = ResponseHead::parse(&stream, kind, &mut Scan::default());
        let mut scan = Scan::default();
        let pieces = (0..=stream.len()).find_map(|end| ResponseHead::parse(&stream[..end], kind, &mut scan).transpose());
        match (whole, pieces) {
            (Ok(None), None) => {}
            (Ok(Some((whole, used))), Some(Ok((pieces, same)))) => {
                prop_assert_eq!(used, same);
                prop_assert_eq!((whole.status(), whole.reason(), whole.body(), pairs(whole.fields())), (pieces.status(), pieces.reason(), pieces.body(), pairs(pieces.fields())));
                let mut out = BytesMut::new();
                whole.encode(&Forward::default(), &mut out);
                let (again, _) = ResponseHead::parse(&out, kind, &mut Scan::default()).expect("reads again").expect("complete");
                prop_assert_eq!((again.status(), again.body()), (whole.status(), whole.body()));
            }
            // Without a blank line a piece is not always worth a parse.
            (Err(_), Some(Err(_)) | None) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn hosts_are_canonical_once(text in "[A-Za-z0-9._:\\[\\]@, -]{0,20}") {
        use weft_wire::host::Host;
        if let Ok(host) = Host::parse(&text) {
            let again = Host::parse(&host.name).expect("canonical is a host");
            prop_assert_eq!(&again.name, &host.name);
            prop_assert_eq!(again.port, None);
        }
    }

    #[test]
    fn t57_verdicts_stand_and_nothing_panics(stream in prop::collection::vec(any::<u8>(), 0..200), tls in any::<bool>()) {
        let mut stream = stream;
        if tls && stream.len() > 6 {
            stream[..6].copy_from_slice(&[0x16, 3, 1, 0, 100, 1]);
        }
        let (mut client, mut server, mut scan) = (sniff::Client::Partial, sniff::Server::Partial, hello::Scan::NeedMore);
        for end in 0..=stream.len() {
            let now = (sniff::client(&stream[..end]), sniff::server(&stream[..end]), hello::scan(&stream[..end]));
            prop_assert!(client == sniff::Client::Partial || client == now.0);
            prop_assert!(server == sniff::Server::Partial || server == now.1);
            prop_assert!(scan == hello::Scan::NeedMore || scan == now.2);
            (client, server, scan) = now;
        }
    }
}

#[test]
fn an_empty_table_is_empty() {
    assert!(Fields::default().is_empty() && Fields::default().to_header_map().is_empty());
}
