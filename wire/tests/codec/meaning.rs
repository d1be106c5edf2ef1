//! What a head means: host (T22), keep-alive, Expect, upgrades (T11).

use crate::support::{request, response};
use rstest::rstest;
use weft_wire::h1::{BodyLength, Form, Refused, RequestHead, Version};
use weft_wire::host::Host;

fn host_of(head: &RequestHead) -> Option<(String, Option<u16>)> {
    head.host().map(|host| (host.name.into_owned(), host.port))
}

#[rstest]
#[case("a", "a", None)]
#[case("A.Test", "a.test", None)]
#[case("VICTIM.test", "victim.test", None)]
#[case("victim.test.", "victim.test", None)]
#[case("VICTIM.TEST.:443", "victim.test", Some(443))]
#[case("victim.test:443", "victim.test", Some(443))]
#[case("victim.test:", "victim.test", None)]
#[case("victim.test:0", "victim.test", Some(0))]
#[case("a_b.svc.cluster.local", "a_b.svc.cluster.local", None)]
#[case("xn--bcher-kva.example", "xn--bcher-kva.example", None)]
#[case("10.0.0.1:8080", "10.0.0.1", Some(8080))]
#[case("[::1]", "[::1]", None)]
#[case("[::1]:80", "[::1]", Some(80))]
#[case("[FD00:0::0:1]", "[fd00::1]", None)]
#[case("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]", Some(80))]
fn t22_a_host_has_one_form(#[case] sent: &str, #[case] name: &str, #[case] port: Option<u16>) {
    let head = request(&format!("GET / HTTP/1.1⏎Host: {sent}⏎⏎")).expect(sent);
    assert_eq!(host_of(&head), Some((name.to_owned(), port)));
    assert_eq!(
        head.fields().get("host"),
        Some(sent.as_bytes()),
        "what was sent is kept"
    );
    let again = Host::parse(name).expect("the canonical form is a host");
    assert_eq!(again.name, name, "and canonical already");
}

#[rstest]
#[case("a b")]
#[case("a b@c")]
#[case("user@a")]
#[case("user:secret@a")]
#[case("a,b")]
#[case("a/b")]
#[case("a?b")]
#[case("a#b")]
#[case("a\\b")]
#[case("a%2eb")]
#[case("http://a")]
#[case("a:b")]
#[case("a:80:80")]
#[case("a:+80")]
#[case("a:65536")]
#[case("a:000080")]
#[case("a: 80")]
#[case(":80")]
#[case(".")]
#[case("..")]
#[case("a..b")]
#[case(".a")]
#[case("a..")]
#[case("bücher.example")]
#[case("::1")]
#[case("[::1")]
#[case("[::1]a")]
#[case("[::g]")]
#[case("[fe80::1%25eth0]")]
#[case("[v1.a]")]
#[case("[]")]
#[case("<a>")]
#[case("\"a\"")]
#[case("a\tb")]
fn t22_what_is_no_host_is_refused(#[case] sent: &str) {
    let refused = request(&format!("GET / HTTP/1.1⏎Host: {sent}⏎⏎")).expect_err(sent);
    assert_eq!((refused, refused.status()), (Refused::Host, 400));
}

#[rstest]
#[case::two("GET / HTTP/1.1⏎Host: a⏎Host: b⏎⏎", Refused::TwoHosts)]
#[case::twice_the_same("GET / HTTP/1.1⏎Host: a⏎host: a⏎⏎", Refused::TwoHosts)]
#[case::two_in_1_0("GET / HTTP/1.0⏎Host: a⏎Host: a⏎⏎", Refused::TwoHosts)]
#[case::none("GET / HTTP/1.1⏎Accept: a⏎⏎", Refused::NoHost)]
#[case::no_fields("GET / HTTP/1.1⏎⏎", Refused::NoHost)]
#[case::none_with_absolute_form("GET http://a/ HTTP/1.1⏎Accept: a⏎⏎", Refused::NoHost)]
#[case::other("GET http://a/ HTTP/1.1⏎Host: b⏎⏎", Refused::HostsDiffer)]
#[case::other_port("GET http://a/ HTTP/1.1⏎Host: a:8080⏎⏎", Refused::HostsDiffer)]
#[case::port_of_other_scheme("GET http://a/ HTTP/1.1⏎Host: a:443⏎⏎", Refused::HostsDiffer)]
#[case::empty_with_absolute_form("GET http://a/ HTTP/1.1⏎Host:⏎⏎", Refused::HostsDiffer)]
#[case::userinfo_in_target("GET http://u@a/ HTTP/1.1⏎Host: a⏎⏎", Refused::Host)]
#[case::backslash_in_target("GET http://a\\@b/ HTTP/1.1⏎Host: a⏎⏎", Refused::Host)]
#[case::connect_to_other("CONNECT a:80 HTTP/1.1⏎Host: b:80⏎⏎", Refused::HostsDiffer)]
#[case::connect_to_other_port("CONNECT a:80 HTTP/1.1⏎Host: a:81⏎⏎", Refused::HostsDiffer)]
fn t22_hosts_that_disagree_are_refused(#[case] probe: &str, #[case] why: Refused) {
    let refused = request(probe).expect_err(probe);
    assert_eq!((refused, refused.status()), (why, 400));
}

