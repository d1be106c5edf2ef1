//! The two fields of the W3C's Trace Context, level 1: `traceparent` read and written, `tracestate` joined.
//!
//! <https://www.w3.org/TR/trace-context-1/>

use weft_route::HttpView;

use crate::endpoint::balance::random;

/// The field that says which trace and which span a request belongs to.
pub const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");
/// The field with what tracing systems add for themselves.
pub const TRACESTATE: http::HeaderName = http::HeaderName::from_static("tracestate");

/// Characters of a `tracestate` that are kept in a span (section 3.3.1.5).
const STATE: usize = 512;
/// Characters of a `traceparent` of version 00: what every later version begins with.
const LENGTH: usize = 55;
/// The only flag of version 00.
const SAMPLED: u8 = 1;

/// A span's place in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// `trace-id`.
    pub trace: u128,
    /// `parent-id`: the span that the request was sent within.
    pub span: u64,
    /// Whether the span is recorded.
    pub sampled: bool,
}

/// What a request says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing.
    None,
    /// Its place.
    Known(Context),
    /// Something that means nothing: a new trace begins (section 3.3.1.1).
    Malformed,
}

impl Parent {
    /// Reads the fields of a request. Two fields say nothing that could be relied on.
    pub fn of(request: &impl HttpView) -> Self {
        let mut parent = Self::None;
        request.each_header(TRACEPARENT.as_str(), &mut |value| {
            parent = match (parent, Context::parse(value)) {
                (Self::None, Some(context)) => Self::Known(context),
                _ => Self::Malformed,
            };
        });
        parent
    }
}

impl Context {
    /// A span of a new trace.
    pub fn begin(trace: u128) -> Self {
        Self {
            trace,
            span: not_zero(random()),
            sampled: true,
        }
    }

    /// Another span of the same trace.
    pub fn child(self) -> Self {
        Self {
            span: not_zero(random()),
            ..self
        }
    }

    /// Reads a field's value. Of later versions, what begins as version 00 does counts (section 4).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let version = hex(&known[..2])? as u8;
        let is_ended = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => matches!(rest, [] | [b'-', ..]),
        };
        let dashed = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        if !is_ended || !dashed {
            return None;
        }
        let context = Self {
            trace: hex(&known[3..35])?,
            span: hex(&known[36..52])? as u64,
            sampled: hex(&known[53..])? as u8 & SAMPLED != 0,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// The field's value, in version 00.
    pub fn traceparent(self) -> http::HeaderValue {
        let Self { trace, span, sampled } = self;
        let text = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(sampled));
        text.try_into().expect("hexadecimal digits and dashes")
    }
}

/// A `trace-id` that is likely nobody else's.
pub fn new_trace() -> u128 {
    (u128::from(random()) << 64 | u128::from(random())).max(1)
}

fn not_zero(number: u64) -> u64 {
    number.max(1)
}

/// Lower-case digits only, as the recommendation has it.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// The `tracestate` of a request, all fields as one list, cut where it is longer than a system must pass on.
pub fn state(request: &impl HttpView) -> String {
    let mut joined = String::new();
    request.each_header(TRACESTATE.as_str(), &mut |value| {
        let Ok(value) = std::str::from_utf8(value) else { return };
        for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if joined.len() + 1 + entry.len() <= STATE {
                if !joined.is_empty() {
                    joined.push(',');
                }
                joined.push_str(entry);
            }
        }
    });
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_written_is_what_was_read() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert!(context.sampled);
        assert_eq!(context.traceparent(), GOOD);
        let child = context.child();
        assert_eq!((child.trace, child.sampled), (context.trace, true));
        assert_ne!(child.span, context.span);
    }

    #[test]
    fn what_is_malformed_begins_a_new_trace() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "cc", 1).replace("31-01", "31-01x"),
            &GOOD.replace("-01", "-0x"),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let read = |text: &str| Context::parse(text.as_bytes());
        for (text, sampled) in [
            (GOOD.replacen("00", "cc", 1), true),
            (GOOD.replacen("00", "cc", 1) + "-what-comes-one-day", true),
            (GOOD.replacen("00", "01", 1).replace("31-01", "31-fe"), false),
        ] {
            let context = read(&text).unwrap();
            assert_eq!(
                (context.sampled, context.trace),
                (sampled, read(GOOD).unwrap().trace),
                "{text}"
            );
            assert!(context.traceparent().to_str().unwrap().starts_with("00-"));
        }
        // Flags that version 00 does not know are not set again.
        assert!(read(&GOOD.replace("31-01", "31-ff")).unwrap().traceparent() == GOOD);
    }

    #[test]
    fn two_parents_are_none() {
        let request = |values: &[&str]| {
            let mut request = http::Request::builder();
            for value in values {
                request = request.header("traceparent", *value);
            }
            Parent::of(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(request(&[]), Parent::None);
        assert!(matches!(request(&[GOOD]), Parent::Known(_)));
        assert_eq!(request(&[GOOD, GOOD]), Parent::Malformed);
        assert_eq!(request(&["x"]), Parent::Malformed);
    }

    #[test]
    fn a_tracestate_of_several_fields_is_one_list_of_bounded_length() {
        let request = http::Request::builder()
            .header("tracestate", "a=1, b=2")
            .header("tracestate", format!("c={}", "x".repeat(600)))
            .header("tracestate", "d=4,,")
            .body(())
            .unwrap();
        assert_eq!(state(&request.into_parts().0), "a=1,b=2,d=4");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Context::parse(&bytes);
        }

        #[test]
        fn every_context_survives_its_field(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
            let context = Context { trace, span, sampled };
            prop_assert_eq!(Context::parse(context.traceparent().as_bytes()), Some(context));
        }
    }
}
