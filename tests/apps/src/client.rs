//! Clients of the sample applications, for demos and tests: each asks, and prints one line of JSON.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Uri, Version, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    bytes::TOKEN,
    grpc::MESSAGE,
    listen::Stream,
    sample::{self, sample_client::SampleClient},
};

#[derive(clap::Subcommand)]
pub enum Client {
    /// Calls the gRPC service, all kinds once and then `--calls` unary calls on one connection; tells which pods answered.
    Grpc {
        /// http://HOST:PORT, or https://HOST:PORT with --ca.
        url: Uri,
        /// Unary calls.
        #[arg(long, default_value_t = 1)]
        calls: u32,
        /// PEM file of the CA of a TLS server.
        #[arg(long)]
        ca: Option<PathBuf>,
    },
    /// Sends a text, a binary and a ping to a WebSocket, and closes with a code.
    Websocket {
        /// ws://HOST:PORT/echo
        url: Uri,
        /// Bytes of the binary message.
        #[arg(long, default_value_t = 1 << 10)]
        size: usize,
    },
    /// Gets a URL on one connection; tells status, and which pods and versions answered.
    Http {
        /// http://HOST:PORT/PATH
        url: Uri,
        /// Requests on the connection.
        #[arg(long, default_value_t = 1)]
        requests: u32,
        /// HTTP/2 with prior knowledge.
        #[arg(long)]
        h2c: bool,
    },
    /// Load at a fixed rate over several protocols, without retries; counts failures by their reason.
    Load(crate::load::Load),
    /// Upgrades to `hotrod`, with bytes sent ahead of the answer, and reads them back.
    Upgrade {
        /// HOST:PORT
        address: String,
    },
}

pub async fn run(client: Client) -> Result<()> {
    let line = match client {
        Client::Grpc { url, calls, ca } => grpc(url, calls, ca).await?,
        Client::Websocket { url, size } => websocket(url, size).await?,
        Client::Http { url, requests, h2c } => http(url, requests, h2c).await?,
        Client::Load(load) => crate::load::run(load).await?,
        Client::Upgrade { address } => upgrade(&address).await?,
    };
    println!("{line}");
    Ok(())
}

pub(crate) async fn dial(url: &Uri) -> Result<TcpStream> {
    let host = url.host().context("the URL names no host")?.trim_matches(['[', ']']);
    let port = url
        .port_u16()
        .unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("cannot connect to {host}:{port}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn dial_tls(url: &Uri, ca: &PathBuf) -> Result<Box<dyn Stream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("--ca {}", ca.display()))? {
        roots.add(certificate?)?;
    }
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned())?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    Ok(Box::new(connector.connect(name, dial(url).await?).await?))
}

