//! What is written to the wire is read back as it was, and what cannot be understood is told with its place.
#![cfg(feature = "rpc")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*};
use weft_proto::{
    convert::{self, Wrong},
    limits,
    rpc::discovery as wire,
};
use weft_route::rule::*;

const BACKENDS: usize = 3;

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-z/*.~%0-9-]{1,8}".prop_map(Into::into)
}

fn either() -> impl Strategy<Value = Text> {
    prop_oneof![text().prop_map(Text::Exact), text().prop_map(Text::Regex)]
}

fn values() -> impl Strategy<Value = Vec<ValueMatch>> {
    vec(
        (text(), either()).prop_map(|(name, value)| ValueMatch { name, value }),
        0..3,
    )
}

fn a_match() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex)
    ];
    let grpc = (option::of(either()), option::of(either())).prop_map(|(service, method)| GrpcMatch { service, method });
    (
        option::of(path),
        values(),
        values(),
        option::of(text()),
        option::of(grpc),
    )
        .prop_map(|(path, headers, query, method, grpc)| Match {
            path,
            headers,
            query,
            method,
            grpc,
        })
}

fn header_change() -> impl Strategy<Value = HeaderChange> {
    (
        vec((text(), text()), 0..3),
        vec((text(), text()), 0..3),
        vec(text(), 0..3),
    )
        .prop_map(|(set, add, remove)| HeaderChange { set, add, remove })
}

fn filter() -> impl Strategy<Value = Filter> {
    let path = || {
        option::of(prop_oneof![
            text().prop_map(PathChange::Full),
            text().prop_map(PathChange::Prefix)
        ])
    };
    let redirect = (
        option::of(text()),
        option::of(text()),
        option::of(any::<u16>()),
        path(),
        any::<u16>(),
    );
    prop_oneof![
        header_change().prop_map(Filter::RequestHeaders),
        header_change().prop_map(Filter::ResponseHeaders),
        redirect.prop_map(|(scheme, host, port, path, status)| {
            Filter::Redirect(Redirect {
                scheme,
                host,
                port,
                path,
                status,
            })
        }),
        (option::of(text()), path()).prop_map(|(host, path)| Filter::Rewrite(Rewrite { host, path })),
        (reference(), any::<u32>(), any::<u32>()).prop_map(|(backend, numerator, denominator)| {
            Filter::Mirror(Mirror {
                backend,
                numerator,
                denominator,
            })
        }),
        cors().prop_map(Filter::Cors),
    ]
}

fn reference() -> impl Strategy<Value = Result<u32, Arc<str>>> {
    prop_oneof![(0..BACKENDS as u32).prop_map(Ok), text().prop_map(Err)]
}

fn cors() -> impl Strategy<Value = Cors> {
    let texts = || vec(text(), 0..3);
    let lists = (texts(), texts(), texts(), texts());
    (lists, any::<bool>(), option::of(any::<u32>())).prop_map(|(lists, allow_credentials, max_age)| {
        let (allow_origins, allow_methods, allow_headers, expose_headers) = lists;
        Cors {
            allow_origins,
            allow_credentials,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
        }
    })
}

fn duration() -> impl Strategy<Value = Option<Duration>> {
    option::of(any::<u32>().prop_map(|ms| Duration::from_millis(ms.into())))
}

fn retry() -> impl Strategy<Value = Retry> {
    (vec(any::<u16>(), 0..3), any::<u32>(), duration()).prop_map(|(codes, attempts, backoff)| Retry {
        codes,
        attempts,
        backoff,
    })
}

fn session() -> impl Strategy<Value = Session> {
    let carrier = prop_oneof![
        Just(SessionCarrier::SessionCookie),
        Just(SessionCarrier::PermanentCookie),
        Just(SessionCarrier::Header)
    ];
    let key = (any::<u32>(), vec(any::<u8>(), 0..40)).prop_map(|(id, secret)| SessionKey {
        id,
        secret: secret.into(),
    });
    (text(), carrier, duration(), duration(), vec(key, 0..3)).prop_map(
        |(name, carrier, absolute_timeout, idle_timeout, keys)| Session {
            name,
            carrier,
            absolute_timeout,
            idle_timeout,
            keys,
        },
    )
}

fn backend() -> impl Strategy<Value = WeightedBackend> {
    (reference(), any::<u32>(), vec(filter(), 0..3)).prop_map(|(backend, weight, filters)| WeightedBackend {
        backend,
        weight,
        filters,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = prop_oneof![
        Just(Kind::HttpRoute),
        Just(Kind::GrpcRoute),
        Just(Kind::TlsRoute),
        Just(Kind::TcpRoute)
    ];
    let origin = (kind, text(), text(), any::<u32>(), option::of(text()), any::<i64>());
    (
        origin,
        vec(text(), 0..3),
        vec(a_match(), 0..3),
        vec(filter(), 0..3),
        vec(backend(), 0..3),
        (duration(), duration(), option::of(retry()), option::of(session())),
    )
        .prop_map(
            |(origin, hosts, matches, filters, backends, (request, backend_request, retry, session))| {
                let (kind, namespace, name, rule, rule_name, created) = origin;
                let rule_name = rule_name.unwrap_or_default();
                let origin = Origin {
                    kind,
                    namespace,
                    name,
                    rule,
                    rule_name,
                    created,
                };
                Rule {
                    origin,
                    hosts,
                    matches,
                    filters,
                    backends,
                    timeouts: Timeouts {
                        request,
                        backend_request,
                    },
                    retry,
                    session,
                }
            },
        )
}

fn destination(rules: Vec<wire::Rule>) -> wire::Destination {
    wire::Destination {
        rules,
        backends: vec![wire::Backend::default(); BACKENDS],
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn rules_come_back_as_they_were(rules in vec(rule(), 0..4)) {
        let sent = destination(rules.iter().map(Into::into).collect());
        prop_assert_eq!(convert::rules(&sent), Ok(rules));
    }

    #[test]
    fn addresses_come_back_as_they_were(address in any::<SocketAddr>(), port in 1..=u16::MAX) {
        let address = SocketAddr::new(address.ip().to_canonical(), port);
        prop_assert_eq!(wire::Address::from(address).socket_addr(), Ok(address));
    }
}

#[test]
fn all_mistakes_are_told_together_each_with_its_place() {
    let mut rule = wire::Rule::from(&Rule::new(Origin::new(Kind::HttpRoute, "shop", "cart", 4, 0)));
    rule.filters = vec![wire::Filter::default()];
    rule.matches = vec![wire::Match {
        headers: vec![wire::ValueMatch::default()],
        ..Default::default()
    }];
    rule.backends = vec![wire::WeightedBackend {
        backend: Some(3),
        ..Default::default()
    }];
    let mut nameless = rule.clone();
    nameless.origin = None;
    nameless.filters.clear();
    nameless.matches.clear();
    let mistakes = convert::rules(&destination(vec![rule, nameless])).unwrap_err();
    let told: Vec<_> = mistakes.iter().map(|mistake| mistake.to_string()).collect();
    let absent = "it is absent, or of a kind that this version does not know";
    assert_eq!(
        told,
        [
            format!("rules[0] (HTTPRoute shop/cart rule 4): matches[0]: headers[0]: {absent}"),
            format!("rules[0] (HTTPRoute shop/cart rule 4): filters[0]: {absent}"),
            "rules[0] (HTTPRoute shop/cart rule 4): backends[0]: there is no backend 3: the destination has 3".into(),
            format!("rules[1]: {absent}"),
            "rules[1]: backends[0]: there is no backend 3: the destination has 3".into(),
        ]
    );
}

#[test]
fn a_mirror_to_a_backend_that_is_not_there_is_a_mistake() {
    let mut rule = Rule::new(Origin::new(Kind::HttpRoute, "a", "b", 0, 0));
    rule.filters = vec![Filter::Mirror(Mirror {
        backend: Ok(3),
        numerator: 1,
        denominator: 1,
    })];
    let mistakes = convert::rules(&destination(vec![(&rule).into()])).unwrap_err();
    assert_eq!(
        mistakes[0].to_string(),
        "rules[0] (HTTPRoute a/b rule 0): filters[0]: there is no backend 3: the destination has 3"
    );
    assert_eq!(convert::rules_of(&[(&rule).into()], 4), Ok(vec![rule]));
}

#[test]
fn a_limit_shorter_than_a_millisecond_is_still_one() {
    let mut rule = Rule::new(Origin::new(Kind::HttpRoute, "a", "b", 0, 0));
    rule.timeouts.request = Some(Duration::from_micros(1));
    assert_eq!(wire::Rule::from(&rule).request_timeout_ms, Some(1));
    rule.timeouts.request = Some(Duration::MAX);
    assert_eq!(wire::Rule::from(&rule).request_timeout_ms, Some(u64::MAX));
}

#[test]
fn bytes_that_are_no_address_are_refused() {
    assert_eq!(
        wire::Address {
            ip: vec![1, 2, 3],
            port: 80
        }
        .socket_addr(),
        Err(Wrong::Address(3))
    );
    assert_eq!(
        wire::Address {
            ip: vec![1, 2, 3, 4],
            port: 0
        }
        .socket_addr(),
        Err(Wrong::Number(0, "port"))
    );
    assert_eq!(
        wire::Address {
            ip: vec![1, 2, 3, 4],
            port: 65536
        }
        .socket_addr(),
        Err(Wrong::Number(65536, "port"))
    );
    let mapped = wire::Address {
        ip: "::ffff:1.2.3.4".parse::<std::net::Ipv6Addr>().unwrap().octets().into(),
        port: 1,
    };
    assert_eq!(mapped.socket_addr(), Ok("1.2.3.4:1".parse().unwrap()));
}

#[test]
fn the_limits_of_rules_are_those_of_the_route_crate() {
    assert_eq!(limits::REGEX, weft_route::limits::REGEX);
    assert_eq!(limits::REGEX_COMPILED, weft_route::limits::REGEX_COMPILED);
    assert_eq!(limits::RETRIES, weft_route::limits::RETRIES);
    assert_eq!(limits::RETRY_PAUSE, weft_route::limits::RETRY_PAUSE);
    assert_eq!(limits::SESSION_NAME, weft_route::limits::SESSION_NAME);
    assert_eq!(limits::SESSION_TOKENS, weft_route::limits::SESSION_TOKENS);
}

#[test]
fn keys_are_not_shown() {
    let certificate = wire::Certificate {
        chain: "public".into(),
        key: "secret".into(),
    };
    let session = wire::SessionKey {
        id: 7,
        secret: b"secret".into(),
    };
    let shown = format!("{certificate:?} {session:?}");
    assert_eq!(shown, r#"Certificate { chain: "public", .. } SessionKey { id: 7, .. }"#);
}
