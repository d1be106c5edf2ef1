//! Heads for the next hop: byte for byte, but for hop-by-hop fields and what the caller says.

use crate::support::{request, response, response_to};
use bytes::BytesMut;
use http::uri::{Authority, Scheme};
use rstest::rstest;
use weft_wire::h1::{self, Connection, Converted, Edit, Forward, Framing, RequestKind, Version};

fn show(out: &BytesMut) -> String {
    String::from_utf8_lossy(out).replace("\r\n", "⏎")
}

fn forward(probe: &str, how: &Forward<'_>) -> String {
    let mut out = BytesMut::new();
    request(probe).expect(probe).encode(how, &mut out);
    show(&out)
}

fn answer(probe: &str, how: &Forward<'_>) -> String {
    let mut out = BytesMut::new();
    response(probe).expect(probe).encode(how, &mut out);
    show(&out)
}

#[rstest]
#[case("GET /%2F/..;a?b=%zz#c HTTP/1.1⏎Host: A.:80⏎x-LOWER:v⏎X-Upper:  v\tw \t⏎Empty:⏎Bytes: é⏎⏎")]
#[case("weird!method /é HTTP/1.1⏎HOST: a⏎⏎")]
#[case("GET http://a/b HTTP/1.1⏎Accept: b⏎Host: a⏎⏎")]
#[case("OPTIONS * HTTP/1.1⏎Host: a⏎⏎")]
#[case("GET / HTTP/1.0⏎⏎")]
#[case("POST / HTTP/1.1⏎Content-Length: 5⏎Host: a⏎Expect: 100-continue⏎Trailer: x⏎⏎")]
#[case("POST / HTTP/1.1⏎X: a⏎transfer-ENCODING: chunked⏎Host: a⏎Y: b⏎⏎")]
fn a_request_goes_on_byte_for_byte(#[case] probe: &str) {
    assert_eq!(forward(probe, &Forward::default()), probe);
}

#[rstest]
#[case("HTTP/1.1 200 All is  well ⏎Server: x⏎content-LENGTH: 5⏎Set-Cookie: a⏎Set-Cookie: b⏎⏎")]
#[case("HTTP/1.1 103 Early Hints⏎Link: </a>; rel=preload⏎⏎")]
#[case("HTTP/1.1 204 No Content⏎Content-Length: 0⏎⏎")]
#[case("HTTP/1.1 304 Not Modified⏎Content-Length: 5⏎ETag: \"a\"⏎⏎")]
#[case("HTTP/1.0 200 OK⏎weft-error: x⏎⏎")]
fn a_response_goes_on_byte_for_byte(#[case] probe: &str) {
    assert_eq!(answer(probe, &Forward::default()), probe);
}

#[rstest]
#[case::connection("Connection: keep-alive⏎Keep-Alive: timeout=5⏎Proxy-Connection: close⏎A: b", "A: b")]
#[case::named("A: 1⏎Connection: close, X-Hop⏎x-hop: 2⏎B: 3⏎X-HOP: 4", "A: 1⏎B: 3")]
#[case::te("TE: gzip, trailers⏎A: b", "TE: trailers⏎A: b")]
#[case::te_without_trailers("TE: gzip⏎A: b", "A: b")]
#[case::te_named("Connection: TE⏎TE: trailers", "Connection: TE⏎TE: trailers")]
#[case::upgrade(
    "Connection: Upgrade⏎Upgrade: websocket⏎Sec-WebSocket-Key: a",
    "Sec-WebSocket-Key: a"
)]
#[case::h2c("Connection: Upgrade, HTTP2-Settings⏎Upgrade: h2c⏎HTTP2-Settings: AAMAAABk", "")]
#[case::h2c_in_a_list("Connection: Upgrade⏎Upgrade: websocket, h2c⏎http2-settings: AAMAAABk", "")]
#[case::internal("weft-version: 1.0⏎WEFT-x: y⏎weftless: z", "weftless: z")]
fn t11_hop_by_hop_fields_stay_behind(#[case] sent: &str, #[case] goes_on: &str) {
    let goes_on = if goes_on.is_empty() {
        String::new()
    } else {
        format!("{goes_on}⏎")
    };
    let probe = format!("GET / HTTP/1.1⏎Host: a⏎{sent}⏎⏎");
    assert_eq!(
        forward(&probe, &Forward::default()),
        format!("GET / HTTP/1.1⏎Host: a⏎{goes_on}⏎")
    );
}

