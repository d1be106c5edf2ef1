//! Canonical paths, and paths that can be read in two ways.

use proptest::prelude::*;
use weft_route::{Ask, NoRoute, Table, canonical};

use crate::language;

fn canon(path: &str) -> String {
    String::from_utf8(canonical::path(path.as_bytes()).into_owned()).unwrap()
}

#[test]
fn t24_canonical_paths() {
    for (sent, wanted) in [
        ("", "/"),
        ("/", "/"),
        ("*", "*"),
        ("//", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("//a///b", "/a/b"),
        ("/./a/./b/.", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("/.", "/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/..a/.b", "/..a/.b"),
        ("/%61dmin", "/admin"),
        ("/%7euser", "/~user"),
        ("/pub/%2e%2e/admin", "/admin"),
        ("/pub/.%2E/admin", "/admin"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a\\b", "/a%5Cb"),
        ("/a%00", "/a%00"),
        ("/a%", "/a%25"),
        ("/a%4", "/a%254"),
        ("/a%zz", "/a%25zz"),
        ("/%%361", "/%2561"),
        ("/a b", "/a%20b"),
        ("/é", "/%C3%A9"),
        ("/a;b=1", "/a;b=1"),
        ("/a#b", "/a#b"),
        ("/a//../b", "/b"),
    ] {
        assert_eq!(canon(sent), wanted, "{sent}");
    }
}

#[test]
fn a_path_in_canonical_form_is_not_copied() {
    for path in ["/", "/a/b.c/~d", "/a%20b", "/shop.Cart/Add", "/%E4%BD%A0/", "/a;b"] {
        assert!(
            matches!(canonical::path(path.as_bytes()), std::borrow::Cow::Borrowed(_)),
            "{path}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn t24_a_canonical_path_is_its_own_canonical_form(path in "/([a./%\\\\;#]|%2[eEfF]|%[0-9a-fA-F]{2}|\\PC){0,24}") {
        let once = canonical::path(path.as_bytes()).into_owned();
        let twice = canonical::path(&once).into_owned();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn t24_a_canonical_path_has_no_dot_segments_and_no_empty_ones(path in prop::collection::vec(any::<u8>(), 0..32)) {
        let path = [b"/", &path[..]].concat();
        let canonical = canonical::path(&path).into_owned();
        prop_assert!(canonical.starts_with(b"/"));
        let segments: Vec<_> = canonical[1..].split(|byte| *byte == b'/').collect();
        let (last, others) = segments.split_last().unwrap();
        prop_assert!(others.iter().all(|segment| !segment.is_empty()));
        prop_assert!(!segments.contains(&&b"."[..]) && !segments.contains(&&b".."[..]), "{last:?}");
    }
}

/// The matrix of RELIABILITY: a rule that denies `/admin`, and one that lets everything else through.
#[test]
fn t24_no_form_of_a_path_gets_around_a_rule() {
    let (table, conflicts) = Table::compile(language::rules(
        "rule HTTPRoute n/deny 0\n  match prefix=/admin\nrule HTTPRoute n/allow 0\n  match prefix=/\n  backend 0",
    ));
    assert_eq!(conflicts, []);
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin",
        "/./admin",
        "/pub/../admin",
        "/pub/%2e%2e/admin",
        "/pub/.%2e/admin",
        "/%61dmin",
        "/%61%64%6D%69%6E",
        "/admin%2Fx",
        "/admin%2fx",
        "/pub/..%2fadmin",
        "/pub%2f..%2fadmin",
        "/pub/..;/admin",
        "/pub/..;a=b/admin",
        "/admin;x",
        "/admin;x=1/y",
        "/;/admin",
        "/admin%00",
        "/admin%00.jpg",
        "/admin#x",
        "/pub\\..\\admin",
        "/pub%5c..%5cadmin",
        "/pub/..\\admin",
        "/\\admin",
        "/pub/..%c0%afadmin",
        "/pub/%c0%ae%c0%ae/admin",
        "/pub/%C0%AE%C0%AE%C0%AFadmin",
        "/pub/..%e0%80%afadmin",
        "/pub/..%f0%80%80%afadmin",
        "/admin//..",
        "/pub/..%2f;x/admin",
        "/pub\\%2e%2e;\\admin",
    ] {
        let answer = table.decide(&Ask::Http(&language::request(&format!("GET {path}"))), 0);
        let allowed = answer
            .as_ref()
            .is_ok_and(|decision| &*decision.rule.origin.name == "allow");
        assert!(!allowed, "{path} was let through");
        assert!(
            answer.is_ok() || answer == Err(NoRoute::Ambiguous),
            "{path}: {answer:?}"
        );
    }
}

#[test]
fn t24_what_can_be_read_in_two_ways_passes_where_both_lead_to_one_rule() {
    let (table, _) = Table::compile(language::rules(
        "rule HTTPRoute n/files 0\n  match prefix=/files\n  backend 0\nrule HTTPRoute n/rest 0\n  match prefix=/\n  backend 1",
    ));
    for (path, name) in [
        ("/files/a%2Fb", "files"),
        ("/files/a;v=1/b", "files"),
        ("/files/a%5Cb", "files"),
        ("/files/a%00", "files"),
        ("/other/a%2Fb;c#d", "rest"),
        ("/na%C3%AFve", "rest"),
    ] {
        let decision = table
            .decide(&Ask::Http(&language::request(&format!("GET {path}"))), 0)
            .unwrap();
        assert_eq!(&*decision.rule.origin.name, name, "{path}");
    }
}

#[test]
fn t24_where_no_rule_looks_at_the_path_none_is_refused() {
    let (table, _) = Table::compile(language::rules(
        "rule HTTPRoute n/all 0\n  match header:x=1\n  backend 0",
    ));
    for path in ["/a%2F..%2Fb", "/a\\b", "/a#b", "/a%00"] {
        assert!(
            table
                .decide(&Ask::Http(&language::request(&format!("GET {path} x=1"))), 0)
                .is_ok(),
            "{path}"
        );
    }
}

#[test]
fn a_rule_that_looks_at_parameters_gets_them() {
    let (table, conflicts) = Table::compile(language::rules(
        "rule HTTPRoute n/v1 0\n  match exact=/a;v=1\nrule HTTPRoute n/all 0\n  match prefix=/",
    ));
    assert_eq!(conflicts, []);
    let decision = table.decide(&Ask::Http(&language::request("GET /a;v=1")), 0).unwrap();
    assert_eq!(&*decision.rule.origin.name, "v1");
}
