//! T01-T06 at the head: what two readers could frame differently is refused, with the status that the sender is told.

use crate::support::{Ended, bytes, read_requests, request, response, response_to};
use rstest::rstest;
use weft_proto::limits;
use weft_wire::h1::{BodyLength, Refused, RequestHead, RequestKind, ResponseHead, Scan};

/// The refusal of a probe, its status checked.
fn refusal(probe: &str, status: u16) -> Refused {
    let refused = request(probe).expect_err(probe);
    assert_eq!(refused.status(), status, "{probe:?}: {refused}");
    refused
}

#[rstest]
#[case::length_first("POST / HTTP/1.1⏎Host: a⏎Content-Length: 6⏎Transfer-Encoding: chunked⏎⏎0⏎⏎X")]
#[case::encoding_first("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎Content-Length: 6⏎⏎0⏎⏎X")]
#[case::short_length("POST / HTTP/1.1⏎Host: a⏎Content-Length: 3⏎Transfer-Encoding: chunked⏎⏎8⏎SMUGGLED⏎0⏎⏎")]
#[case::zero_length("POST / HTTP/1.1⏎Host: a⏎Content-Length: 0⏎Transfer-Encoding: chunked⏎⏎0⏎⏎")]
#[case::on_get("GET / HTTP/1.1⏎Host: a⏎Content-Length: 5⏎Transfer-Encoding: chunked⏎⏎0⏎⏎")]
fn t02_length_and_encoding_together_are_refused(#[case] probe: &str) {
    assert_eq!(refusal(probe, 400), Refused::LengthAndEncoding);
    let (messages, ended) = read_requests(&bytes(probe), &[1]);
    assert!(messages.is_empty(), "nothing reaches a server");
    assert_eq!(ended, Ended::Refused(Refused::LengthAndEncoding));
}

#[rstest]
#[case("+5")]
#[case("-5")]
#[case("5,5")]
#[case("5, 5")]
#[case("5, 6")]
#[case("")]
#[case("   ")]
#[case("5 5")]
#[case("0x5")]
#[case("5.0")]
#[case("5e0")]
#[case("005")]
#[case("5;")]
#[case("\"5\"")]
#[case("5\t6")]
#[case("18446744073709551616")]
#[case("99999999999999999999999999")]
#[case("٥")]
fn t03_an_odd_content_length_is_refused(#[case] value: &str) {
    let probe = format!("POST / HTTP/1.1⏎Host: a⏎Content-Length: {value}⏎⏎");
    assert_eq!(refusal(&probe, 400), Refused::Length);
}

#[rstest]
#[case("5", "6")]
#[case("5", "5")]
#[case("0", "0")]
fn t03_a_second_content_length_is_refused(#[case] first: &str, #[case] second: &str) {
    let probe = format!("POST / HTTP/1.1⏎Host: a⏎Content-Length: {first}⏎content-length: {second}⏎⏎");
    assert_eq!(refusal(&probe, 400), Refused::TwoLengths);
    let probe = format!("HTTP/1.1 200 OK⏎Content-Length: {first}⏎content-length: {second}⏎⏎");
    assert_eq!(response(&probe).expect_err(&probe), Refused::TwoLengths);
}

#[rstest]
#[case("0", 0)]
#[case("5", 5)]
#[case(" 5\t", 5)]
#[case("18446744073709551615", u64::MAX)]
fn t03_a_plain_content_length_is_taken(#[case] value: &str, #[case] length: u64) {
    let head = request(&format!("POST / HTTP/1.1⏎Host: a⏎Content-Length:{value}⏎⏎")).expect(value);
    assert_eq!(head.body(), BodyLength::Length(length));
}

#[rstest]
#[case("xchunked")]
#[case("chunked, identity")]
#[case("identity")]
#[case("identity, chunked")]
#[case("chunked, chunked")]
#[case("chunked,")]
#[case(",chunked")]
#[case("chunked;q=1")]
#[case("chunked ; a=b")]
#[case("\"chunked\"")]
#[case("chunked, gzip")]
#[case("chu\tnked")]
#[case("chunked\u{a0}")]
#[case("")]
#[case("cow")]
fn t04_an_odd_transfer_encoding_is_refused(#[case] value: &str) {
    let probe = format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: {value}⏎⏎");
    assert_eq!(refusal(&probe, 400), Refused::Encoding);
}