#[test]
fn t29_connection_cannot_name_what_routes_frames_or_identifies() {
    let probe = "POST / HTTP/1.1⏎Host: a⏎Connection: host, content-length, authorization, cookie, x-forwarded-for, X-Mine⏎Content-Length: 5⏎\
                 Authorization: b⏎Cookie: c⏎X-Forwarded-For: d⏎X-Mine: e⏎⏎";
    assert_eq!(
        forward(probe, &Forward::default()),
        "POST / HTTP/1.1⏎Host: a⏎Content-Length: 5⏎Authorization: b⏎Cookie: c⏎X-Forwarded-For: d⏎⏎"
    );
}

#[test]
fn t11_an_upgrade_goes_on_with_its_one_token() {
    let probe = "GET /chat HTTP/1.1⏎Host: a⏎Upgrade: h2c, websocket⏎X: y⏎connection: keep-alive, Upgrade⏎⏎";
    let head = request(probe).expect(probe);
    let how = Forward {
        connection: Connection::Upgrade(head.upgrade().expect("websocket")),
        ..Forward::default()
    };
    assert_eq!(
        forward(probe, &how),
        "GET /chat HTTP/1.1⏎Host: a⏎Upgrade: websocket⏎X: y⏎connection: Upgrade⏎⏎",
        "in its place"
    );
    let answer_probe = "HTTP/1.1 101 Switching⏎Sec-WebSocket-Accept: a⏎⏎";
    let how = Forward {
        connection: Connection::Upgrade("foo"),
        ..Forward::default()
    };
    assert_eq!(
        answer(answer_probe, &how),
        "HTTP/1.1 101 Switching⏎Sec-WebSocket-Accept: a⏎Connection: Upgrade⏎Upgrade: foo⏎⏎"
    );
}

#[test]
fn what_the_connection_does_next_is_said_once() {
    let probe = "HTTP/1.1 200 OK⏎Connection: keep-alive⏎A: b⏎Connection: x⏎Content-Length: 0⏎⏎";
    let said = |connection| {
        answer(
            probe,
            &Forward {
                connection,
                ..Forward::default()
            },
        )
    };
    assert_eq!(
        said(Connection::Close),
        "HTTP/1.1 200 OK⏎Connection: close⏎A: b⏎Content-Length: 0⏎⏎"
    );
    assert_eq!(said(Connection::Unsaid), "HTTP/1.1 200 OK⏎A: b⏎Content-Length: 0⏎⏎");
    let how = Forward {
        version: Some(Version::H10),
        connection: Connection::KeepAlive,
        ..Forward::default()
    };
    assert_eq!(
        answer("HTTP/1.1 204 No⏎⏎", &how),
        "HTTP/1.0 204 No⏎Connection: keep-alive⏎⏎"
    );
}

#[rstest]
#[case(Framing::AsSent, "A: b⏎Content-Length: 5⏎C: d")]
#[case(Framing::Length(7), "A: b⏎C: d⏎Content-Length: 7")]
#[case(Framing::Chunked, "A: b⏎C: d⏎Transfer-Encoding: chunked")]
#[case(Framing::Unsaid, "A: b⏎C: d")]
fn the_bodys_end_is_said_once(#[case] framing: Framing, #[case] fields: &str) {
    let how = Forward {
        framing,
        ..Forward::default()
    };
    assert_eq!(
        answer("HTTP/1.1 200 OK⏎A: b⏎Content-Length: 5⏎C: d⏎⏎", &how),
        format!("HTTP/1.1 200 OK⏎{fields}⏎⏎")
    );
}

#[test]
fn t01_a_length_where_no_body_can_be_stays_behind() {
    let encode = |kind, probe: &str| {
        let mut out = BytesMut::new();
        response_to(kind, probe)
            .expect(probe)
            .encode(&Forward::default(), &mut out);
        show(&out)
    };
    assert_eq!(
        encode(RequestKind::Other, "HTTP/1.1 204 No⏎Transfer-Encoding: chunked⏎⏎"),
        "HTTP/1.1 204 No⏎⏎"
    );
    assert_eq!(
        encode(RequestKind::Other, "HTTP/1.1 204 No⏎Content-Length: 5⏎⏎"),
        "HTTP/1.1 204 No⏎⏎"
    );
    assert_eq!(
        encode(RequestKind::Other, "HTTP/1.1 103 E⏎Content-Length: 5⏎⏎"),
        "HTTP/1.1 103 E⏎⏎"
    );
    assert_eq!(
        encode(RequestKind::Connect, "HTTP/1.1 200 OK⏎Content-Length: 5⏎⏎"),
        "HTTP/1.1 200 OK⏎⏎"
    );
    let to_head = "HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎⏎";
    assert_eq!(
        encode(RequestKind::Head, to_head),
        to_head,
        "what GET would have said is the answer to HEAD"
    );
}

