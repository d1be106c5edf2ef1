//! What would become of a request or a connection, and why: asked of the very tables that this proxy decides with, by the very
//! functions that decide. Nothing is sent anywhere.

mod words;

pub use words::{Words, render};

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use weft_proto::rpc::discovery::ListenerProtocol;
use weft_route::{Ask, Decision, HttpView, Step, Target, edit::Here};

use crate::{
    app::Shared,
    connection::{Connection, Toward},
    fault::{Fault, Reason},
    front::{At, PortKind},
    hop,
    record::{Direction, Facts},
    tables::{Backend, Destination},
};

/// What is asked about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Where a sidecar's application would connect to.
    to: Option<SocketAddr>,
    /// The port of the gateway that a client would connect to.
    port: Option<u16>,
    /// The server name of the client's TLS; at a gateway's port for TLS that of the request's host, unless said.
    sni: Option<String>,
    /// A request; without it a connection of bytes.
    request: Option<Asked>,
    /// The connection begins with a ClientHello, which weft does not answer.
    is_tls: bool,
}

/// A request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    method: String,
    target: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
}

impl Question {
    /// Reads `key=value&key=value`, percent-encoded: `to` or `port`, `sni`, `tls`, `method`, `target`, `host`, `header` (again and
    /// again, as `name:value`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut question = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = decoded(value)?;
            let bad = |what: &str| format!("{key}: '{value}' is not {what}");
            match key {
                "to" => question.to = Some(value.parse().map_err(|_| bad("address:port"))?),
                "port" => question.port = Some(value.parse().map_err(|_| bad("a port"))?),
                "sni" => question.sni = Some(value.to_ascii_lowercase()),
                "tls" => question.is_tls = true,
                "method" => question.request().method = value,
                "target" => question.request().target = value,
                "host" => question.request().host = Some(value),
                "header" => {
                    let (name, value) = value.split_once(':').ok_or_else(|| bad("name:value"))?;
                    let header = (name.trim().to_owned(), value.trim().to_owned());
                    question.request().headers.push(header);
                }
                _ => {
                    return Err(format!(
                        "'{key}' is no key: to, port, sni, tls, method, target, host, header"
                    ));
                }
            }
        }
        match (question.to, question.port) {
            (Some(_), None) | (None, Some(_)) => Ok(question),
            _ => Err("one of to=ADDRESS:PORT and port=PORT is needed".into()),
        }
    }

    fn request(&mut self) -> &mut Asked {
        self.request.get_or_insert_with(|| Asked {
            method: "GET".into(),
            target: "/".into(),
            ..Asked::default()
        })
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
        let [Some(high), Some(low)] = digits else {
            return Err(format!("'{text}' is not percent-encoded"));
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| format!("'{text}' is not UTF-8"))
}

/// The answer, for people and programs.
pub async fn explain(question: &Question, shared: &Arc<Shared>) -> Result<Value, String> {
    let request = question.request.as_ref().map(request).transpose()?;
    let connection = match connection(question, request.as_ref(), shared).await {
        Ok(connection) => connection,
        Err(fault) => return Ok(refused(json!({}), &fault)),
    };
    let led = match &request {
        Some(request) => connection.destination_of(request),
        None => connection.destination(),
    };
    let (destination, listener) = match led {
        Ok(led) => led,
        Err(fault) => return Ok(refused(json!({}), &fault)),
    };
    let mut answer = json!({
        "listener": listener.as_deref(),
        "destination": &*destination.object,
        "version": &destination.version,
    });
    let (decided, steps) = match &request {
        Some(request) => destination.table.explain(&Ask::Http(request), 0),
        None if question.is_tls || question.sni.is_some() => destination.table.explain(&tls(question), 0),
        None => destination.table.explain(&Ask::Tcp, 0),
    };
    answer["steps"] = steps.iter().map(Step::to_string).collect::<Vec<_>>().into();
    match decided {
        Ok(decision) => {
            let redirect = request.as_ref().and_then(|request| {
                decision.redirect(&Here {
                    scheme: connection.facts.scheme(),
                    host: request.host(),
                    port: connection.facts.destination.port(),
                    target: request.target(),
                })
            });
            answer["rule"] = decision.rule.origin.to_string().into();
            answer["edits"] = decision.edits().map(|edit| edit.to_string()).collect::<Vec<_>>().into();
            match redirect {
                Some((status, location)) => {
                    answer["redirect"] = json!({ "status": status, "location": String::from_utf8_lossy(&location) });
                }
                None => answer["backends"] = shares(&decision, &destination, &connection),
            }
        }
        Err(weft_route::NoRoute::NoRules) => match destination.default_backend() {
            Ok(backend) => answer["backends"] = json!([of_backend(backend, &connection)]),
            Err(fault) => return Ok(refused(answer, &fault)),
        },
        Err(no) => return Ok(refused(answer, &Fault::because(Reason::NoRule, no))),
    }
    Ok(answer)
}

fn tls(question: &Question) -> Ask<'_> {
    Ask::Tls {
        sni: question.sni.as_deref(),
    }
}