#[rstest]
#[case("gzip, chunked")]
#[case("deflate,gzip, CHUNKED")]
fn t04_a_real_coding_that_is_not_spoken_is_said_to_be_so(#[case] value: &str) {
    let probe = format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: {value}⏎⏎");
    assert_eq!(refusal(&probe, 501), Refused::EncodingUnknown);
}

#[rstest]
#[case::two(
    "POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎Transfer-Encoding: chunked⏎⏎",
    Refused::Encoding
)]
#[case::other_case(
    "POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎transfer-encoding: identity⏎⏎",
    Refused::Encoding
)]
#[case::in_1_0("POST / HTTP/1.0⏎Transfer-Encoding: chunked⏎⏎", Refused::EncodingInHttp10)]
#[case::in_1_0_with_length(
    "POST / HTTP/1.0⏎Content-Length: 3⏎Transfer-Encoding: chunked⏎⏎",
    Refused::EncodingInHttp10
)]
#[case::blank_before_colon("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding : chunked⏎⏎", Refused::FieldName)]
#[case::vertical_tab("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: \u{b}chunked⏎⏎", Refused::FieldValue)]
#[case::form_feed("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked\u{c}⏎⏎", Refused::FieldValue)]
#[case::nul("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked\0⏎⏎", Refused::FieldValue)]
#[case::folded("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding:⏎ chunked⏎⏎", Refused::Fold)]
#[case::hidden_after_lf("POST / HTTP/1.1⏎Host: a⏎X: y\nTransfer-Encoding: chunked⏎⏎", Refused::Newline)]
fn t04_an_encoding_that_hides_is_refused(#[case] probe: &str, #[case] why: Refused) {
    assert_eq!(refusal(probe, 400), why);
}

#[test]
fn t04_the_case_of_chunked_does_not_matter_and_is_written_plain() {
    let head = request("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding:\tCHUNKED ⏎⏎").expect("legal");
    assert_eq!(head.body(), BodyLength::Chunked);
    let mut out = bytes::BytesMut::new();
    head.encode(&Default::default(), &mut out);
    assert_eq!(out, bytes("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎⏎"));
}

#[rstest]
#[case::fold("GET / HTTP/1.1⏎Host: a⏎X: a⏎ Transfer-Encoding: chunked⏎⏎", Refused::Fold)]
#[case::fold_with_tab("GET / HTTP/1.1⏎Host: a⏎X: a⏎\tb⏎⏎", Refused::Fold)]
#[case::fold_of_nothing("GET / HTTP/1.1⏎ Host: a⏎⏎", Refused::Fold)]
#[case::empty_name("GET / HTTP/1.1⏎Host: a⏎: v⏎⏎", Refused::FieldName)]
#[case::no_colon("GET / HTTP/1.1⏎Host: a⏎X⏎⏎", Refused::FieldName)]
#[case::blank_before_colon("GET / HTTP/1.1⏎Host: a⏎X : v⏎⏎", Refused::FieldName)]
#[case::tab_before_colon("GET / HTTP/1.1⏎Host: a⏎X\t: v⏎⏎", Refused::FieldName)]
#[case::blank_in_name("GET / HTTP/1.1⏎Host: a⏎X Y: v⏎⏎", Refused::FieldName)]
#[case::high_byte_in_name("GET / HTTP/1.1⏎Host: a⏎Xé: v⏎⏎", Refused::FieldName)]
#[case::slash_in_name("GET / HTTP/1.1⏎Host: a⏎X/Y: v⏎⏎", Refused::FieldName)]
#[case::nul_in_name("GET / HTTP/1.1⏎Host: a⏎X\0: v⏎⏎", Refused::FieldName)]
#[case::nul_in_value("GET / HTTP/1.1⏎Host: a⏎X: a\0b⏎⏎", Refused::FieldValue)]
#[case::bare_cr_in_value("GET / HTTP/1.1⏎Host: a⏎X: a\rb⏎⏎", Refused::FieldValue)]
#[case::bare_cr_before_name("GET / HTTP/1.1⏎Host: a⏎\rX: b⏎⏎", Refused::Newline)]
#[case::escape_in_value("GET / HTTP/1.1⏎Host: a⏎X: \u{1b}[31m⏎⏎", Refused::FieldValue)]
#[case::delete_in_value("GET / HTTP/1.1⏎Host: a⏎X: \u{7f}⏎⏎", Refused::FieldValue)]
#[case::bare_lf_after_field("GET / HTTP/1.1⏎Host: a\nX: b⏎⏎", Refused::Newline)]
#[case::bare_lf_after_line("GET / HTTP/1.1\nHost: a⏎⏎", Refused::Newline)]
#[case::bare_lf_at_end("GET / HTTP/1.1⏎Host: a⏎\n", Refused::Newline)]
#[case::bare_lf_after_last("GET / HTTP/1.1⏎Host: a\n⏎", Refused::Newline)]
#[case::bare_lf_only("GET / HTTP/1.1\nHost: a\n\n", Refused::Newline)]
#[case::bare_lf_in_empty_value("GET / HTTP/1.1⏎Host: a⏎X:\nY: b⏎⏎", Refused::Newline)]
#[case::bare_lf_after_blanks("GET / HTTP/1.1⏎Host: a⏎X: y \nY: b⏎⏎", Refused::Newline)]
#[case::lf_before("\nGET / HTTP/1.1⏎Host: a⏎⏎", Refused::Newline)]
#[case::cr_before("\rGET / HTTP/1.1⏎Host: a⏎⏎", Refused::Newline)]
#[case::many_blank_lines("⏎⏎⏎⏎⏎GET / HTTP/1.1⏎Host: a⏎⏎", Refused::RequestLine)]
fn t06_a_field_that_is_not_plain_is_refused(#[case] probe: &str, #[case] why: Refused) {
    assert_eq!(refusal(probe, 400), why);
}