#[rstest]
#[case::nothing(&[], "A: 1⏎B: 2⏎a: 3")]
#[case::remove(&[Edit::Remove("A")], "B: 2")]
#[case::remove_none(&[Edit::Remove("x")], "A: 1⏎B: 2⏎a: 3")]
#[case::set(&[Edit::Set("a", b"9")], "A: 9⏎B: 2")]
#[case::set_new(&[Edit::Set("X-New", b"9")], "A: 1⏎B: 2⏎a: 3⏎X-New: 9")]
#[case::set_twice(&[Edit::Set("a", b"8"), Edit::Set("A", b"9")], "A: 9⏎B: 2")]
#[case::set_new_twice(&[Edit::Set("n", b"8"), Edit::Set("N", b"9")], "A: 1⏎B: 2⏎a: 3⏎N: 9")]
#[case::add(&[Edit::Add("A", b"9")], "A: 1⏎B: 2⏎a: 3⏎A: 9")]
#[case::add_twice(&[Edit::Add("N", b"8"), Edit::Add("N", b"9")], "A: 1⏎B: 2⏎a: 3⏎N: 8⏎N: 9")]
#[case::set_then_add(&[Edit::Set("b", b"8"), Edit::Add("b", b"9")], "A: 1⏎B: 8⏎a: 3⏎b: 9")]
#[case::set_then_remove(&[Edit::Set("b", b"8"), Edit::Remove("b")], "A: 1⏎a: 3")]
#[case::remove_then_set(&[Edit::Remove("b"), Edit::Set("b", b"9")], "A: 1⏎a: 3⏎b: 9")]
#[case::add_then_remove(&[Edit::Add("n", b"8"), Edit::Remove("n")], "A: 1⏎B: 2⏎a: 3")]
#[case::add_then_set(&[Edit::Add("n", b"8"), Edit::Set("n", b"9")], "A: 1⏎B: 2⏎a: 3⏎n: 9")]
#[case::not_framing(&[Edit::Set("Content-Length", b"9"), Edit::Add("Transfer-Encoding", b"x"), Edit::Add("connection", b"a")], "A: 1⏎B: 2⏎a: 3")]
#[case::host(&[Edit::Set("host", b"z")], "A: 1⏎B: 2⏎a: 3")]
fn edits_apply_in_their_order(#[case] edits: &[Edit<'_>], #[case] fields: &str) {
    let how = Forward {
        edits,
        ..Forward::default()
    };
    let host = if edits.iter().any(|edit| matches!(edit, Edit::Set("host", _))) {
        "z"
    } else {
        "a"
    };
    let probe = "GET / HTTP/1.1⏎Host: a⏎A: 1⏎B: 2⏎a: 3⏎⏎";
    assert_eq!(forward(probe, &how), format!("GET / HTTP/1.1⏎Host: {host}⏎{fields}⏎⏎"));
    // The same through a map, for the hop after an HTTP/2 hop.
    let converted = convert(probe);
    let mut out = BytesMut::new();
    h1::encode_request(&converted.request.into_parts().0, &how, &mut out);
    let again = request(&show(&out)).expect("it is a request again");
    let direct = request(&forward(probe, &how)).expect("and so it was directly");
    let sorted = |head: &h1::RequestHead| {
        let mut all: Vec<_> = head
            .fields()
            .iter()
            .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_eq!(sorted(&again), sorted(&direct));
}

#[test]
fn an_edit_does_not_bring_back_a_field_of_one_hop() {
    let how = Forward {
        edits: &[Edit::Set("x", b"ours")],
        ..Forward::default()
    };
    assert_eq!(
        forward("GET / HTTP/1.1⏎Host: a⏎Connection: x⏎X: theirs⏎⏎", &how),
        "GET / HTTP/1.1⏎Host: a⏎x: ours⏎⏎"
    );
}

#[test]
fn another_line_can_be_said() {
    let how = Forward {
        target: Some("/new"),
        method: Some("PUT"),
        version: Some(Version::H11),
        ..Forward::default()
    };
    assert_eq!(
        forward("GET /old HTTP/1.0⏎Host: a⏎⏎", &how),
        "PUT /new HTTP/1.1⏎Host: a⏎⏎"
    );
}

fn convert(probe: &str) -> Converted {
    let otherwise: Authority = "10.0.0.1:80".parse().expect("an authority");
    request(probe)
        .expect(probe)
        .to_http(Scheme::HTTP, &otherwise)
        .expect(probe)
}

#[rstest]
#[case("GET /a?b=c HTTP/1.1⏎Host: A.Test:80⏎⏎", "http://A.Test:80/a?b=c", true, true)]
#[case("GET /%2F%00;x HTTP/1.1⏎Host: a⏎⏎", "http://a/%2F%00;x", true, true)]
#[case("GET /a#b HTTP/1.1⏎Host: a⏎⏎", "http://a/a%23b", false, true)]
#[case("GET /a?b#c HTTP/1.1⏎Host: a⏎⏎", "http://a/a?b%23c", false, true)]
#[case(
    "GET /admin/<x>?a=\"b\" HTTP/1.1⏎Host: a⏎⏎",
    "http://a/admin/%3Cx%3E?a=%22b%22",
    false,
    true
)]
#[case("GET http://a/b?c HTTP/1.1⏎Host: a⏎⏎", "http://a/b?c", false, true)]
#[case("GET http://a?c HTTP/1.1⏎Host: a⏎⏎", "http://a/?c", false, true)]
#[case("GET http://a HTTP/1.1⏎Host: a⏎⏎", "http://a/", false, true)]
#[case("OPTIONS http://a HTTP/1.1⏎Host: a⏎⏎", "http://a*", false, true)]
#[case("OPTIONS * HTTP/1.1⏎Host: a⏎⏎", "http://a*", true, true)]
#[case("GET / HTTP/1.0⏎⏎", "http://10.0.0.1:80/", true, false)]
#[case("GET / HTTP/1.1⏎Host:⏎⏎", "http://10.0.0.1:80/", true, false)]
#[case("GET http://A:8/b HTTP/1.0⏎⏎", "http://a:8/b", false, false)]
#[case("CONNECT a:443 HTTP/1.1⏎Host: a:443⏎⏎", "a:443", true, true)]
fn a_request_becomes_an_http_2_request(
    #[case] probe: &str,
    #[case] uri: &str,
    #[case] target: bool,
    #[case] host: bool,
) {
    let converted = convert(probe);
    assert_eq!(converted.request.uri().to_string(), uri);
    assert_eq!((converted.is_target_exact, converted.is_host_exact), (target, host));
    assert_eq!(
        converted.request.method().as_str(),
        probe.split(' ').next().expect("a method")
    );
    assert!(!converted.request.headers().contains_key("host"));
}

