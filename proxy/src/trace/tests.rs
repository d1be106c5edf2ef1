//! Which requests have spans, what they say, and what becomes of them when nobody takes them.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};

use super::*;
use crate::{
    fault::Reason,
    metrics::Dimensions,
    record::{Direction, Hop, Protocol, RuleName},
};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn tracer(sampling: f64) -> Tracer {
    let (queue, taken_from) = mpsc::channel(limits::SPANS);
    Tracer {
        queue,
        full: Notify::new(),
        least: ((1.0 - sampling) * (1u64 << RANDOM_BITS) as f64) as u64,
        taken_from: Mutex::new(Some(taken_from)),
    }
}

fn facts(direction: Direction, mesh: bool) -> Arc<Facts> {
    Facts::new(
        direction,
        ([10, 0, 0, 1], 1234).into(),
        ([10, 0, 0, 2], 8080).into(),
        None,
        mesh,
    )
}

fn request(fields: &[(&str, &str)]) -> http::request::Parts {
    let mut request = http::Request::post("http://web.shop:80/a/b?secret=1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn begin(sampling: f64, mesh: bool, fields: &[(&str, &str)]) -> Option<Box<Open>> {
    let direction = if mesh { Direction::Inbound } else { Direction::Outbound };
    tracer(sampling).begin(&request(fields), "2", &facts(direction, mesh))
}

#[test]
fn the_parents_word_counts_more_than_the_ratio() {
    let child = begin(0.0, false, &[("traceparent", SAMPLED)]).unwrap();
    assert!(!child.is_root());
    assert!(child.context().sampled && child.context().span != 0xb7ad_6b71_6920_3331);
    assert_eq!(child.context().trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    assert!(begin(1.0, false, &[("traceparent", UNSAMPLED)]).is_none());
}

#[test]
fn a_trace_that_begins_here_is_sampled_by_the_ratio() {
    assert!(begin(1.0, false, &[]).unwrap().is_root());
    assert!(begin(0.0, false, &[]).is_none());
    assert!(begin(1.0, false, &[("traceparent", "nonsense")]).unwrap().is_root());
    let tracer = tracer(0.25);
    let sampled = (0..4000).filter(|_| tracer.samples(context::new_trace())).count();
    assert!((800..1200).contains(&sampled), "{sampled}");
}

#[test]
fn a_weft_does_not_decide_again_what_the_one_before_it_has_decided() {
    assert!(begin(1.0, true, &[]).is_none());
    assert!(begin(1.0, true, &[("traceparent", "nonsense")]).is_none());
    assert!(begin(0.0, true, &[("traceparent", SAMPLED)]).is_some());
}

fn ended(direction: Direction, change: impl FnOnce(&mut Dimensions, &mut Ended<'_>)) -> Span {
    let open = begin(1.0, false, &[("traceparent", SAMPLED), ("tracestate", "a=1")]).unwrap();
    let facts = facts(direction, false);
    let mut dimensions = Dimensions {
        direction,
        protocol: Protocol::Http2,
        hop: Hop::Mesh,
        listener: None,
        rule: Some(RuleName {
            route: "HTTPRoute/shop/web".into(),
            rule: "0".into(),
        }),
        backend: Some("shop/web:80".into()),
        peer: None,
    };
    let before = dimensions.clone();
    let mut ended = Ended {
        facts: &facts,
        dimensions: &before,
        endpoint: Some(([10, 0, 0, 3], 8080).into()),
        attempts: 1,
        status: 200,
        grpc_status: None,
        fault: None,
        took: Duration::from_millis(5),
        tunnel: None,
    };
    change(&mut dimensions, &mut ended);
    open.end(&Ended {
        dimensions: &dimensions,
        ..ended
    })
}

fn said<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(span: &Span, key: &str) -> String {
    match said(span, key) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[test]
fn a_span_says_what_the_conventions_ask_for_and_no_secret() {
    let span = ended(Direction::Outbound, |_, _| {});
    assert_eq!((span.kind(), &*span.name), (SpanKind::Client, "POST"));
    assert_eq!(span.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(span.trace_state, "a=1");
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5_000_000);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("url.path", "/a/b"),
        ("server.address", "web.shop"),
        ("server.port", "80"),
        ("network.protocol.version", "2"),
        ("network.peer.address", "10.0.0.3"),
        ("http.response.status_code", "200"),
        ("weft.route", "HTTPRoute/shop/web"),
        ("weft.rule", "0"),
        ("weft.backend", "shop/web:80"),
        ("weft.hop", "mesh"),
    ] {
        assert_eq!(text(&span, key), value, "{key}");
    }
    assert!(span.status.is_none() && !format!("{span:?}").contains("secret"));
    let inbound = ended(Direction::Inbound, |_, _| {});
    assert_eq!(inbound.kind(), SpanKind::Server);
    assert_eq!(text(&inbound, "network.peer.address"), "10.0.0.1");
}

#[test]
fn what_failed_says_why() {
    let failed = |direction, change: fn(&mut Dimensions, &mut Ended<'_>)| {
        let span = ended(direction, change);
        let is_error = span.status.as_ref().is_some_and(|status| status.code == 2);
        (is_error, text(&span, "error.type"))
    };
    let wrong = |kind: &str| (true, kind.to_owned());
    assert_eq!(failed(Direction::Inbound, |_, ended| ended.status = 503), wrong("503"));
    assert_eq!(
        failed(Direction::Inbound, |_, ended| ended.status = 404),
        (false, String::new())
    );
    let unreachable = Reason::ConnectRefused;
    assert_eq!(
        failed(Direction::Outbound, |_, ended| ended.fault =
            Some((Reason::ConnectRefused, "refused"))),
        wrong(unreachable.label())
    );
    let not_found: fn(&mut Dimensions, &mut Ended<'_>) = |dimensions, ended| {
        dimensions.protocol = Protocol::Grpc;
        ended.grpc_status = Some(5);
    };
    assert_eq!(failed(Direction::Inbound, not_found), (false, String::new()));
    assert_eq!(failed(Direction::Outbound, not_found), wrong("5"));
    let span = ended(Direction::Inbound, |dimensions, _| dimensions.protocol = Protocol::Grpc);
    assert_eq!((&*span.name, text(&span, "rpc.method")), ("a/b", "b".to_owned()));
}

#[test]
fn spans_that_nobody_takes_cost_a_bounded_place_and_no_time() {
    let tracer = tracer(1.0);
    let facts = facts(Direction::Outbound, false);
    let dimensions = Dimensions {
        direction: Direction::Outbound,
        protocol: Protocol::Http1,
        hop: Hop::Plain,
        listener: None,
        rule: None,
        backend: None,
        peer: None,
    };
    for _ in 0..limits::SPANS + 100 {
        let open = tracer.begin(&request(&[]), "1.1", &facts).unwrap();
        let ended = Ended {
            facts: &facts,
            dimensions: &dimensions,
            endpoint: None,
            attempts: 0,
            status: 0,
            grpc_status: None,
            fault: None,
            took: Duration::ZERO,
            tunnel: None,
        };
        tracer.end(*open, &ended);
    }
    assert_eq!(tracer.queue.capacity(), 0);
}
