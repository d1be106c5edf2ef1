//! Sessions: what is told to a client, what it may show again, and what no client can make up.

use std::{sync::LazyLock, time::Duration};

use proptest::prelude::*;
use weft_route::{Ask, Decision, Table, Target, rule::*, session::Shown};

use crate::language::{self, Request};

const NOW: u64 = 1_800_000_000;
const POD: &str = "0b5f6c2a-5d1e-4a5c-9a53-1c0f3f0f9e11";
const OTHER: &str = "9d8e7f60-0000-4a5c-9a53-1c0f3f0f9e22";

fn key(id: u32, byte: u8) -> SessionKey {
    SessionKey {
        id,
        secret: vec![byte; 32].into(),
    }
}

fn session(carrier: SessionCarrier) -> Session {
    Session {
        name: "stay".into(),
        carrier,
        absolute_timeout: None,
        idle_timeout: None,
        keys: vec![key(7, 1)],
    }
}

fn rule(number: u32, session: Session) -> Rule {
    let mut rule = Rule::new(Origin::new(Kind::HttpRoute, "n", "r", number, 0));
    rule.backends = vec![WeightedBackend::new(0, 1), WeightedBackend::new(1, 0)];
    rule.session = Some(session);
    rule
}

fn decision(rule: Rule) -> Decision {
    let (table, conflicts) = Table::compile(vec![rule]);
    assert_eq!(conflicts, []);
    table.decide(&Ask::Http(&language::request("GET /")), 0).unwrap()
}

fn with(name: &str, value: &str) -> Request {
    let mut request = language::request("GET /");
    request.headers.push((name.into(), value.into()));
    request
}

/// What the client of a first request to `pod` sends with the next one.
fn kept(decision: &Decision, pod: &str, at: u64) -> String {
    let (_, value) = decision.sessions().unwrap().field(None, pod, at, true).unwrap();
    value.to_str().unwrap().split(';').next().unwrap().to_owned()
}

fn shown(decision: &Decision, cookie: &str, at: u64) -> Option<Shown> {
    decision.sessions().unwrap().shown(&with("cookie", cookie), at)
}

#[test]
fn a_client_comes_back_to_its_pod() {
    let decision = decision(rule(0, session(SessionCarrier::SessionCookie)));
    let sessions = decision.sessions().unwrap();
    let cookie = kept(&decision, POD, NOW);
    for sent in [
        cookie.clone(),
        format!("a=b; {cookie}"),
        format!("stay=; stay=x.y; {cookie};c=d"),
    ] {
        let shown = shown(&decision, &sent, NOW + 9).expect("a session");
        assert!(sessions.matches(&shown, POD) && !sessions.matches(&shown, OTHER));
        assert_eq!(shown.endpoint, sessions.endpoint(&shown, POD));
        assert_eq!(
            sessions.field(Some(&shown), POD, NOW + 9, true),
            None,
            "it is not told again"
        );
    }
    assert_eq!(shown(&decision, "other=x", NOW), None);
    assert_eq!(sessions.shown(&language::request("GET /"), NOW), None);
    assert!(!cookie.contains("0b5f6c2a"), "{cookie}");
}

#[test]
fn cookies_are_as_strict_as_the_connection_allows() {
    let told = |carrier, absolute: Option<u64>, over_tls| {
        let absolute_timeout = absolute.map(Duration::from_secs);
        let session = Session {
            absolute_timeout,
            ..session(carrier)
        };
        let (name, value) = decision(rule(0, session))
            .sessions()
            .unwrap()
            .field(None, POD, NOW, over_tls)
            .unwrap();
        (
            name.to_string(),
            value
                .to_str()
                .unwrap()
                .split_once(';')
                .map_or("", |(_, rest)| rest)
                .to_owned(),
        )
    };
    let cookie = |attributes: &str| ("set-cookie".to_owned(), attributes.to_owned());
    let plain = " Path=/; HttpOnly; SameSite=Strict";
    assert_eq!(told(SessionCarrier::SessionCookie, None, false), cookie(plain));
    assert_eq!(
        told(SessionCarrier::SessionCookie, Some(60), true),
        cookie(&format!("{plain}; Secure"))
    );
    assert_eq!(
        told(SessionCarrier::PermanentCookie, Some(60), false),
        cookie(&format!("{plain}; Max-Age=60"))
    );
    assert_eq!(
        told(SessionCarrier::Header, None, true),
        ("stay".to_owned(), String::new())
    );
}

