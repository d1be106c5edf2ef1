//! The program as users start it: its flags, its words, its end.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

fn controller() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-controller"));
    command
        .env_remove("WEFT_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn wrong_flags_are_all_told_at_once() {
    let output = controller()
        .args(["--role", "king", "--admin-listen", "x", "--cluster-cidrs", "10/8"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in [
        "--role: 'king'",
        "--admin-listen: 'x'",
        "--cluster-cidrs: '10/8'",
        "--help",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(path("objects")).unwrap();
    fs::write(path("key"), "not a key").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = controller();
        let output = command
            .args(["--discovery-listen", "127.0.0.1:0", "--identity-listen", "127.0.0.1:0"])
            .args(arguments);
        let output = output.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let (objects, ca, key, none) = (path("objects"), path("ca"), path("key"), path("none"));
    let text = run(&["--from-dir", &objects, "--ca-dir", &ca, "--sandbox-token-key", &key]);
    assert!(
        text.contains("--ca-dir") && text.contains("ca.crt cannot be read"),
        "{text}"
    );
    let text = run(&[
        "--from-dir",
        &objects,
        "--ca-dir",
        &ca,
        "--create-ca",
        "--sandbox-token-key",
        &key,
    ]);
    assert!(
        text.contains("--sandbox-token-key") && text.contains("EC public key"),
        "{text}"
    );
    let public = rcgen::KeyPair::generate().unwrap().public_key_pem();
    fs::write(&key, public).unwrap();
    let text = run(&["--from-dir", &none, "--ca-dir", &ca, "--sandbox-token-key", &key]);
    assert!(
        text.contains("--from-dir") && text.contains("cannot be listed"),
        "{text}"
    );
}

#[test]
fn it_ends_cleanly_at_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(path("objects")).unwrap();
    fs::write(path("key"), rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    let mut child = controller()
        .args([
            "--from-dir",
            &path("objects"),
            "--ca-dir",
            &path("ca"),
            "--create-ca",
            "--sandbox-token-key",
            &path("key"),
        ])
        .args([
            "--discovery-listen",
            "127.0.0.1:0",
            "--identity-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains("listening")), "it says where it listens");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(lines.any(|line| line.contains("ended")));
}
