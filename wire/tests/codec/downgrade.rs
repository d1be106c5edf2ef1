//! T21 and T22 for requests that came over HTTP/2: nothing in them becomes a second request, or a second host, in HTTP/1.

use crate::support::{bytes, request};
use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Uri};
use rstest::rstest;
use weft_wire::h1::{self, Forward, Refused};
use weft_wire::h2::check_request;

fn parts(uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
    let mut builder = Request::builder().method("POST").uri(uri);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder
        .body(())
        .expect("parts that the http crate takes")
        .into_parts()
        .0
}

#[test]
fn t21_what_would_break_out_of_a_line_cannot_be_a_name_a_value_or_a_path() {
    assert!(HeaderValue::from_bytes(b"x\r\nTransfer-Encoding: chunked").is_err());
    assert!(HeaderValue::from_bytes(b"x\ny").is_err());
    assert!(HeaderValue::from_bytes(b"x\ry").is_err());
    assert!(HeaderValue::from_bytes(b"x\0").is_err());
    assert!(HeaderName::from_lowercase(b"a: b").is_err());
    assert!(HeaderName::from_lowercase(b"a:").is_err());
    assert!(HeaderName::from_lowercase(b"a\r\n").is_err());
    assert!(HeaderName::from_lowercase(b"").is_err());
    assert!(HeaderName::from_lowercase(b"Upper").is_err());
    assert!("/ HTTP/1.1\r\nHost: z".parse::<PathAndQuery>().is_err());
    assert!("/ HTTP/1.1".parse::<PathAndQuery>().is_err());
    assert!("/a\u{7f}".parse::<PathAndQuery>().is_err() || check_request(&parts("http://a/a\u{7f}", &[])).is_err());
    assert!("a b".parse::<http::uri::Authority>().is_err());
    assert!(http::Method::from_bytes(b"GET / HTTP/1.1\r\n").is_err());
}

#[rstest]
#[case("connection", "close")]
#[case("transfer-encoding", "chunked")]
#[case("transfer-encoding", "")]
#[case("upgrade", "websocket")]
#[case("keep-alive", "5")]
#[case("proxy-connection", "close")]
#[case("http2-settings", "AAMAAABk")]
#[case("te", "gzip")]
#[case("te", "trailers, gzip")]
fn t21_a_field_of_http_1_connections_is_refused(#[case] name: &str, #[case] value: &str) {
    assert_eq!(
        check_request(&parts("http://a/", &[(name, value)])),
        Err(Refused::ConnectionField)
    );
}

#[rstest]
#[case(&["+3"])]
#[case(&["3,3"])]
#[case(&[""])]
#[case(&["03"])]
#[case(&["18446744073709551616"])]
fn t21_an_odd_content_length_is_refused(#[case] values: &[&str]) {
    let fields: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
    assert_eq!(check_request(&parts("http://a/", &fields)), Err(Refused::Length));
}

#[test]
fn t21_a_content_length_is_one_number() {
    let twice = [("content-length", "3"), ("content-length", "3")];
    assert_eq!(check_request(&parts("http://a/", &twice)), Err(Refused::TwoLengths));
    assert_eq!(
        check_request(&parts("http://a/", &twice[..1])).expect("plain").length,
        Some(3)
    );
}

#[rstest]
#[case::differ("http://a/", &["b"], Refused::HostsDiffer)]
#[case::other_port("http://a/", &["a:8080"], Refused::HostsDiffer)]
#[case::two("http://a/", &["a", "a"], Refused::TwoHosts)]
#[case::userinfo("http://u@a/", &[], Refused::Host)]
#[case::userinfo_in_host("/", &["u@a"], Refused::Host)]
#[case::list("/", &["a, b"], Refused::Host)]
#[case::absent("/", &[], Refused::NoHost)]
fn t22_hosts_that_disagree_are_refused(#[case] uri: &str, #[case] hosts: &[&str], #[case] why: Refused) {
    let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
    assert_eq!(check_request(&parts(uri, &fields)), Err(why));
}

#[rstest]
#[case("http://A.test.:80/", &["a.TEST"])]
#[case("http://a.test/", &["a.test:80"])]
#[case("https://a.test/", &["a.test:443"])]
#[case("http://a.test/", &[])]
#[case("/", &["A.test"])]
fn t22_a_host_has_one_form(#[case] uri: &str, #[case] hosts: &[&str]) {
    let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
    let parts = parts(uri, &fields);
    let checked = check_request(&parts).expect(uri);
    assert_eq!(checked.host.name, "a.test");
    // What is written names one host, and HTTP/1 reads the same.
    let mut out = BytesMut::new();
    h1::encode_request(&parts, &Forward::default(), &mut out);
    let text = String::from_utf8(out.to_vec()).expect("ASCII");
    let again = request(&text).expect("a plain HTTP/1 request");
    assert_eq!(again.host().expect("a host").name, "a.test");
}

#[test]
fn t21_an_asterisk_and_a_connect_are_written_in_their_own_form() {
    let mut parts = parts("http://a/", &[]);
    parts.method = http::Method::OPTIONS;
    let mut uri = Uri::default().into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some("a".parse().expect("an authority"));
    uri.path_and_query = Some(PathAndQuery::from_static("*"));
    parts.uri = Uri::from_parts(uri).expect("a uri");
    let mut out = BytesMut::new();
    h1::encode_request(&parts, &Forward::default(), &mut out);
    assert_eq!(out, bytes("OPTIONS * HTTP/1.1⏎host: a⏎⏎"));
    parts.method = http::Method::CONNECT;
    parts.uri = "a:443".parse().expect("an authority");
    let mut out = BytesMut::new();
    h1::encode_request(&parts, &Forward::default(), &mut out);
    assert_eq!(out, bytes("CONNECT a:443 HTTP/1.1⏎host: a:443⏎⏎"));
}