#[test]
fn a_header_field_carries_a_session_both_ways() {
    let decision = decision(rule(0, session(SessionCarrier::Header)));
    let sessions = decision.sessions().unwrap();
    let (name, value) = sessions.field(None, POD, NOW, false).unwrap();
    let shown = sessions
        .shown(&with(name.as_str(), value.to_str().unwrap()), NOW)
        .unwrap();
    assert!(sessions.matches(&shown, POD));
    assert_eq!(
        sessions.shown(&with("cookie", &format!("stay={}", value.to_str().unwrap())), NOW),
        None
    );
}

#[test]
fn a_session_ends_after_its_time_however_much_it_is_used() {
    let mut session = session(SessionCarrier::PermanentCookie);
    session.absolute_timeout = Some(Duration::from_secs(100));
    session.idle_timeout = Some(Duration::from_secs(40));
    let decision = decision(rule(0, session));
    let sessions = decision.sessions().unwrap();
    let first = kept(&decision, POD, NOW);
    assert!(shown(&decision, &first, NOW + 39).is_some());
    assert_eq!(shown(&decision, &first, NOW + 40), None, "it was idle for too long");
    // Told anew once a quarter of the idle time is over, and the beginning stays what it was.
    let early = shown(&decision, &first, NOW + 9).unwrap();
    assert_eq!(sessions.field(Some(&early), POD, NOW + 9, true), None);
    let later = shown(&decision, &first, NOW + 30).unwrap();
    let (_, value) = sessions.field(Some(&later), POD, NOW + 30, true).unwrap();
    let second = value.to_str().unwrap();
    assert!(second.ends_with("; Max-Age=70"), "{second}");
    let second = second.split(';').next().unwrap();
    assert!(shown(&decision, second, NOW + 69).is_some());
    let latest = shown(&decision, second, NOW + 69).unwrap();
    let (_, value) = sessions.field(Some(&latest), POD, NOW + 69, true).unwrap();
    let third = value.to_str().unwrap().split(';').next().unwrap();
    assert!(shown(&decision, third, NOW + 99).is_some());
    assert_eq!(shown(&decision, third, NOW + 100), None, "it began too long ago");
}

#[test]
fn a_clock_may_be_a_little_behind() {
    let decision = decision(rule(0, session(SessionCarrier::SessionCookie)));
    let cookie = kept(&decision, POD, NOW);
    assert!(shown(&decision, &cookie, NOW - 300).is_some());
    assert_eq!(shown(&decision, &cookie, NOW - 301), None);
}

#[test]
fn keys_are_changed_without_ending_sessions() {
    let keys = |keys: Vec<SessionKey>| {
        let session = session(SessionCarrier::SessionCookie);
        decision(rule(0, Session { keys, ..session }))
    };
    let (old, both, new) = (
        keys(vec![key(1, 1)]),
        keys(vec![key(2, 2), key(1, 1)]),
        keys(vec![key(2, 2)]),
    );
    let first = kept(&old, POD, NOW);
    let seen = shown(&both, &first, NOW).unwrap();
    assert!(both.sessions().unwrap().matches(&seen, POD));
    let (_, value) = both
        .sessions()
        .unwrap()
        .field(Some(&seen), POD, NOW, true)
        .expect("it is signed anew");
    let second = value.to_str().unwrap().split(';').next().unwrap();
    assert!(new.sessions().unwrap().matches(&shown(&new, second, NOW).unwrap(), POD));
    assert_eq!(shown(&new, &first, NOW), None);
    assert_eq!(
        shown(&keys(vec![key(1, 9)]), &first, NOW),
        None,
        "another key of the same number"
    );
}

