//! Whose a name is: a corpus, and an oracle that looks at every pattern.

use proptest::{collection::vec, option, prelude::*, sample::select};
use weft_route::listener::{Elsewhere, Names};

use crate::oracle;

fn names<'a>(patterns: &[Option<&'a str>]) -> Names<Option<&'a str>> {
    let mut names = Names::default();
    for pattern in patterns {
        let _ = names.claim(*pattern, *pattern);
    }
    names
}

#[test]
fn every_case_of_the_corpus_is_whose_it_should_be() {
    let text = include_str!("../listeners/corpus.txt");
    let optional = |word: &'static str| Some(word).filter(|word| *word != "-");
    let mut asked = 0;
    for case in text.split("\n== ").skip(1) {
        let mut lines = case.lines().filter(|line| !line.is_empty());
        let title = lines.next().unwrap();
        let patterns: Vec<_> = lines.next().unwrap().split(' ').map(optional).collect();
        let names = names(&patterns);
        for line in lines {
            let (ask, wanted) = line.split_once(" => ").unwrap();
            let (server_name, host) = ask.split_once(' ').unwrap();
            let got = match names.of_request(optional(server_name), optional(host)) {
                Ok(pattern) => pattern.unwrap_or("-"),
                Err(Elsewhere::NoConnection) => "refused",
                Err(Elsewhere::Misdirected) => "421",
                Err(Elsewhere::Nowhere) => "404",
            };
            assert_eq!(got, wanted, "{title}: {line}");
            asked += 1;
        }
    }
    assert_eq!(asked, 34);
}

#[test]
fn who_claims_a_pattern_first_keeps_it() {
    let mut names = Names::default();
    for pattern in [None, Some("a.test"), Some("*.a.test")] {
        assert_eq!(names.claim(pattern, 1), Ok(()));
        assert_eq!(names.claim(pattern, 2), Err((&1, 2)));
        assert_eq!(names.find(Some("b.a.test")), Some(&1));
    }
}

fn pattern() -> impl Strategy<Value = Option<&'static str>> {
    const PATTERNS: [&str; 8] = [
        "a.test",
        "b.a.test",
        "c.b.a.test",
        "test",
        "*.test",
        "*.a.test",
        "*.b.a.test",
        "*.c.test",
    ];
    option::weighted(0.9, select(&PATTERNS[..]))
}

fn name() -> impl Strategy<Value = Option<String>> {
    option::weighted(
        0.9,
        vec(select(&["a", "b", "c", "test"][..]), 1..5).prop_map(|labels| labels.join(".")),
    )
}

/// The most specific of the patterns that take a name, by looking at each.
fn owner<'a>(patterns: &[Option<&'a str>], name: Option<&str>) -> Option<Option<&'a str>> {
    let takes = patterns
        .iter()
        .filter(|pattern| pattern.is_none_or(|pattern| oracle::host_matches(pattern, name)));
    takes
        .copied()
        .max_by_key(|pattern| pattern.map(oracle::host_characters))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn the_most_specific_pattern_takes_a_name(patterns in vec(pattern(), 0..8), name in name(), host in name()) {
        let names = names(&patterns);
        let (name, host) = (name.as_deref(), host.as_deref());
        let (own, other) = (owner(&patterns, name), owner(&patterns, host));
        prop_assert_eq!(names.find(name).copied(), own);
        let wanted = match (own, other) {
            (None, _) => Err(Elsewhere::NoConnection),
            (Some(own), _) if host.is_none() => Ok(own),
            (Some(_), None) => Err(Elsewhere::Nowhere),
            (Some(own), Some(other)) if own == other => Ok(own),
            _ => Err(Elsewhere::Misdirected),
        };
        prop_assert_eq!(names.of_request(name, host).copied(), wanted);
    }
}
