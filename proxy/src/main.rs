//! Reads the environment, builds the parts, starts the workers, waits for the end.

use std::{process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use weft_proto::names::{container, env};
use weft_proxy::{admin, config::Config, workers};

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
}

fn main() -> ExitCode {
    weft_service::tls::install_provider();
    let done = match Arguments::parse().command {
        Command::Sidecar => run(false),
        Command::Gateway => run(true),
        Command::Drain => drain(),
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

fn drain() -> anyhow::Result<()> {
    let socket = std::env::var_os(env::ADMIN_SOCKET).unwrap_or_else(|| container::ADMIN_SOCKET.into());
    admin::ask_to_drain(socket.as_ref()).map_err(|error| {
        anyhow::anyhow!(
            "no proxy hears at {} ({}): {error}",
            socket.display(),
            env::ADMIN_SOCKET
        )
    })
}
