//! Metrics as a scrape gave them: enough of the Prometheus text format to ask for a sum.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// One scrape.
pub struct Metrics(Vec<Sample>);

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format.
    pub fn read(text: &str) -> Result<Self> {
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(sample)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The sum of a metric's series whose labels have these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).map(String::as_str) == Some(*value))
        };
        self.0.iter().filter(fits).map(|sample| sample.value).sum()
    }
}

fn sample(line: &str) -> Result<Sample> {
    let bad = || format!("not a sample: {line}");
    let (series, value) = line.rsplit_once(' ').with_context(bad)?;
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').with_context(bad)?;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").with_context(bad)?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().with_context(bad)? {
                (at, '"') => break at,
                (_, '\\') => value.extend(characters.next().map(|(_, c)| c)),
                (_, c) => value.push(c),
            }
        };
        labels.insert(label.trim_start_matches(',').to_owned(), value);
        rest = &after[end + 1..];
    }
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().with_context(bad)?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_are_told_apart_and_summed() {
        let metrics = super::Metrics::read(
            "# TYPE a counter\na{x=\"1\",y=\"p,q\"} 2\na{x=\"1\",y=\"r\\\"s\"} 3\na{x=\"2\"} 4\nb 1\n",
        )
        .unwrap();
        assert_eq!(metrics.sum("a", &[("x", "1")]), 5.0);
        assert_eq!(metrics.sum("a", &[("y", "r\"s")]), 3.0);
        assert_eq!(metrics.sum("b", &[]), 1.0);
        assert_eq!(metrics.sum("c", &[]), 0.0);
    }
}