async fn channel(url: Uri, ca: Option<PathBuf>) -> Result<Channel> {
    let endpoint = Endpoint::from(url.clone()).connect_timeout(Duration::from_secs(10));
    let connector = tower::service_fn(move |_: Uri| {
        let (url, ca) = (url.clone(), ca.clone());
        async move {
            let io: Box<dyn Stream> = match &ca {
                Some(ca) => dial_tls(&url, ca).await?,
                None => Box::new(dial(&url).await?),
            };
            Ok::<_, anyhow::Error>(TokioIo::new(io))
        }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

async fn grpc(url: Uri, calls: u32, ca: Option<PathBuf>) -> Result<Value> {
    let channel = channel(url, ca).await?;
    let mut client = SampleClient::new(channel)
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE);
    let request = |text: &str| sample::Request {
        text: text.into(),
        messages: 3,
        ..sample::Request::default()
    };
    let three = || futures_util::stream::iter(["a", "b", "c"].map(request));

    let server: Vec<_> = client
        .server_stream(request("stream"))
        .await?
        .into_inner()
        .collect()
        .await;
    let uploaded = client.client_stream(three()).await?.into_inner();
    let both: Vec<_> = client.bidirectional(three()).await?.into_inner().collect().await;
    let mut pods = BTreeMap::<String, u32>::new();
    for _ in 0..calls {
        let reply = client.unary(request("hello")).await?.into_inner();
        ensure!(reply.text == "hello", "the reply says '{}'", reply.text);
        *pods.entry(reply.pod).or_default() += 1;
    }
    Ok(json!({
        "server_stream": server.into_iter().collect::<Result<Vec<_>, _>>()?.len(),
        "client_stream": uploaded.received,
        "bidirectional": both.into_iter().collect::<Result<Vec<_>, _>>()?.len(),
        "unary": calls,
        "pods": pods,
    }))
}

async fn websocket(url: Uri, size: usize) -> Result<Value> {
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.context("no WebSocket")?;
    let payload = Bytes::from(vec![7; size]);
    let mut echoed = Vec::new();
    for message in [
        Message::text("hello"),
        Message::Binary(payload.clone()),
        Message::Ping(Bytes::from_static(b"?")),
    ] {
        socket.send(message).await?;
        echoed.push(socket.next().await.context("it ended early")??);
    }
    ensure!(
        echoed[0] == Message::text("hello"),
        "the text came back as {:?}",
        echoed[0]
    );
    ensure!(
        echoed[1] == Message::Binary(payload),
        "the binary message came back changed"
    );
    ensure!(
        echoed[2] == Message::Pong(Bytes::from_static(b"?")),
        "the ping was answered by {:?}",
        echoed[2]
    );
    socket
        .close(Some(CloseFrame {
            code: CloseCode::from(4001),
            reason: "enough".into(),
        }))
        .await?;
    let closed = loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
            Some(Ok(_)) => {}
            Some(Err(error)) => bail!("no closing handshake: {error}"),
            None => break None,
        }
    };
    Ok(json!({"status": response.status().as_u16(), "text": "hello", "binary": size, "pong": true, "close": closed}))
}

async fn http(url: Uri, requests: u32, h2c: bool) -> Result<Value> {
    let io = TokioIo::new(dial(&url).await?);
    let authority = url.authority().context("the URL names no host")?.to_string();
    let path = url
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
        .to_owned();
    let (mut h1, mut h2) = (None, None);
    if h2c {
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        h2 = Some(sender);
    } else {
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        h1 = Some(sender);
    }
    let mut tally = [BTreeMap::<String, u32>::new(), BTreeMap::new(), BTreeMap::new()];
    let mut last = Value::Null;
    for _ in 0..requests {
        let mut request = Request::get(&path).header(header::HOST, &authority);
        if h2c {
            request = Request::get(url.clone()).version(Version::HTTP_2);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let response = match (&mut h1, &mut h2) {
            (Some(h1), _) => {
                h1.ready().await?;
                h1.send_request(request).await?
            }
            (_, Some(h2)) => h2.send_request(request).await?,
            _ => bail!("no connection"),
        };
        let field = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("unknown")
                .to_owned()
        };
        let said = [
            response.status().as_u16().to_string(),
            field("x-pod"),
            field("x-version"),
        ];
        for (tally, word) in tally.iter_mut().zip(said) {
            *tally.entry(word).or_default() += 1;
        }
        let body = response.into_body().collect().await?.to_bytes();
        last = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).trim_end().into());
    }
    let [statuses, pods, versions] = tally;
    Ok(json!({"requests": requests, "statuses": statuses, "pods": pods, "versions": versions, "last": last}))
}

async fn upgrade(address: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    // The bytes behind the head go out before the server has agreed.
    let head =
        format!("GET /ride HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: {TOKEN}\r\n\r\nearly ");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(answer.len() < 16 << 10, "the answer has no end");
        answer.push(stream.read_u8().await.context("it ended before it had agreed")?);
    }
    let line = String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    ensure!(line.starts_with("HTTP/1.1 101"), "not agreed: {line}");
    stream.write_all(b"and late").await?;
    stream.shutdown().await?;
    let mut back = String::new();
    stream.read_to_string(&mut back).await?;
    ensure!(back == "early and late", "it came back as '{back}'");
    Ok(json!({"status": 101, "token": TOKEN, "echoed": back}))
}
