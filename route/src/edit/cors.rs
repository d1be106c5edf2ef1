//! Cross-origin resource sharing: which preflights are answered how, and what responses tell a browser (the Fetch
//! standard's CORS protocol; HTTPCORSFilter and GEP-1767). The filter is the only authority: a preflight never reaches a
//! backend, and what a backend says of its own is taken away.

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS as CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS as HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS as METHODS, ACCESS_CONTROL_ALLOW_ORIGIN as ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS as EXPOSE, ACCESS_CONTROL_MAX_AGE as MAX_AGE, VARY,
    },
};

use crate::{HttpView, edit::Fields, rule::Cors};

/// "When the `MaxAge` field is unspecified, the gateway sets the response header 'Access-Control-Max-Age: 5'".
const DEFAULT_MAX_AGE: u32 = 5;

/// A CORS filter, checked and ready for use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsEdit {
    any_origin: bool,
    origins: Vec<Pattern>,
    credentials: bool,
    methods: List,
    headers: List,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    /// `authorization` is a header field that scripts are told to send, not the browser's own credentials.
    scripts_authorize: bool,
}

/// Names that a browser asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    /// `*`: those that it asks for.
    Any,
    /// These; `None`: none are named.
    These(Option<HeaderValue>),
}

/// An origin, or many.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    is_https: bool,
    /// Lower case; behind the `*` where there is one.
    host: Box<str>,
    is_wildcard: bool,
    port: u16,
}

/// What one request is answered, or its response told, by a CORS filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsAnswer {
    is_preflight: bool,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl CorsEdit {
    /// Checks origins, methods and names.
    pub(crate) fn new(cors: &Cors) -> Result<Self, String> {
        let is_any = |name: &str| name == "*";
        let method = |name: &str| name.parse::<Method>().is_ok();
        let field = |name: &str| name.parse::<HeaderName>().is_ok();
        let mut origins = Vec::new();
        for origin in cors.allow_origins.iter().filter(|origin| !is_any(origin)) {
            let pattern = Pattern::parse(origin, true);
            origins.push(pattern.ok_or_else(|| {
                format!("'{origin}' is not an origin: 'http' or 'https', '://', a host which may begin with '*.' or be '*', and a port if it is not the scheme's own; or '*'")
            })?);
        }
        let list = |names: &[_], is_fit, what| match list(names, is_fit, what) {
            Ok(_) if names.iter().any(|name: &std::sync::Arc<str>| is_any(name)) => Ok(List::Any),
            these => these.map(List::These),
        };
        let mut named = cors.allow_headers.iter();
        Ok(CorsEdit {
            any_origin: cors.allow_origins.iter().any(|origin| is_any(origin)),
            origins,
            credentials: cors.allow_credentials,
            methods: list(&cors.allow_methods, method, "a method")?,
            headers: list(&cors.allow_headers, field, "the name of a header field")?,
            expose: {
                let named = self::list(&cors.expose_headers, field, "the name of a header field")?;
                let any = cors.expose_headers.iter().any(|name| is_any(name));
                // With credentials, `*` is the name of a field.
                if any && !cors.allow_credentials {
                    Some(HeaderValue::from_static("*"))
                } else {
                    named
                }
            },
            max_age: cors.max_age.unwrap_or(DEFAULT_MAX_AGE).into(),
            scripts_authorize: named.any(|name| name.eq_ignore_ascii_case("authorization")),
        })
    }

    /// What this request is answered, or what its response is told.
    pub(crate) fn answer(&self, view: &dyn HttpView) -> CorsAnswer {
        let origin = only(view, "origin");
        let asked = only(view, "access-control-request-method");
        let is_preflight = view.method() == "OPTIONS" && origin.is_some() && asked.is_some();
        let mut answer = CorsAnswer {
            is_preflight,
            fields: Vec::new(),
        };
        let mut vary = Vec::new();
        if !self.is_open() {
            vary.push("Origin");
        }
        if let Some(origin) = self.allowed(view, origin, is_preflight) {
            answer.push(ORIGIN, origin);
            if self.credentials {
                answer.push(CREDENTIALS, HeaderValue::from_static("true"));
            }
            answer.push_some(EXPOSE, self.expose.clone());
            if is_preflight {
                answer.push(MAX_AGE, self.max_age.clone());
                let method = asked.filter(|method| Method::from_bytes(method).is_ok());
                answer.push_some(METHODS, self.methods.value(method));
                let headers = all(view, "access-control-request-headers");
                answer.push_some(
                    HEADERS,
                    self.headers.value(headers.as_deref().filter(|text| is_names(text))),
                );
                vary.extend((self.methods == List::Any).then_some("Access-Control-Request-Method"));
                vary.extend((self.headers == List::Any).then_some("Access-Control-Request-Headers"));
            }
        }
        if !vary.is_empty() {
            answer.push_some(VARY, HeaderValue::from_str(&vary.join(", ")).ok());
        }
        answer
    }

    /// Every origin is told the same.
    fn is_open(&self) -> bool {
        self.any_origin && !self.credentials
    }

    /// The value of `Access-Control-Allow-Origin`.
    fn allowed(&self, view: &dyn HttpView, origin: Option<&[u8]>, is_preflight: bool) -> Option<HeaderValue> {
        // "If the Gateway is configured with `allowCredentials: false` [...], the Gateway MUST NOT set any CORS headers
        // in the response to a credentialed request." A preflight has no credentials.
        let has = |name| any(view, name);
        let with_credentials = has("cookie") || (has("authorization") && !self.scripts_authorize);
        if with_credentials && !self.credentials && !is_preflight {
            return None;
        }
        if self.is_open() {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin?;
        let is_allowed = self.any_origin
            || std::str::from_utf8(origin)
                .ok()
                .and_then(|origin| Pattern::parse(origin, false))
                .is_some_and(|asked| self.origins.iter().any(|pattern| pattern.takes(&asked)));
        HeaderValue::from_bytes(origin).ok().filter(|_| is_allowed)
    }
}

impl CorsAnswer {
    /// What the preflight is answered; `None`: the request is not one.
    pub(crate) fn preflight(&self) -> Option<&[(HeaderName, HeaderValue)]> {
        self.is_preflight.then_some(&self.fields)
    }

    /// Changes the response of a request that is not a preflight.
    pub fn apply(&self, fields: &mut (impl Fields + ?Sized)) {
        for name in [ORIGIN, CREDENTIALS, EXPOSE, METHODS, HEADERS, MAX_AGE] {
            fields.remove(&name);
        }
        self.fields.iter().for_each(|(name, value)| fields.add(name, value));
    }

    fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.fields.push((name, value));
    }

    fn push_some(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        self.fields.extend(value.map(|value| (name, value)));
    }
}

