//! T05 and T07: chunk grammar, trailers, lengths, and where one message ends.

use crate::support::{Ended, bytes, pairs, read_requests, read_whole_body};
use bytes::{Bytes, BytesMut};
use rstest::rstest;
use weft_proto::limits;
use weft_wire::h1::{BodyDecoder, BodyEncoder, BodyLength, Frame, Refused, WrongLength};

/// Data, trailers, and whether that was all.
type Read = (Vec<u8>, Vec<(String, Vec<u8>)>, bool);

fn chunked(body: &str) -> Result<Read, Refused> {
    let (message, complete) = read_whole_body(&mut BodyDecoder::request(BodyLength::Chunked), &bytes(body))?;
    Ok((message.body, message.trailers, complete))
}

#[rstest]
#[case::bare_lf("5\nhello⏎0⏎⏎", Refused::ChunkSize)]
#[case::bare_lf_after_extension("5;a\nhello⏎0⏎⏎", Refused::ChunkExtension)]
#[case::bare_cr("5\rhello⏎0⏎⏎", Refused::ChunkSize)]
#[case::cr_cr_lf("5\r\r\nhello⏎0⏎⏎", Refused::ChunkSize)]
#[case::too_big("FFFFFFFFFFFFFFFFF⏎", Refused::ChunkTooBig)]
#[case::too_many_zeros("00000000000000005⏎hello⏎0⏎⏎", Refused::ChunkTooBig)]
#[case::no_size("⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::only_extension(";a⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::sign("+5⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::minus("-5⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::prefix("0x5⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::blank_first(" 5⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::blank_after("5 ⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::blank_before_extension("5 ;a⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::underscore("5_0⏎hello⏎0⏎⏎", Refused::ChunkSize)]
#[case::no_crlf_after_data("5⏎hello0⏎⏎", Refused::ChunkEnd)]
#[case::lf_after_data("5⏎hello\n0⏎⏎", Refused::ChunkEnd)]
#[case::cr_after_data("5⏎hello\r0⏎⏎", Refused::ChunkEnd)]
#[case::more_data_than_size("4⏎hello⏎0⏎⏎", Refused::ChunkEnd)]
#[case::two_crlf_after_data("5⏎hello⏎⏎0⏎⏎", Refused::ChunkSize)]
#[case::nul_in_extension("5;a\0⏎hello⏎0⏎⏎", Refused::ChunkExtension)]
#[case::lf_at_the_end("5⏎hello⏎0\n\n", Refused::ChunkSize)]
#[case::lf_for_blank_line("5⏎hello⏎0⏎\n", Refused::Newline)]
#[case::lf_after_trailer("5⏎hello⏎0⏎A: b\n⏎", Refused::Newline)]
#[case::length_in_trailer("5⏎hello⏎0⏎Content-Length: 9⏎⏎", Refused::TrailerFraming)]
#[case::encoding_in_trailer("0⏎Transfer-Encoding: chunked⏎⏎", Refused::TrailerFraming)]
#[case::folded_trailer("0⏎A: b⏎ c⏎⏎", Refused::Fold)]
#[case::trailer_without_name("0⏎: c⏎⏎", Refused::FieldName)]
#[case::trailer_with_blank_before_colon("0⏎A : c⏎⏎", Refused::FieldName)]
#[case::trailer_with_nul("0⏎A: \0⏎⏎", Refused::FieldValue)]
#[case::trailer_is_a_request("0⏎GET / HTTP/1.1⏎Host: a⏎⏎", Refused::FieldName)]
fn t05_a_chunk_that_is_not_plain_is_refused(#[case] body: &str, #[case] why: Refused) {
    assert_eq!(chunked(body).expect_err(body), why);
    // And it ends the connection, so that nothing after it is ever taken for a request.
    let stream = bytes(&format!(
        "POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎⏎{body}GET /smuggled HTTP/1.1⏎Host: a⏎⏎"
    ));
    for sizes in [&[1][..], &[7], &[stream.len()]] {
        let (messages, ended) = read_requests(&stream, sizes);
        assert_eq!((messages.len(), ended), (1, Ended::Refused(why)));
    }
}

#[rstest]
#[case::one("5⏎hello⏎0⏎⏎", "hello")]
#[case::two("5⏎hello⏎6⏎ world⏎0⏎⏎", "hello world")]
#[case::upper_case("A⏎0123456789⏎0⏎⏎", "0123456789")]
#[case::lower_case("a⏎0123456789⏎0⏎⏎", "0123456789")]
#[case::zeros("0005⏎hello⏎000⏎⏎", "hello")]
#[case::none("0⏎⏎", "")]
#[case::extension("5;a=b⏎hello⏎0;c⏎⏎", "hello")]
#[case::quoted_extension("5;a=\";\\\"\"⏎hello⏎0⏎⏎", "hello")]
#[case::data_like_chunks("8⏎0⏎⏎GET⏎0⏎⏎", "0\r\n\r\nGET")]
fn t05_plain_chunks_are_read(#[case] body: &str, #[case] data: &str) {
    assert_eq!(chunked(body), Ok((data.as_bytes().to_vec(), vec![], true)));
}

