//! Conditions, without their times.

use serde_json::{Value, json};

/// The type of weft's condition that says which rules of a route never decide anything, and which rules win over them.
pub const SHADOWED: &str = "weft.dev/Shadowed";
/// The type of weft's condition that says without which of its parts a route acts.
pub const NOT_SUPPORTED: &str = "weft.dev/NotSupported";

/// Every type of condition that weft sets anywhere.
pub const CONDITIONS: [&str; 10] = [
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "OverlappingTLSConfig",
    "InsecureFrontendValidationMode",
    "PartiallyInvalid",
    "SupportedVersion",
    SHADOWED,
    NOT_SUPPORTED,
];

/// Types whose truth is bad news.
const NEGATIVE: [&str; 6] = [
    "Conflicted",
    "OverlappingTLSConfig",
    "InsecureFrontendValidationMode",
    "PartiallyInvalid",
    SHADOWED,
    NOT_SUPPORTED,
];

/// The most bytes of a message (the CRD's limit).
const MESSAGE: usize = 32768;

/// The conditions of one place, in the order in which they were set.
#[derive(Debug)]
pub struct Conditions {
    generation: i64,
    all: Vec<Value>,
}

impl Conditions {
    /// None yet; all are of this generation.
    pub fn new(generation: i64) -> Self {
        Self {
            generation,
            all: Vec::new(),
        }
    }

    /// Sets one.
    pub fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) -> &mut Self {
        let mut end = message.len().min(MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        self.all.push(json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": &message[..end],
            "observedGeneration": self.generation,
        }));
        self
    }

    /// As they stand in a status.
    pub fn into_value(self) -> Value {
        Value::Array(self.all)
    }
}

/// Finds every condition in a status that is bad news.
pub(super) fn problems(status: &Value, problems: &mut Vec<String>) {
    match status {
        Value::Array(all) => all.iter().for_each(|one| self::problems(one, problems)),
        Value::Object(fields) => {
            let text = |field: &str| fields.get(field).and_then(Value::as_str);
            if let (Some(kind), Some(status), Some(reason)) = (text("type"), text("status"), text("reason")) {
                let good = if NEGATIVE.contains(&kind) { "False" } else { "True" };
                if status != good {
                    let message = text("message").unwrap_or_default();
                    problems.push(format!("{kind} {status}, {reason}: {message}"));
                }
            } else {
                fields.values().for_each(|one| self::problems(one, problems));
            }
        }
        _ => {}
    }
}