impl List {
    /// `asked` is clean. Echoed in place of `*`, which with credentials would be a name like any other, and which not
    /// every browser knows.
    fn value(&self, asked: Option<&[u8]>) -> Option<HeaderValue> {
        match self {
            List::Any => HeaderValue::from_bytes(asked?).ok(),
            List::These(these) => these.clone(),
        }
    }
}

impl Pattern {
    /// `scheme://host[:port]`, without path; the host `*` or beginning with `*.` only where wildcards are allowed.
    fn parse(text: &str, wildcards: bool) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (host, port) = match rest.rsplit_once(':').filter(|_| !rest.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (rest, if is_https { 443 } else { 80 }),
        };
        let (name, is_wildcard) = match host.strip_prefix('*').filter(|_| wildcards) {
            Some("") => ("", true),
            Some(suffix) => (suffix.strip_prefix('.')?, true),
            None => (host, false),
        };
        let is_host =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':');
        if name.is_empty() && !is_wildcard || !name.bytes().all(is_host) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        Some(Pattern {
            is_https,
            host: if is_wildcard && !name.is_empty() {
                format!(".{name}").into()
            } else {
                name.into()
            },
            is_wildcard,
            port,
        })
    }

    /// "`*` is a greedy match to the left, including any number of DNS labels."
    fn takes(&self, origin: &Pattern) -> bool {
        let host = if self.is_wildcard {
            origin.host.len() > self.host.len() && origin.host.ends_with(&*self.host)
        } else {
            origin.host == self.host
        };
        host && self.is_https == origin.is_https && self.port == origin.port
    }
}

/// All names but `*`, as one value.
fn list(names: &[std::sync::Arc<str>], is_fit: fn(&str) -> bool, what: &str) -> Result<Option<HeaderValue>, String> {
    let named: Vec<&str> = names.iter().map(|name| &**name).filter(|name| *name != "*").collect();
    match named.iter().find(|name| !is_fit(name)) {
        Some(name) => Err(format!("'{name}' is not {what}")),
        None if named.is_empty() => Ok(None),
        None => Ok(HeaderValue::from_str(&named.join(", ")).ok()),
    }
}

/// The field's value, where there is one field of this name alone.
fn only<'v>(view: &'v dyn HttpView, name: &str) -> Option<&'v [u8]> {
    let (mut found, mut count) = (None, 0);
    view.each_header(name, &mut |value| {
        found = Some(value);
        count += 1;
    });
    found.filter(|_| count == 1)
}

fn any(view: &dyn HttpView, name: &str) -> bool {
    let mut found = false;
    view.each_header(name, &mut |_| found = true);
    found
}

/// All fields of this name as one list.
fn all(view: &dyn HttpView, name: &str) -> Option<Vec<u8>> {
    let mut found: Option<Vec<u8>> = None;
    view.each_header(name, &mut |value| match &mut found {
        None => found = Some(value.to_vec()),
        Some(list) => {
            list.extend_from_slice(b", ");
            list.extend_from_slice(value);
        }
    });
    found
}

/// A list of names of header fields, which can be told back.
fn is_names(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let names = text.split(',').map(|name| name.trim_matches([' ', '\t']));
    !text.is_empty()
        && names
            .into_iter()
            .all(|name| HeaderName::from_bytes(name.as_bytes()).is_ok())
}