fn request(asked: &Asked) -> Result<http::Request<()>, String> {
    let mut request = http::Request::builder()
        .method(&*asked.method)
        .uri(&*asked.target)
        .body(())
        .map_err(|error| error.to_string())?;
    let host = asked.host.iter().map(|host| ("host", host));
    let headers = asked.headers.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in host.chain(headers) {
        let name: HeaderName = name.parse().map_err(|_| format!("'{name}' is no field's name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("'{value}' is no field's value"))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// A connection as the question has it, which nobody has made.
async fn connection(
    question: &Question,
    request: Option<&http::Request<()>>,
    shared: &Arc<Shared>,
) -> Result<Connection, Fault> {
    let (direction, toward, destination, ends_tls) = match (question.to, question.port, &shared.front) {
        (Some(to), _, None) => {
            let followed = shared.tables.follow(shared.outbound.looks_up, to).await;
            (Direction::Outbound, followed.into(), to, false)
        }
        (None, Some(port), Some(front)) => {
            let opens = front.opens().borrow().clone();
            let open = opens.iter().find(|open| open.number == port).cloned();
            let open = open.ok_or_else(|| Fault::because(Reason::NoListener, "no listener has this port"))?;
            let host = request.and_then(|request| weft_route::Host::parse(request.host()?).ok());
            let sni = question
                .sni
                .clone()
                .or_else(|| host.map(|host| host.as_str().to_owned()));
            let (at, ends_tls) = if open.kind == PortKind::Tls {
                let listener = open
                    .find(sni.as_deref())
                    .ok_or_else(|| Fault::new(Reason::UnknownServerName))?;
                if let Some(why) = listener.refused() {
                    return Err(Fault::because(Reason::ListenerRefused, why));
                }
                let ends_tls = listener.protocol == ListenerProtocol::ListenerHttps;
                (At::tls(open, sni.map(Into::into), listener.policy()), ends_tls)
            } else {
                (At::plain(open), false)
            };
            let destination = SocketAddr::from(([0, 0, 0, 0], port));
            (Direction::Gateway, Toward::Port(Box::new(at)), destination, ends_tls)
        }
        (_, _, None) => {
            return Err(Fault::because(
                Reason::NoListener,
                "this proxy is a sidecar: ask with to=ADDRESS:PORT",
            ));
        }
        (_, _, Some(_)) => {
            return Err(Fault::because(
                Reason::NoListener,
                "this proxy is a gateway's: ask with port=PORT",
            ));
        }
    };
    let facts = Facts::new(direction, ([0, 0, 0, 0], 0).into(), destination, None, false);
    Ok(Connection {
        facts: if ends_tls { facts.without_tls() } else { facts },
        peer: None,
        toward,
        shared: shared.clone(),
    })
}

/// Every backend that may be drawn, with its share.
fn shares(decision: &Decision, destination: &Destination, connection: &Connection) -> Value {
    let total: u64 = decision.rule.shares.iter().map(|share| u64::from(share.weight)).sum();
    if decision.rule.shares.is_empty() || total == 0 {
        let why = match &decision.target {
            Target::None(why) => why.to_string(),
            Target::Backend(_) => String::new(),
        };
        return json!([{ "invalid": why }]);
    }
    let all = decision.rule.shares.iter().map(|share| {
        let mut one = match &share.backend {
            Ok(index) => match destination.backend(*index) {
                Some(backend) => of_backend(backend, connection),
                None => json!({ "invalid": "no such backend" }),
            },
            Err(why) => json!({ "invalid": &**why }),
        };
        one["share"] = format!("{} of {total}", share.weight).into();
        one
    });
    all.collect()
}

fn of_backend(backend: &Backend, connection: &Connection) -> Value {
    let endpoints: Vec<_> = backend
        .endpoints
        .iter()
        .map(|endpoint| {
            json!({
                "address": endpoint.address.to_string(),
                "pod": &*endpoint.pod,
                "identity": endpoint.identity_label.as_deref(),
                "terminating": endpoint.terminating,
                "hop": hop::transport(endpoint, backend, connection).label().name(),
            })
        })
        .collect();
    json!({
        "backend": &*backend.id,
        "endpoints": endpoints,
        "refused": backend.refused.as_deref(),
    })
}

fn refused(mut answer: Value, fault: &Fault) -> Value {
    answer["refused"] = json!({
        "reason": fault.reason.label(),
        "text": fault.to_string(),
        "status": fault.reason.status(),
    });
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_whole_or_not_at_all() {
        let question =
            Question::parse("port=443&method=POST&host=a.test&target=%2Fx%3Fq%3D1&header=x%3A%201&sni=A.test").unwrap();
        assert_eq!((question.port, question.sni.as_deref()), (Some(443), Some("a.test")));
        let asked = question.request.unwrap();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/x?q=1"));
        assert_eq!(asked.headers, [("x".to_owned(), "1".to_owned())]);
        for bad in [
            "",
            "host=a",
            "port=x",
            "port=1&to=10.0.0.1:1",
            "port=1&color=red",
            "port=1&host=%4",
            "to=web:80",
            "port=1&header=x",
        ] {
            assert!(Question::parse(bad).is_err(), "{bad}");
        }
    }
}
