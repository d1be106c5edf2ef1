//! What counts the conformance suite's outcome does not call a silence a success, and the page it wrote fits the official reports.

use std::{fs, path::Path, process::Command};

use weft_tests::repository;

/// A run's output as the suite prints it: (test, outcome, what it said).
fn log(tests: &[(&str, &str, &str)], end: &str) -> String {
    let mut text = "=== RUN   TestConformance\n    conformance.go:114: Running conformance tests with:\n".to_owned();
    for (name, outcome, said) in tests {
        text += &format!("=== RUN   TestConformance/{name}\n=== RUN   TestConformance/{name}/a_part_of_it\n{said}\n");
        if !outcome.is_empty() {
            text += &format!("    --- {outcome}: TestConformance/{name} (1.25s)\n");
            text += &format!("        --- {outcome}: TestConformance/{name}/a_part_of_it (0.50s)\n");
        }
    }
    text + end
}

fn skip(name: &str, feature: &str) -> String {
    format!("    conformance.go:60: Skipping {name}: suite does not support {feature}")
}

/// What the reader says of these runs, and whether it is content.
fn told(runs: &[(&str, String)]) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    for (run, text) in runs {
        fs::write(folder.path().join(format!("{run}.log")), text).expect("it can be written");
    }
    let ran = Command::new(repository().join("tests/conformance/report"))
        .arg(folder.path())
        .args(runs.iter().map(|(run, _)| run))
        .output()
        .expect("the reader runs");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    (ran.status.success(), text)
}

#[test]
fn a_test_counts_where_it_ran_and_udp_alone_may_be_left_out() {
    let mesh = log(
        &[
            ("MeshBasic", "PASS", ""),
            (
                "GatewayModifyListeners",
                "SKIP",
                &skip("GatewayModifyListeners", "Gateway"),
            ),
            ("UDPRoute", "SKIP", &skip("UDPRoute", "UDPRoute")),
        ],
        "PASS\n",
    );
    let gateway = |udp: &str| {
        log(
            &[
                ("MeshBasic", "SKIP", &skip("MeshBasic", "Mesh")),
                ("GatewayModifyListeners", "PASS", ""),
                ("UDPRoute", "SKIP", &skip("UDPRoute", udp)),
            ],
            "PASS\n",
        )
    };
    let (content, text) = told(&[("mesh", mesh.clone()), ("gateway", gateway("UDPRoute"))]);
    assert!(content, "{text}");
    assert!(
        text.contains("2 tests ran, 2 passed, 0 failed, 1 skipped (1 for UDPRoute)"),
        "{text}"
    );
    let (content, text) = told(&[("mesh", mesh.clone())]);
    assert!(content, "one run alone says nothing of the other's: {text}");

    let (content, text) = told(&[
        ("mesh", mesh.replace("support UDPRoute", "support ListenerSet")),
        ("gateway", gateway("ListenerSet")),
    ]);
    assert!(!content, "a feature that is not claimed is a failure: {text}");
    assert!(text.contains("UDPRoute did not run"), "{text}");
}

#[test]
fn whatever_is_not_a_whole_run_is_a_failure() {
    let passed = [("MeshBasic", "PASS", ""), ("MeshPorts", "PASS", "")];
    assert!(told(&[("mesh", log(&passed, "PASS\n"))]).0);
    for (what, text) in [
        (
            "a test failed",
            log(&[("MeshBasic", "PASS", ""), ("MeshPorts", "FAIL", "")], "FAIL\n"),
        ),
        (
            "a test has no outcome",
            log(&[("MeshBasic", "PASS", ""), ("MeshPorts", "", "")], "FAIL\n"),
        ),
        ("it was cut off", log(&passed, "")),
        (
            "it ran out of time",
            log(&passed, "panic: test timed out after 1h0m0s\nFAIL\n"),
        ),
        (
            "the set-up failed",
            log(&passed, "        \tError:      \tnot ready\nFAIL\n"),
        ),
        ("nothing ran", "PASS\n".to_owned()),
        ("there is nothing", String::new()),
    ] {
        let (content, said) = told(&[("mesh", text)]);
        assert!(!content, "{what}: {said}");
    }
}

/// The sum behind a name in a report's statistics, over both kinds of tests of its profiles.
fn sums(report: &str, name: &str) -> Vec<usize> {
    let lines = report.lines().filter_map(|line| line.trim().strip_prefix(name));
    lines.map(|number| number.trim().parse().expect("a number")).collect()
}

#[test]
fn the_page_says_what_the_reports_say() {
    let docs = repository().join("docs");
    let page = fs::read_to_string(docs.join("conformance.md")).expect("there is a page");
    let count = |what: &str| -> usize {
        let row = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("| {what} | ")))
            .expect(what);
        row.trim_end_matches(" |").parse().expect("a number")
    };
    assert_eq!(count("passed") + count("failed"), count("ran"));
    assert_eq!(count("ran") + count("skipped"), count("in the suite"));
    let table = page.split_once("## Every test").expect("a table of all").1;
    let rows = table.lines().filter(|line| line.starts_with("| ")).count() - 1;
    assert_eq!(rows, count("ran"));
    for run in ["mesh", "gateway"] {
        let report = fs::read_to_string(docs.join(Path::new("conformance").join(format!("{run}.yaml"))));
        let report = report.expect("the report lies beside the page");
        for passed in sums(&report, "Passed:") {
            assert!(page.contains(&format!("{passed} passed")), "{run}: {passed}");
        }
        let failed: usize = sums(&report, "Failed:").iter().sum();
        assert!(failed == 0 || count("failed") > 0, "{run}: {failed} failed");
    }
}
