//! Properties of whole tables.

use std::collections::HashSet;

use proptest::prelude::*;
use weft_route::{Ask, Conflict, Lost, NoRoute, NoTarget, Outcome, Table, Target, canonical, precedence::Comparison};

use crate::{
    generate,
    language::{self, Request},
    oracle,
};

/// Enough for the small alphabet; the whole takes seconds.
fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_table_answers_as_the_specification_does(rules in generate::rules(), request in generate::request()) {
        let wanted = oracle::answer(&rules, &request);
        let path = String::from_utf8(request.target.clone()).unwrap().replace("%2e%2E", "..");
        let path = path.split('?').next().unwrap();
        let (table, _) = Table::compile(rules);
        let got = table.decide(&Ask::Http(&request), 0);
        match (wanted, got) {
            (Some((rule, matched)), Ok(decision)) => {
                prop_assert_eq!((rule, matched), (decision.rule.id as usize, decision.matched as usize));
            }
            // The only doubt that these requests can leave: what `..` takes away after `//`.
            (_, Err(NoRoute::Ambiguous)) => {
                let rest = path.split_once("//").map(|(_, rest)| ["/", rest, "/"].concat());
                prop_assert!(rest.is_some_and(|rest| rest.contains("/../")));
            }
            (None, Err(none)) => prop_assert_eq!(none == NoRoute::NoRules, table.is_empty()),
            (wanted, got) => prop_assert!(false, "wanted {:?}, got {:?}", wanted, got),
        }
    }

    #[test]
    fn connections_are_taken_as_the_specification_says(
        rules in generate::connection_rules(),
        hello in proptest::option::weighted(0.9, generate::server_name()),
        random in any::<u64>(),
    ) {
        let hello = hello.as_ref().map(Option::as_deref);
        let wanted = oracle::connection(&rules, hello);
        let (table, _) = Table::compile(rules);
        let ask = match hello {
            Some(sni) => Ask::Tls { sni },
            None => Ask::Tcp,
        };
        let decided = table.decide(&ask, random);
        let (explained, steps) = table.explain(&ask, random);
        prop_assert_eq!(&decided, &explained);
        prop_assert_eq!(wanted, decided.as_ref().ok().map(|decision| decision.rule.id as usize));
        let taken: Vec<_> = steps.iter().filter(|step| step.outcome == Outcome::Taken).map(|step| step.rule as usize).collect();
        prop_assert_eq!(taken, Vec::from_iter(wanted));
    }

    #[test]
    fn an_explanation_ends_in_the_decision(
        rules in generate::rules(),
        request in prop_oneof![generate::request(), generate::hostile_request()],
        random in any::<u64>(),
    ) {
        let (table, _) = Table::compile(rules);
        let decided = table.decide(&Ask::Http(&request), random);
        let (explained, steps) = table.explain(&Ask::Http(&request), random);
        prop_assert_eq!(&decided, &explained);
        if let Ok(decision) = decided {
            let taken: Vec<_> = steps.iter().filter(|step| step.outcome == Outcome::Taken).collect();
            prop_assert_eq!(taken.len(), 1);
            prop_assert_eq!((taken[0].rule, taken[0].matched), (decision.rule.id, decision.matched));
        }
    }

    #[test]
    fn the_order_in_which_rules_are_given_does_not_matter(
        rules in generate::rules().prop_map(|mut rules| {
            // Two rules with one origin exist in no cluster.
            let mut seen = HashSet::new();
            rules.retain(|rule| {
                let origin = &rule.origin;
                seen.insert((origin.kind, origin.namespace.clone(), origin.name.clone(), origin.rule))
            });
            // A route is created once.
            rules.iter_mut().for_each(|rule| rule.origin.created = rule.origin.name.len() as i64);
            rules
        }),
        request in generate::request(),
    ) {
        let answer = |rules| {
            let (table, _) = Table::compile(rules);
            table.decide(&Ask::Http(&request), 0).map(|decision| (decision.rule.origin.clone(), decision.matched))
        };
        let mut turned = rules.clone();
        turned.reverse();
        prop_assert_eq!(answer(rules), answer(turned));
    }

    #[test]
    fn t24_a_path_and_its_canonical_form_lead_to_the_same_rule(
        rules in generate::rules(),
        request in generate::hostile_request(),
    ) {
        let (table, _) = Table::compile(rules);
        let rule = |target: &[u8]| {
            let request = Request { target: target.to_vec(), ..request.clone() };
            table.decide(&Ask::Http(&request), 0).map(|decision| decision.rule.id)
        };
        let sent = rule(&request.target);
        if sent != Err(NoRoute::Ambiguous) {
            prop_assert_eq!(sent, rule(&canonical::path(&request.target)));
        }
    }

    #[test]
    fn what_has_lost_never_wins(rules in generate::rules(), request in generate::request()) {
        let (table, conflicts) = Table::compile(rules);
        if let Ok(decision) = table.decide(&Ask::Http(&request), 0) {
            for Conflict { loser, matched, lost } in conflicts {
                let is_rule = loser == decision.rule.origin && matched.is_none_or(|index| index == decision.matched);
                // Generated rules may share an origin; those say nothing.
                let twins = table.rules().iter().filter(|rule| rule.origin == loser).count();
                prop_assert!(twins > 1 || !is_rule, "{:?}", lost);
            }
        }
    }
}

