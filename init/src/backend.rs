//! Which iptables to use: nft or legacy, chosen by what is really in use where the pod runs.
//!
//! A kernel runs both backends side by side, and a node that looks only at one of them does not show the rules of the
//! other. So the one that shows rules is taken: weft's own of an earlier run, then those of the node (kubelet's hint
//! chains), then those of whoever else. A pod's own namespace is normally empty; then nft goes first, because nodes
//! without legacy support accept its rules into a dead table. Whatever was chosen, `check` proves that it works.

use crate::plan::{Chain, Family};
use std::{fmt, io, process::Command};

/// The two ways in which iptables talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// iptables over nf_tables.
    Nft,
    /// iptables over its own old interface.
    Legacy,
}

/// The programs of one backend, for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tool {
    /// The family.
    pub family: Family,
    /// The backend.
    pub kind: Kind,
    /// The command; `-restore` and `-save` are its relatives.
    pub command: &'static str,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command)
    }
}

/// What a backend shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Chains of weft.
    pub ours: bool,
    /// Chains by which kubelet tells which backend the node uses.
    pub hint: bool,
    /// Rules, of whoever.
    pub rules: usize,
}

/// One backend that can be tried, and why it stands where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The programs.
    pub tool: Tool,
    /// Why this one.
    pub why: String,
    /// Whether the choice rests on something seen, and not on preference alone.
    pub seen: bool,
}

/// What was seen of one family.
#[derive(Clone, Debug)]
pub struct Survey {
    family: Family,
    seen: Vec<(Tool, Result<Look, String>)>,
}

/// Chains that kubelet makes in the mangle table: the hint (since 1.24) and, before that, the canary.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

impl Tool {
    /// The programs of one backend under their full names.
    pub const fn named(family: Family, kind: Kind) -> Self {
        let command = match (family, kind) {
            (Family::V4, Kind::Nft) => "iptables-nft",
            (Family::V4, Kind::Legacy) => "iptables-legacy",
            (Family::V6, Kind::Nft) => "ip6tables-nft",
            (Family::V6, Kind::Legacy) => "ip6tables-legacy",
        };
        Self { family, kind, command }
    }

    /// A command of this backend, in a known language.
    pub fn command(&self, suffix: &str) -> Command {
        let mut command = Command::new(format!("{}{suffix}", self.command));
        command.env("LC_ALL", "C");
        command
    }

    /// What this backend shows in all its tables. Never makes a table that is not there: the legacy command reads
    /// only the tables that this namespace has.
    pub fn look(&self) -> Result<Look, String> {
        let output = self
            .command("-save")
            .output()
            .map_err(|error| unstarted(&format!("{}-save", self.command), &error))?;
        if !output.status.success() {
            return Err(format!("{}-save: {}", self.command, one_line(&output.stderr)));
        }
        Ok(Look::read(&String::from_utf8_lossy(&output.stdout)))
    }
}

impl Look {
    /// Reads what `iptables-save` wrote.
    pub fn read(saved: &str) -> Self {
        let mut look = Self::default();
        for line in saved.lines() {
            if line.starts_with("-A ") {
                look.rules += 1;
            } else if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                look.ours |= Chain::BOTH.iter().any(|ours| ours.name() == chain);
                look.hint |= HINTS.contains(&chain);
            }
        }
        look
    }
}

impl Survey {
    /// Looks at every backend that this machine has programs for.
    pub fn of(family: Family) -> Self {
        let mut seen: Vec<_> = [Kind::Nft, Kind::Legacy]
            .map(|kind| Tool::named(family, kind))
            .into_iter()
            .map(|tool| (tool, tool.look()))
            .collect();
        if seen.iter().all(|(_, look)| look.is_err())
            && let Some(tool) = plain(family)
        {
            seen.push((tool, tool.look()));
        }
        Self { family, seen }
    }

    /// A survey that was made elsewhere.
    pub fn from_looks(family: Family, seen: Vec<(Tool, Result<Look, String>)>) -> Self {
        Self { family, seen }
    }

    /// The backends that show chains of weft.
    pub fn ours(&self) -> impl Iterator<Item = Tool> {
        self.seen
            .iter()
            .filter(|(_, look)| look.as_ref().is_ok_and(|look| look.ours))
            .map(|(tool, _)| *tool)
    }

