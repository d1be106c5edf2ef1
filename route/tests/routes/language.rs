//! The corpus's language: rules and asks as lines of text. Only this file knows the API.
//!
//! ```text
//! rule HTTPRoute shop/cart 0 created=5 name=main
//!   host *.example.com
//!   match prefix=/a method=GET header:x=1 header:y~[0-9]+ query:q=1
//!   match service=shop.Cart call=Add
//!   filter request set:x=1 add:y=2 remove:z
//!   filter redirect scheme=https host=h port=8443 full=/x status=301
//!   filter rewrite host=h prefix=/x
//!   filter cors origin=https://*.a.test method=PUT header=x expose=y credentials=true max-age=60
//!   filter mirror 1 numerator=1 denominator=2
//!   retry codes=500,503 attempts=2
//!   backend 0 weight=3
//!   backend invalid=gone weight=1
//!     filter request set:b=1
//! ```
//!
//! A space within a value is written as `␠`.

use std::sync::Arc;

use weft_route::{HttpView, rule::*};

/// A request as the corpus writes it: `GET /a?b=1 host=h x-field=value`.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub target: Vec<u8>,
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
}

impl HttpView for Request {
    fn method(&self) -> &str {
        &self.method
    }

    fn target(&self) -> &[u8] {
        &self.target
    }

    fn host(&self) -> Option<&[u8]> {
        self.host.as_deref().map(str::as_bytes)
    }

    fn each_header<'v>(&'v self, name: &str, visit: &mut dyn FnMut(&'v [u8])) {
        self.headers
            .iter()
            .filter(|(field, _)| field == name)
            .for_each(|(_, value)| visit(value.as_bytes()));
    }
}

pub fn request(text: &str) -> Request {
    let mut words = text.split_whitespace().map(spaces);
    let method = words.next().expect("a method");
    let mut request = Request {
        method,
        ..Request::default()
    };
    if let Some(target) = words.next() {
        request.target = target.into_bytes();
    }
    for word in words {
        let (name, value) = word
            .split_once('=')
            .unwrap_or_else(|| panic!("{word} is not field=value"));
        match name {
            "host" => request.host = Some(value.into()),
            name => request.headers.push((name.into(), value.into())),
        }
    }
    request
}

/// Rules in the language above.
pub fn rules(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let nested = line.starts_with("    ");
        let mut words = line.split_whitespace().map(spaces);
        let verb = words.next().expect("a verb");
        let words: Vec<String> = words.collect();
        if verb == "rule" {
            rules.push(rule(&words));
            continue;
        }
        let rule = rules.last_mut().expect("a rule first");
        match verb.as_str() {
            "host" => rule.hosts.extend(words.iter().map(|host| Arc::from(host.as_str()))),
            "match" => rule.matches.push(a_match(&words)),
            "filter" if nested => rule
                .backends
                .last_mut()
                .expect("a backend first")
                .filters
                .push(filter(&words)),
            "filter" => rule.filters.push(filter(&words)),
            "backend" => rule.backends.push(backend(&words)),
            "retry" => rule.retry = Some(retry(&words)),
            verb => panic!("{verb} is not a verb: {line}"),
        }
    }
    rules
}

fn spaces(word: &str) -> String {
    word.replace('␠', " ")
}

fn pair(word: &str) -> (&str, &str) {
    word.split_once('=')
        .unwrap_or_else(|| panic!("{word} is not name=value"))
}

fn rule(words: &[String]) -> Rule {
    let kind = match words[0].as_str() {
        "HTTPRoute" => Kind::HttpRoute,
        "GRPCRoute" => Kind::GrpcRoute,
        "TLSRoute" => Kind::TlsRoute,
        "TCPRoute" => Kind::TcpRoute,
        kind => panic!("{kind} is not a kind"),
    };
    let (namespace, name) = words[1].split_once('/').expect("namespace/name");
    let mut origin = Origin::new(kind, namespace, name, words[2].parse().expect("a rule's number"), 0);
    for word in &words[3..] {
        match pair(word) {
            ("created", at) => origin.created = at.parse().expect("seconds"),
            ("name", name) => origin.rule_name = name.into(),
            _ => panic!("{word}?"),
        }
    }
    Rule::new(origin)
}

