//! Regular expressions of users: bounded, linear, and never made of a name.

use std::time::Instant;

use weft_route::{Ask, Table, limits, rule::*};

use crate::language::{self, Request};

fn with_path(pattern: &str) -> Rule {
    let mut rule = Rule::new(Origin::new(Kind::HttpRoute, "n", "r", 0, 0));
    rule.matches = vec![Match {
        path: Some(PathMatch::Regex(pattern.into())),
        ..Match::default()
    }];
    rule
}

fn mistake(pattern: &str) -> String {
    let rule = with_path(pattern);
    let (_, conflicts) = Table::compile(vec![rule.clone()]);
    let [mistake] = &rule.mistakes()[..] else {
        panic!("{:?}", rule.mistakes())
    };
    assert_eq!(
        conflicts.len(),
        1,
        "what the controller refuses, the table refuses, too"
    );
    mistake.to_string()
}

#[test]
fn t28_what_is_wrong_with_a_pattern_is_said() {
    assert_eq!(
        mistake("/a("),
        "matches[0]: the regular expression '/a(' is not valid: unclosed group"
    );
    let long = format!("/{}", "a".repeat(limits::REGEX));
    assert_eq!(
        mistake(&long),
        format!(
            "matches[0]: the regular expression '{}…' has 1025 bytes; the limit is 1024",
            &long[..64]
        )
    );
    assert_eq!(
        mistake("(((a{100}){100}){100}){100}"),
        "matches[0]: the regular expression '(((a{100}){100}){100}){100}' takes more than 1048576 bytes when compiled; \
         make its repetitions shorter"
    );
    // Neither back-references nor look-around: they cannot run in linear time.
    assert!(mistake(r"(a)\1").contains("backreferences are not supported"));
    assert!(mistake("(?=a)").contains("look-around"));
}

#[test]
fn t28_a_pattern_that_is_at_the_limit_is_taken() {
    assert_eq!(with_path(&"a".repeat(limits::REGEX)).mistakes(), []);
}

#[test]
fn t28_patterns_take_the_whole_text() {
    let rules = "rule HTTPRoute n/r 0\n  match path=/a|/b header:x~a|b query:q~[0-9]+";
    let (table, _) = Table::compile(language::rules(rules));
    let takes = |ask: &str| table.decide(&Ask::Http(&language::request(ask)), 0).is_ok();
    assert!(takes("GET /a?q=12 x=b"));
    assert!(takes("GET /b?q=1 x=a"));
    for ask in [
        "GET /ab?q=1 x=a",
        "GET /c/b?q=1 x=a",
        "GET /a?q=1x x=a",
        "GET /a?q= x=a",
        "GET /a?q=1 x=ab",
    ] {
        assert!(!takes(ask), "{ask}");
    }
}

#[test]
fn t28_an_unbalanced_group_cannot_reach_out_of_its_anchors() {
    assert!(mistake("/a)|(/b").contains("unopened group"));
}

#[test]
fn t28_names_and_values_are_never_patterns() {
    let rules = "rule HTTPRoute n/r 0\n  host a.test\n  match exact=/a.c header:x=a.c query:q=a.c";
    let (table, _) = Table::compile(language::rules(rules));
    let takes = |ask: &str| table.decide(&Ask::Http(&language::request(ask)), 0).is_ok();
    assert!(takes("GET /a.c?q=a.c x=a.c host=a.test"));
    for ask in [
        "GET /abc?q=a.c x=a.c host=a.test",
        "GET /a.c?q=abc x=a.c host=a.test",
        "GET /a.c?q=a.c x=abc host=a.test",
        "GET /a.c?q=a.c x=a.c host=abtest",
    ] {
        assert!(!takes(ask), "{ask}");
    }
}

#[test]
fn t28_matching_takes_time_in_proportion_to_the_text() {
    // A backtracking engine would need 2^n steps for these.
    for pattern in ["/(a+)+b", "/(a|aa)+b", "/(.*)*b", "/(a?){30}a{30}b"] {
        let (table, conflicts) = Table::compile(vec![with_path(pattern)]);
        assert_eq!(conflicts, []);
        let target = [b"/", "a".repeat(60 << 10).as_bytes()].concat();
        let request = Request {
            method: "GET".into(),
            target,
            ..Request::default()
        };
        let start = Instant::now();
        assert!(table.decide(&Ask::Http(&request), 0).is_err());
        assert!(start.elapsed().as_secs() < 5, "{pattern} took {:?}", start.elapsed());
    }
}
