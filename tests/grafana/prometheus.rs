//! A real Prometheus on a sandbox, started by `scripts/prometheus`, and the few questions that the tests ask it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, Ran, binaries, repository};

/// It ends when this is dropped.
pub(crate) struct Prometheus {
    script: Child,
    url: String,
}

impl Prometheus {
    /// Starts it beside a sandbox; the alert rules wait a second only.
    pub(crate) fn beside(mesh: &Mesh) -> Result<Self> {
        let mut script = Command::new(repository().join("scripts/prometheus"))
            .args(["--sandbox", mesh.name(), "--port", "0", "--hurry", "--weft"])
            .arg(binaries()?.join("weft"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("scripts/prometheus")?;
        let mut line = String::new();
        let said = script.stdout.take().context("it is piped")?;
        BufReader::new(said).read_line(&mut line)?;
        let url = line.trim().to_owned();
        ensure!(url.starts_with("http://"), "Prometheus did not start; see above");
        Ok(Self { script, url })
    }

    /// Where it is asked.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--get"]);
        for (name, value) in parameters {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let text = Ran::from(curl.arg(format!("{}{path}", self.url)).output()?).ok()?;
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("{path}: {text:.300}"))?;
        ensure!(answer["status"] == "success", "{}", answer["error"]);
        Ok(answer["data"].clone())
    }

    /// Every name of a series that it has.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let names = self.ask("/api/v1/label/__name__/values", &[])?;
        Ok(serde_json::from_value(names)?)
    }

    /// Every value of an expression since then, a second apart: all series in one.
    pub(crate) fn course(&self, expression: &str, since: u64) -> Result<Vec<f64>> {
        let series = self.series(expression, since)?;
        let values = series
            .iter()
            .flat_map(|one| one["values"].as_array().into_iter().flatten());
        values
            .map(|pair| pair[1].as_str().context("a value")?.parse().context("a number"))
            .collect()
    }

    /// Every series of an expression since then, with its labels.
    pub(crate) fn series(&self, expression: &str, since: u64) -> Result<Vec<Value>> {
        let (start, end) = (since.to_string(), now().to_string());
        let asked = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        let data = self
            .ask("/api/v1/query_range", &asked)
            .with_context(|| expression.to_owned())?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// Every alert rule, as it is evaluated.
    pub(crate) fn rules(&self) -> Result<Vec<Value>> {
        let data = self.ask("/api/v1/rules", &[])?;
        Ok(data["groups"][0]["rules"].as_array().cloned().unwrap_or_default())
    }

    /// Whether every target that was found is scraped, and there are so many at least.
    pub(crate) fn scrapes(&self, least: usize) -> Result<bool> {
        let data = self.ask("/api/v1/targets", &[("state", "active")])?;
        let targets = data["activeTargets"].as_array().cloned().unwrap_or_default();
        Ok(targets.len() >= least && targets.iter().all(|target| target["health"] == "up"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // SIGTERM, so that it takes down what it started.
        let _ = Command::new("kill").arg(self.script.id().to_string()).status();
        let _ = self.script.wait();
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
