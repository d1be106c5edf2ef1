//! The dashboards and alerts on a real Prometheus that scrapes a sandbox: no panel is empty, no rule asks for what is not there.
//!
//! `WEFT_BLESS=1` lets the sandbox live longer, and writes `docs/grafana-panels.md` and the pictures in `docs/images` from it.

mod life;
mod panels;
mod prometheus;

use std::{collections::BTreeSet, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use prometheus::Prometheus;
use weft_tests::{Mesh, Ran, repository};

/// Panels that a healthy sandbox leaves empty or zero: page, title, why.
const QUIET: &[(&str, &str, &str)] = &[
    (
        "weft-health",
        "Access-log lines dropped",
        "nothing reads a log so slowly that 8192 lines wait",
    ),
    ("weft-health", "Spans", "the sandbox has no OTLP receiver"),
    (
        "weft-health",
        "Watches in step",
        "the sandbox's controller reads files, there is no API server to watch",
    ),
    ("weft-health", "Watch failures", "the same"),
    (
        "weft-health",
        "Webhook's CA",
        "the sandbox's injector keeps its CA to itself, not in a Secret",
    ),
];

/// Series that a sandbox does not have, though rules ask for them, and why.
const ABSENT: &[(&str, &str)] = &[
    ("weft_spans_total", "the sandbox has no OTLP receiver"),
    ("weft_watch_failures_total", "the sandbox's controller reads files"),
    ("weft_watch_synced", "the same"),
    (
        "weft_webhook_ca_expiry_timestamp_seconds",
        "the sandbox's injector keeps its CA to itself",
    ),
];

/// Alerts that what happens in the sandbox must set off.
const FIRED: &[&str] = &[
    "WeftPlaintextShareHigh",
    "WeftPlaintextRefused",
    "WeftPodsNotMeshed",
    "WeftControllerAway",
    "WeftControllerDown",
    "WeftHopsFailing",
    "WeftWorkloadErrors",
    "WeftLimitReached",
    "WeftRoutesWithProblems",
];

fn run(command: &mut Command) -> Result<String> {
    let ran = Ran::from(
        command
            .current_dir(repository())
            .output()
            .with_context(|| format!("{command:?}"))?,
    );
    ensure!(ran.success, "{command:?}\n{}{}", ran.stdout, ran.stderr);
    Ok(ran.stdout)
}

#[test]
fn what_is_checked_in_is_what_the_generator_makes() -> Result<()> {
    run(Command::new("python3").args(["-B", "scripts/dashboards", "--check"]))?;
    Ok(())
}

#[test]
fn promtool_accepts_the_rules_and_they_pass_their_tests() -> Result<()> {
    run(Command::new("promtool").args(["check", "rules", "manifests/prometheus/rules.yaml"]))?;
    run(Command::new("promtool").args(["test", "rules", "tests/grafana/rules_test.yaml"]))?;
    Ok(())
}

#[test]
fn pages_can_be_imported_side_by_side() -> Result<()> {
    let mut uids = BTreeSet::new();
    for page in panels::pages()? {
        let title = page["title"].as_str().unwrap_or_default();
        ensure!(
            uids.insert(page["uid"].to_string()),
            "{title}: another page has its uid"
        );
        ensure!(page["id"].is_null(), "{title}: an id is of one Grafana only");
        let all = page["panels"].as_array().context("panels")?;
        let ids: BTreeSet<_> = all.iter().map(|panel| panel["id"].to_string()).collect();
        ensure!(ids.len() == all.len(), "{title}: two panels have one id");
        // No panel lies on another one: each cell of the grid is taken once.
        let mut cells = BTreeSet::new();
        for panel in all {
            let place = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_default();
            ensure!(
                place("x") + place("w") <= 24,
                "{title}: {} is beyond the grid",
                panel["title"]
            );
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    ensure!(
                        cells.insert((x, y)),
                        "{title}: {} lies on another panel",
                        panel["title"]
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_panel_and_rule_lives_on_a_real_prometheus() -> Result<()> {
    let bless = std::env::var_os("WEFT_BLESS").is_some();
    let mesh = Mesh::up("grafana", &life::objects()?)?;
    let prometheus = Prometheus::beside(&mesh)?;
    mesh.eventually("everything to be scraped", Duration::from_secs(20), || {
        prometheus.scrapes(15)
    })?;
    let begin = prometheus::now();
    let seconds = if bless { 150 } else { 27 };
    life::lead(&mesh, seconds)?;
    if bless {
        render(&prometheus, begin, begin + seconds - 3)?;
    }

    let mut wrong = Vec::new();
    let known: BTreeSet<String> = prometheus.names()?.into_iter().collect();
    for page in panels::pages()? {
        for (series, label) in panels::variables(&page)? {
            if prometheus
                .series(&format!("count by ({label}) ({series})"), begin)?
                .is_empty()
            {
                wrong.push(format!("{}: the choice of {label} is empty", page["uid"]));
            }
        }
    }
    for panel in panels::panels()? {
        let quiet = QUIET
            .iter()
            .any(|(page, title, _)| (*page, *title) == (&panel.page, &panel.title));
        let mut shows = false;
        for expression in &panel.expressions {
            if panels::series_in(expression).is_empty() {
                wrong.push(format!(
                    "{}: {}: no series of weft in {expression}",
                    panel.page, panel.title
                ));
            }
            let course = prometheus.course(expression, begin)?;
            shows |= course.iter().any(|value| value.is_finite() && *value != 0.0);
        }
        if shows == quiet {
            let state = if quiet {
                "is no exception any more"
            } else {
                "is empty or always zero"
            };
            wrong.push(format!(
                "{}: {}: {state}: {:?}",
                panel.page, panel.title, panel.expressions
            ));
        }
    }

    let rules = prometheus.rules()?;
    ensure!(rules.len() > 20, "only {} rules were read", rules.len());
    for rule in &rules {
        let (name, query) = (&rule["name"], rule["query"].as_str().unwrap_or_default());
        if rule["health"] != "ok" {
            wrong.push(format!("{name}: {}", rule["lastError"]));
        }
        for series in panels::series_in(query) {
            if !known.contains(&series) && !ABSENT.iter().any(|(absent, _)| *absent == series) {
                wrong.push(format!("{name}: nothing tells {series}"));
            }
        }
    }
    let fired: BTreeSet<String> = prometheus
        .series("ALERTS{alertstate=\"firing\"}", begin)?
        .iter()
        .filter_map(|series| Some(series["metric"]["alertname"].as_str()?.to_owned()))
        .collect();
    wrong.extend(
        FIRED
            .iter()
            .filter(|name| !fired.contains(**name))
            .map(|name| format!("{name} did not fire: {fired:?}")),
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The pictures and the list of panels, from what Prometheus has of that time.
fn render(prometheus: &Prometheus, since: u64, until: u64) -> Result<()> {
    let times = [since.to_string(), until.to_string()];
    print!(
        "{}",
        run(Command::new("scripts/render-dashboards")
            .arg(prometheus.url())
            .args(times))?
    );
    Ok(())
}