#[rstest]
#[case("GET", "/a#b", "http://a/a%23b", true)]
#[case("GET", "/admin/<", "http://a/admin/%3C", true)]
#[case("GET", "/a", "http://a/a", true)]
#[case("GET", "http://A:80/b?c", "http://a/b?c", true)]
#[case("GET", "http://a", "http://a/", true)]
#[case("OPTIONS", "http://a", "http://a*", true)]
#[case("GET", "/admin/<", "http://a/", false)]
#[case("GET", "/admin", "http://a/public", false)]
#[case("GET", "/a?b", "http://a/a", false)]
#[case("GET", "http://b/", "http://a/", false)]
#[case("GET", "http://a:81/", "http://a/", false)]
#[case("GET", "*", "http://a*", false)]
#[case("GET", "a", "http://a/a", false)]
#[case("CONNECT", "a:80", "http://a/", false)]
#[case("GET", "/a HTTP/1.1", "http://a/a", false)]
fn t24_a_target_said_beside_an_http_2_request_must_mean_the_same(
    #[case] method: &str,
    #[case] target: &str,
    #[case] uri: &str,
    #[case] same: bool,
) {
    let uri: http::Uri = match uri.strip_suffix('*') {
        None => uri.parse().expect("a uri"),
        Some(rest) => {
            let mut parts = rest.parse::<http::Uri>().expect("a uri").into_parts();
            parts.path_and_query = Some(http::uri::PathAndQuery::from_static("*"));
            http::Uri::from_parts(parts).expect("a uri")
        }
    };
    assert_eq!(h1::is_target_of(method, target, &uri), same);
}

