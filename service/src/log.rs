//! The program's own log: to stderr, as text for people or JSON for machines, with a filter that can be changed live.
//!
//! The access log is another thing and goes another way.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};
use weft_proto::names::env;

/// What is logged when nothing else is said. `kube_client` warns of each kind that a cluster does not have, again and again.
pub const DEFAULT_FILTER: &str = "info,kube_client=error";

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes the filter of the running program.
#[derive(Clone)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

/// Why there is no log, or no change of its filter.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "the log filter '{filter}' (from {}) cannot be read: {why}; write, for example, info,weft_proxy=debug",
        env::LOG
    )]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// The parser's words.
        why: String,
    },
    /// Someone has set up a log before.
    #[error("the log was set up twice")]
    Twice,
}

/// Sets the log up, with the filter of the environment: JSON unless stderr is a terminal.
pub fn start() -> Result<Filter, LogError> {
    let filter = std::env::var(env::LOG).ok().filter(|text| !text.trim().is_empty());
    let format = if std::io::stderr().is_terminal() {
        Format::Text
    } else {
        Format::Json
    };
    start_with(filter.as_deref().unwrap_or(DEFAULT_FILTER), format)
}

/// Sets the log up.
pub fn start_with(filter: &str, format: Format) -> Result<Filter, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let done = match format {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Text => registry
            .with(lines.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
    };
    done.map_err(|_| LogError::Twice)?;
    Ok(Filter(handle))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|error| LogError::Filter {
        filter: filter.into(),
        why: error.to_string(),
    })
}

impl Filter {
    /// Replaces the filter.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        self.0.reload(parsed).map_err(|error| LogError::Filter {
            filter: filter.into(),
            why: error.to_string(),
        })?;
        tracing::info!(filter, "log filter changed");
        Ok(())
    }

    /// The filter in force.
    pub fn current(&self) -> String {
        self.0.with_current(|filter| filter.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_and_can_be_changed() {
        let error = start_with("info,weft=loud", Format::Json).err().unwrap().to_string();
        assert!(
            error.contains("info,weft=loud") && error.contains("WEFT_LOG"),
            "{error}"
        );
        let filter = start_with("warn", Format::Json).unwrap();
        assert_eq!(filter.current(), "warn");
        filter.set("info,weft_service=debug").unwrap();
        assert!(filter.current().contains("weft_service=debug"));
        assert!(filter.set("=,=").is_err());
    }
}
