//! Arguments → [`Config`]. All mistakes are reported together, each with what was given and what would be right.
//!
//! First exactly what was written ([`Arguments`]), then something ready for use. Nothing behind this file sees a string
//! of the user's (RELIABILITY T38).

use std::{fmt, str::FromStr, time::Duration};
use weft_proto::{
    limits,
    names::{PROXY_UID, port},
    skip::{Cidrs, Ports, Uids},
};

/// Redirects the TCP of this network namespace to the pod's proxy, in IPv4 and IPv6, and proves that it does.
///
/// Needs CAP_NET_ADMIN, and CAP_NET_RAW for the proof of the inbound side. Running it again gives the same rules.
#[derive(Debug, clap::Parser)]
#[command(name = "weft-init", version)]
pub struct Arguments {
    /// Port on which the proxy accepts inbound connections
    #[arg(long, value_name = "PORT", default_value_t = port::INBOUND.to_string())]
    pub inbound_port: String,
    /// Port on which the proxy accepts outbound connections, on loopback
    #[arg(long, value_name = "PORT", default_value_t = port::OUTBOUND.to_string())]
    pub outbound_port: String,
    /// User that the proxy runs as; its own connections are not redirected
    #[arg(long, value_name = "UID", default_value_t = PROXY_UID.to_string())]
    pub proxy_uid: String,
    /// Inbound ports that are not redirected, as 80,8000-8010
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub skip_inbound_ports: String,
    /// Destination ports that are not redirected, as 25,3300-3310
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub skip_outbound_ports: String,
    /// Destinations that are not redirected, as 10.0.0.0/8,fd00::/8
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub skip_outbound_cidrs: String,
    /// Users whose connections are not redirected, as 1000,2000-2010
    #[arg(long, value_name = "UIDS", default_value = "")]
    pub skip_uids: String,
    /// Prints the rules of both families for a fresh namespace (or what --undo would remove), and changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Removes every rule that weft-init has set, from both families and both backends
    #[arg(long)]
    pub undo: bool,
    /// Sets the rules without proving that connections land on the proxy
    #[arg(long)]
    pub no_check: bool,
    /// How long the proof may take, in seconds, while the proxy is still starting
    #[arg(long, value_name = "SECONDS", default_value_t = limits::CHECK_TIME.as_secs().to_string())]
    pub check_seconds: String,
}

/// What to redirect and what to leave alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Where outbound connections go.
    pub outbound_port: u16,
    /// Whose connections are the proxy's own.
    pub proxy_uid: u32,
    /// Inbound ports left alone.
    pub skip_inbound_ports: Ports,
    /// Destination ports left alone.
    pub skip_outbound_ports: Ports,
    /// Destinations left alone.
    pub skip_outbound_cidrs: Cidrs,
    /// Users left alone.
    pub skip_uids: Uids,
}

/// What this run shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set the rules, then prove them within this time (`None`: do not prove them).
    Install(Option<Duration>),
    /// Remove the rules.
    Undo,
    /// Print what `Install` would set.
    PrintInstall,
    /// Print what `Undo` would remove.
    PrintUndo,
}

/// The arguments, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What to redirect.
    pub redirects: Redirects,
    /// What to do.
    pub action: Action,
}

