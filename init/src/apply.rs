//! Makes transactions: one for each family, all or nothing.
//!
//! `iptables-restore` gives the whole text to the kernel in one step, so that a failure or a kill at any point leaves
//! either what was there before or all of the new rules (RELIABILITY T36). What is there already is asked first, since
//! the jumps from the kernel's chains must exist once however often this runs.

use crate::{
    backend::{Candidate, Kind, Survey, Tool, one_line, unstarted},
    plan::{Chain, Family, Plan},
    render::{self, Present},
};
use iptables::IPTables;
use std::{fs::OpenOptions, io::Write, process::Stdio};
use weft_proto::limits;

/// Why a family's rules are not as they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No backend could even be asked.
    #[error("{0}")]
    NoBackend(String),
    /// The rules that are there could not be listed.
    #[error("{tool} cannot list the nat table: {reason}")]
    List {
        /// The command.
        tool: &'static str,
        /// What it said.
        reason: String,
    },
    /// A transaction was refused as a whole.
    #[error("{tool}-restore refused the rules, and nothing was changed: {reason}")]
    Refused {
        /// The command.
        tool: &'static str,
        /// What it said.
        reason: String,
    },
    /// A transaction was accepted, but the kernel shows something else.
    #[error("{tool} accepted the rules but does not show them all: {present:?}")]
    Incomplete {
        /// The command.
        tool: &'static str,
        /// What it shows.
        present: Box<Present>,
    },
    /// Every backend failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<Error>),
}

/// The rules of one family are set.
#[derive(Clone, Debug)]
pub struct Installed {
    /// With what.
    pub tool: Tool,
    /// Why with that.
    pub why: String,
    /// Whether something that was seen spoke for it.
    pub seen: bool,
}

/// Sets a plan's rules with the best backend that works. `other_family` is what the other family was set with, where
/// something spoke for it.
pub fn install(plan: &Plan, other_family: Option<Kind>) -> Result<Installed, Error> {
    let survey = Survey::of(plan.family);
    let mut failures: Vec<Error> = survey
        .failures()
        .map(|failure| Error::NoBackend(failure.to_owned()))
        .collect();
    for Candidate { tool, why, seen } in survey.candidates(other_family).map_err(Error::NoBackend)? {
        match install_with(tool, plan) {
            Ok(()) => {
                // An earlier run may have used the other backend: both would act, with different exceptions.
                for stale in survey.ours().filter(|other| *other != tool) {
                    remove_with(stale)?;
                }
                return Ok(Installed { tool, why, seen });
            }
            Err(error) => failures.push(error),
        }
    }
    Err(if failures.len() == 1 {
        failures.remove(0)
    } else {
        Error::All(failures)
    })
}

/// Sets a plan's rules with one backend, and reads them back.
pub fn install_with(tool: Tool, plan: &Plan) -> Result<(), Error> {
    commit(tool, &render::install(plan, &list(tool)?))?;
    let present = list(tool)?;
    if present.is_complete(plan) {
        Ok(())
    } else {
        Err(Error::Incomplete {
            tool: tool.command,
            present: Box::new(present),
        })
    }
}

/// Removes every rule of ours of one family, in every backend that shows some. Answers with what was used; empty when
/// there was nothing to remove.
pub fn undo(family: Family) -> Result<Vec<Tool>, Error> {
    let tools: Vec<Tool> = Survey::of(family).ours().collect();
    tools.iter().try_for_each(|&tool| remove_with(tool))?;
    Ok(tools)
}

/// Removes every rule of ours of one family in one backend.
pub fn remove_with(tool: Tool) -> Result<(), Error> {
    let present = list(tool)?;
    if present.is_nothing() {
        Ok(())
    } else {
        commit(tool, &render::remove(&present))
    }
}

/// What of ours one backend shows.
pub fn list(tool: Tool) -> Result<Present, Error> {
    let output = nat(tool, "-S")?;
    Ok(read_listing(&output))
}

/// How many connections our chain's redirects have caught so far; `None` when that cannot be told.
pub fn caught(tool: Tool, chain: Chain) -> Option<u64> {
    let listing = nat(tool, &format!("-v -S {}", chain.name())).ok()?;
    let redirects = listing.lines().filter(|line| line.contains(" -j REDIRECT"));
    // `-c PACKETS BYTES`; nat rules see the first packet of each connection only.
    Some(
        redirects
            .filter_map(|line| line.split(" -c ").nth(1)?.split(' ').next()?.parse::<u64>().ok())
            .sum(),
    )
}