#[rstest]
#[case::origin("GET /a?b=c HTTP/1.1⏎Host: A:80⏎⏎", Form::Origin, Some(("a", Some(80))), "/a", Some("b=c"))]
#[case::two_slashes("GET //b/c HTTP/1.1⏎Host: a⏎⏎", Form::Origin, Some(("a", None)), "//b/c", None)]
#[case::url_in_path("GET /http://b/ HTTP/1.1⏎Host: a⏎⏎", Form::Origin, Some(("a", None)), "/http://b/", None)]
#[case::absolute("GET http://A.test/b?c HTTP/1.1⏎Host: a.TEST:80⏎⏎", Form::Absolute, Some(("a.test", None)), "/b", Some("c"))]
#[case::absolute_https("GET https://a:443 HTTP/1.1⏎Host: a⏎⏎", Form::Absolute, Some(("a", Some(443))), "/", None)]
#[case::absolute_query("GET http://a?b HTTP/1.1⏎Host: a⏎⏎", Form::Absolute, Some(("a", None)), "/", Some("b"))]
#[case::absolute_v6("GET http://[::1]:8/b HTTP/1.1⏎Host: [::1]:8⏎⏎", Form::Absolute, Some(("[::1]", Some(8))), "/b", None)]
#[case::absolute_in_1_0("GET http://a/b HTTP/1.0⏎⏎", Form::Absolute, Some(("a", None)), "/b", None)]
#[case::asterisk("OPTIONS * HTTP/1.1⏎Host: a⏎⏎", Form::Asterisk, Some(("a", None)), "*", None)]
#[case::connect("CONNECT A.test:443 HTTP/1.1⏎Host: a.test:443⏎⏎", Form::Authority, Some(("a.test", Some(443))), "", None)]
#[case::connect_with_bare_host("CONNECT a:443 HTTP/1.1⏎Host: a⏎⏎", Form::Authority, Some(("a", Some(443))), "", None)]
#[case::connect_in_1_0("CONNECT a:443 HTTP/1.0⏎⏎", Form::Authority, Some(("a", Some(443))), "", None)]
#[case::no_host_in_1_0("GET / HTTP/1.0⏎⏎", Form::Origin, None, "/", None)]
#[case::empty_host("GET / HTTP/1.1⏎Host: ⏎⏎", Form::Origin, None, "/", None)]
fn a_target_is_read_in_its_form(
    #[case] probe: &str,
    #[case] form: Form,
    #[case] host: Option<(&str, Option<u16>)>,
    #[case] path: &str,
    #[case] query: Option<&str>,
) {
    let head = request(probe).expect(probe);
    assert_eq!(head.form(), form);
    assert_eq!(host_of(&head), host.map(|(name, port)| (name.to_owned(), port)));
    assert_eq!((head.path(), head.query()), (path, query));
    assert_eq!(head.is_connect(), form == Form::Authority);
    assert_eq!(head.target(), probe.split(' ').nth(1).expect("a target"), "as sent");
}

