//! One thing that was looked at, and how it is.

use weft_sandbox::check::Finding as OfSandbox;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, or cannot be told; somebody should look.
    Warn,
    /// Wrong.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What.
    pub what: String,
    /// How it is in words; what is wrong, and the fix. Several lines where there are several things.
    pub text: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, what, text)
    }

    /// Somebody should look.
    pub fn warn(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Warn, what, text)
    }

    /// Wrong.
    pub fn fail(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Fail, what, text)
    }

    fn new(level: Level, what: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            level,
            what: what.into(),
            text: text.into(),
        }
    }
}

impl From<OfSandbox> for Finding {
    fn from(finding: OfSandbox) -> Self {
        match finding.result {
            Ok(text) => Self::ok(finding.what, text),
            Err(text) => Self::fail(finding.what, text),
        }
    }
}

/// The findings as text, a line each; further lines of one are indented.
pub fn render(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let word = match finding.level {
            Level::Ok => "ok   ",
            Level::Warn => "warn ",
            Level::Fail => "FAIL ",
        };
        let text = finding.text.trim_end().replace('\n', "\n      ");
        format!("{word} {}: {text}\n", finding.what)
    };
    findings.iter().map(line).collect()
}

/// 1 when something is wrong, else 0.
pub fn exit_code(findings: &[Finding]) -> i32 {
    i32::from(findings.iter().any(|finding| finding.level == Level::Fail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_a_wrong_one_is_an_exit_code() {
        let mut findings = vec![Finding::ok("a", "fine"), Finding::warn("b", "x:\none\ntwo\n")];
        assert_eq!(render(&findings), "ok    a: fine\nwarn  b: x:\n      one\n      two\n");
        assert_eq!(exit_code(&findings), 0);
        findings.push(Finding::fail("c", "broken"));
        assert_eq!(exit_code(&findings), 1);
        assert!(render(&findings).ends_with("FAIL  c: broken\n"));
    }
}
