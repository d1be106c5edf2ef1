//! RELIABILITY T36: a transaction that fails or is killed leaves nothing or everything, in each family.

use crate::harness::{Pod, Shape, init};
use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::waitpid,
    },
    unistd::Pid,
};
use rstest::rstest;
use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    process::Stdio,
    thread,
    time::Instant,
};
use weft_init::{
    apply,
    backend::{Kind, Tool},
    config::Arguments,
    plan::{Family, Plan},
    render::{self, Present},
};

fn plan(family: Family, arguments: &[&str]) -> Plan {
    let arguments = <Arguments as clap::Parser>::try_parse_from([&["weft-init"], arguments].concat()).unwrap();
    Plan::new(&arguments.resolve().unwrap().redirects, family, 0)
}

#[rstest]
fn t36_a_transaction_with_one_bad_rule_changes_nothing(
    #[values(Kind::Nft, Kind::Legacy)] kind: Kind,
    #[values(Family::V4, Family::V6)] family: Family,
    #[values("-A WEFT_OUTBOUND -p tcp -j NOSUCHCHAIN\nCOMMIT\n", "-D OUTPUT 17\nCOMMIT\n", "")] ending: &str,
) {
    let pod = Pod::new(Shape {
        backend: kind,
        ..Shape::default()
    });
    let tool = Tool::named(family, kind);
    let install = |arguments: &[&str], ending: &str| {
        pod.pod.run(|| {
            let plan = plan(family, arguments);
            let text = render::install(&plan, &apply::list(tool).unwrap());
            apply::commit(tool, &(text.strip_suffix("COMMIT\n").unwrap().to_owned() + ending))
        })
    };
    let error = install(&[], ending).unwrap_err();
    assert!(error.to_string().contains("nothing was changed: "), "{error}");
    let present = || pod.pod.run(|| apply::list(tool).unwrap());
    assert_eq!(present(), Present::default(), "from nothing");

    install(&["--skip-uids=7"], "COMMIT\n").unwrap();
    let before = pod.pod.saved(&format!("{tool}-save"));
    install(&["--skip-outbound-ports=25,26,27"], ending).unwrap_err();
    assert_eq!(
        pod.pod.saved(&format!("{tool}-save")),
        before,
        "from the rules of an earlier run"
    );
}

#[rstest]
#[case::nft(Kind::Nft)]
#[case::legacy(Kind::Legacy)]
fn t36_killed_at_any_point_each_family_has_no_rules_or_all(#[case] kind: Kind) {
    const POINTS: u32 = 100;
    let pod = Pod::new(Shape {
        backend: kind,
        ..Shape::default()
    });
    // Many rules, so that the transaction itself takes its time.
    let ports = format!(
        "--skip-outbound-ports={}",
        (0..400)
            .map(|n| (10_000 + 2 * n).to_string())
            .collect::<Vec<_>>()
            .join(",")
    );
    let tools = Family::BOTH.map(|family| Tool::named(family, kind));
    let plans = Family::BOTH.map(|family| plan(family, &[&ports]));
    let spawn = || {
        // A group of its own, so that the kill takes the programs that it started, too.
        pod.pod.run(|| {
            let mut command = init();
            command
                .args([&ports, "--no-check"])
                .process_group(0)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().unwrap()
        })
    };
    let start = Instant::now();
    assert!(spawn().wait().unwrap().success());
    let whole = start.elapsed();

    let (mut killed, mut nothing, mut everything) = (0, 0, 0);
    for point in 0..POINTS {
        for tool in tools {
            pod.pod.run(|| apply::remove_with(tool).unwrap());
        }
        let mut child = spawn();
        // The points are spread over the time of a whole run: this is the moment, not a wait for an event.
        thread::sleep(whole * 5 / 4 * point / POINTS);
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        killed += u32::from(child.wait().unwrap().signal().is_some());
        // What it had started becomes our child, and is gone once it is waited for.
        while waitpid(Pid::from_raw(-group.as_raw()), None).is_ok() {}
        for (tool, plan) in tools.into_iter().zip(&plans) {
            let present = pod.pod.run(|| apply::list(tool).unwrap());
            assert!(
                present.is_nothing() || present.is_complete(plan),
                "{tool} after {point} of {POINTS}: {present:?}"
            );
            if present.is_nothing() {
                nothing += 1
            } else {
                everything += 1
            }
        }
    }
    println!(
        "{kind:?}: {killed} of {POINTS} runs killed in {whole:?} each; families without rules {nothing}, with all {everything}"
    );
    assert!(killed >= POINTS / 4, "only {killed} runs were killed before their end");
    assert!(
        nothing > 0 && everything > 0,
        "the kills did not meet both sides: {nothing} without rules, {everything} with all"
    );
    // And the next start repairs whatever there was.
    assert!(spawn().wait().unwrap().success());
}