#[rstest]
#[case("GET / HTTP/1.1⏎Host: a⏎⏎", true)]
#[case("GET / HTTP/1.1⏎Host: a⏎Connection: close⏎⏎", false)]
#[case("GET / HTTP/1.1⏎Host: a⏎Connection: keep-alive⏎Connection: x, CLOSE⏎⏎", false)]
#[case("GET / HTTP/1.1⏎Host: a⏎Connection: close, keep-alive⏎⏎", false)]
#[case("GET / HTTP/1.1⏎Host: a⏎Connection: closed⏎⏎", true)]
#[case("GET / HTTP/1.1⏎Host: a⏎Proxy-Connection: close⏎⏎", true)]
#[case("GET / HTTP/1.0⏎⏎", false)]
#[case("GET / HTTP/1.0⏎Connection: Keep-Alive⏎⏎", true)]
#[case("GET / HTTP/1.0⏎Connection: keep-alive, close⏎⏎", false)]
fn a_connection_is_kept_by_version_and_option(#[case] probe: &str, #[case] kept: bool) {
    assert_eq!(request(probe).expect(probe).keep_alive(), kept);
}

#[rstest]
#[case("HTTP/1.1 200 OK⏎Content-Length: 0⏎⏎", true)]
#[case("HTTP/1.1 200 OK⏎Content-Length: 0⏎Connection: close⏎⏎", false)]
#[case("HTTP/1.1 200 OK⏎⏎", false)]
#[case("HTTP/1.1 200 OK⏎Connection: keep-alive⏎⏎", false)]
#[case("HTTP/1.1 204 No Content⏎⏎", true)]
#[case("HTTP/1.0 200 OK⏎Content-Length: 0⏎⏎", false)]
#[case("HTTP/1.0 200 OK⏎Content-Length: 0⏎Connection: keep-alive⏎⏎", true)]
fn a_servers_connection_is_kept_only_where_its_body_ends(#[case] probe: &str, #[case] kept: bool) {
    assert_eq!(response(probe).expect(probe).keep_alive(), kept);
}

#[rstest]
#[case("POST / HTTP/1.1⏎Host: a⏎Content-Length: 5⏎Expect: 100-continue⏎⏎", true)]
#[case("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎Expect: 100-Continue⏎⏎", true)]
#[case("POST / HTTP/1.1⏎Host: a⏎Content-Length: 5⏎Expect: something⏎⏎", false)]
#[case("POST / HTTP/1.1⏎Host: a⏎Content-Length: 0⏎Expect: 100-continue⏎⏎", false)]
#[case("GET / HTTP/1.1⏎Host: a⏎Expect: 100-continue⏎⏎", false)]
#[case("POST / HTTP/1.0⏎Content-Length: 5⏎Expect: 100-continue⏎⏎", false)]
fn a_client_waits_for_100_only_with_a_body_and_in_1_1(#[case] probe: &str, #[case] waits: bool) {
    assert_eq!(request(probe).expect(probe).expects_continue(), waits);
}

#[rstest]
#[case("Connection: Upgrade⏎Upgrade: websocket", Some("websocket"))]
#[case("Connection: upgrade, keep-alive⏎Upgrade: WebSocket", Some("WebSocket"))]
#[case("Connection: keep-alive⏎Connection: Upgrade⏎Upgrade: foo/1.2", Some("foo/1.2"))]
#[case("Connection: Upgrade⏎Upgrade: foo, bar", Some("foo"))]
#[case("Connection: Upgrade⏎Upgrade: foo⏎Content-Length: 0", Some("foo"))]
#[case("Connection: Upgrade⏎Upgrade: h2c", None)]
#[case("Connection: Upgrade, HTTP2-Settings⏎Upgrade: H2C⏎HTTP2-Settings: AAMAAABk", None)]
#[case("Connection: Upgrade⏎Upgrade: h2", None)]
#[case(
    "Connection: Upgrade⏎Upgrade: websocket, h2c⏎HTTP2-Settings: AAMAAABk",
    Some("websocket")
)]
#[case("Connection: Upgrade⏎Upgrade: h2c,,  websocket", Some("websocket"))]
#[case("Connection: Upgrade⏎upgrade: h2C⏎UPGRADE: foo", Some("foo"))]
#[case("Upgrade: websocket", None)]
#[case("Connection: keep-alive⏎Upgrade: websocket", None)]
#[case("Connection: Upgrade", None)]
#[case("Connection: Upgrade⏎Upgrade:", None)]
#[case("Connection: Upgrade⏎Upgrade: websocket⏎Content-Length: 5", None)]
#[case("Connection: Upgrade⏎Upgrade: websocket⏎Transfer-Encoding: chunked", None)]
fn t11_h2c_and_an_upgrade_with_a_body_do_not_count(#[case] fields: &str, #[case] token: Option<&str>) {
    let head = request(&format!("GET / HTTP/1.1⏎Host: a⏎{fields}⏎⏎")).expect(fields);
    assert_eq!(head.upgrade(), token);
}

