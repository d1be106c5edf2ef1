//! Arguments in, rules out: the whole text of both families against files. `UPDATE_GOLDEN=1` writes them anew.

use rstest::rstest;
use std::{fs, path::PathBuf, process::Command};

#[rstest]
#[case::everything("everything", &[])]
#[case::exceptions("exceptions", &[
    "--skip-inbound-ports=22,8000-8010",
    "--skip-outbound-ports=25,3300-3310",
    "--skip-outbound-cidrs=10.1.2.3/8,192.168.7.7,fd00:1::/32",
    "--skip-uids=1000,2000-2010",
])]
#[case::exceptions_that_cover_the_check("check-covered", &[
    "--inbound-port=16006", "--outbound-port=16001", "--proxy-uid=4000", "--skip-outbound-cidrs=0.0.0.0/0,::/0",
])]
fn dry_run_prints_the_rules_of_both_families(#[case] name: &str, #[case] arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-init"))
        .arg("--dry-run")
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let written = String::from_utf8(output.stdout).unwrap();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.rules"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &written).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == expected,
        "{} differs from what is rendered (UPDATE_GOLDEN=1 writes it anew):\n{written}",
        file.display()
    );
}

#[test]
fn mistakes_are_printed_together_with_exit_code_1() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-init"))
        .args(["--skip-inbound-ports=80,abc", "--skip-uids=me"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "weft-init: 2 of the arguments are wrong:
weft-init:   --skip-inbound-ports: 'abc' is not a port from 1 to 65535 or a range such as 8000-8010
weft-init:   --skip-uids: 'me' is not a numeric user id or a range such as 2000-2010
"
    );
}

#[test]
fn an_unknown_argument_ends_with_exit_code_1() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-init"))
        .arg("--exclude-interfaces=eth0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--exclude-interfaces")
    );
}
