//! What every program tells of its own process: which one it is, its memory and its time on the CPU.
//!
//! Read from `/proc` when somebody asks for the metrics, and never otherwise. A figure that cannot be read is left out.

use std::{
    fmt::Write as _,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// Every family: name, type, what it says.
pub const FAMILIES: &[(&str, &str, &str)] = &[
    (
        "weft_build_info",
        "gauge",
        "1, with the program's name and version as labels.",
    ),
    (
        "weft_process_resident_memory_bytes",
        "gauge",
        "Memory of the process that is in RAM.",
    ),
    (
        "weft_process_cpu_seconds_total",
        "counter",
        "Time that the process had on a CPU, its own and the kernel's for it.",
    ),
    (
        "weft_process_threads",
        "gauge",
        "Threads of the process; what it holds beside its workers shows here.",
    ),
    (
        "weft_process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
    ),
];

/// Ticks in a second in `/proc/self/stat`: 100 on every architecture for which Rust has a Linux target of the first tier.
const TICKS: f64 = 100.0;

/// When this was first asked, in whole seconds since 1970: ask early.
pub fn started() -> f64 {
    static FIRST: OnceLock<f64> = OnceLock::new();
    *FIRST.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() as f64
    })
}

/// The figures of this process, in Prometheus' text format.
pub fn render() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let build = format!(
        "{{program=\"{}\",version=\"{}\"}}",
        program(),
        env!("CARGO_PKG_VERSION")
    );
    let values = [
        (build, Some(1.0)),
        (
            String::new(),
            field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0),
        ),
        (String::new(), cpu_seconds(&stat)),
        (String::new(), field(&status, "Threads:")),
        (String::new(), Some(started())),
    ];
    let mut text = String::new();
    for ((name, kind, help), (labels, value)) in FAMILIES.iter().zip(values) {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}"
            );
        }
    }
    text
}

/// The name of the program's file, the same in every image.
fn program() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let file = std::env::current_exe().ok();
        let name = file.as_deref().and_then(|path| path.file_stem()?.to_str());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        name.filter(|name| name.bytes().all(plain))
            .unwrap_or("unknown")
            .to_owned()
    })
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `/proc/self/stat`; the second, the name, may hold spaces and brackets (proc(5)).
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_no_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(field("VmRSS:\t    1234 kB\n", "VmRSS:"), Some(1234.0));
    }

    #[test]
    fn this_process_tells_every_figure() {
        let text = render();
        for (name, kind, _) in FAMILIES {
            assert!(
                text.contains(&format!("# TYPE {name} {kind}\n{name}")),
                "{name} is missing\n{text}"
            );
        }
    }
}
