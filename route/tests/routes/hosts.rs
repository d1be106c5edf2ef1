//! One host type for routes, policy, logs and the way to the server.

use weft_route::{Ask, Host, NoRoute, Table, host::BadHost};

use crate::language;

#[test]
fn t25_hosts_have_one_form() {
    use BadHost::*;
    let long_label = "a".repeat(64);
    let long_name = "a.".repeat(128);
    for (sent, wanted) in [
        ("example.com", Ok("example.com")),
        ("EXAMPLE.com", Ok("example.com")),
        ("example.com.", Ok("example.com")),
        ("Example.Com.:443", Ok("example.com")),
        ("example.com:8080", Ok("example.com")),
        ("example.com:", Ok("example.com")),
        ("example.com:080", Ok("example.com")),
        ("localhost", Ok("localhost")),
        ("a_b.svc", Ok("a_b.svc")),
        ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
        ("XN--BCHER-KVA.example", Ok("xn--bcher-kva.example")),
        ("10.0.0.1", Ok("10.0.0.1")),
        ("10.0.0.1:80", Ok("10.0.0.1")),
        ("[::1]", Ok("[::1]")),
        ("[::1]:8080", Ok("[::1]")),
        ("[0:0:0:0:0:0:0:1]:80", Ok("[::1]")),
        ("[FD00::A]", Ok("[fd00::a]")),
        ("", Err(Empty)),
        (".", Err(Empty)),
        (":80", Err(Empty)),
        ("user@example.com", Err(Userinfo)),
        ("example.com@evil.test", Err(Userinfo)),
        ("exa mple.com", Err(Character)),
        ("example.com/path", Err(Character)),
        ("example.com#x", Err(Character)),
        ("example.com\\evil", Err(Character)),
        ("bücher.example", Err(Character)),
        ("exam%70le.com", Err(Character)),
        ("*.example.com", Err(Character)),
        ("a,b", Err(Character)),
        ("example.com:http", Err(Port)),
        ("example.com:65536", Err(Port)),
        ("example.com:-1", Err(Port)),
        ("example.com:80:80", Err(Port)),
        ("::1", Err(Port)),
        ("fe80::1", Err(Port)),
        ("[::1", Err(Address)),
        ("[::1]x", Err(Port)),
        ("[example.com]", Err(Address)),
        ("[fe80::1%eth0]", Err(Address)),
        ("a..b", Err(Length)),
        (".a", Err(Length)),
        ("a..", Err(Length)),
        (&long_label, Err(Length)),
        (&long_name, Err(Length)),
    ] {
        let parsed = Host::parse(sent.as_bytes());
        assert_eq!(parsed.as_ref().map(Host::as_str), wanted.as_ref().copied(), "{sent}");
        if let Ok(host) = parsed {
            assert_eq!(Host::parse(host.as_str().as_bytes()), Ok(host.clone()), "{sent}");
        }
    }
    assert_eq!(Host::parse(b"\xff\xfe"), Err(Character));
}

#[test]
fn t25_every_spelling_of_a_host_leads_to_the_same_rule() {
    let (table, _) = Table::compile(language::rules(
        "rule HTTPRoute n/victim 0\n  host victim.test\n  backend 0\nrule HTTPRoute n/rest 0\n  backend 1",
    ));
    for host in [
        "victim.test",
        "VICTIM.test",
        "victim.test.",
        "victim.test:443",
        "Victim.Test.:80",
    ] {
        let decision = table
            .decide(&Ask::Http(&language::request(&format!("GET / host={host}"))), 0)
            .unwrap();
        assert_eq!(&*decision.rule.origin.name, "victim", "{host}");
    }
    for host in ["user@victim.test", "victim.test/", "victim.test\\", "vic%74im.test"] {
        let answer = table.decide(&Ask::Http(&language::request(&format!("GET / host={host}"))), 0);
        assert_eq!(answer, Err(NoRoute::BadHost), "{host}");
    }
}

#[test]
fn t22_a_request_has_one_host() {
    let host = |sources: &[&'static str]| {
        let host = Host::of_request(sources.iter().map(|source| source.as_bytes()));
        host.map(|host| host.map(|host| host.as_str().to_owned()))
    };
    assert_eq!(host(&[]), Ok(None));
    assert_eq!(host(&["a.test"]), Ok(Some("a.test".into())));
    assert_eq!(host(&["a.test", "A.test."]), Ok(Some("a.test".into())));
    assert_eq!(host(&["a.test:80", "a.test:80"]), Ok(Some("a.test".into())));
    assert_eq!(host(&["a.test", "a.test:80"]), Ok(Some("a.test".into())));
    assert_eq!(host(&["a.test", "b.test"]), Err(BadHost::Mismatch));
    assert_eq!(host(&["a.test:80", "a.test:81"]), Err(BadHost::Mismatch));
    assert_eq!(host(&["a.test:80", "a.test", "a.test:81"]), Err(BadHost::Mismatch));
    assert_eq!(host(&["a.test", "a.test", "b.test"]), Err(BadHost::Mismatch));
    assert_eq!(host(&["a.test", "x@a.test"]), Err(BadHost::Userinfo));
    assert_eq!(host(&["a.test", ""]), Err(BadHost::Empty));
}
