//! May this peer have it? In strict mode what comes in without the mesh's identity is refused; the pod's own probes apart.
//!
//! Who sends a probe cannot be told: the kubelet has no certificate of the mesh. What it asks for can. So HTTP may begin
//! on the port of a probe, exactly what a probe asks for is let through, and the connection takes nothing after it.

use weft_proto::probes::{Probe, Probes};
use weft_route::{HttpView, canonical};

use crate::{
    app::Shared,
    connection::Connection,
    detect::Seen,
    exchange::head::{Request, Wants},
    fault::{Fault, Reason},
    record::Facts,
    role::Direction,
};

/// gRPC's health service, as probes call it.
const HEALTH: [&[u8]; 2] = [b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch"];

/// Whether the connection may go on. `seen`: what its client speaks, where that is known already.
pub fn connection(facts: &Facts, seen: Option<&Seen>, shared: &Shared) -> Result<(), Fault> {
    let is_refused = is_plaintext_to_strict(facts, shared)
        && !seen.is_some_and(|seen| may_be_probe(&shared.config.probes, facts.destination.port(), seen));
    refuse_if(is_refused)
}

/// Whether a request may go on. A client's own CONNECT is nothing for a gateway, which is no forward proxy (T11).
pub fn request(request: &Request, wants: &Wants, connection: &Connection) -> Result<(), Fault> {
    if connection.facts.direction == Direction::Gateway && *wants == Wants::Connect {
        return Err(Fault::new(Reason::NoForwardProxy));
    }
    refuse_if(takes_one_request(connection) && !is_own_probe(request, wants, connection))
}

/// Whether a request without an identity is what one of the pod's own probes asks.
pub fn is_own_probe(request: &Request, wants: &Wants, connection: &Connection) -> bool {
    let (facts, shared) = (&connection.facts, &connection.shared);
    facts.direction == Direction::Inbound
        && !facts.mesh
        && *wants == Wants::Answer
        && is_probe(&shared.config.probes, facts.destination.port(), request)
}

/// Whether a connection is there for one request only, which is a probe or is refused. The kubelet makes a connection for
/// each.
pub fn takes_one_request(connection: &Connection) -> bool {
    is_plaintext_to_strict(&connection.facts, &connection.shared)
}

fn is_plaintext_to_strict(facts: &Facts, shared: &Shared) -> bool {
    facts.direction == Direction::Inbound && !facts.mesh && shared.tables.is_strict()
}

fn refuse_if(is_refused: bool) -> Result<(), Fault> {
    if is_refused {
        return Err(Fault::new(Reason::PlaintextRefused));
    }
    Ok(())
}

/// Whether this may become one of the pod's own probes that were left as they are: its port is that of one, and the
/// client speaks as that does. `tcpSocket` probes and those over HTTPS never come here: the injector sends them to weft's own port.
fn may_be_probe(probes: &Probes, port: u16, seen: &Seen) -> bool {
    probes.iter().any(|probe| match probe {
        Probe::Http { port: own, .. } => *own == port && *seen == Seen::Http1,
        Probe::Grpc { port: own } => *own == port && *seen == Seen::Http2,
        Probe::Https { .. } => false,
    })
}

/// Whether a request is exactly one of them. `httpGet` comes over HTTP/1, `grpc` over HTTP/2.
fn is_probe(probes: &Probes, at: u16, request: &Request) -> bool {
    let over_h1 = matches!(request, Request::H1(_));
    let (path, _) = canonical::split(request.target());
    probes.iter().any(|probe| match probe {
        Probe::Http { port, path: own } => {
            over_h1 && *port == at && matches!(request.method(), "GET" | "HEAD") && is_path(own.as_bytes(), path)
        }
        Probe::Grpc { port } => !over_h1 && *port == at && request.method() == "POST" && HEALTH.contains(&path),
        Probe::Https { .. } => false,
    })
}

/// Whether a path is what the kubelet sends for a probe: as it is written, or with what no path may hold encoded. Nothing
/// else that means the same, as with `..`: the application may take that for another path.
pub fn is_path(own: &[u8], sent: &[u8]) -> bool {
    sent == own || sent == canonical::path(own).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_wire::h1::{RequestHead, Scan};

    const PROBES: &str = "http:8080:/healthz,http:8080:/a%20b,http:80:/,https:8443:/healthz,grpc:50051";

    fn h1(line: &str) -> Request {
        let head = format!("{line} HTTP/1.1\r\nhost: web\r\n\r\n");
        let parsed = RequestHead::parse(head.as_bytes(), &mut Scan::default()).unwrap();
        Request::H1(parsed.unwrap().0)
    }

    fn h2(method: &str, path: &str) -> Request {
        let request = http::Request::builder().method(method).uri(format!("http://web{path}"));
        Request::from_h2(request.body(()).unwrap().into_parts().0, false).unwrap()
    }

    fn passes(port: u16, request: &Request) -> bool {
        is_probe(&PROBES.parse().unwrap(), port, request)
    }

    #[test]
    fn exactly_what_a_probe_asks_for_is_one() {
        for line in [
            "GET /healthz",
            "HEAD /healthz",
            "GET /healthz?full=1",
            "GET http://web/healthz",
            "GET /a%20b",
        ] {
            assert!(passes(8080, &h1(line)), "{line}");
        }
        assert!(passes(80, &h1("GET /")));
        assert!(passes(50051, &h2("POST", "/grpc.health.v1.Health/Check")));
        assert!(passes(50051, &h2("POST", "/grpc.health.v1.Health/Watch")));
    }

    #[test]
    fn what_only_resembles_a_probe_is_none() {
        for line in [
            "GET /",
            "POST /healthz",
            "OPTIONS /healthz",
            "GET /healthz/",
            "GET /Healthz",
            "GET //healthz",
            "GET /x/../healthz",
            "GET /healthz/..",
            "GET /healthz;x",
            "GET /healthz%3Fx",
            "GET /%68ealthz",
            "OPTIONS *",
            "CONNECT web:8080",
        ] {
            assert!(!passes(8080, &h1(line)), "{line}");
        }
        assert!(!passes(80, &h1("GET /healthz")), "the port of another probe");
        assert!(!passes(8443, &h1("GET /healthz")), "weft makes that one itself");
        assert!(!passes(8080, &h2("GET", "/healthz")), "the kubelet speaks HTTP/1");
        for (port, method, path) in [
            (50051, "POST", "/grpc.health.v1.Health/List"),
            (50051, "POST", "/shop.Cart/Add"),
            (50051, "GET", "/grpc.health.v1.Health/Check"),
            (8080, "POST", "/grpc.health.v1.Health/Check"),
        ] {
            assert!(!passes(port, &h2(method, path)), "{port} {method} {path}");
        }
        assert!(!passes(50051, &h1("POST /grpc.health.v1.Health/Check")));
    }

    #[test]
    fn a_connection_may_become_a_probe_where_it_speaks_as_that_does() {
        let probes: Probes = PROBES.parse().unwrap();
        assert!(may_be_probe(&probes, 8080, &Seen::Http1));
        assert!(may_be_probe(&probes, 50051, &Seen::Http2));
        for (port, seen) in [
            (8080, Seen::Http2),
            (50051, Seen::Http1),
            (81, Seen::Http1),
            (8080, Seen::Opaque),
            (8080, Seen::Tls(Default::default())),
            (8443, Seen::Tls(Default::default())),
            (8443, Seen::Http1),
        ] {
            assert!(!may_be_probe(&probes, port, &seen), "{port} {seen:?}");
        }
    }
}