#[test]
fn fields_become_a_map_without_those_of_one_hop() {
    let probe = "POST / HTTP/1.1⏎Host: a⏎Connection: Upgrade, X-Hop, TE⏎X-Hop: 1⏎Upgrade: h2c⏎HTTP2-Settings: AAMAAABk⏎TE: trailers⏎Keep-Alive: 5⏎\
                 Proxy-Connection: a⏎Transfer-Encoding: chunked⏎weft-version: 9⏎X-A: 1⏎Expect: 100-continue⏎x-a: 2⏎Bytes: é⏎⏎";
    let map = convert(probe).request.headers().clone();
    let all: Vec<_> = map
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            ("bytes", "é".as_bytes()),
            ("expect", b"100-continue"),
            ("te", b"trailers"),
            ("x-a", b"1"),
            ("x-a", b"2")
        ]
    );
    let with_length = convert("POST / HTTP/1.1⏎Host: a⏎Content-Length: 5⏎⏎").request;
    assert_eq!(with_length.headers()["content-length"], "5");
}

#[test]
fn a_response_becomes_an_http_2_response() {
    let head = response(
        "HTTP/1.1 418 Short and stout⏎Connection: close, X-Hop⏎X-Hop: 1⏎Transfer-Encoding: chunked⏎Set-Cookie: a⏎Set-Cookie: b⏎⏎",
    );
    let converted = head.expect("legal").to_http();
    assert_eq!(converted.status(), 418);
    let all: Vec<_> = converted
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    assert_eq!(all, [("set-cookie", &b"a"[..]), ("set-cookie", b"b")]);
}

#[test]
fn an_http_2_request_is_written_as_http_1() {
    let parts = http::Request::builder()
        .method("POST")
        .uri("http://A.test:80/a?b=%2f")
        .header("te", "trailers")
        .header("cookie", "a=b")
        .header("x", "1")
        .header("cookie", "c=d")
        .header("x", "2")
        .header("weft-version", "1.0")
        .header("content-length", "5")
        .body(())
        .expect("a request")
        .into_parts()
        .0;
    let written = |how: &Forward<'_>| {
        let mut out = BytesMut::new();
        h1::encode_request(&parts, how, &mut out);
        show(&out)
    };
    let fields = "host: A.test:80⏎te: trailers⏎cookie: a=b; c=d⏎x: 1⏎x: 2";
    assert_eq!(
        written(&Forward::default()),
        format!("POST /a?b=%2f HTTP/1.1⏎{fields}⏎content-length: 5⏎⏎")
    );
    let how = Forward {
        framing: Framing::Chunked,
        target: Some("http://a/"),
        version: Some(Version::H10),
        ..Forward::default()
    };
    assert_eq!(
        written(&how),
        format!("POST http://a/ HTTP/1.0⏎{fields}⏎Transfer-Encoding: chunked⏎⏎")
    );
    let how = Forward {
        method: Some("GET"),
        connection: Connection::Upgrade("websocket"),
        framing: Framing::Unsaid,
        ..Forward::default()
    };
    assert_eq!(
        written(&how),
        format!("GET /a?b=%2f HTTP/1.1⏎{fields}⏎Connection: Upgrade⏎Upgrade: websocket⏎⏎")
    );
}

#[test]
fn an_http_2_response_is_written_as_http_1() {
    let parts = http::Response::builder()
        .status(404)
        .header("a", "b")
        .header("connection", "x")
        .body(())
        .expect("a response")
        .into_parts()
        .0;
    let written = |reason, how: &Forward<'_>| {
        let mut out = BytesMut::new();
        h1::encode_response(&parts, reason, how, &mut out);
        show(&out)
    };
    let how = Forward {
        framing: Framing::Length(0),
        connection: Connection::Close,
        ..Forward::default()
    };
    assert_eq!(
        written(None, &how),
        "HTTP/1.1 404 Not Found⏎a: b⏎Connection: close⏎Content-Length: 0⏎⏎"
    );
    assert_eq!(
        written(Some(b"Gone fishing"), &Forward::default()),
        "HTTP/1.1 404 Gone fishing⏎a: b⏎⏎"
    );
}
