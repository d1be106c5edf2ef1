//! `docs/config.md` says what the programs take: it is written from their own help and from the names in `weft_proto`,
//! and compared here.

use std::{fmt::Write, process::Command};

use weft_proto::{limits, names};
use weft_tests::{binaries, repository};

const INTRODUCTION: &str = "\
# Configuration
Written from the code: `make bless` writes it anew. What a user sets is a label or an annotation; the rest is set by `weft install` and by the webhook.
";

/// The programs, and what each help is of.
const PROGRAMS: [(&str, &[&str], &str); 7] = [
    ("weft", &["install"], "what is installed on a cluster"),
    ("weft", &["uninstall"], "what is taken away again"),
    ("weft", &["check"], "what is looked at"),
    ("weft-controller", &[], "Deployments weft-routes and weft-identity"),
    ("weft-injector", &["serve"], "Deployment weft-injector"),
    ("weft-proxy", &[], "the sidecar"),
    ("weft-init", &[], "the init container that sets the redirects"),
];

/// A table of names and their manuals.
fn table(text: &mut String, head: &str, rows: impl IntoIterator<Item = (String, String)>) {
    writeln!(text, "\n| {head} | what it says |\n|---|---|").expect("a String takes everything");
    for (name, manual) in rows {
        let manual = manual
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace('|', "\\|");
        writeln!(text, "| `{name}` | {manual} |").expect("a String takes everything");
    }
}

fn help(program: &str, words: &[&str]) -> String {
    let path = binaries().expect("the programs are built").join(program);
    let output = Command::new(&path)
        .args(words)
        .arg("--help")
        // What the environment holds must not show.
        .env_clear()
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        output.status.success(),
        "{program} {words:?} --help: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

#[test]
fn the_page_says_what_the_programs_take() {
    let mut text = INTRODUCTION.to_owned();
    text += "\n## Labels and annotations\n";
    let owned = |(name, manual): (&str, &str)| (name.to_owned(), manual.to_owned());
    table(
        &mut text,
        "label or annotation",
        names::label::all().into_iter().map(owned),
    );
    text += "\n## Environment of the proxy\nThe webhook sets it.\n";
    table(&mut text, "variable", names::env::all().into_iter().map(owned));
    text += "\n## Programs\n";
    for (program, words, about) in PROGRAMS {
        let name = [&[program], words].concat().join(" ");
        write!(text, "\n### {name}: {about}\n\n").expect("a String takes everything");
        for line in help(program, words).trim_end().lines() {
            text.push_str(format!("    {line}").trim_end());
            text.push('\n');
        }
    }
    text += "\n## Limits\nEvery queue, buffer and time that outsiders can fill or stretch; `weft limits` prints them too.\n";
    let limits = limits::all().into_iter();
    table(
        &mut text,
        "limit",
        limits.map(|(name, value, about)| (format!("{name} = {value}"), about.to_owned())),
    );
    let page = repository().join("docs/config.md");
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&page, &text).expect("docs/ can be written");
    }
    let stands = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        stands == text,
        "docs/config.md is not what the programs say: make bless"
    );
}