#[rstest]
#[case::two_blanks("GET  / HTTP/1.1⏎Host: a⏎⏎")]
#[case::two_blanks_after("GET /  HTTP/1.1⏎Host: a⏎⏎")]
#[case::tab("GET\t/ HTTP/1.1⏎Host: a⏎⏎")]
#[case::blank_in_target("GET /a b HTTP/1.1⏎Host: a⏎⏎")]
#[case::control_in_target("GET /a\u{1}b HTTP/1.1⏎Host: a⏎⏎")]
#[case::no_version("GET /⏎Host: a⏎⏎")]
#[case::no_target("GET HTTP/1.1⏎Host: a⏎⏎")]
#[case::blank_first(" GET / HTTP/1.1⏎Host: a⏎⏎")]
#[case::method_with_colon("GE:T / HTTP/1.1⏎Host: a⏎⏎")]
#[case::method_with_high_byte("GÉT / HTTP/1.1⏎Host: a⏎⏎")]
#[case::no_method(" / HTTP/1.1⏎Host: a⏎⏎")]
#[case::trailing_blank("GET / HTTP/1.1 ⏎Host: a⏎⏎")]
#[case::lower_case_version("GET / http/1.1⏎Host: a⏎⏎")]
#[case::version_with_more("GET / HTTP/1.10⏎Host: a⏎⏎")]
#[case::version_cut("GET / HTTP/1⏎Host: a⏎⏎")]
fn t06_a_request_line_that_is_not_plain_is_refused(#[case] probe: &str) {
    refusal(probe, 400);
}

#[rstest]
#[case("GET / HTTP/2.0⏎Host: a⏎⏎")]
#[case("GET / HTTP/1.2⏎Host: a⏎⏎")]
#[case("GET / HTTP/0.9⏎Host: a⏎⏎")]
#[case("GET / HTTP/9.9⏎Host: a⏎⏎")]
#[case("GET / HTTP/2⏎Host: a⏎⏎")]
fn a_version_that_is_not_spoken_is_said_to_be_so(#[case] probe: &str) {
    assert_eq!(refusal(probe, 505), Refused::Version);
}

#[rstest]
#[case("GET a HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET * HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET a:80 HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET http:///a HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET 1http://a/ HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET ?a=b HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET \\a HTTP/1.1⏎Host: a⏎⏎")]
#[case("CONNECT / HTTP/1.1⏎Host: a⏎⏎")]
#[case("CONNECT a HTTP/1.1⏎Host: a⏎⏎")]
#[case("CONNECT * HTTP/1.1⏎Host: a⏎⏎")]
#[case("CONNECT http://a:80/ HTTP/1.1⏎Host: a:80⏎⏎")]
#[case("CONNECT b@a:80 HTTP/1.1⏎Host: a:80⏎⏎")]
#[case("CONNECT a: HTTP/1.1⏎Host: a⏎⏎")]
#[case("OPTIONS ** HTTP/1.1⏎Host: a⏎⏎")]
fn a_target_in_no_form_of_its_method_is_refused(#[case] probe: &str) {
    assert_eq!(refusal(probe, 400), Refused::Target);
}