/// Everything that is wrong with the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = self.0.len() > 1;
        write!(
            f,
            "{} of the arguments {} wrong:",
            self.0.len(),
            if many { "are" } else { "is" }
        )?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl Arguments {
    /// Reads every argument, and reports every mistake.
    pub fn resolve(self) -> Result<Config, Mistakes> {
        // Destructured, so that no argument can be forgotten.
        let Self {
            inbound_port,
            outbound_port,
            proxy_uid,
            skip_inbound_ports,
            skip_outbound_ports,
            skip_outbound_cidrs,
            skip_uids,
            dry_run,
            undo,
            no_check,
            check_seconds,
        } = self;
        let mut read = Reader::default();
        let redirects = Redirects {
            inbound_port: read.number("--inbound-port", &inbound_port, 1, "a port from 1 to 65535"),
            outbound_port: read.number("--outbound-port", &outbound_port, 1, "a port from 1 to 65535"),
            proxy_uid: read.number("--proxy-uid", &proxy_uid, 1, "a numeric user id other than 0 (root)"),
            skip_inbound_ports: read.list("--skip-inbound-ports", &skip_inbound_ports),
            skip_outbound_ports: read.list("--skip-outbound-ports", &skip_outbound_ports),
            skip_outbound_cidrs: read.list("--skip-outbound-cidrs", &skip_outbound_cidrs),
            skip_uids: read.list("--skip-uids", &skip_uids),
        };
        let seconds: u16 = read.number(
            "--check-seconds",
            &check_seconds,
            1,
            "a time from 1 to 65535 seconds (--no-check goes without)",
        );
        if read.0.is_empty() && redirects.inbound_port == redirects.outbound_port {
            read.0.push(format!(
                "--inbound-port and --outbound-port are both {}: the proxy tells the two sides apart by their ports",
                redirects.inbound_port
            ));
        }
        // The kernel keeps the last id for "nobody at all", and iptables refuses it.
        let last = u32::MAX;
        if redirects.proxy_uid == last {
            read.0.push(format!(
                "--proxy-uid {last} is not a user: the highest user id is {}",
                last - 1
            ));
        }
        if redirects.skip_uids.ranges().iter().any(|&(_, high)| high == last) {
            read.0.push(format!(
                "--skip-uids {last} is not a user: the highest user id is {}",
                last - 1
            ));
        }
        if !read.0.is_empty() {
            return Err(Mistakes(read.0));
        }
        let action = match (undo, dry_run) {
            (false, false) => Action::Install((!no_check).then(|| Duration::from_secs(seconds.into()))),
            (true, false) => Action::Undo,
            (false, true) => Action::PrintInstall,
            (true, true) => Action::PrintUndo,
        };
        Ok(Config { redirects, action })
    }
}

/// Reads values and collects mistakes; a wrong value becomes its type's default, which nobody will use.
#[derive(Default)]
struct Reader(Vec<String>);

impl Reader {
    fn number<T: FromStr + PartialOrd + Default>(&mut self, flag: &str, text: &str, least: T, expected: &str) -> T {
        // Digits only: `from_str` would take `+80`.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(value) if digits && value >= least => value,
            _ => {
                self.0.push(format!("{flag} '{}' is not {expected}", printable(text)));
                T::default()
            }
        }
    }

    fn list<T: FromStr<Err: fmt::Display> + Default>(&mut self, flag: &str, text: &str) -> T {
        text.parse().unwrap_or_else(|error: T::Err| {
            self.0.push(format!("{flag}: {}", printable(&error.to_string())));
            T::default()
        })
    }
}

/// A wrong value ends up in logs: no control characters, no novels.
fn printable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn resolve(arguments: &[&str]) -> Result<Config, Mistakes> {
        Arguments::try_parse_from([&["weft-init"], arguments].concat())
            .unwrap()
            .resolve()
    }

    #[test]
    fn without_arguments_the_names_of_the_project_hold() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config.action, Action::Install(Some(limits::CHECK_TIME)));
        assert_eq!(
            (config.redirects.inbound_port, config.redirects.outbound_port),
            (port::INBOUND, port::OUTBOUND)
        );
        assert_eq!(config.redirects.proxy_uid, PROXY_UID);
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let mistakes = resolve(&[
            "--inbound-port=0",
            "--outbound-port=+15001",
            "--proxy-uid=root",
            "--skip-inbound-ports=80,abc",
            "--skip-outbound-ports=70000",
            "--skip-outbound-cidrs=10.0.0.0/33",
            "--skip-uids=1-4294967295",
            "--check-seconds=0",
        ])
        .unwrap_err();
        assert_eq!(
            mistakes.to_string(),
            "8 of the arguments are wrong:
  --inbound-port '0' is not a port from 1 to 65535
  --outbound-port '+15001' is not a port from 1 to 65535
  --proxy-uid 'root' is not a numeric user id other than 0 (root)
  --skip-inbound-ports: 'abc' is not a port from 1 to 65535 or a range such as 8000-8010
  --skip-outbound-ports: '70000' is not a port from 1 to 65535 or a range such as 8000-8010
  --skip-outbound-cidrs: '10.0.0.0/33' is not an address range such as 10.0.0.0/8 or fd00::/8
  --check-seconds '0' is not a time from 1 to 65535 seconds (--no-check goes without)
  --skip-uids 4294967295 is not a user: the highest user id is 4294967294"
        );
    }

    #[test]
    fn one_port_cannot_be_both_sides() {
        let mistakes = resolve(&["--inbound-port=15001"]).unwrap_err();
        assert!(mistakes.to_string().contains("both 15001"), "{mistakes}");
    }

    #[test]
    fn a_wrong_value_cannot_write_into_the_log() {
        let mistakes = resolve(&["--inbound-port=1\n2"]).unwrap_err();
        assert!(!mistakes.0[0].contains('\n'), "{mistakes:?}");
    }
}
