//! One probe, once: exec in the container, or httpGet, tcpSocket and grpc from the node to the pod's address.
//!
//! How often and how many times is `unit.rs`'s business.

use super::process::Process;
use crate::launch::Launch;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// What a probe or a hook does.
#[derive(Clone, Debug)]
pub enum Check {
    /// A command in the container.
    Exec(Vec<String>),
    /// A request; 200 to 399 is good.
    Http(core::HTTPGetAction),
    /// A connection.
    Tcp(core::TCPSocketAction),
    /// `grpc.health.v1.Health/Check`.
    Grpc(core::GRPCAction),
}

/// Against what.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The pod's address.
    pub address: IpAddr,
    /// The container's named ports.
    pub ports: &'a [core::ContainerPort],
    /// The container.
    pub process: &'a Process,
    /// How a command in it runs; its words are replaced.
    pub launch: &'a Launch,
}

impl Check {
    /// The check of a probe.
    pub fn of(probe: &core::Probe) -> Option<Check> {
        let exec = || {
            probe
                .exec
                .as_ref()
                .map(|e| Check::Exec(e.command.clone().unwrap_or_default()))
        };
        let http = || probe.http_get.clone().map(Check::Http);
        let tcp = || probe.tcp_socket.clone().map(Check::Tcp);
        exec()
            .or_else(http)
            .or_else(tcp)
            .or_else(|| probe.grpc.clone().map(Check::Grpc))
    }

    /// Runs it once. An error says what was seen.
    pub async fn run(&self, target: &Target<'_>, limit: Duration) -> Result<(), String> {
        let attempt = async {
            match self {
                Check::Exec(words) => {
                    let launch = Launch {
                        words: words.clone(),
                        root: None,
                        ..target.launch.clone()
                    };
                    // The command itself is ended by the limit inside, with what it started.
                    target.process.exec(launch, limit).await
                }
                Check::Http(action) => http(action, target).await,
                Check::Tcp(action) => {
                    let port = target.port(&action.port)?;
                    connect(target.host(action.host.as_deref()), port).await.map(drop)
                }
                Check::Grpc(action) => grpc(action, target).await,
            }
        };
        let limit = limit + Duration::from_millis(if matches!(self, Check::Exec(_)) { 500 } else { 0 });
        timeout(limit, attempt)
            .await
            .unwrap_or_else(|_| Err(format!("no answer after {limit:?}")))
    }
}

impl Target<'_> {
    fn host(&self, host: Option<&str>) -> String {
        host.filter(|h| !h.is_empty())
            .map_or(self.address.to_string(), String::from)
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named = self.ports.iter().find(|p| p.name.as_deref() == Some(name));
                named.map(|p| p.container_port).or_else(|| name.parse().ok())
            }
        };
        let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        number.ok_or_else(|| format!("the container has no port {port:?}"))
    }
}

async fn connect(host: String, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| format!("connecting to {host} port {port}: {e}"))
}

async fn http(action: &core::HTTPGetAction, target: &Target<'_>) -> Result<(), String> {
    let port = target.port(&action.port)?;
    let host = target.host(action.host.as_deref());
    let stream = connect(host.clone(), port).await?;
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let uri: Uri = path.parse().map_err(|e| format!("path '{path}': {e}"))?;
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = Request::get(uri)
        .header(header::USER_AGENT, "kube-probe/1.34")
        .header(header::CONNECTION, "close");
    let own_host = |h: &core::HTTPHeader| h.name.eq_ignore_ascii_case("host");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    if !headers.iter().any(own_host) {
        request = request.header(header::HOST, authority);
    }
    for h in headers {
        request = request.header(&h.name, &h.value);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|e| e.to_string())?;
    let status = if action.scheme.as_deref() == Some("HTTPS") {
        let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
        let connector = TlsConnector::from(Arc::new(any_certificate()));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| format!("TLS handshake: {e}"))?;
        status(TokioIo::new(stream), request).await?
    } else {
        status(TokioIo::new(stream), request).await?
    };
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("HTTP status {status}"))
    }
}

async fn status<I>(io: I, request: Request<Full<Bytes>>) -> Result<u16, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let shown = |e: hyper::Error| format!("HTTP: {e}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(shown)?;
    // Not polled side by side: the connection may end together with the answer, and must not win then.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    connection.abort();
    answer.map(|response| response.status().as_u16()).map_err(shown)
}

/// `Health/Check` with prior knowledge of HTTP/2. The two messages are small enough to be written and read here.
async fn grpc(action: &core::GRPCAction, target: &Target<'_>) -> Result<(), String> {
    let port = target.port(&IntOrString::Int(action.port))?;
    health(
        SocketAddr::new(target.address, port),
        action.service.as_deref().unwrap_or_default(),
    )
    .await
}

async fn health(address: SocketAddr, service: &str) -> Result<(), String> {
    let shown = |e: hyper::Error| format!("gRPC: {e}");
    let io = TokioIo::new(connect(address.ip().to_string(), address.port()).await?);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .map_err(shown)?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_request(service)));
    let request = request.map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(shown)?;
        let (head, body) = response.into_parts();
        let collected = body.collect().await.map_err(shown)?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status")).cloned();
        Ok::<_, String>((head.status, status, collected.to_bytes()))
    };
    let answer = exchange.await;
    connection.abort();
    match answer? {
        (_, Some(status), body) if status == "0" && is_serving(&body) => Ok(()),
        (_, Some(status), _) if status == "0" => Err("gRPC health: not SERVING".into()),
        (http, status, _) => Err(format!("gRPC health: HTTP {http}, grpc-status {status:?}")),
    }
}

/// `HealthCheckRequest { service = 1 }`, as one gRPC message.
fn health_request(service: &str) -> Bytes {
    let service = &service.as_bytes()[..service.len().min(127)];
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_slice(&[0x0a, service.len() as u8]);
        message.put_slice(service);
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

/// `HealthCheckResponse { status = 1: SERVING }`, as one gRPC message.
fn is_serving(body: &[u8]) -> bool {
    body.strip_prefix(&[0, 0, 0, 0, 2])
        .is_some_and(|message| message == [0x08, 1])
}

/// The kubelet does not verify the certificate of an HTTPS probe, and asks for nothing secret over it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

fn any_certificate() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider has suites for TLS 1.2 and 1.3");
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth()
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_messages_are_what_protobuf_makes_of_them() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 2]) && !is_serving(&[0, 0, 0, 0, 0]) && !is_serving(b""));
    }

    /// A server that gives this answer and these trailers to one call, and checks that it was asked about `service`.
    async fn answered(service: &'static str, message: &'static [u8], status: &'static str) -> Result<(), String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let handle = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(
                    request.into_body().collect().await.unwrap().to_bytes(),
                    health_request(service)
                );
                let trailers = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    status.parse().unwrap(),
                )]);
                let body = Full::new(Bytes::from_static(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), handle)
                .await
        });
        let result = health(address, service).await;
        server.abort();
        result
    }

    #[tokio::test]
    async fn a_grpc_probe_passes_only_when_the_service_is_serving() {
        assert_eq!(answered("shop.Cart", &[0, 0, 0, 0, 2, 8, 1], "0").await, Ok(()));
        assert!(
            answered("", &[0, 0, 0, 0, 2, 8, 2], "0")
                .await
                .unwrap_err()
                .contains("not SERVING")
        );
        assert!(answered("", &[], "12").await.unwrap_err().contains("12"));
    }
}