/// Gives a transaction's text to the kernel, all or nothing.
pub fn commit(tool: Tool, text: &str) -> Result<(), Error> {
    let refused = |reason| Error::Refused {
        tool: tool.command,
        reason,
    };
    let mut command = tool.command("-restore");
    command.args(["--noflush", &format!("--wait={}", limits::RULES_LOCK.as_secs())]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| refused(unstarted(&format!("{}-restore", tool.command), &error)))?;
    // A program that ends early says why itself; that the rest could not be written adds nothing. The pipe is closed
    // when it goes out of scope, and a text that was cut has no COMMIT.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
    match (output.status.success(), written) {
        (true, Some(Ok(()))) => Ok(()),
        (true, _) => Err(refused("it did not read all of them".to_owned())),
        (false, _) => Err(refused(one_line(&output.stderr))),
    }
}

/// Where the legacy backend's lock file has to be, when it cannot be at the usual place: it insists on one, and a
/// read-only root does not let it make it. The lock guards against other programs in this container, so that any file of
/// the container serves.
pub fn lock_elsewhere() -> Option<&'static str> {
    const USUAL: &str = "/run/xtables.lock";
    const OTHERS: [&str; 2] = ["/dev/shm/weft-xtables.lock", "/tmp/weft-xtables.lock"];
    let writable = |path: &str| {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .is_ok()
    };
    if writable(USUAL) {
        None
    } else {
        OTHERS.into_iter().find(|path| writable(path))
    }
}

/// The variable that tells the legacy backend where its lock file is.
pub const LOCK_VARIABLE: &str = "XTABLES_LOCKFILE";

/// Asks one backend about the nat table.
fn nat(tool: Tool, question: &str) -> Result<String, Error> {
    let unlisted = |reason| Error::List {
        tool: tool.command,
        reason,
    };
    // Every iptables since 2013 knows both options.
    let iptables = IPTables {
        cmd: tool.command,
        has_check: true,
        has_wait: true,
        is_numeric: true,
    };
    // `list_table` would take a failed command for an empty table.
    let output = iptables
        .execute("nat", question)
        .map_err(|error| unlisted(error.to_string()))?;
    if !output.status.success() {
        return Err(unlisted(one_line(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `iptables -S`.
fn read_listing(listing: &str) -> Present {
    let mut present = Present::default();
    for chain in Chain::BOTH {
        let (hook, own) = (format!("-A {} ", chain.hook()), format!("-A {} ", chain.name()));
        let jump = format!(" -j {}", chain.name());
        let of = present.chain_mut(chain);
        of.rules = listing
            .lines()
            .any(|line| line.strip_prefix("-N ") == Some(chain.name()))
            .then(|| listing.lines().filter(|line| line.starts_with(&own)).count());
        let in_hook = listing.lines().filter(|line| line.starts_with(&hook)).zip(1..);
        // A jump has nothing behind its target, and a comment ends with a quotation mark.
        of.jumps = in_hook
            .filter(|(line, _)| line.trim_end().ends_with(&jump))
            .map(|(_, position)| position)
            .collect();
    }
    present
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::PresentChain;

    #[test]
    fn our_chains_and_the_jumps_to_them_are_found() {
        let listing = "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-N WEFT_INBOUND\n-N WEFT_OUTBOUND\n\
            -A PREROUTING -p tcp -m comment --comment \"weft: inbound\" -j WEFT_INBOUND\n\
            -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\n\
            -A OUTPUT -p tcp -j WEFT_OUTBOUND\n\
            -A OUTPUT -m comment --comment \"not -j WEFT_OUTBOUND\"\n\
            -A OUTPUT -p tcp -j WEFT_OUTBOUND\n\
            -A WEFT_INBOUND -p tcp -j REDIRECT --to-ports 15006\n";
        let expected = Present {
            inbound: PresentChain {
                rules: Some(1),
                jumps: vec![1],
            },
            outbound: PresentChain {
                rules: Some(0),
                jumps: vec![2, 4],
            },
        };
        assert_eq!(read_listing(listing), expected);
        assert!(read_listing("-P OUTPUT ACCEPT\n").is_nothing());
    }
}
