//! `GET /probe/https/PORT/PATH`: what an `httpGet` probe with `scheme: HTTPS` asks, asked by the proxy. The kubelet's own TLS could not be
//! told from a stranger's at a strict pod. Exactly the probes of the pod's specification are made, and as the kubelet makes them: any
//! certificate is believed, no name is sent, and the probe's own fields are.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header, request::Parts};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use weft_proto::{
    names::{env, port},
    probes::{Probe, Probes},
};
use weft_service::{admin::Answer, tls};

use super::PROBE_TIME;
use crate::{app::Shared, authorize};

/// Fields that are about one connection: that with the kubelet.
const OF_THE_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::UPGRADE,
    header::TE,
];

/// Makes the probe. What the kubelet counts as success is answered with 200: a redirect is not followed to weft's own port.
pub(super) async fn answer(rest: String, head: Parts, shared: Arc<Shared>) -> Answer {
    let Some((port, path)) = is_own(&rest, &shared.config.probes) else {
        return Answer::text(
            StatusCode::NOT_FOUND,
            format!("not one of the https probes in {}", env::PROBES),
        );
    };
    let target = match head.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut last = String::from("the pod has no address");
    for ip in &shared.config.pod_ips {
        match asked((*ip, port).into(), &target, &head).await {
            Ok(status) if status.is_success() || status.is_redirection() => {
                return Answer::text(StatusCode::OK, format!("the application answered {status}"));
            }
            Ok(status) => return Answer::text(status, format!("the application answered {status}")),
            Err(error) => last = error.to_string(),
        }
    }
    Answer::text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the application does not answer: {last}"),
    )
}

/// The port and the path of what is asked for, where that is one of the pod's probes.
fn is_own<'a>(rest: &'a str, probes: &Probes) -> Option<(u16, &'a str)> {
    let (number, path) = rest.split_at(rest.find('/')?);
    let at = number.parse::<u16>().ok().filter(|at| at.to_string() == number)?;
    let known = |probe: &Probe| matches!(probe, Probe::Https { port, path: own } if *port == at && authorize::is_path(own.as_bytes(), path.as_bytes()));
    probes.iter().any(known).then_some((at, path))
}

async fn asked(address: SocketAddr, target: &str, head: &Parts) -> anyhow::Result<StatusCode> {
    let stream = timeout(PROBE_TIME, TcpStream::connect(address)).await??;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(tls::probe_client()).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut asking = std::pin::pin!(sender.send_request(request(address, target, head)?));
    let answer = tokio::select! {
        answer = &mut asking => answer?,
        // By then it has handed over what it received, or why it received nothing.
        _ = connection => asking.await?,
    };
    // The rest is dropped with the connection: nobody reads it.
    Ok(answer.status())
}

/// The kubelet's request as the application would have had it.
fn request(address: SocketAddr, target: &str, head: &Parts) -> anyhow::Result<Request<Empty<Bytes>>> {
    let mut request = Request::get(target).body(Empty::new())?;
    let fields = request.headers_mut();
    for (name, value) in &head.headers {
        if !OF_THE_CONNECTION.contains(name) {
            fields.append(name, value.clone());
        }
    }
    // Where the probe names no host, the kubelet has named what it dialled.
    let dialled = |host: &HeaderValue| {
        let host = host.to_str().ok().and_then(|host| host.parse::<SocketAddr>().ok());
        host.is_some_and(|host| host.port() == port::METRICS)
    };
    if fields.get(header::HOST).is_none_or(dialled) {
        fields.insert(header::HOST, address.to_string().parse()?);
    }
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_probes_of_the_specification_are_made() {
        let probes: Probes = "http:8080:/healthz,https:8443:/healthz,https:9443:/a%20b"
            .parse()
            .unwrap();
        assert_eq!(is_own("8443/healthz", &probes), Some((8443, "/healthz")));
        assert_eq!(is_own("9443/a%20b", &probes), Some((9443, "/a%20b")));
        for other in [
            "8443/",
            "8443",
            "8443/healthz/",
            "8443/x/../healthz",
            "08443/healthz",
            "+8443/healthz",
            "8080/healthz",
            "9443/healthz",
            "/healthz",
            "",
        ] {
            assert_eq!(is_own(other, &probes), None, "{other}");
        }
    }

    #[test]
    fn the_application_is_asked_as_the_kubelet_would_have_asked_it() {
        let address: SocketAddr = "10.0.0.7:8443".parse().unwrap();
        let asked = |host: &str| {
            let head = Request::get("/probe/https/8443/healthz?full=1")
                .header("host", host)
                .header("user-agent", "kube-probe/1.34")
                .header("x-token", "a")
                .header("connection", "close")
                .body(())
                .unwrap()
                .into_parts()
                .0;
            request(address, "/healthz?full=1", &head).unwrap()
        };
        let request = asked("10.0.0.7:15020");
        assert_eq!(request.uri(), "/healthz?full=1");
        assert_eq!(request.headers()["host"], "10.0.0.7:8443");
        assert_eq!(request.headers()["user-agent"], "kube-probe/1.34");
        assert_eq!(request.headers()["x-token"], "a");
        assert_eq!(asked("shop.example").headers()["host"], "shop.example");
    }
}
