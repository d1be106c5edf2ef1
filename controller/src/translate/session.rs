//! `sessionPersistence` (GEP-1619), which HTTPRoute and GRPCRoute share.

use weft_route::rule::{Session, SessionCarrier};

use super::{Problem, Reason, Rule, http_route::duration, matching::is_token};
use crate::{cluster::read::Mistakes, objects::SessionPersistence};

/// Name of the cookie and of the header field where a route does not say one.
const COOKIE: &str = "weft-session";
const HEADER: &str = "x-weft-session";

/// Translates it. Keys are put in when answers are made: they do not stand in the object.
pub(super) fn session(
    given: &SessionPersistence,
    at: &str,
    rule: &mut Rule,
    mistakes: &mut Mistakes,
) -> Option<Session> {
    let at = format!("{at}.sessionPersistence");
    let cookie = given.cookie.clone().unwrap_or_default();
    let header = given.header.clone().unwrap_or_default();
    let (own_name, default, carrier) = match given.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => {
            let carrier = match cookie.lifetime_type.as_deref().unwrap_or("Session") {
                "Session" => SessionCarrier::SessionCookie,
                "Permanent" => SessionCarrier::PermanentCookie,
                other => {
                    mistakes.push(format!(
                        "{at}: the lifetimeType '{other}' is neither Session nor Permanent"
                    ));
                    return None;
                }
            };
            (cookie.name, COOKIE, carrier)
        }
        "Header" => (header.name, HEADER, SessionCarrier::Header),
        other => {
            mistakes.push(format!("{at}.type '{other}' is neither Cookie nor Header"));
            return None;
        }
    };
    if cookie.path.as_deref().is_some_and(|path| path != "/") {
        rule.problems.push(Problem {
            reason: Reason::UnsupportedValue,
            message: format!("{at}: the cookie's path is not supported; its cookie is for every path"),
        });
    }
    let name = own_name
        .or_else(|| given.session_name.clone())
        .unwrap_or_else(|| default.to_owned());
    if !is_token(&name) {
        mistakes.push(format!("{at}: '{name}' is not the name of a cookie or header field"));
    }
    let mut limit = |text: &Option<String>, field: &str| {
        duration(text.as_deref(), &format!("{at}.{field}"), mistakes).filter(|duration| !duration.is_zero())
    };
    let absolute_timeout = limit(&given.absolute_timeout, "absoluteTimeout");
    let idle_timeout = limit(&given.idle_timeout, "idleTimeout");
    if carrier == SessionCarrier::PermanentCookie && absolute_timeout.is_none() {
        mistakes.push(format!("{at}: a permanent cookie needs an absoluteTimeout"));
    }
    Some(Session {
        name: name.as_str().into(),
        carrier,
        absolute_timeout,
        idle_timeout,
        keys: Vec::new(),
    })
}
