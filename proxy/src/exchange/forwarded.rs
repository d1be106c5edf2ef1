//! What a gateway says for its clients, and nobody else may say: `Forwarded` and `X-Forwarded-*` (RFC 7239; RELIABILITY T29).
//!
//! Claims of the same names that a client sent are forgotten before rules look at the request, so that neither a rule nor a server
//! believes them. Sidecars leave these fields alone: what a gateway or an application said passes.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, HeaderValue};
use weft_proto::{limits, names::http as names};
use weft_route::HttpView;

use super::head::{Changes, Request};
use crate::{
    fault::{Fault, Reason},
    record::Facts,
    role::Direction,
};

const FORWARDED: HeaderName = HeaderName::from_static(names::FORWARDED);
const FOR: HeaderName = HeaderName::from_static(names::FORWARDED_FOR);
const PROTO: HeaderName = HeaderName::from_static(names::FORWARDED_PROTO);
const HOST: HeaderName = HeaderName::from_static(names::FORWARDED_HOST);
const PORT: HeaderName = HeaderName::from_static(names::FORWARDED_PORT);

/// How the gateway calls itself in `Forwarded` (RFC 7239 6.3): behind it stands how many gateways the request has passed.
const BY: &str = "by=_weft.";

/// Says it at a gateway; what is still to be carried out when the request is written as HTTP/1. A request that goes in circles is
/// refused (T30): a gateway's backend may be a gateway, in the end this very one.
pub fn enter(request: &mut Request, facts: &Facts) -> Result<Changes, Fault> {
    let mut changes = Changes::default();
    if facts.direction != Direction::Gateway {
        return Ok(changes);
    }
    let passed = passed(request) + 1;
    if passed > limits::GATEWAYS_PASSED {
        crate::metrics::limit_reached("GATEWAYS_PASSED");
        return Err(Fault::because(Reason::Loop, "the request has passed too many gateways"));
    }
    request.forget(is_claim);
    let host = request.host().and_then(|host| HeaderValue::from_bytes(host).ok());
    let forwarded = forwarded(facts.client, host.as_ref(), facts.scheme(), passed);
    let client = facts.client.ip().to_string();
    let fields = request.fields_to_edit(&mut changes);
    let mut say = |name, value: Option<HeaderValue>| {
        if let Some(value) = value {
            fields.set(&name, &value);
        }
    };
    say(FOR, HeaderValue::try_from(client).ok());
    say(PROTO, Some(HeaderValue::from_static(facts.scheme())));
    say(HOST, host);
    say(PORT, Some(HeaderValue::from(facts.destination.port())));
    say(FORWARDED, HeaderValue::try_from(forwarded).ok());
    Ok(changes)
}

/// How many gateways of weft the request says it has passed. Whoever says so in vain is refused in vain.
fn passed(request: &Request) -> usize {
    let mut most = 0;
    request.each_header(names::FORWARDED, &mut |value| {
        let number = memchr::memmem::find(value, BY.as_bytes()).map(|at| &value[at + BY.len()..]);
        let digits = number
            .unwrap_or_default()
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        // Three digits are more than enough to be too many.
        let count = digits
            .take(3)
            .fold(0, |count, digit| 10 * count + usize::from(digit - b'0'));
        most = most.max(count);
    });
    most
}

/// One element of `Forwarded`. An address of IPv6 and a host with a port are no tokens, and so are quoted.
fn forwarded(client: SocketAddr, host: Option<&HeaderValue>, scheme: &str, passed: usize) -> String {
    let mut text = match client.ip() {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    // The guard lets no host pass that needs more than quotes.
    let host = host.and_then(|host| host.to_str().ok());
    if let Some(host) = host.filter(|host| !host.is_empty() && !host.contains(['"', '\\'])) {
        text.push_str(&format!(";host=\"{host}\""));
    }
    text.push_str(&format!(";proto={scheme};{BY}{passed}"));
    text
}

/// Whether only a gateway may say this. Servers that turn names into variables take `_` for `-`.
fn is_claim(name: &str) -> bool {
    let alike = |name: &str, own: &str| {
        name.len() == own.len()
            && name.bytes().zip(own.bytes()).all(|(byte, own)| {
                let byte = if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
                byte == own
            })
    };
    let begins = |own: &&str| name.get(..own.len()).is_some_and(|start| alike(start, own));
    names::CLAIMS.iter().any(|own| alike(name, own)) || names::CLAIM_PREFIXES.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t29_claims_are_known_in_every_spelling() {
        for claim in [
            "Forwarded",
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded_Client-Cert",
            "X-SSL-Client-CN",
            "X_Real_IP",
        ] {
            assert!(is_claim(claim), "{claim}");
        }
        for other in ["X-Forward", "Forwarded-By", "X-Request-Id", "Via", "x-forwarded"] {
            assert!(!is_claim(other), "{other}");
        }
    }

    #[test]
    fn an_element_of_forwarded_is_quoted_where_it_must_be() {
        let host = HeaderValue::from_static("shop.example:8080");
        let v6: SocketAddr = "[2001:db8::7]:4711".parse().unwrap();
        assert_eq!(
            forwarded(v6, Some(&host), "https", 1),
            "for=\"[2001:db8::7]\";host=\"shop.example:8080\";proto=https;by=_weft.1"
        );
        let v4: SocketAddr = "192.0.2.60:1".parse().unwrap();
        assert_eq!(forwarded(v4, None, "http", 2), "for=192.0.2.60;proto=http;by=_weft.2");
    }
}