#[test]
fn shares_are_drawn_in_proportion_to_their_weights() {
    let (table, _) = Table::compile(language::rules(
        "rule HTTPRoute a/b 0\n  backend 0 weight=1\n  backend 1 weight=0\n  backend invalid=gone weight=2\n  backend 2 weight=5",
    ));
    let request = language::request("GET /");
    let mut counts = [0; 4];
    const DRAWS: u64 = 8000;
    for draw in 0..DRAWS {
        let decision = table.decide(&Ask::Http(&request), draw * (u64::MAX / DRAWS)).unwrap();
        counts[decision.share.unwrap() as usize] += 1;
        if decision.share == Some(2) {
            assert_eq!(decision.target, Target::None(NoTarget::Reference("gone".into())));
        }
    }
    assert_eq!(
        counts.map(|count| (count as f64 / 1000.0).round()),
        [1.0, 0.0, 2.0, 5.0]
    );
    let last = table.decide(&Ask::Http(&request), u64::MAX).unwrap();
    assert_eq!((last.share, last.target), (Some(3), Target::Backend(2)));
}

#[test]
fn a_rule_without_a_backend_to_draw_says_why() {
    let target = |rule: &str| {
        let (table, _) = Table::compile(language::rules(rule));
        table.decide(&Ask::Http(&language::request("GET /")), 7).unwrap().target
    };
    assert_eq!(target("rule HTTPRoute a/b 0"), Target::None(NoTarget::NoBackends));
    assert_eq!(
        target("rule HTTPRoute a/b 0\n  backend 0 weight=0"),
        Target::None(NoTarget::NoWeight)
    );
    let bad = "rule HTTPRoute a/b 0\n  backend 0\n  filter request set:content-length=0";
    assert!(matches!(target(bad), Target::None(NoTarget::Rule(_))));
}

#[test]
fn a_table_of_a_thousand_rules_finds_each_one() {
    let mut text = String::new();
    for index in 0..1000 {
        text.push_str(&format!(
            "rule HTTPRoute a/b {index}\n  match prefix=/s{index}\n  match exact=/e/{index}\n"
        ));
    }
    let (table, conflicts) = Table::compile(language::rules(&text));
    assert_eq!(conflicts, []);
    for index in [0, 499, 999] {
        for ask in [format!("GET /s{index}/x/y"), format!("GET /e/{index}")] {
            let decision = table.decide(&Ask::Http(&language::request(&ask)), 0).unwrap();
            assert_eq!(decision.rule.id, index);
        }
    }
    assert_eq!(
        table.decide(&Ask::Http(&language::request("GET /s1000")), 0),
        Err(NoRoute::NoMatch)
    );
}

#[test]
fn a_conflict_names_the_winner_and_the_comparison() {
    let (_, conflicts) = Table::compile(language::rules(
        "rule HTTPRoute a/new 0 created=9\n  match prefix=/x\nrule HTTPRoute a/old 3 created=2\n  match prefix=/x/",
    ));
    let [conflict] = &conflicts[..] else {
        panic!("{conflicts:?}")
    };
    assert_eq!((&*conflict.loser.name, conflict.matched), ("new", Some(0)));
    let Lost::Shadowed { winner, by } = &conflict.lost else {
        panic!("{conflict}")
    };
    assert_eq!((&*winner.name, winner.rule, *by), ("old", 3, Comparison::Created));
}

#[test]
fn a_path_of_many_segments_costs_no_more_than_the_deepest_prefix() {
    let (table, _) = Table::compile(language::rules("rule HTTPRoute a/b 0\n  match prefix=/a/b"));
    let request = Request {
        method: "GET".into(),
        target: b"/a".repeat(32 << 10),
        ..Request::default()
    };
    assert_eq!(table.decide(&Ask::Http(&request), 0), Err(NoRoute::NoMatch));
}

#[test]
fn mirrors_take_their_shares_each_by_itself() {
    let (table, _) = Table::compile(language::rules(
        "rule HTTPRoute a/b 0\n  filter mirror 1 numerator=20 denominator=100\n  filter mirror 2 numerator=1 denominator=2\n  filter mirror 3",
    ));
    let decision = table.decide(&Ask::Http(&language::request("GET /")), 0).unwrap();
    // A Weyl sequence: as even as numbers can be.
    let mut state = 0u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state
    };
    let mut counts = [0; 8];
    for _ in 0..10_000 {
        let took: Vec<_> = decision.mirrors(&mut random).collect();
        counts[took
            .iter()
            .filter(|backend| **backend != 3)
            .map(|backend| *backend as usize)
            .sum::<usize>()] += 1;
        assert!(took.contains(&3));
    }
    let share = |taken: u32| (taken as f64 / 1000.0).round();
    assert_eq!([share(counts[1] + counts[3]), share(counts[2] + counts[3])], [2.0, 5.0]);
    let (always, never) = (decision.mirrors(|| 0).count(), decision.mirrors(|| u64::MAX).count());
    assert_eq!((always, never), (3, 1));
}