/// The body that a response says, for the request that was asked.
#[rstest]
#[case::length("HTTP/1.1 200 OK⏎Content-Length: 5⏎⏎", RequestKind::Other, BodyLength::Length(5))]
#[case::padded_length("HTTP/1.1 200 OK⏎Content-Length: 0005⏎⏎", RequestKind::Other, BodyLength::Length(5))]
#[case::chunked(
    "HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎⏎",
    RequestKind::Other,
    BodyLength::Chunked
)]
#[case::until_close("HTTP/1.1 200 OK⏎⏎", RequestKind::Other, BodyLength::UntilClose)]
#[case::until_close_in_1_0("HTTP/1.0 200 OK⏎⏎", RequestKind::Other, BodyLength::UntilClose)]
#[case::to_head("HTTP/1.1 200 OK⏎Content-Length: 5⏎⏎", RequestKind::Head, BodyLength::None)]
#[case::chunked_to_head("HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎⏎", RequestKind::Head, BodyLength::None)]
#[case::no_content("HTTP/1.1 204 No Content⏎Content-Length: 5⏎⏎", RequestKind::Other, BodyLength::None)]
#[case::not_modified(
    "HTTP/1.1 304 Not Modified⏎Content-Length: 5⏎⏎",
    RequestKind::Other,
    BodyLength::None
)]
#[case::interim("HTTP/1.1 103 Early Hints⏎Link: a⏎⏎", RequestKind::Other, BodyLength::None)]
#[case::switching(
    "HTTP/1.1 101 Switching Protocols⏎Upgrade: a⏎⏎",
    RequestKind::Other,
    BodyLength::None
)]
#[case::tunnel("HTTP/1.1 200 OK⏎Content-Length: 5⏎⏎", RequestKind::Connect, BodyLength::None)]
#[case::refused_tunnel("HTTP/1.1 403 No⏎Content-Length: 5⏎⏎", RequestKind::Connect, BodyLength::Length(5))]
#[case::reset_content("HTTP/1.1 205 Reset⏎Content-Length: 0⏎⏎", RequestKind::Other, BodyLength::Length(0))]
fn t01_a_response_is_framed_as_rfc_9112_6_3_says(
    #[case] probe: &str,
    #[case] kind: RequestKind,
    #[case] body: BodyLength,
) {
    assert_eq!(response_to(kind, probe).expect(probe).body(), body);
}

#[rstest]
#[case::both(
    "HTTP/1.1 200 OK⏎Content-Length: 5⏎Transfer-Encoding: chunked⏎⏎",
    Refused::LengthAndEncoding
)]
#[case::odd_length("HTTP/1.1 200 OK⏎Content-Length: +5⏎⏎", Refused::Length)]
#[case::list("HTTP/1.1 200 OK⏎Content-Length: 5, 5⏎⏎", Refused::Length)]
#[case::odd_encoding("HTTP/1.1 200 OK⏎Transfer-Encoding: xchunked⏎⏎", Refused::Encoding)]
#[case::encoding_in_1_0("HTTP/1.0 200 OK⏎Transfer-Encoding: chunked⏎⏎", Refused::EncodingInHttp10)]
#[case::fold("HTTP/1.1 200 OK⏎X: a⏎ b⏎⏎", Refused::Fold)]
#[case::bare_lf("HTTP/1.1 200 OK\nX: a⏎⏎", Refused::Newline)]
#[case::bare_lf_field("HTTP/1.1 200 OK⏎X: a\nY: b⏎⏎", Refused::Newline)]
#[case::blank_before_colon("HTTP/1.1 200 OK⏎X : a⏎⏎", Refused::FieldName)]
#[case::nul("HTTP/1.1 200 OK⏎X: \0⏎⏎", Refused::FieldValue)]
#[case::nul_in_reason("HTTP/1.1 200 O\0K⏎⏎", Refused::StatusLine)]
#[case::two_digits("HTTP/1.1 20 OK⏎⏎", Refused::StatusLine)]
#[case::four_digits("HTTP/1.1 2000 OK⏎⏎", Refused::StatusLine)]
#[case::too_low("HTTP/1.1 099 OK⏎⏎", Refused::StatusLine)]
#[case::blank_line_first("⏎HTTP/1.1 200 OK⏎⏎", Refused::StatusLine)]
#[case::not_http("ICY 200 OK⏎⏎", Refused::StatusLine)]
#[case::http_2("HTTP/2.0 200 OK⏎⏎", Refused::Version)]
fn t01_a_response_that_could_be_framed_differently_is_refused(#[case] probe: &str, #[case] why: Refused) {
    assert_eq!(response(probe).expect_err(probe), why);
}

