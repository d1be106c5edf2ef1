//! `weft check`: is this machine fit, is everything up, and which pods are not meshed and why.

use crate::{
    client::Sandbox,
    netns::Netns,
    object::Object,
    supervisor::control::{Progress, Request},
    table,
};
use nix::unistd::geteuid;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

/// Time for a supervisor to say how it is.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How it is; or what is wrong, and the fix.
    pub result: Result<String, String>,
}

fn finding(what: &str, result: Result<String, String>) -> Finding {
    Finding {
        what: what.to_string(),
        result,
    }
}

/// The machine: programs, namespaces, rules, layers.
pub fn machine() -> Vec<Finding> {
    let mut findings = vec![finding(
        "root",
        if geteuid().is_root() {
            Ok("yes".into())
        } else {
            Err("not root; run with sudo".into())
        },
    )];
    for (tool, package) in [
        ("ip", "iproute2"),
        ("iptables-restore", "iptables"),
        ("ip6tables-restore", "iptables"),
        ("iptables", "iptables"),
        ("nft", "nftables"),
    ] {
        let version = Command::new(tool)
            .arg(if tool == "ip" { "-V" } else { "--version" })
            .output();
        let result = match version {
            Ok(output) => Ok(String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or_default()
                .trim()
                .to_string()),
            Err(error) => Err(format!("cannot be run ({error}); install the package {package}")),
        };
        findings.push(finding(tool, result));
    }
    let name = format!("weft-check.{}", std::process::id());
    let netns = match Netns::create(&name) {
        Ok(netns) => netns,
        Err(error) => {
            findings.push(finding("network namespaces", Err(error.to_string())));
            return findings;
        }
    };
    findings.push(finding("network namespaces", Ok("can be made".into())));
    for (family, tool) in [("IPv4", "iptables-restore"), ("IPv6", "ip6tables-restore")] {
        // What weft-init and the ClusterIPs are made of, in one transaction.
        let rules = "*nat\n:X - [0:0]\n-A PREROUTING -p tcp -j X\n-A X -m statistic --mode random --probability 0.5 -j RETURN\n\
                     -A X -m comment --comment c -p tcp -j REDIRECT --to-ports 15006\n\
                     -A OUTPUT -p tcp -m owner --uid-owner 2717 -j RETURN\n\
                     -A OUTPUT -p tcp --dport 9 -j REDIRECT --to-ports 15006\nCOMMIT\n\
                     *filter\n-A FORWARD -p tcp -j REJECT\nCOMMIT\n";
        let applied = netns
            .run(|| crate::netns::feed(tool, &[], rules).map(|_| ()))
            .and_then(|r| r);
        let result = applied
            .map_err(|e| e.to_string())
            .and_then(|()| redirected(&netns, family));
        let fix =
            "load the modules nf_nat, xt_REDIRECT, xt_owner, xt_statistic, xt_comment, or use a kernel that has them";
        findings.push(finding(
            &format!("{family} redirects"),
            result.map_err(|e| format!("{e}; {fix}")),
        ));
    }
    findings.push(finding("layered roots", layers(&netns)));
    findings
}

/// Rules that are listed may still do nothing (a table that the kernel does not use): one connection tells.
fn redirected(netns: &Netns, family: &str) -> Result<String, String> {
    let address: IpAddr = if family == "IPv4" {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let tried = netns.run(|| {
        let listener = TcpListener::bind((address, 15006))?;
        listener.set_nonblocking(true)?;
        let _client = TcpStream::connect_timeout(&SocketAddr::new(address, 9), ANSWER_TIME)?;
        listener.accept()
    });
    match tried {
        Ok(Ok(_)) => Ok("a connection was redirected".into()),
        Ok(Err(error)) => Err(format!(
            "the rules are set, but a connection is not redirected ({error})"
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn layers(netns: &Netns) -> Result<String, String> {
    let script = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/m && mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m";
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let output = netns.spawn_isolated(|| {
        nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SLAVE,
            None::<&str>,
        )?;
        command.output()
    });
    match output {
        Ok(output) if output.status.success() => Ok("overlayfs over the machine's root".into()),
        Ok(output) => Err(format!(
            "overlayfs does not work here ({}); load the module 'overlay', or use a kernel that has it",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Every sandbox below `root`: is it up, is everything ready, which pods are not meshed.
pub fn sandboxes(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for sandbox in Sandbox::all(root) {
        let what = format!("sandbox '{}'", sandbox.paths().name());
        let answered = sandbox.ask_within(&Request::Progress, ANSWER_TIME);
        let progress: Progress = match answered.and_then(|v| Ok(serde_json::from_value(v)?)) {
            Ok(progress) => progress,
            Err(error) if sandbox.paths().socket().exists() && error.to_string().contains("did not answer") => {
                findings.push(finding(&what, Err(format!("{error:#}"))));
                continue;
            }
            Err(_) => {
                let fix = format!(
                    "its supervisor is gone; clean up with `weft sandbox down --name {}`",
                    sandbox.paths().name()
                );
                findings.push(finding(&what, Err(fix)));
                continue;
            }
        };
        let bad = progress.waiting.iter().chain(&progress.failed);
        let bad: Vec<String> = bad
            .map(|(name, word, said)| format!("{name} {word} {said}").trim().to_string())
            .collect();
        let result = if bad.is_empty() {
            Ok(format!("{} pods ready", progress.ready))
        } else {
            Err(bad.join("; "))
        };
        findings.push(finding(&what, result));
        let (Ok(pods), Ok(namespaces)) = (sandbox.get("pods", None, None), sandbox.get("namespaces", None, None))
        else {
            continue;
        };
        let out: Vec<String> = pods.iter().filter_map(|pod| not_meshed(pod, &namespaces)).collect();
        let text = if out.is_empty() {
            "all pods are meshed".into()
        } else {
            format!("not meshed:\n      {}", out.join("\n      "))
        };
        findings.push(finding(&format!("{what}, mesh"), Ok(text)));
    }
    if findings.is_empty() {
        findings.push(finding(
            "sandboxes",
            Ok("none is up; `weft sandbox up DIR` starts one".into()),
        ));
    }
    findings
}

fn not_meshed(pod: &Object, namespaces: &[Object]) -> Option<String> {
    let why = table::meshed(pod, namespaces).err()?;
    let (namespace, name) = (crate::object::namespace(pod), crate::object::name(pod));
    (namespace != weft_proto::names::SYSTEM_NAMESPACE).then(|| format!("{namespace}/{name}: {why}"))
}

/// The findings as text.
pub fn render(findings: &[Finding]) -> String {
    let line = |f: &Finding| match &f.result {
        Ok(how) => format!("ok    {}: {how}\n", f.what),
        Err(wrong) => format!("FAIL  {}: {wrong}\n", f.what),
    };
    findings.iter().map(line).collect()
}