#[test]
fn t11_an_upgrade_in_http_1_0_does_not_count() {
    assert_eq!(
        request("GET / HTTP/1.0⏎Connection: Upgrade⏎Upgrade: foo⏎⏎")
            .expect("legal")
            .upgrade(),
        None
    );
}

#[rstest]
#[case("a b")]
#[case("a;b")]
#[case("a/b/c")]
#[case("/1")]
#[case("a/")]
#[case("\"websocket\"")]
fn t12_an_upgrade_that_is_no_protocol_is_refused(#[case] token: &str) {
    let probe = |token: &str| format!("GET / HTTP/1.1⏎Host: a⏎Connection: Upgrade⏎Upgrade: {token}⏎⏎");
    assert_eq!(request(&probe(token)).expect_err(token), Refused::Upgrade);
    assert!(request(&probe(&"x".repeat(64))).is_ok());
    assert_eq!(
        request(&probe(&"x".repeat(65))).expect_err("longer than allowed"),
        Refused::Upgrade
    );
}

#[rstest]
#[case("HTTP/1.1 101 S⏎Connection: Upgrade⏎Upgrade: websocket⏎⏎", true)]
#[case("HTTP/1.1 101 S⏎Connection: Upgrade⏎Upgrade: WebSocket⏎⏎", true)]
#[case("HTTP/1.1 101 S⏎Connection: Upgrade⏎Upgrade: foo⏎⏎", false)]
#[case("HTTP/1.1 101 S⏎Connection: Upgrade⏎Upgrade: websocket, foo⏎⏎", false)]
#[case("HTTP/1.1 101 S⏎⏎", false)]
#[case("HTTP/1.1 200 OK⏎Connection: Upgrade⏎Upgrade: websocket⏎⏎", false)]
#[case("HTTP/1.1 426 U⏎Connection: Upgrade⏎Upgrade: websocket⏎⏎", false)]
fn t09_only_101_with_the_same_token_is_an_upgrade(#[case] probe: &str, #[case] upgraded: bool) {
    assert_eq!(response(probe).expect(probe).is_upgrade_to("websocket"), upgraded);
}

#[test]
fn interim_heads_are_told_from_final_ones() {
    for (status, interim) in [
        (100, true),
        (102, true),
        (103, true),
        (101, false),
        (200, false),
        (199, true),
    ] {
        let head = response(&format!("HTTP/1.1 {status} x⏎⏎")).expect("legal");
        assert_eq!(head.is_interim(), interim, "{status}");
        assert_eq!(head.version(), Version::H11);
    }
}

#[test]
fn fields_are_found_in_any_case_and_kept_in_order() {
    let head = request("POST /a HTTP/1.1⏎HoSt: a⏎X-One:  1 ⏎x-one: 2⏎Empty:⏎Content-Length: 3⏎⏎").expect("legal");
    let fields = head.fields();
    let all: Vec<_> = fields.iter().map(|field| (field.name, field.value)).collect();
    assert_eq!(
        all,
        [
            ("HoSt", &b"a"[..]),
            ("X-One", b"1"),
            ("x-one", b"2"),
            ("Empty", b""),
            ("Content-Length", b"3")
        ],
        "names in their case, values without the blanks around them"
    );
    assert_eq!(fields.get_all("X-ONE").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(fields.get("empty"), Some(&b""[..]));
    assert_eq!(fields.get("none"), None);
    assert_eq!(head.body(), BodyLength::Length(3));
}

#[test]
fn t60_values_are_not_in_debug_output() {
    let head = request("GET / HTTP/1.1⏎Host: a⏎Authorization: secret⏎⏎").expect("legal");
    assert!(!format!("{head:?} {:?}", head.fields().iter().collect::<Vec<_>>()).contains("secret"));
}