fn a_match(words: &[String]) -> Match {
    let mut matched = Match::default();
    for word in words {
        let at = word
            .find(['=', '~'])
            .unwrap_or_else(|| panic!("{word} is no condition"));
        let (name, value) = (&word[..at], &word[at + 1..]);
        let text: fn(Arc<str>) -> Text = if word.as_bytes()[at] == b'~' {
            Text::Regex
        } else {
            Text::Exact
        };
        let grpc = |matched: &mut Match| {
            matched.grpc.take().unwrap_or(GrpcMatch {
                service: None,
                method: None,
            })
        };
        match name.split_once(':').unwrap_or((name, "")) {
            ("exact", _) => matched.path = Some(PathMatch::Exact(value.into())),
            ("prefix", _) => matched.path = Some(PathMatch::Prefix(value.into())),
            ("path", _) => matched.path = Some(PathMatch::Regex(value.into())),
            ("method", _) => matched.method = Some(value.into()),
            ("header", name) => {
                matched.headers.push(ValueMatch {
                    name: name.into(),
                    value: text(value.into()),
                });
            }
            ("query", name) => matched.query.push(ValueMatch {
                name: name.into(),
                value: text(value.into()),
            }),
            ("service", _) => {
                matched.grpc = Some(GrpcMatch {
                    service: Some(text(value.into())),
                    ..grpc(&mut matched)
                });
            }
            ("call", _) => {
                matched.grpc = Some(GrpcMatch {
                    method: Some(text(value.into())),
                    ..grpc(&mut matched)
                })
            }
            _ => panic!("{word} is no condition"),
        }
    }
    matched
}

fn filter(words: &[String]) -> Filter {
    let (mut change, mut path, mut host) = (HeaderChange::default(), None, None);
    let (mut scheme, mut port, mut status) = (None, None, 302);
    if words[0] == "cors" {
        return Filter::Cors(cors(&words[1..]));
    }
    if words[0] == "mirror" {
        return Filter::Mirror(mirror(&words[1..]));
    }
    for word in &words[1..] {
        if let Some(name) = word.strip_prefix("remove:") {
            change.remove.push(name.into());
            continue;
        }
        let (name, value) = pair(word);
        match name.split_once(':').unwrap_or((name, "")) {
            ("set", name) => change.set.push((name.into(), value.into())),
            ("add", name) => change.add.push((name.into(), value.into())),
            ("full", _) => path = Some(PathChange::Full(value.into())),
            ("prefix", _) => path = Some(PathChange::Prefix(value.into())),
            ("host", _) => host = Some(value.into()),
            ("scheme", _) => scheme = Some(value.into()),
            ("port", _) => port = Some(value.parse().expect("a port")),
            ("status", _) => status = value.parse().expect("a status"),
            _ => panic!("{word}?"),
        }
    }
    match words[0].as_str() {
        "request" => Filter::RequestHeaders(change),
        "response" => Filter::ResponseHeaders(change),
        "redirect" => Filter::Redirect(Redirect {
            scheme,
            host,
            port,
            path,
            status,
        }),
        "rewrite" => Filter::Rewrite(Rewrite { host, path }),
        kind => panic!("{kind} is not a filter"),
    }
}

fn cors(words: &[String]) -> Cors {
    let mut cors = Cors::default();
    for word in words {
        match pair(word) {
            ("origin", origin) => cors.allow_origins.push(origin.into()),
            ("method", method) => cors.allow_methods.push(method.into()),
            ("header", name) => cors.allow_headers.push(name.into()),
            ("expose", name) => cors.expose_headers.push(name.into()),
            ("credentials", allowed) => cors.allow_credentials = allowed == "true",
            ("max-age", seconds) => cors.max_age = Some(seconds.parse().expect("seconds")),
            _ => panic!("{word}?"),
        }
    }
    cors
}

fn mirror(words: &[String]) -> Mirror {
    let mut mirror = Mirror {
        backend: Err("".into()),
        numerator: 1,
        denominator: 1,
    };
    for word in words {
        match word.split_once('=') {
            None => mirror.backend = Ok(word.parse().expect("a backend's index")),
            Some(("invalid", reason)) => mirror.backend = Err(reason.into()),
            Some(("numerator", number)) => mirror.numerator = number.parse().expect("a number"),
            Some(("denominator", number)) => mirror.denominator = number.parse().expect("a number"),
            Some(_) => panic!("{word}?"),
        }
    }
    mirror
}

fn retry(words: &[String]) -> Retry {
    let mut retry = Retry::default();
    for word in words {
        match pair(word) {
            ("codes", codes) => retry.codes = codes.split(',').map(|code| code.parse().expect("a status")).collect(),
            ("attempts", number) => retry.attempts = number.parse().expect("a number"),
            _ => panic!("{word}?"),
        }
    }
    retry
}

fn backend(words: &[String]) -> WeightedBackend {
    let mut weight = 1;
    let mut backend = None;
    for word in words {
        match word.split_once('=') {
            None => backend = Some(Ok(word.parse().expect("a backend's index"))),
            Some(("invalid", reason)) => backend = Some(Err(reason.into())),
            Some(("weight", number)) => weight = number.parse().expect("a weight"),
            Some(_) => panic!("{word}?"),
        }
    }
    WeightedBackend {
        backend: backend.expect("an index or a reason"),
        weight,
        filters: Vec::new(),
    }
}
