//! What people write to ask, and what they get to read.

use std::{fmt::Write, net::SocketAddr};

use serde_json::Value;

/// `scheme://host[:port][/path]` taken apart: http, https, grpc, grpcs, tls or tcp.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    scheme: String,
    /// The host, to look up where an application dials it; without brackets.
    pub host: String,
    /// The port that is dialled.
    pub port: u16,
    authority: String,
    target: String,
}

impl Words {
    /// Reads a URL, or says what is wrong with it.
    pub fn new(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|error| format!("'{url}' is not a URL: {error}"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let usual = match scheme {
            "http" | "grpc" => Some(80),
            "https" | "grpcs" | "tls" => Some(443),
            "tcp" => None,
            _ => {
                return Err(format!(
                    "'{url}' begins with none of http, https, grpc, grpcs, tls, tcp and '://'"
                ));
            }
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("'{url}' has no host"))?;
        let port = uri.port_u16().or(usual).filter(|port| *port != 0);
        let port = port.ok_or_else(|| format!("'{url}' has no port"))?;
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: if Some(port) == usual {
                host.to_owned()
            } else {
                format!("{host}:{port}")
            },
            target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        })
    }

    /// The question for the admin socket. `to`: the address that an application dials; none asks a gateway by its port. A sidecar
    /// sees of an application's own TLS the server name alone.
    pub fn question(&self, method: Option<&str>, headers: &[String], to: Option<SocketAddr>) -> String {
        let mut question = match to {
            Some(to) => format!("to={}", encoded(&to.to_string())),
            None => format!("port={}", self.port),
        };
        // Writing to a text does not fail.
        let mut add = |key: &str, value: &str| {
            let _ = write!(question, "&{key}={}", encoded(value));
        };
        let is_grpc = self.scheme.starts_with("grpc");
        match &*self.scheme {
            "tcp" => {}
            "tls" => add("sni", &self.host),
            "https" | "grpcs" if to.is_some() => add("sni", &self.host),
            _ => {
                add("method", method.unwrap_or(if is_grpc { "POST" } else { "GET" }));
                add("target", &self.target);
                let named = |header: &&String| header.to_ascii_lowercase().starts_with("host:");
                let host = headers
                    .iter()
                    .find(named)
                    .and_then(|header| Some(header.split_once(':')?.1.trim()));
                add("host", host.unwrap_or(&self.authority));
                if self.scheme == "https" || self.scheme == "grpcs" {
                    add("sni", &self.host);
                }
                if is_grpc {
                    add("header", "content-type:application/grpc");
                }
                for header in headers.iter().filter(|header| !named(header)) {
                    add("header", header);
                }
            }
        }
        question
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The answer as lines of text.
pub fn render(answer: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(out, "{name:<12}{text}");
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    line("listener", &text(&answer["listener"]));
    line("destination", &text(&answer["destination"]));
    for step in list(&answer["steps"]) {
        line("looked at", &text(&step));
    }
    line("rule", &text(&answer["rule"]));
    for edit in list(&answer["edits"]) {
        line("filter", &text(&edit));
    }
    if answer["redirect"].is_object() {
        let redirect = &answer["redirect"];
        line(
            "redirect",
            &format!("{} {}", redirect["status"], text(&redirect["location"])),
        );
    }
    for backend in list(&answer["backends"]) {
        let share = backend["share"]
            .as_str()
            .map_or_else(String::new, |share| format!(", {share}"));
        match backend["invalid"].as_str() {
            Some(why) => line("backend", &format!("none{share}: {why}")),
            None => line("backend", &format!("{}{share}", text(&backend["backend"]))),
        }
        line("  refused", &text(&backend["refused"]));
        for endpoint in list(&backend["endpoints"]) {
            let mut said = format!(
                "{} {}, hop {}",
                text(&endpoint["address"]),
                text(&endpoint["pod"]),
                text(&endpoint["hop"])
            );
            if let Some(identity) = endpoint["identity"].as_str() {
                let _ = write!(said, " to {identity}");
            }
            if endpoint["terminating"] == Value::Bool(true) {
                said.push_str(", on its way out");
            }
            line("  endpoint", &said);
        }
    }
    if answer["refused"].is_object() {
        let refused = &answer["refused"];
        line(
            "refused",
            &format!(
                "{}, status {}: {}",
                text(&refused["reason"]),
                refused["status"],
                text(&refused["text"])
            ),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::Question, *};

    #[test]
    fn urls_are_questions_that_are_understood() {
        let ask = |url: &str, to: Option<&str>| {
            let words = Words::new(url)?;
            let question = words.question(None, &["X-A: b c".to_owned()], to.map(|to| to.parse().unwrap()));
            Question::parse(&question)?;
            Ok::<_, String>(question)
        };
        let to = Some("10.0.0.1:80");
        assert_eq!(
            ask("http://web.shop/a?b=1", to).as_deref(),
            Ok("to=10.0.0.1%3A80&method=GET&target=%2Fa%3Fb%3D1&host=web.shop&header=X-A%3A%20b%20c")
        );
        assert_eq!(
            ask("https://web.shop/a", to).as_deref(),
            Ok("to=10.0.0.1%3A80&sni=web.shop")
        );
        assert_eq!(
            ask("https://web.shop:8443/a", None).as_deref(),
            Ok("port=8443&method=GET&target=%2Fa&host=web.shop%3A8443&sni=web.shop&header=X-A%3A%20b%20c")
        );
        assert_eq!(ask("tcp://[::1]:5432", None).as_deref(), Ok("port=5432"));
        assert_eq!(ask("tls://a.test", None).as_deref(), Ok("port=443&sni=a.test"));
        assert!(ask("grpc://web/s/m", None).is_ok_and(|question| question.contains("method=POST")));
        for bad in [
            "web",
            "ftp://web",
            "tcp://web",
            "http:///a",
            "http://a b/",
            "http://a:0/",
        ] {
            assert!(ask(bad, None).is_err(), "{bad}");
        }
    }
}