#[test]
fn t05_extensions_are_bounded_for_the_whole_message() {
    let one = |length: usize| format!("5;{}⏎hello⏎0⏎⏎", "a".repeat(length));
    assert!(chunked(&one(limits::CHUNK_EXTENSIONS)).is_ok());
    assert_eq!(
        chunked(&one(limits::CHUNK_EXTENSIONS + 1)),
        Err(Refused::ChunkExtension)
    );
    assert_eq!(chunked(&one(64 << 10)), Err(Refused::ChunkExtension));
    let many = format!("{}0⏎⏎", "1;abcdefg⏎x⏎".repeat(limits::CHUNK_EXTENSIONS / 7 + 1));
    assert_eq!(chunked(&many), Err(Refused::ChunkExtension));
}

#[test]
fn a_server_may_pad_the_size_with_blanks_but_not_without_end() {
    let read = |body: &str| {
        read_whole_body(&mut BodyDecoder::response(BodyLength::Chunked), &bytes(body)).map(|read| read.0.body)
    };
    assert_eq!(read("5   ⏎hello⏎0  ⏎⏎"), Ok(b"hello".to_vec()));
    assert_eq!(read("5 5⏎hello⏎0⏎⏎"), Err(Refused::ChunkSize));
    assert_eq!(
        read(&format!("5{}⏎", " ".repeat(limits::CHUNK_EXTENSIONS + 1))),
        Err(Refused::ChunkExtension)
    );
}

#[test]
fn t05_trailers_pass_but_for_framing_routing_and_authentication() {
    let body = "5⏎hello⏎0⏎Checksum: abc⏎Host: b⏎Authorization: x⏎grpc-status: 0⏎Cookie: a⏎Connection: x⏎weft-version: 1.0⏎X-Two: 1⏎x-two: 2⏎⏎";
    let (_, trailers, complete) = chunked(body).expect("legal");
    assert!(complete);
    let kept: Vec<_> = trailers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    assert_eq!(
        kept,
        [
            ("Checksum", b"abc" as &[u8]),
            ("grpc-status", b"0"),
            ("X-Two", b"1"),
            ("x-two", b"2")
        ],
        "in their order and case"
    );
}

#[test]
fn t05_trailers_are_bounded() {
    let body = |length: usize| format!("0⏎A: {}⏎⏎", "a".repeat(length));
    assert!(chunked(&body(limits::TRAILERS - 7)).is_ok());
    assert_eq!(chunked(&body(limits::TRAILERS - 6)), Err(Refused::TrailersTooLong));
    let many = format!("0⏎{}⏎", "A: b⏎".repeat(limits::FIELDS + 1));
    assert_eq!(chunked(&many), Err(Refused::TooManyFields));
}

#[test]
fn t07_the_rest_of_a_body_is_never_a_request() {
    let inner = "GET /admin HTTP/1.1⏎Host: a⏎⏎";
    let length = bytes(inner).len();
    let stream = bytes(&format!(
        "POST / HTTP/1.1⏎Host: a⏎Content-Length: {length}⏎⏎{inner}GET /next HTTP/1.1⏎Host: a⏎⏎"
    ));
    for sizes in [&[1][..], &[3], &[stream.len()]] {
        let (messages, ended) = read_requests(&stream, sizes);
        let targets: Vec<_> = messages.iter().map(|message| message.target.as_str()).collect();
        assert_eq!((targets.as_slice(), ended), (&["/", "/next"][..], Ended::Clean));
        assert_eq!(messages[0].body, bytes(inner));
    }
}

#[test]
fn t07_a_decoder_knows_whether_its_body_was_read() {
    let mut decoder = BodyDecoder::request(BodyLength::Length(1000));
    let mut buffer = BytesMut::from(&b"part"[..]);
    assert!(matches!(decoder.decode(&mut buffer), Ok(Frame::Data(data)) if data == "part"));
    assert!(matches!(decoder.decode(&mut buffer), Ok(Frame::NeedMore)));
    assert!(!decoder.is_end(), "so the connection cannot be used again");
    assert_eq!(decoder.remaining(), 996);
    assert!(!decoder.close(), "and a close now is a body cut off");
}

#[rstest]
#[case(BodyLength::Length(5), "hello", true)]
#[case(BodyLength::Length(5), "hell", false)]
#[case(BodyLength::Chunked, "5⏎hello⏎0⏎⏎", true)]
#[case(BodyLength::Chunked, "5⏎hello⏎0⏎", false)]
#[case(BodyLength::Chunked, "5⏎hello⏎", false)]
#[case(BodyLength::Chunked, "5⏎hel", false)]
#[case(BodyLength::UntilClose, "hello", true)]
#[case(BodyLength::UntilClose, "", true)]
#[case(BodyLength::None, "", true)]
fn a_body_cut_off_is_seen(#[case] length: BodyLength, #[case] body: &str, #[case] complete: bool) {
    let (_, read) = read_whole_body(&mut BodyDecoder::response(length), &bytes(body)).expect(body);
    assert_eq!(read, complete);
}

