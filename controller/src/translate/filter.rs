//! Filters, which HTTPRoute and GRPCRoute share.

use std::sync::Arc;

use weft_route::rule::{Cors, Filter, HeaderChange, Kind, Mirror, PathChange, Redirect, Rewrite};

use super::{
    Problem, Reason, Rule, backends,
    matching::{is_field_value, is_host, is_token},
};
use crate::{cluster::read::Mistakes, objects};

/// Translates filters; where mirrors send their copies is put into the rule. The error: a filter that weft does not support, for which
/// the Gateway API demands status 500.
pub(super) fn filters(
    kind: Kind,
    given: &[objects::Filter],
    at: &str,
    rule: &mut Rule,
    mistakes: &mut Mistakes,
) -> Result<Vec<Filter>, Problem> {
    let mut filters = Vec::new();
    let mut unsupported = None;
    for (index, filter) in given.iter().enumerate() {
        let at = format!("{at}.filters[{index}]");
        if given[..index]
            .iter()
            .any(|other| other.kind == filter.kind && once(&other.kind))
        {
            mistakes.push(format!("{at}: the filter {} cannot be repeated", filter.kind));
        }
        match one(kind, filter, &at, rule, mistakes) {
            Ok(filter) => filters.extend(filter),
            Err(problem) => unsupported = unsupported.or(Some(problem)),
        }
    }
    let has = |kind: &str| given.iter().any(|filter| filter.kind == kind);
    if has("RequestRedirect") && has("URLRewrite") {
        mistakes.push(format!(
            "{at}.filters: RequestRedirect and URLRewrite exclude each other"
        ));
    }
    unsupported.map_or(Ok(filters), Err)
}

fn once(kind: &str) -> bool {
    matches!(
        kind,
        "RequestHeaderModifier" | "ResponseHeaderModifier" | "RequestRedirect" | "URLRewrite" | "CORS"
    )
}

fn one(
    kind: Kind,
    given: &objects::Filter,
    at: &str,
    rule: &mut Rule,
    mistakes: &mut Mistakes,
) -> Result<Option<Filter>, Problem> {
    let missing = |field: &str| vec![format!("{at}: a filter of type {} needs the field {field}", given.kind)];
    let translated = match (given.kind.as_str(), kind) {
        ("RequestHeaderModifier", _) => match &given.request_header_modifier {
            Some(change) => Ok(Filter::RequestHeaders(header_change(change, at, mistakes))),
            None => Err(missing("requestHeaderModifier")),
        },
        ("ResponseHeaderModifier", _) => match &given.response_header_modifier {
            Some(change) => Ok(Filter::ResponseHeaders(header_change(change, at, mistakes))),
            None => Err(missing("responseHeaderModifier")),
        },
        ("RequestRedirect", Kind::HttpRoute) => match &given.request_redirect {
            Some(change) => Ok(Filter::Redirect(redirect(change, at, mistakes))),
            None => Err(missing("requestRedirect")),
        },
        ("URLRewrite", Kind::HttpRoute) => match &given.url_rewrite {
            Some(change) => Ok(Filter::Rewrite(rewrite(change, at, mistakes))),
            None => Err(missing("urlRewrite")),
        },
        ("RequestMirror", _) => match &given.request_mirror {
            Some(given) => Ok(Filter::Mirror(mirror(given, at, rule, mistakes))),
            None => Err(missing("requestMirror")),
        },
        ("CORS", Kind::HttpRoute) => match &given.cors {
            Some(given) => Ok(Filter::Cors(cors(given, at, mistakes))),
            None => Err(missing("cors")),
        },
        ("ExtensionRef" | "ExternalAuth", _) => {
            return Err(Problem {
                reason: Reason::UnsupportedValue,
                message: format!("{at}: the filter {} is not supported; the rule answers 500", given.kind),
            });
        }
        (other, _) => Err(vec![format!("{at}.type '{other}' is not a filter of {kind}")]),
    };
    Ok(translated.map_err(|wrong| mistakes.extend(wrong)).ok())
}

fn header_change(given: &objects::HeaderModifier, at: &str, mistakes: &mut Mistakes) -> HeaderChange {
    let mut pairs = |pairs: &[objects::NameValue]| -> Vec<(Arc<str>, Arc<str>)> {
        for pair in pairs {
            if !is_token(&pair.name) {
                mistakes.push(format!("{at}: '{}' is not a header field's name", pair.name));
            }
            if !is_field_value(&pair.value) {
                mistakes.push(format!(
                    "{at}: the value of '{}' is empty, too long, or has other than visible ASCII",
                    pair.name
                ));
            }
        }
        pairs
            .iter()
            .map(|pair| (pair.name.as_str().into(), pair.value.as_str().into()))
            .collect()
    };
    let (set, add) = (pairs(&given.set), pairs(&given.add));
    for name in given.remove.iter().filter(|name| !is_token(name)) {
        mistakes.push(format!("{at}: '{name}' is not a header field's name"));
    }
    HeaderChange {
        set,
        add,
        remove: given.remove.iter().map(|name| name.as_str().into()).collect(),
    }
}