#[rstest]
#[case::no_reason_no_blank("HTTP/1.1 200⏎⏎", 200, "")]
#[case::no_reason("HTTP/1.1 200 ⏎⏎", 200, "")]
#[case::reason_in_utf8("HTTP/1.1 404 Não encontrado⏎⏎", 404, "Não encontrado")]
#[case::reason_with_blanks("HTTP/1.1 200  a \t b⏎⏎", 200, " a \t b")]
#[case::status_of_no_registry("HTTP/1.1 999 Denied⏎⏎", 999, "Denied")]
#[case::two_hosts("HTTP/1.1 200 OK⏎Host: a⏎Host: b⏎⏎", 200, "OK")]
fn real_servers_habits_that_do_no_harm_are_taken_as_sent(
    #[case] probe: &str,
    #[case] status: u16,
    #[case] reason: &str,
) {
    let head = response(probe).expect(probe);
    assert_eq!((head.status(), head.reason()), (status, reason.as_bytes()));
    let mut out = bytes::BytesMut::new();
    head.encode(&Default::default(), &mut out);
    assert_eq!(out, bytes(probe), "and go on as sent");
}

#[test]
fn t58_a_head_is_bounded_in_bytes_and_in_fields() {
    let fields = |count: usize| format!("GET / HTTP/1.1⏎Host: a⏎{}⏎", "X: y⏎".repeat(count - 1));
    assert_eq!(
        request(&fields(limits::FIELDS))
            .expect("as many as allowed")
            .fields()
            .len(),
        limits::FIELDS
    );
    assert_eq!(refusal(&fields(limits::FIELDS + 1), 431), Refused::TooManyFields);

    let value = |length: usize| format!("GET / HTTP/1.1⏎Host: a⏎X: {}⏎⏎", "y".repeat(length));
    let overhead = bytes(&value(0)).len();
    assert_eq!(
        request(&value(limits::HEAD - overhead))
            .expect("as long as allowed")
            .byte_length(),
        limits::HEAD
    );
    assert_eq!(refusal(&value(limits::HEAD - overhead + 1), 431), Refused::HeadTooLong);

    let target = format!("GET /{}", "y".repeat(limits::HEAD));
    let refused = RequestHead::parse(target.as_bytes(), &mut Scan::default()).expect_err("too long");
    assert_eq!((refused, refused.status()), (Refused::TargetTooLong, 414));
    let body_behind = format!("{}{}", value(10), "b".repeat(2 * limits::HEAD));
    assert!(request(&body_behind).is_ok(), "what follows the head does not count");
    let long = bytes(&format!("HTTP/1.1 200 OK⏎X: {}", "y".repeat(limits::HEAD)));
    assert_eq!(
        ResponseHead::parse(&long, RequestKind::Other, &mut Scan::default()).expect_err("too long"),
        Refused::HeadTooLong
    );
}

#[test]
fn a_head_in_single_bytes_is_not_parsed_anew_for_each() {
    let probe = bytes(&format!("GET / HTTP/1.1⏎Host: a⏎X: {}⏎⏎", "y".repeat(60_000)));
    let mut scan = Scan::default();
    let started = std::time::Instant::now();
    for end in 0..probe.len() {
        assert!(
            RequestHead::parse(&probe[..end], &mut scan)
                .expect("legal so far")
                .is_none()
        );
    }
    let (_, used) = RequestHead::parse(&probe, &mut scan).expect("legal").expect("complete");
    assert_eq!(used, probe.len());
    // Parsed anew at each byte it would be 1.8 GB of parsing.
    assert!(
        started.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn nonsense_is_refused_before_a_head_is_complete() {
    for nonsense in [
        "\0\0\0\0",
        "GET /a\0",
        "GET / HTTP/1.1\r\nX y",
        "{\"a\": 1}",
        "GET / HTTP/3",
    ] {
        assert!(
            RequestHead::parse(nonsense.as_bytes(), &mut Scan::default()).is_err(),
            "{nonsense:?}"
        );
    }
}
