//! [`Plan`] → the text of one `iptables-restore --noflush` transaction. Takes types, never strings: nothing that a user
//! wrote can become a rule, or a second one (RELIABILITY T38, CVE-2026-23766).

use crate::plan::{Chain, Match, Plan, Rule, Verdict};
use std::fmt::{self, Write};

/// What of ours is there already, as far as a transaction must know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// What of [`Chain::Inbound`].
    pub inbound: PresentChain,
    /// What of [`Chain::Outbound`].
    pub outbound: PresentChain,
}

/// What of one chain is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresentChain {
    /// How many rules it has; `None` when the chain does not exist.
    pub rules: Option<usize>,
    /// Positions, counted from 1, of the rules in its hook that jump to it; ascending.
    pub jumps: Vec<usize>,
}

impl Present {
    /// What of one chain is there.
    pub fn chain(&self, chain: Chain) -> &PresentChain {
        match chain {
            Chain::Inbound => &self.inbound,
            Chain::Outbound => &self.outbound,
        }
    }

    /// As [`Self::chain`], to be written.
    pub fn chain_mut(&mut self, chain: Chain) -> &mut PresentChain {
        match chain {
            Chain::Inbound => &mut self.inbound,
            Chain::Outbound => &mut self.outbound,
        }
    }

    /// Whether nothing of ours is there.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all of a plan is there, entered exactly once, before everything else.
    pub fn is_complete(&self, plan: &Plan) -> bool {
        Chain::BOTH.iter().all(|&chain| {
            let present = self.chain(chain);
            present.jumps == [1] && present.rules == Some(plan.rules(chain).len())
        })
    }
}

/// The transaction that makes `plan` true, whatever of ours is `present`.
pub fn install(plan: &Plan, present: &Present) -> String {
    let mut text = String::from("*nat\n");
    for chain in Chain::BOTH {
        // Creates the chain, or empties it.
        line(&mut text, format_args!(":{} - [0:0]", chain.name()));
    }
    remove_jumps(&mut text, present);
    for chain in Chain::BOTH {
        // First, so that no other rule can let a connection pass.
        line(
            &mut text,
            format_args!(
                "-I {} 1 -p tcp -m comment --comment \"weft: {}\" -j {}",
                chain.hook(),
                if chain == Chain::Inbound { "inbound" } else { "outbound" },
                chain.name()
            ),
        );
    }
    for chain in Chain::BOTH {
        for rule in plan.rules(chain) {
            line(&mut text, format_args!("-A {} {}", chain.name(), Rendered(rule)));
        }
    }
    text + "COMMIT\n"
}

/// The transaction that removes whatever of ours is `present`.
pub fn remove(present: &Present) -> String {
    let mut text = String::from("*nat\n");
    remove_jumps(&mut text, present);
    for chain in Chain::BOTH {
        if present.chain(chain).rules.is_some() {
            line(&mut text, format_args!("-F {}", chain.name()));
            line(&mut text, format_args!("-X {}", chain.name()));
        }
    }
    text + "COMMIT\n"
}

fn remove_jumps(text: &mut String, present: &Present) {
    for chain in Chain::BOTH {
        // From the end, so that the positions of the others stay.
        for position in present.chain(chain).jumps.iter().rev() {
            line(text, format_args!("-D {} {position}", chain.hook()));
        }
    }
}

fn line(text: &mut String, content: fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a String takes everything");
}

/// A rule, as iptables writes it.
struct Rendered<'a>(&'a Rule);

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { name, matches, verdict } = self.0;
        f.write_str("-p tcp")?;
        for r#match in matches {
            match *r#match {
                Match::OverLoopback => write!(f, " -o lo")?,
                Match::Destination(range) => write!(f, " -d {range}")?,
                Match::User(low, high) if low == high => write!(f, " -m owner --uid-owner {low}")?,
                Match::User(low, high) => write!(f, " -m owner --uid-owner {low}-{high}")?,
                Match::Port(low, high) if low == high => write!(f, " -m tcp --dport {low}")?,
                Match::Port(low, high) => write!(f, " -m tcp --dport {low}:{high}")?,
            }
        }
        write!(f, " -m comment --comment \"weft: {name}\"")?;
        match verdict {
            Verdict::Skip => write!(f, " -j RETURN"),
            Verdict::Redirect(port) => write!(f, " -j REDIRECT --to-ports {port}"),
        }
    }
}
