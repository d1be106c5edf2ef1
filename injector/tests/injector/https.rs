//! The webhook over real sockets and real TLS, asked as the API server asks.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use weft_injector::{
    certificate::{Authority, Issued, Lives},
    metrics::Metrics,
    webhook::{Webhook, serve},
};
use weft_proto::limits;
use weft_service::{drain, tls};

use crate::{common, hostile::review_of};

const NAME: &str = "weft-injector.weft-system.svc";

struct Served {
    address: SocketAddr,
    authority: Authority,
    issued: watch::Sender<Option<Issued>>,
    signal: drain::Signal,
    metrics: Arc<Metrics>,
    running: tokio::task::JoinHandle<()>,
    unsupported: watch::Sender<Option<Arc<str>>>,
    _settings: watch::Sender<Arc<weft_injector::Settings>>,
}

fn issue(authority: &Authority) -> Issued {
    let names = [NAME.to_owned()];
    authority.issue(&names, SystemTime::now(), &Lives::default()).unwrap()
}

async fn webhook() -> Served {
    tls::install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority::new(SystemTime::now(), &Lives::default()).unwrap();
    let (issued, issued_in) = watch::channel(Some(issue(&authority)));
    let (unsupported, unsupported_in) = watch::channel(None);
    let (settings, settings_in) = watch::channel(Arc::new(common::settings()));
    let signal = drain::Signal::new();
    let metrics = Arc::new(Metrics::default());
    let webhook = Webhook {
        settings: settings_in,
        unsupported: unsupported_in,
        issued: issued_in,
        signal: signal.clone(),
        metrics: metrics.clone(),
    };
    let running = tokio::spawn(serve(listener, webhook));
    Served {
        address,
        authority,
        issued,
        unsupported,
        signal,
        metrics,
        running,
        _settings: settings,
    }
}

fn client(bundle: &str, alpn: &[u8]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in tls::certificates(bundle.as_bytes()).unwrap() {
        roots.add(certificate).unwrap();
    }
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config).into()
}

impl Served {
    async fn connect(&self, alpn: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        client(&self.authority.bundle(), alpn)
            .connect(name, stream)
            .await
            .unwrap()
    }

    async fn post(&self, h2: bool, request: Request<Full<Bytes>>) -> (StatusCode, Vec<u8>) {
        let io = TokioIo::new(self.connect(if h2 { b"h2" } else { b"http/1.1" }).await);
        let response = if h2 {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes().to_vec(),
        )
    }
}

/// What one review is answered with.
async fn answer(served: &Served, path: &str, pod: Value) -> Value {
    let mut asked = request(review_of(pod).to_string());
    *asked.uri_mut() = path.parse().unwrap();
    let (status, body) = served.post(false, asked).await;
    assert_eq!(status, StatusCode::OK);
    let review: Value = serde_json::from_slice(&body).unwrap();
    review["response"].clone()
}

fn request(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("https://{NAME}/inject?timeout=5s"))
        .header(header::HOST, NAME)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

fn sample() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "creationTimestamp": null},
        "spec": {"containers": [{"name": "app", "image": "a", "livenessProbe": {"tcpSocket": {"port": 80}}}]},
        "status": {},
    })
}

#[tokio::test]
async fn a_pod_that_is_posted_over_https_comes_back_as_a_patch_that_meshes_it() {
    let served = webhook().await;
    for h2 in [false, true] {
        let (status, body) = served.post(h2, request(review_of(sample()).to_string())).await;
        assert_eq!(status, StatusCode::OK);
        let review: Value = serde_json::from_slice(&body).unwrap();
        let response = &review["response"];
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(response["allowed"], true);
        assert_eq!(response["patchType"], "JSONPatch");
        let bytes: k8s_openapi::ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&bytes.0).unwrap();
        let mut pod = sample();
        json_patch::patch(&mut pod, &patch).unwrap();
        assert_eq!(pod["spec"]["initContainers"][0]["name"], "weft-proxy");
        assert_eq!(pod["spec"]["initContainers"][1]["name"], "weft-init");
        assert_eq!(
            pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["path"],
            "/probe/tcp/80"
        );

        // The API server calls again when another webhook has changed the pod.
        let (_, body) = served.post(h2, request(review_of(pod).to_string())).await;
        let again: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(again["response"]["allowed"], true);
        assert_eq!(again["response"].get("patch"), None);
    }
    assert!(
        served
            .metrics
            .render()
            .contains("weft_admissions_total{outcome=\"injected\"} 2\n")
    );
}

#[tokio::test]
async fn a_refused_pod_is_told_why() {
    let served = webhook().await;
    let mut pod = sample();
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 2717});
    pod["metadata"]["annotations"] = json!({"weft.dev/skip-inbound-ports": "80,abc"});
    let (status, body) = served.post(false, request(review_of(pod).to_string())).await;
    assert_eq!(status, StatusCode::OK);
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["response"]["allowed"], false);
    assert_eq!(review["response"]["status"]["code"], 400);
    let message = review["response"]["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("'abc' is not a port") && message.contains("container app: securityContext.runAsUser 2717")
    );
}