#[test]
fn data_shares_the_buffer() {
    let mut buffer = BytesMut::from(&bytes("5⏎hello⏎0⏎⏎next")[..]);
    let place = buffer.as_ptr() as usize;
    let mut decoder = BodyDecoder::request(BodyLength::Chunked);
    match decoder.decode(&mut buffer) {
        Ok(Frame::Data(data)) => assert_eq!(
            (data.as_ptr() as usize, data),
            (place + 3, Bytes::from_static(b"hello"))
        ),
        other => panic!("{other:?}"),
    }
    assert!(matches!(decoder.decode(&mut buffer), Ok(Frame::End)));
    assert_eq!(buffer, "next", "what follows is left for the next message");
}

fn written(length: BodyLength, pieces: &[&str]) -> Result<String, WrongLength> {
    let mut out = BytesMut::new();
    let mut encoder = BodyEncoder::new(length);
    for piece in pieces {
        encoder.data(piece.as_bytes(), &mut out)?;
    }
    encoder.finish(&mut out)?;
    Ok(String::from_utf8_lossy(&out).replace("\r\n", "⏎"))
}

#[test]
fn a_body_is_written_with_what_stands_around_it() {
    assert_eq!(
        written(BodyLength::Chunked, &["hello", "", "0123456789abcdefg"]).as_deref(),
        Ok("5⏎hello⏎11⏎0123456789abcdefg⏎0⏎⏎")
    );
    assert_eq!(
        written(BodyLength::Chunked, &["", ""]).as_deref(),
        Ok("0⏎⏎"),
        "an empty piece is not the end"
    );
    assert_eq!(
        written(BodyLength::Length(5), &["hel", "", "lo"]).as_deref(),
        Ok("hello")
    );
    assert_eq!(written(BodyLength::UntilClose, &["hello"]).as_deref(), Ok("hello"));
    assert_eq!(written(BodyLength::None, &[]).as_deref(), Ok(""));
    assert_eq!(
        written(BodyLength::Length(5), &["hell"]),
        Err(WrongLength),
        "too little"
    );
    assert_eq!(
        written(BodyLength::Length(5), &["hello!"]),
        Err(WrongLength),
        "too much"
    );
    assert_eq!(written(BodyLength::None, &["x"]), Err(WrongLength));
}

#[test]
fn nothing_is_written_after_the_end() {
    let mut out = BytesMut::new();
    let mut encoder = BodyEncoder::new(BodyLength::Chunked);
    encoder.finish(&mut out).expect("once");
    assert_eq!(encoder.finish(&mut out), Err(WrongLength));
    assert_eq!(encoder.data(b"x", &mut out), Err(WrongLength));
    assert_eq!(out, bytes("0⏎⏎"));
}

#[test]
fn trailers_are_written_as_they_came() {
    let mut decoder = BodyDecoder::request(BodyLength::Chunked);
    let mut buffer = BytesMut::from(&bytes("0⏎X-Sum:a ⏎x-sum:  b⏎⏎")[..]);
    let Ok(Frame::Trailers(trailers)) = decoder.decode(&mut buffer) else {
        panic!("trailers")
    };
    assert_eq!(
        pairs(&trailers),
        [("X-Sum".into(), b"a".to_vec()), ("x-sum".into(), b"b".to_vec())]
    );
    let mut out = BytesMut::new();
    BodyEncoder::new(BodyLength::Chunked)
        .finish_with(&trailers, &mut out)
        .expect("chunked");
    assert_eq!(out, bytes("0⏎X-Sum:a ⏎x-sum:  b⏎⏎"), "byte for byte");
    let mut out = BytesMut::new();
    BodyEncoder::new(BodyLength::Chunked)
        .finish_with_map(&trailers.to_header_map(), &mut out)
        .expect("chunked");
    assert_eq!(
        out,
        bytes("0⏎x-sum: a⏎x-sum: b⏎⏎"),
        "through a map only the case is lost"
    );
    let mut out = BytesMut::new();
    BodyEncoder::new(BodyLength::Length(0))
        .finish_with(&trailers, &mut out)
        .expect("no body");
    assert_eq!(out, "", "where they cannot be said they are left out");
}

#[test]
fn t05_trailers_from_http_2_are_filtered_too() {
    let mut map = http::HeaderMap::new();
    for (name, value) in [
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("host", "b"),
        ("grpc-status", "0"),
    ] {
        map.insert(name, value.parse().expect("a value"));
    }
    let mut out = BytesMut::new();
    BodyEncoder::new(BodyLength::Chunked)
        .finish_with_map(&map, &mut out)
        .expect("chunked");
    assert_eq!(out, bytes("0⏎grpc-status: 0⏎⏎"));
}
