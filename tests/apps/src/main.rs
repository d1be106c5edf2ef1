//! `weft-apps`: the applications that the demo and the tests mesh. Ordinary programs that know nothing of weft.
//!
//! Each server is a subcommand, configured by flags or environment, and listens on both families. `client` asks them
//! and prints one line of JSON, for people and scripts alike.

mod listen;
mod web;
/// Generated from proto/sample.proto and checked in: a build needs no `protoc`. tests/generated.rs compares.
#[rustfmt::skip]
#[allow(missing_docs, dead_code, clippy::all, clippy::unwrap_used)]
mod sample;
mod grpc;
mod websocket;
mod http;
mod bytes;
mod client;
mod load;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sample applications: gRPC, WebSocket, HTTP, and protocols that a proxy cannot read.
#[derive(Parser)]
#[command(name = "weft-apps", version)]
struct Arguments {
    #[command(subcommand)]
    app: App,
}

#[derive(Subcommand)]
enum App {
    /// The gRPC service of proto/sample.proto; h2c, or with TLS of its own.
    Grpc(listen::Listen),
    /// WebSocket: /echo and /chat.
    Websocket(listen::Listen),
    /// HTTP/1.1 and h2c on one port; says who answered what.
    Http(http::Http),
    /// A protocol in which the server speaks first: a little SMTP.
    Greeting(listen::Listen),
    /// Sends back what it is sent, and keeps half-close.
    Echo(listen::Listen),
    /// HTTP/1.1 with `Upgrade: hotrod`, then sends back what it is sent.
    Upgrade(listen::Listen),
    /// TLS of its own, then sends back what it is sent. Without a certificate it makes one for itself.
    Tls(listen::Listen),
    /// Asks one of the others.
    #[command(subcommand)]
    Client(client::Client),
}

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match Arguments::parse().app {
        App::Grpc(listen) => grpc::serve(listen).await,
        App::Websocket(listen) => websocket::serve(listen).await,
        App::Http(http) => http::serve(http).await,
        App::Greeting(listen) => bytes::greeting(listen).await,
        App::Echo(listen) => bytes::echo(listen).await,
        App::Upgrade(listen) => bytes::upgrade(listen).await,
        App::Tls(listen) => bytes::tls(listen).await,
        App::Client(client) => client::run(client).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-apps: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Name of this host, which in a cluster is the pod's.
fn pod() -> String {
    let of_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = of_kernel.trim();
    if name.is_empty() {
        std::env::var("HOSTNAME").unwrap_or_else(|_| "unknown".into())
    } else {
        name.to_owned()
    }
}
