//! The program: arguments in, rules set and proven, or one readable reason and exit code 1.

use anyhow::{Context, bail};
use clap::{Parser, error::ErrorKind};
use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use weft_init::{
    apply::{self, Installed, LOCK_VARIABLE},
    check::{self, Proof, Target},
    config::{Action, Arguments, Config, Redirects},
    plan::{Family, Plan},
    pod::{self, Address},
    render::{self, Present},
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Where nobody reads, nothing can be said.
            let _ = error.print();
            return if asked_for {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match arguments.resolve().map_err(Into::into).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            format!("{error:#}")
                .lines()
                .for_each(|line| eprintln!("weft-init: {line}"));
            ExitCode::FAILURE
        }
    }
}

fn run(Config { redirects, action }: Config) -> anyhow::Result<()> {
    match action {
        Action::Install(check) => lockable().and_then(|()| install(&redirects, check)),
        Action::Undo => lockable().and_then(|()| undo()),
        Action::PrintInstall => {
            for family in Family::BOTH {
                let plan = Plan::new(&redirects, family, own_uid());
                print!("# {family}\n{}", render::install(&plan, &Present::default()));
            }
            Ok(())
        }
        Action::PrintUndo => lockable().and_then(|()| print_undo()),
    }
}

/// Starts this program anew where the legacy backend needs another place for its lock: what it reads in the
/// environment must be there before any thread could be, so that all programs that are started later have it.
fn lockable() -> anyhow::Result<()> {
    if env::var_os(LOCK_VARIABLE).is_some() {
        return Ok(());
    }
    let Some(path) = apply::lock_elsewhere() else {
        return Ok(());
    };
    let error = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(LOCK_VARIABLE, path)
        .exec();
    Err(error).context("weft-init cannot be started anew with another place for the lock of iptables-legacy")
}

/// The user as which the proof dials.
fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn install(redirects: &Redirects, check: Option<Duration>) -> anyhow::Result<()> {
    let addresses = pod::addresses().context("the addresses of this network namespace cannot be read")?;
    let mut installed: Vec<Installed> = Vec::new();
    let mut failures = Vec::new();
    for family in Family::BOTH {
        let seen = installed
            .iter()
            .find(|installed| installed.seen)
            .map(|installed| installed.tool.kind);
        match apply::install(&Plan::new(redirects, family, own_uid()), seen) {
            Ok(done) => {
                eprintln!("weft-init: {family}: rules set with {} ({})", done.tool, done.why);
                installed.push(done);
            }
            Err(error) => match pod::first(&addresses, family) {
                // Nothing can come in or go out in this family.
                None => eprintln!("weft-init: {family}: no rules, and none needed without an address: {error}"),
                Some(address) => failures.push(unset(family, address, &error)),
            },
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    if installed.is_empty() {
        bail!("no rules could be set in either family (reasons above), and this namespace has no address");
    }
    match check {
        None => eprintln!("weft-init: not proven, as asked for (--no-check)"),
        Some(time) => prove(redirects, &installed, &addresses, time)?,
    }
    Ok(())
}

fn unset(family: Family, address: &Address, error: &apply::Error) -> String {
    format!(
        "{family}: {error}. The pod has the {family} address {} ({}), whose traffic would pass around the proxy: load the kernel's \
         modules for {family} nat on the node, give weft-init CAP_NET_ADMIN, or give the pod no {family} address",
        address.ip, address.interface
    )
}

fn prove(redirects: &Redirects, installed: &[Installed], addresses: &[Address], time: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut failures = Vec::new();
    for &Installed { tool, .. } in installed {
        let family = tool.family;
        match check::prove(
            Target {
                redirects,
                tool,
                addresses,
            },
            started,
            started + time,
        ) {
            Ok(Proof::Both) => {
                eprintln!("weft-init: {family}: proven: outbound and inbound connections land on the proxy")
            }
            Ok(Proof::OutboundOnly(why)) => {
                eprintln!(
                    "weft-init: {family}: proven: outbound connections land on the proxy; inbound by its rules alone: {why}"
                );
            }
            Ok(Proof::NoAddress) => eprintln!("weft-init: {family}: nothing to prove: the pod has no {family} address"),
            Err(unproven) => failures.push(unproven.to_string()),
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("\n"))
    }
}

fn undo() -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for family in Family::BOTH {
        match apply::undo(family) {
            Ok(tools) if tools.is_empty() => eprintln!("weft-init: {family}: nothing to remove"),
            Ok(tools) => tools
                .iter()
                .for_each(|tool| eprintln!("weft-init: {family}: rules removed with {tool}")),
            Err(error) => failures.push(format!("{family}: {error}")),
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("\n"))
    }
}

fn print_undo() -> anyhow::Result<()> {
    for family in Family::BOTH {
        for tool in weft_init::backend::Survey::of(family).ours() {
            print!("# {family}, {tool}\n{}", render::remove(&apply::list(tool)?));
        }
    }
    Ok(())
}