#[tokio::test]
async fn t44_where_pod_security_forbids_it_a_pod_is_told_so_and_one_that_stays_out_passes() {
    let served = webhook().await;
    let path = "/inject/pod-security?timeout=5s";
    let refused = answer(&served, path, sample()).await;
    assert_eq!(refused["allowed"], false);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains("enforce=privileged"), "{message}");
    let mut out = sample();
    out["metadata"]["annotations"] = json!({"weft.dev/inject": "disabled"});
    let mut host = sample();
    host["spec"]["hostNetwork"] = true.into();
    for pod in [out, host] {
        let passed = answer(&served, path, pod).await;
        assert_eq!((&passed["allowed"], passed.get("patch")), (&json!(true), None));
    }
}

#[tokio::test]
async fn a_pod_of_a_strict_namespace_is_strict_from_its_first_moment() {
    let served = webhook().await;
    let stamped = |answer: &Value| {
        let bytes: k8s_openapi::ByteString = serde_json::from_value(answer["patch"].clone()).unwrap();
        String::from_utf8(bytes.0)
            .unwrap()
            .contains(r#"{"name":"WEFT_MTLS","value":"strict"}"#)
    };
    assert!(stamped(&answer(&served, "/inject/strict?timeout=5s", sample()).await));
    assert!(!stamped(&answer(&served, "/inject?timeout=5s", sample()).await));
    let mut annotated = sample();
    annotated["metadata"]["annotations"] = json!({"weft.dev/mtls": "strict"});
    assert!(stamped(&answer(&served, "/inject", annotated.clone()).await));
    annotated["metadata"]["annotations"] = json!({"weft.dev/mtls": "permissive"});
    let refused = answer(&served, "/inject/strict", annotated).await;
    assert!(
        refused["status"]["message"].as_str().unwrap().contains("would loosen"),
        "{refused}"
    );
}

#[tokio::test]
async fn in_a_cluster_that_is_too_old_only_pods_that_would_be_meshed_are_refused() {
    let served = webhook().await;
    served
        .unsupported
        .send_replace(Some("this cluster runs Kubernetes 1.28".into()));
    let refused = answer(&served, "/inject", sample()).await;
    assert_eq!(refused["allowed"], false);
    let message = refused["status"]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "pod shop/web-* cannot be meshed: this cluster runs Kubernetes 1.28"
    );
    let mut out = sample();
    out["metadata"]["annotations"] = json!({"weft.dev/inject": "disabled"});
    assert_eq!(answer(&served, "/inject", out).await["allowed"], true);
    served.unsupported.send_replace(None);
    assert_eq!(answer(&served, "/inject", sample()).await["allowed"], true);
}

#[tokio::test]
async fn t43_what_is_no_review_is_an_http_error() {
    let served = webhook().await;
    let long = vec![b' '; limits::ADMISSION + 1];
    let mut other_path = request("{}");
    *other_path.uri_mut() = "/mutate".parse().unwrap();
    let mut get = request("");
    *get.method_mut() = http::Method::GET;
    let mut text = request("{}");
    text.headers_mut()
        .insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    for (request, expected) in [
        (request("{"), StatusCode::BAD_REQUEST),
        (request(long), StatusCode::PAYLOAD_TOO_LARGE),
        (other_path, StatusCode::NOT_FOUND),
        (get, StatusCode::METHOD_NOT_ALLOWED),
        (text, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        assert_eq!(served.post(false, request).await.0, expected);
    }
}

#[tokio::test]
async fn t43_a_body_that_never_ends_is_given_up_in_time() {
    let served = webhook().await;
    let mut stream = served.connect(b"http/1.1").await;
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(
        limits::ADMISSION_TIME + Duration::from_secs(3),
        stream.read_exact(&mut answer),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    assert!(
        served
            .metrics
            .render()
            .contains("weft_admissions_total{outcome=\"late\"} 1\n")
    );
}

#[tokio::test]
async fn plaintext_and_strangers_are_not_served_and_a_new_certificate_is_taken_at_once() {
    let served = webhook().await;
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain
        .write_all(b"POST /inject HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");

    let first = served.connect(b"http/1.1").await;
    let leaf = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    served.issued.send_replace(Some(issue(&served.authority)));
    let second = served.connect(b"http/1.1").await;
    assert_ne!(leaf(&first), leaf(&second));

    let stranger = Authority::new(SystemTime::now(), &Lives::default()).unwrap();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let refused = client(&stranger.bundle(), b"http/1.1")
        .connect(ServerName::try_from(NAME).unwrap(), stream)
        .await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_drain_finishes_and_ends() {
    let served = webhook().await;
    let idle = served.connect(b"http/1.1").await;
    served.signal.drain();
    served.running.await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    drop(idle);
}