#[test]
fn rules_do_not_share_sessions() {
    let one = decision(rule(0, session(SessionCarrier::SessionCookie)));
    let mut other_rule = rule(1, session(SessionCarrier::SessionCookie));
    assert_eq!(shown(&decision(other_rule.clone()), &kept(&one, POD, NOW), NOW), None);
    other_rule.origin = Origin::new(Kind::HttpRoute, "n", "r2", 0, 0);
    assert_eq!(shown(&decision(other_rule), &kept(&one, POD, NOW), NOW), None);
}

#[test]
fn a_session_is_kept_at_a_backend_that_has_no_weight_any_more() {
    let mut decision = decision(rule(0, session(SessionCarrier::SessionCookie)));
    assert_eq!(decision.target, Target::Backend(0));
    decision.choose(1, &language::request("GET /"));
    assert_eq!((decision.share, decision.target.clone()), (Some(1), Target::Backend(1)));
    decision.choose(2, &language::request("GET /"));
    assert_eq!(decision.target, Target::Backend(1), "there is no share 2");
}

#[test]
fn without_a_key_there_are_no_sessions_and_no_mistake() {
    let without = Session {
        keys: Vec::new(),
        ..session(SessionCarrier::Header)
    };
    assert!(decision(rule(0, without)).sessions().is_none());
}

#[test]
fn what_cannot_be_a_session_is_said() {
    let told = |change: fn(&mut Session)| {
        let mut session = session(SessionCarrier::Header);
        change(&mut session);
        let mistakes = rule(0, session).mistakes();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told(|_| {}), "");
    assert_eq!(
        told(|session| session.name = "a b".into()),
        "session: 'a b' cannot be the name of a cookie or header field"
    );
    assert_eq!(
        told(|session| session.name = "".into()),
        "session: '' cannot be the name of a cookie or header field"
    );
    assert_eq!(
        told(|session| session.name = "Host".into()),
        "session: the field 'Host' belongs to the connection or its framing"
    );
    assert_eq!(
        told(|session| session.idle_timeout = Some(Duration::ZERO)),
        "session: a session of no time at all"
    );
    assert_eq!(
        told(|session| session.carrier = SessionCarrier::PermanentCookie),
        "session: a permanent cookie needs an absolute timeout"
    );
    assert_eq!(
        told(|session| session.keys[0].secret = [1; 15].into()),
        "session: key 7 is shorter than 16 bytes"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_client_changes_holds(
        at in any::<prop::sample::Index>(),
        to in proptest::char::range('!', '~'),
        cut in any::<bool>(),
    ) {
        static HEADER: LazyLock<Decision> = LazyLock::new(|| decision(rule(0, session(SessionCarrier::Header))));
        static GOOD: LazyLock<String> = LazyLock::new(|| {
            let (_, value) = HEADER.sessions().unwrap().field(None, POD, NOW, true).unwrap();
            value.to_str().unwrap().to_owned()
        });
        let (sessions, good) = (HEADER.sessions().unwrap(), GOOD.clone());
        let mut bad: Vec<char> = good.chars().collect();
        let at = at.index(bad.len());
        if cut { let _ = bad.remove(at); } else { bad[at] = to; }
        let bad: String = bad.into_iter().collect();
        let read = sessions.shown(&with("stay", &bad), NOW);
        prop_assert!(read.is_none() || bad == good, "{} is read as {}", bad, good);
    }

    #[test]
    fn anything_at_all_can_be_shown(text in "\\PC{0,200}", dots in "(v1\\.)?[0-9a-f.]{0,20}[-_A-Za-z0-9.]{0,100}") {
        static COOKIE: LazyLock<Decision> = LazyLock::new(|| decision(rule(0, session(SessionCarrier::SessionCookie))));
        for text in [text, dots] {
            prop_assert_eq!(shown(&COOKIE, &text, NOW), None);
            let cookie = format!("stay={text}");
            prop_assert_eq!(shown(&COOKIE, &cookie, NOW), None);
        }
    }
}
