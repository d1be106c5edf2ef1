//! The `weft` command: what people touch. It parses words and prints; what it does lives in the libraries.

mod cluster;
mod inject;
mod install;
mod sandbox;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};
use weft_sandbox::{check, paths::DEFAULT_ROOT};

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
    /// Shows what the webhook would make of a pod, without a cluster.
    Inject(inject::Inject),
    /// Is this machine fit, is everything up, and which pods are not meshed and why.
    Check {
        /// Directory with the sandboxes' state.
        #[arg(long, default_value = DEFAULT_ROOT)]
        state_dir: PathBuf,
    },
    /// Every limit of weft: its name, its value, and what it bounds.
    Limits,
}

fn main() -> ExitCode {
    // No runtime and no thread before this: `sandbox exec` and the shims enter namespaces, which belong to one thread.
    let done = match Arguments::parse().command {
        Command::Sandbox(command) => command.run(),
        Command::Install(install) => install.run(),
        Command::Inject(inject) => inject.run(),
        Command::Check { state_dir } => {
            let mut findings = check::machine();
            findings.extend(check::sandboxes(&state_dir));
            print!("{}", check::render(&findings));
            Ok(if findings.iter().all(|f| f.result.is_ok()) {
                0
            } else {
                1
            })
        }
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
