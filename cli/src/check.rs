//! `weft check`: of a cluster, whether weft is whole there and which pods it misses; without one, of this machine and its sandboxes.
//!
//! Asking ([`gather`]) and judging ([`system`], [`workloads`]) are apart: what is judged is objects.

mod certificates;
mod finding;
mod gather;
mod rights;
mod system;
mod workloads;

use crate::cluster::{self, Which};
use clap::Args;
use finding::Finding;
use std::path::PathBuf;
use weft_sandbox::{check as sandbox, paths::DEFAULT_ROOT};

/// The arguments.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    which: Which,
    /// Only this namespace's pods; all that can be seen by default.
    #[arg(short, long, value_name = "NAME", conflicts_with = "sandbox")]
    namespace: Option<String>,
    /// This machine and its sandboxes, also where a cluster is configured.
    #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
    sandbox: bool,
    /// Directory with the sandboxes' state.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    state_dir: PathBuf,
}

impl Check {
    /// Looks, and prints what was found. The exit code: 1 when something is wrong.
    pub fn run(self) -> anyhow::Result<i32> {
        let findings = if self.sandbox || !(self.which.configured() || self.namespace.is_some()) {
            let findings = sandbox::machine()
                .into_iter()
                .chain(sandbox::sandboxes(&self.state_dir));
            findings.map(Finding::from).collect()
        } else {
            cluster::block_on(of_cluster(&self.which, self.namespace.as_deref()))?
        };
        print!("{}", finding::render(&findings));
        Ok(finding::exit_code(&findings))
    }
}

async fn of_cluster(which: &Which, namespace: Option<&str>) -> anyhow::Result<Vec<Finding>> {
    let client = which.client().await?;
    let version = match cluster::version(&client).await {
        Ok(version) => version,
        Err(error) => {
            let fix = "check the kubeconfig, and the way to its server; `weft check --sandbox` looks at this machine";
            return Ok(vec![Finding::fail("Kubernetes", format!("{error:#}; {fix}"))]);
        }
    };
    let mut findings = vec![system::version(&version)];
    let seen = gather::gather(&client, namespace).await;
    findings.extend(system::judge(&seen));
    findings.extend(certificates::judge(&seen));
    findings.extend(workloads::judge(&seen));
    Ok(findings)
}

#[cfg(test)]
mod tests;