fn redirect(given: &objects::Redirect, at: &str, mistakes: &mut Mistakes) -> Redirect {
    if let Some(scheme) = given
        .scheme
        .as_deref()
        .filter(|scheme| !matches!(*scheme, "http" | "https"))
    {
        mistakes.push(format!(
            "{at}.requestRedirect.scheme is '{scheme}'; it can be http or https"
        ));
    }
    let host = host(given.hostname.as_deref(), &format!("{at}.requestRedirect"), mistakes);
    let port = given.port.and_then(|number| match u16::try_from(number) {
        Ok(number) if number > 0 => Some(number),
        _ => {
            mistakes.push(format!(
                "{at}.requestRedirect.port {number} is not a port from 1 to 65535"
            ));
            None
        }
    });
    let status = match given.status_code.unwrap_or(302) {
        status @ (301 | 302 | 303 | 307 | 308) => status as u16,
        other => {
            mistakes.push(format!(
                "{at}.requestRedirect.statusCode is {other}; it can be 301, 302, 303, 307 or 308"
            ));
            302
        }
    };
    let path = path_change(given.path.as_ref(), &format!("{at}.requestRedirect"), mistakes);
    Redirect {
        scheme: given.scheme.as_deref().map(Into::into),
        host,
        port,
        path,
        status,
    }
}

fn rewrite(given: &objects::Rewrite, at: &str, mistakes: &mut Mistakes) -> Rewrite {
    let at = format!("{at}.urlRewrite");
    Rewrite {
        host: host(given.hostname.as_deref(), &at, mistakes),
        path: path_change(given.path.as_ref(), &at, mistakes),
    }
}

fn host(given: Option<&str>, at: &str, mistakes: &mut Mistakes) -> Option<Arc<str>> {
    let host = given?;
    if !is_host(host) {
        mistakes.push(format!("{at}.hostname '{host}' is not a host name in lower case"));
    }
    Some(host.into())
}

fn path_change(given: Option<&objects::PathModifier>, at: &str, mistakes: &mut Mistakes) -> Option<PathChange> {
    let given = given?;
    let (value, change): (_, fn(Arc<str>) -> PathChange) = match given.kind.as_str() {
        "ReplaceFullPath" => (&given.replace_full_path, PathChange::Full),
        "ReplacePrefixMatch" => (&given.replace_prefix_match, PathChange::Prefix),
        other => {
            mistakes.push(format!(
                "{at}.path.type is '{other}'; it can be ReplaceFullPath or ReplacePrefixMatch"
            ));
            return None;
        }
    };
    let Some(value) = value else {
        mistakes.push(format!("{at}.path: the field of type {} is missing", given.kind));
        return None;
    };
    // What is put into a request line must stay one request line.
    if value.len() > 1024 || !value.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'#') {
        mistakes.push(format!(
            "{at}.path: '{value}' is longer than 1024 bytes or has characters that a path cannot have"
        ));
    }
    Some(change(value.as_str().into()))
}

fn mirror(given: &objects::Mirror, at: &str, rule: &mut Rule, mistakes: &mut Mistakes) -> Mirror {
    let at = format!("{at}.requestMirror");
    let (numerator, denominator) = match (given.percent, &given.fraction) {
        (Some(_), Some(_)) => {
            mistakes.push(format!("{at}: percent and fraction exclude each other"));
            (100, 100)
        }
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator),
        (None, None) => (100, 100),
    };
    let part = u32::try_from(numerator).ok().zip(u32::try_from(denominator).ok());
    let part = part.filter(|(numerator, denominator)| *denominator > 0 && numerator <= denominator);
    if part.is_none() {
        mistakes.push(format!("{at}: {numerator} of {denominator} is not a part of the whole"));
    }
    let (numerator, denominator) = part.unwrap_or((1, 1));
    let target = backends::target(
        &given.backend_ref,
        &rule.rule.origin.namespace,
        &format!("{at}.backendRef"),
        mistakes,
    );
    rule.mirrors.push(target);
    let index = u32::try_from(rule.mirrors.len() - 1).expect("an object has fewer than four billion mirrors");
    Mirror {
        backend: Ok(index),
        numerator,
        denominator,
    }
}

/// Seconds for which a preflight's answer may be kept, where a route does not say it (the CRD's default).
const MAX_AGE: u32 = 5;

fn cors(given: &objects::Cors, at: &str, mistakes: &mut Mistakes) -> Cors {
    let at = format!("{at}.cors");
    let mut names = |names: &[String], field: &str| -> Vec<Arc<str>> {
        for name in names.iter().filter(|name| !is_token(name)) {
            mistakes.push(format!("{at}.{field}: '{name}' is not a name"));
        }
        names.iter().map(|name| name.as_str().into()).collect()
    };
    let (allow_methods, allow_headers, expose_headers) = (
        names(&given.allow_methods, "allowMethods"),
        names(&given.allow_headers, "allowHeaders"),
        names(&given.expose_headers, "exposeHeaders"),
    );
    for origin in given.allow_origins.iter().filter(|origin| !is_origin(origin)) {
        mistakes.push(format!(
            "{at}.allowOrigins: '{origin}' is neither '*' nor an origin such as https://example.com or https://*.example.com"
        ));
    }
    let max_age = match given.max_age {
        None => Some(MAX_AGE),
        Some(seconds) => u32::try_from(seconds).ok().filter(|seconds| *seconds > 0),
    };
    if max_age.is_none() {
        mistakes.push(format!("{at}.maxAge is not a number of seconds from 1"));
    }
    Cors {
        allow_origins: given.allow_origins.iter().map(|one| one.as_str().into()).collect(),
        allow_credentials: given.allow_credentials.unwrap_or(false),
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    }
}

/// `CORSOrigin` of the Gateway API.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (host == "*" || host.split('.').all(label)) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// A prefix is replaced where exactly one prefix is matched, and nowhere else.
pub(super) fn replaces_prefix(filters: &[Filter]) -> bool {
    filters.iter().any(|filter| {
        let path = match filter {
            Filter::Redirect(redirect) => &redirect.path,
            Filter::Rewrite(rewrite) => &rewrite.path,
            _ => return false,
        };
        matches!(path, Some(PathChange::Prefix(_)))
    })
}
