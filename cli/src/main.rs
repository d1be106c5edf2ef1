//! The `weft` command: what people touch. It parses words and prints; what it does lives in the libraries.

mod check;
mod cluster;
mod explain;
mod inject;
mod install;
mod owner;
mod sandbox;
mod uninstall;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// One set of route semantics for all of a cluster's traffic.
#[derive(Parser)]
#[command(name = "weft", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A small cluster without a cluster: pods are network namespaces of this machine.
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// Prints what weft needs in a cluster: weft install | kubectl apply --server-side -f -
    Install(install::Install),
    /// Takes weft out of a cluster, and says what is left to do.
    Uninstall(uninstall::Uninstall),
    /// Shows what the webhook would make of a pod, without a cluster.
    Inject(inject::Inject),
    /// Is weft whole in a cluster, and which pods does it miss; without a cluster: is this machine fit for a sandbox.
    Check(check::Check),
    /// What would become of a request or a connection, and why: asked of the proxy that would carry it. Nothing is sent.
    Explain(explain::Explain),
    /// Every limit of weft: its name, its value, and what it bounds.
    Limits,
}

fn main() -> ExitCode {
    // No runtime and no thread before this: `sandbox exec` and the shims enter namespaces, which belong to one thread.
    let done = match Arguments::parse().command {
        Command::Sandbox(command) => command.run(),
        Command::Install(install) => install.run(),
        Command::Uninstall(uninstall) => uninstall.run(),
        Command::Inject(inject) => inject.run(),
        Command::Check(check) => check.run(),
        Command::Explain(explain) => explain.run(),
        Command::Limits => {
            print!("{}", limits());
            Ok(0)
        }
    };
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn limits() -> String {
    let all = weft_proto::limits::all();
    let width = |of: fn(&(&'static str, String, &'static str)) -> usize| all.iter().map(of).max().unwrap_or(0);
    let (names, values) = (width(|l| l.0.len()), width(|l| l.1.len()));
    all.iter()
        .map(|(name, value, about)| format!("{name:names$}  {value:>values$}  {about}\n"))
        .collect()
}
