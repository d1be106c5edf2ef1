//! Reads the environment, builds the parts, starts the workers, waits for the end.

use std::{net::ToSocketAddrs, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use weft_proto::names::{container, env};
use weft_proxy::{
    admin,
    config::Config,
    explain::{self, Words},
    workers,
};

/// Memory is taken and given back on every request; this allocator is cheap at it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// weft's data plane.
#[derive(Parser)]
#[command(name = "weft-proxy", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Carries a pod's traffic, both ways. Everything it must know stands in its environment (WEFT_*).
    Sidecar,
    /// Serves a Gateway's listeners. The Gateway is named by WEFT_GATEWAY; the rest is as for a sidecar.
    Gateway,
    /// Asks the running proxy to drain, and returns at once: finish what is open, send new work elsewhere.
    Drain,
    /// Asks the running proxy what would become of a request or a connection, and why. Nothing is sent.
    Explain(Explain),
}

/// A request as an application of the pod, or a client of the gateway, would send it.
#[derive(clap::Args)]
struct Explain {
    /// http, https, grpc, grpcs, tls or tcp, `://host[:port]`, and a path or a gRPC service and method.
    url: String,
    /// The method; GET by default, POST for gRPC.
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// A header field; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address that is dialled; by default what the URL's host resolves to here.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: Option<std::net::SocketAddr>,
    /// `json` instead of text.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

fn main() -> ExitCode {
    weft_service::tls::install_provider();
    let done = match Arguments::parse().command {
        Command::Sidecar => run(false),
        Command::Gateway => run(true),
        Command::Drain => drain(),
        Command::Explain(explain) => explain.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(as_gateway: bool) -> anyhow::Result<()> {
    let config = Config::from_env()?;
    anyhow::ensure!(
        config.gateway.is_some() == as_gateway,
        "{} is for `weft-proxy gateway`, which needs it: namespace/name of the Gateway",
        env::GATEWAY
    );
    let filter = weft_service::log::start()?;
    workers::run(Arc::new(config), filter)
}

/// What is said to the running proxy, by its admin socket.
fn ask<T>(ask: impl FnOnce(&std::path::Path) -> std::io::Result<T>) -> anyhow::Result<T> {
    let socket = std::env::var_os(env::ADMIN_SOCKET).unwrap_or_else(|| container::ADMIN_SOCKET.into());
    ask(socket.as_ref()).map_err(|error| {
        anyhow::anyhow!(
            "no proxy hears at {} ({}): {error}",
            socket.display(),
            env::ADMIN_SOCKET
        )
    })
}

fn drain() -> anyhow::Result<()> {
    ask(admin::ask_to_drain)
}

impl Explain {
    fn run(self) -> anyhow::Result<()> {
        let words = Words::new(&self.url).map_err(anyhow::Error::msg)?;
        let mut to = self.to;
        // A gateway is asked by its port; what a pod dials is an address, which this pod's resolver knows.
        let is_gateway = std::env::var_os(env::GATEWAY).is_some();
        if to.is_none() && !is_gateway {
            let mut found = (&*words.host, words.port)
                .to_socket_addrs()
                .with_context(|| format!("looking up {}; --to says the address without", words.host))?;
            to = found.next();
        }
        let question = words.question(self.method.as_deref(), &self.headers, to);
        let answer = ask(|socket| admin::ask_to_explain(socket, &question))?;
        if self.output == "json" {
            println!("{answer:#}");
        } else {
            print!("{}", explain::render(&answer));
        }
        Ok(())
    }
}
