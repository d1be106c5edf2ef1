//! The dashboards as they are checked in: every panel with its expressions, as Prometheus is to evaluate them.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::repository;

/// What stands for `$__rate_interval`: some scrapes, a second apart.
const WINDOW: &str = "15s";

/// One panel of one page.
pub(crate) struct Panel {
    /// The page's uid.
    pub(crate) page: String,
    /// Its title.
    pub(crate) title: String,
    /// Its expressions, with the variables filled in.
    pub(crate) expressions: Vec<String>,
}

/// Every dashboard, in the order of the files' names.
pub(crate) fn pages() -> Result<Vec<Value>> {
    let mut files: Vec<_> = std::fs::read_dir(repository().join("manifests/grafana"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    files
        .iter()
        .map(|path| serde_json::from_str(&std::fs::read_to_string(path)?).with_context(|| path.display().to_string()))
        .collect()
}

/// Every panel that shows data.
pub(crate) fn panels() -> Result<Vec<Panel>> {
    let mut found = Vec::new();
    for page in pages()? {
        let uid = text(&page["uid"])?;
        for panel in page["panels"].as_array().context("a page has panels")? {
            if panel["type"] == "row" {
                continue;
            }
            let title = text(&panel["title"])?;
            ensure!(
                panel["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{uid}: {title} explains nothing"
            );
            let targets = panel["targets"].as_array().context("a panel has targets")?;
            let expressions = targets.iter().map(|target| Ok(filled(&page, &text(&target["expr"])?)));
            found.push(Panel {
                page: uid.clone(),
                title,
                expressions: expressions.collect::<Result<_>>()?,
            });
        }
    }
    Ok(found)
}

/// The series and the label from which each variable of a page is filled.
pub(crate) fn variables(page: &Value) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for variable in page["templating"]["list"].as_array().into_iter().flatten() {
        if let Some(query) = variable["definition"].as_str() {
            let inside = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (series, label) = inside
                .and_then(|inside| inside.rsplit_once(", "))
                .context("label_values(series, label)")?;
            found.push((filled(page, series), label.to_owned()));
        }
    }
    Ok(found)
}

/// With every variable at All.
fn filled(page: &Value, expression: &str) -> String {
    let mut expression = expression.replace("$__rate_interval", WINDOW);
    for variable in page["templating"]["list"].as_array().into_iter().flatten() {
        if let Some(name) = variable["name"].as_str() {
            expression = expression.replace(&format!("${name}"), ".*");
        }
    }
    expression
}

/// Names of weft's series in an expression.
pub(crate) fn series_in(expression: &str) -> Vec<String> {
    let word = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
    // What is between quotes is a label's value.
    let code: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let mut names: Vec<_> = code
        .split(word)
        .filter(|name| name.starts_with("weft_"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

fn text(value: &Value) -> Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("not a text: {value}"))?
        .to_owned())
}
