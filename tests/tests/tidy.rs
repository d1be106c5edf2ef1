//! Checks on the repository itself: what a reviewer would otherwise have to look for each time.

use std::{collections::BTreeSet, path::Path, process::Command};

use weft_tests::repository;

/// Files that git tracks, with their text.
fn tracked(ending: &str) -> Vec<(String, String)> {
    let list = Command::new("git")
        .arg("-C")
        .arg(repository())
        .args(["ls-files", "-z"])
        .output()
        .expect("git is there");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let names = String::from_utf8(list.stdout).expect("names are UTF-8");
    let names = names.split('\0').filter(|name| name.ends_with(ending));
    // A file that is deleted and not committed yet is none.
    let text = |name: &str| std::fs::read_to_string(repository().join(name)).ok();
    names.filter_map(|name| Some((name.to_owned(), text(name)?))).collect()
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.starts_with("tests/") || name.contains("/rpc/")
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let long: Vec<_> = tracked(".rs")
        .into_iter()
        .map(|(name, text)| (text.lines().count(), name))
        .filter(|(lines, name)| *lines > 700 && !is_test(name))
        .collect();
    assert!(long.is_empty(), "look for the second thing in these: {long:?}");
}

#[test]
fn every_module_says_what_it_does() {
    let mute: Vec<_> = tracked(".rs")
        .into_iter()
        .filter(|(name, text)| {
            !text.contains("@generated") && !name.ends_with("tests.rs") && !text.trim_start().starts_with("//!")
        })
        .map(|(name, _)| name)
        .collect();
    assert!(mute.is_empty(), "no word at the top of {mute:?}");
}

#[test]
fn nothing_depends_on_one_machine() {
    // Written in pieces, so that this file does not find itself.
    let words = [
        ["/wo", "rk/"].concat(),
        ["index.cra", "tes.io"].concat(),
        ["proxy.gol", "ang.org"].concat(),
        ["/ro", "ot/"].concat(),
    ];
    let mut found = Vec::new();
    for (name, text) in tracked("")
        .into_iter()
        .filter(|(name, _)| !name.ends_with("Cargo.lock"))
    {
        found.extend(
            words
                .iter()
                .filter(|word| text.contains(word.as_str()))
                .map(|word| format!("{name}: {word}")),
        );
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn rows_of_the_threat_model_have_tests_by_their_ids() {
    let mut ids = BTreeSet::new();
    for (_, text) in tracked(".rs") {
        for part in text.split("fn t").skip(1) {
            if let Some(number) = part.get(..2).and_then(|id| id.parse::<u8>().ok())
                && part[2..].starts_with('_')
            {
                ids.insert(number);
            }
        }
    }
    let wanted = (1..=13).chain([21, 22]).chain(30..=36).chain([38, 50, 53, 56, 57]);
    let missing: Vec<_> = wanted.filter(|id| !ids.contains(id)).collect();
    assert!(missing.is_empty(), "no test for T{missing:?}");
}

#[test]
fn every_limit_is_used() {
    let sources = tracked(".rs");
    let limits = "proto/src/limits.rs";
    let (_, table) = sources
        .iter()
        .find(|(name, _)| name == limits)
        .expect("the limits have a file");
    let names = table
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(": ").map(|(name, _)| name));
    let names = names.filter(|name| {
        name.len() > 3
            && name
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_uppercase() || byte.is_ascii_digit())
    });
    let others: String = sources
        .iter()
        .filter(|(name, _)| name != limits)
        .map(|(_, text)| text.as_str())
        .collect();
    let idle: Vec<_> = names.filter(|name| !others.contains(name)).collect();
    assert!(idle.is_empty(), "these limits bound nothing: {idle:?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in tracked(".md") {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            let file = repository().join(Path::new(&name).parent().unwrap_or(Path::new("")));
            if !target.is_empty() && !target.contains("://") && !file.join(target).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}