    /// Why the others show nothing.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.seen
            .iter()
            .filter_map(|(_, look)| look.as_ref().err().map(String::as_str))
    }

    /// The backends to try, best first, or why there is none. `other_family` is what the other family's rules were set
    /// with, where something spoke for it.
    pub fn candidates(&self, other_family: Option<Kind>) -> Result<Vec<Candidate>, String> {
        let looks: Vec<(Tool, Look)> = self
            .seen
            .iter()
            .filter_map(|(tool, look)| Some((*tool, *look.as_ref().ok()?)))
            .collect();
        let first = looks
            .iter()
            .map(|&(tool, look)| (rank(look, &looks), tool))
            .max_by_key(|&((rank, _), tool)| (rank, other_family == Some(tool.kind), tool.kind == Kind::Nft));
        let Some(((rank, reason), best)) = first else {
            let reasons: Vec<&str> = self.failures().collect();
            return Err(format!(
                "no iptables for {} works here: {}",
                self.family,
                reasons.join("; ")
            ));
        };
        let mut candidates = vec![Candidate {
            tool: best,
            seen: rank > 0,
            why: match (rank > 0, other_family == Some(best.kind), best.kind) {
                (true, _, _) => reason.to_owned(),
                (false, true, _) => "as the other family".to_owned(),
                (false, false, Kind::Nft) => "no rules to go by; nft is preferred".to_owned(),
                (false, false, Kind::Legacy) => "nft is not there".to_owned(),
            },
        }];
        candidates.extend(
            looks
                .iter()
                .filter(|&&(tool, _)| tool != best)
                .map(|&(tool, _)| Candidate {
                    tool,
                    seen: false,
                    why: format!("{best} did not work"),
                }),
        );
        Ok(candidates)
    }
}

/// How strongly a look speaks for its backend, and the reason in words.
fn rank(look: Look, all: &[(Tool, Look)]) -> (u8, &'static str) {
    let most = all.iter().map(|(_, look)| look.rules).max().unwrap_or(0);
    match look {
        Look { ours: true, .. } => (3, "it shows weft's rules of an earlier run"),
        Look { hint: true, .. } => (2, "it shows kubelet's hint"),
        Look { rules: 1.., .. } if look.rules == most => (1, "it shows rules"),
        _ => (0, ""),
    }
}

/// The command without a backend in its name, where an image has nothing else.
fn plain(family: Family) -> Option<Tool> {
    let command = if family == Family::V4 { "iptables" } else { "ip6tables" };
    let output = Command::new(command)
        .arg("--version")
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    // `iptables v1.8.9 (nf_tables)`; before 1.8 there was only the old interface, and nothing in brackets.
    let nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
    Some(Tool {
        family,
        kind: if nft { Kind::Nft } else { Kind::Legacy },
        command,
    })
}

/// Why a program could not be started.
pub(crate) fn unstarted(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program} cannot be started: {error}"),
    }
}

/// What a program wrote on its standard error, in one line without its chatter.
pub(crate) fn one_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `") && !line.starts_with('#'))
        .collect();
    if lines.is_empty() {
        "it failed without a reason".to_owned()
    } else {
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        nft: Result<Look, &str>,
        legacy: Result<Look, &str>,
        other: Option<Kind>,
    ) -> Result<(Kind, String), String> {
        let seen = [(Kind::Nft, nft), (Kind::Legacy, legacy)]
            .map(|(kind, look)| (Tool::named(Family::V4, kind), look.map_err(str::to_owned)));
        let survey = Survey::from_looks(Family::V4, seen.into());
        survey
            .candidates(other)
            .map(|all| (all[0].tool.kind, all[0].why.clone()))
    }

    const NOTHING: Look = Look {
        ours: false,
        hint: false,
        rules: 0,
    };

    #[test]
    fn the_backend_that_shows_more_is_taken() {
        let rules = |rules| Look { rules, ..NOTHING };
        let hint = Look { hint: true, ..NOTHING };
        let ours = Look {
            ours: true,
            rules: 9,
            ..NOTHING
        };
        for (nft, legacy, other, expected) in [
            (NOTHING, NOTHING, None, Kind::Nft),
            (NOTHING, NOTHING, Some(Kind::Legacy), Kind::Legacy),
            (NOTHING, rules(1), None, Kind::Legacy),
            (rules(1), NOTHING, Some(Kind::Legacy), Kind::Nft),
            (rules(2), rules(2), None, Kind::Nft),
            (rules(2), rules(5), None, Kind::Legacy),
            (rules(20), hint, None, Kind::Legacy),
            (hint, rules(20), None, Kind::Nft),
            (hint, ours, None, Kind::Legacy),
            (ours, ours, None, Kind::Nft),
        ] {
            assert_eq!(
                choose(Ok(nft), Ok(legacy), other).unwrap().0,
                expected,
                "nft {nft:?}, legacy {legacy:?}"
            );
        }
    }

    #[test]
    fn what_does_not_work_is_not_taken_and_the_reasons_are_said() {
        assert_eq!(
            choose(Err("no nft"), Ok(NOTHING), None).unwrap(),
            (Kind::Legacy, "nft is not there".into())
        );
        assert_eq!(
            choose(Err("iptables-nft-save is not installed"), Err("no module"), None).unwrap_err(),
            "no iptables for IPv4 works here: iptables-nft-save is not installed; no module"
        );
    }

    #[test]
    fn rules_hints_and_our_own_chains_are_recognised() {
        let saved = "*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n*nat\n:WEFT_INBOUND - [0:0]\n-A OUTPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(
            Look::read(saved),
            Look {
                ours: true,
                hint: true,
                rules: 1
            }
        );
        assert_eq!(Look::read("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), NOTHING);
    }
}
