//! The proof: it passes when connections land on the proxy, waits for one that starts, and fails with a reason.

use crate::harness::{Listeners, Pod, Shape, everywhere, inbound, init, outbound};
use rstest::rstest;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use weft_init::{
    apply,
    backend::{Kind, Tool},
    check::{self, Target},
    config::Arguments,
    plan::Family,
    pod,
};

const PROVEN: [&str; 2] = [
    "IPv4: proven: outbound and inbound",
    "IPv6: proven: outbound and inbound",
];

fn assert_proven(said: &str) {
    assert!(PROVEN.iter().all(|proven| said.contains(proven)), "{said}");
}

/// Links and routes, which must be after the proof as they were before.
fn network(pod: &Pod) -> String {
    let show = [["link", "show"], ["addr", "show"], ["route", "show"]];
    let v6 = pod.pod.must("ip", &["-6", "route", "show"]);
    show.map(|what| pod.pod.must("ip", &what)).concat() + &v6
}

#[rstest]
fn t36_the_proof_passes_through_a_running_proxy_and_leaves_no_trace(
    #[values(Kind::Nft, Kind::Legacy)] backend: Kind,
    #[values(true, false)] default_routes: bool,
) {
    let pod = Pod::new(Shape {
        backend,
        default_routes,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    let before = network(&pod);
    assert_proven(&pod.init_ok(&[]));
    assert_eq!(network(&pod), before);
    // Again, as a restarted init container would.
    assert_proven(&pod.init_ok(&[]));
}

#[test]
fn the_proof_needs_no_more_than_the_two_capabilities_of_the_init_container() {
    let pod = Pod::new(Shape {
        default_routes: false,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    let output = pod.pod.run(|| {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set=-all,+net_admin,+net_raw", "--no-new-privs"])
            .arg(init().get_program());
        command.output().expect("setpriv is part of util-linux")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_proven(&said);
}

#[test]
fn a_default_route_that_leads_nowhere_does_not_hinder_the_proof() {
    let pod = Pod::new(Shape {
        default_routes: false,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    pod.pod.must("ip", &["route", "add", "unreachable", "default"]);
    pod.pod.must("ip", &["-6", "route", "add", "prohibit", "default"]);
    assert_proven(&pod.init_ok(&[]));
}

#[test]
fn a_strict_reverse_path_filter_does_not_hinder_the_proof() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    // A thread's /proc/sys/net is that of its namespace.
    for interface in ["all", "default"] {
        pod.pod
            .run(|| fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "1").unwrap());
    }
    assert_proven(&pod.init_ok(&[]));
}

#[test]
fn exceptions_that_cover_the_proof_do_not_hinder_it() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    assert_proven(&pod.init_ok(&["--skip-uids=0"]));
    assert_proven(&pod.init_ok(&["--skip-outbound-cidrs=0.0.0.0/0,::/0"]));
    assert_proven(&pod.init_ok(&["--skip-outbound-ports=2717", "--skip-inbound-ports=2717"]));
    let said = pod.init_ok(&["--skip-inbound-ports=1-65535"]);
    assert!(
        said.contains("inbound by its rules alone: every inbound port is skipped"),
        "{said}"
    );
}

#[test]
fn a_proxy_that_is_still_starting_is_waited_for() {
    let pod = Pod::new(Shape::default());
    let mut child = pod.pod.run(|| init().stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(child.stderr.take().unwrap());
    // Both families' rules are set: from here on it tries.
    let mut lines = String::new();
    for _ in Family::BOTH {
        said.read_line(&mut lines).unwrap();
    }
    assert_eq!(lines.matches("rules set").count(), 2, "{lines}");
    let _proxy = Listeners::proxy(&pod.pod);
    said.read_to_string(&mut lines).unwrap();
    assert!(child.wait().unwrap().success(), "{lines}");
    assert_proven(&lines);
}

#[test]
fn without_a_proxy_it_fails_with_the_reason_and_the_rules_stay() {
    let pod = Pod::new(Shape::default());
    let start = Instant::now();
    let said = pod.init_fails(&["--check-seconds=1"]);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "bounded: {:?}",
        start.elapsed()
    );
    for part in [
        "IPv4: outbound connections do not land on the proxy: dialled 192.0.2.27:2717",
        "IPv6: outbound connections do not land on the proxy: dialled [2001:db8::27]:2717",
        "connection refused. The redirect works, but nothing listens on port 15001",
        "container weft-proxy",
        "The rules stay in place",
    ] {
        assert!(said.contains(part), "'{part}' is missing in: {said}");
    }
    assert!(pod.pod.saved("iptables-nft-save").contains("-j WEFT_OUTBOUND"));
    assert!(pod.pod.saved("ip6tables-nft-save").contains("-j WEFT_OUTBOUND"));
}

#[test]
fn a_proxy_without_its_inbound_side_is_noticed() {
    let pod = Pod::new(Shape::default());
    let _half = Listeners::saying(&pod.pod, &outbound(), "weft outbound\n");
    let said = pod.init_fails(&["--check-seconds=1"]);
    for part in [
        "IPv4: inbound connections do not land",
        "IPv6: inbound connections",
        "nothing listens on port 15006",
    ] {
        assert!(said.contains(part), "'{part}' is missing in: {said}");
    }
}

#[test]
fn somebody_else_on_the_proxys_port_is_not_taken_for_it() {
    let pod = Pod::new(Shape::default());
    let _other = Listeners::saying(&pod.pod, &[outbound(), inbound()].concat(), "SSH-2.0-OpenSSH\r\n");
    let said = pod.init_fails(&["--check-seconds=1"]);
    assert!(
        said.contains(r"'SSH-2.0-OpenSS' answered") || said.contains("'SSH-2.0-OpenSSH' answered"),
        "{said}"
    );
    assert!(said.contains("did not answer as weft does"), "{said}");
}

#[rstest]
#[case::outbound("OUTPUT", "outbound connections do not land on the proxy")]
#[case::inbound("PREROUTING", "inbound connections do not land on the proxy")]
fn rules_that_are_not_used_are_noticed(#[case] hook: &str, #[case] expected: &str) {
    // As on a node whose kernel does not read the table: the chains are there, but nothing enters them.
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    pod.init_ok(&["--no-check"]);
    for program in ["iptables-nft", "ip6tables-nft"] {
        pod.pod.must(program, &["-t", "nat", "-D", hook, "1"]);
    }
    let redirects = <Arguments as clap::Parser>::parse_from(["weft-init"])
        .resolve()
        .unwrap()
        .redirects;
    for family in Family::BOTH {
        let unproven = pod.pod.run(|| {
            let addresses = pod::addresses().unwrap();
            let target = Target {
                redirects: &redirects,
                tool: Tool::named(family, Kind::Nft),
                addresses: &addresses,
            };
            check::prove(target, Instant::now(), Instant::now() + Duration::from_secs(1))
                .unwrap_err()
                .to_string()
        });
        assert!(
            unproven.contains(expected) && unproven.contains("has counted nothing"),
            "{unproven}"
        );
    }
}

#[test]
fn an_application_on_the_proofs_port_does_not_pretend_to_be_the_proxy() {
    let pod = Pod::new(Shape::default());
    let _half = Listeners::saying(&pod.pod, &outbound(), "weft outbound\n");
    let _application = Listeners::saying(&pod.pod, &everywhere(2717), "application");
    let said = pod.init_fails(&["--check-seconds=1"]);
    assert!(said.contains("IPv4: inbound connections do not land"), "{said}");
}

#[test]
fn t34_a_family_without_addresses_is_said_and_not_missed() {
    let pod = Pod::new(Shape {
        v6: false,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    // eth0 still has its link-local address: nobody outside of the link can use it.
    let said = pod.init_ok(&[]);
    assert!(said.contains(PROVEN[0]), "{said}");
    assert!(
        said.contains("IPv6: nothing to prove: the pod has no IPv6 address"),
        "{said}"
    );
    assert!(
        pod.pod.saved("ip6tables-nft-save").contains("-j WEFT_OUTBOUND"),
        "the rules are set all the same"
    );
}

/// Runs weft-init with programs of this directory only, after `prepare` has put its own there.
fn with_programs(pod: &Pod, names: &[&str], prepare: impl Fn(&Path)) -> Output {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        let found = ["/usr/sbin", "/sbin", "/usr/bin"]
            .map(|directory| Path::new(directory).join(name))
            .into_iter()
            .find(|path| path.exists());
        symlink(
            found.unwrap_or_else(|| panic!("{name} is not installed")),
            directory.path().join(name),
        )
        .unwrap();
    }
    prepare(directory.path());
    pod.pod.run(|| {
        init()
            .args(["--check-seconds=1"])
            .env("PATH", directory.path())
            .output()
            .unwrap()
    })
}

const V4_PROGRAMS: [&str; 6] = [
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
];

/// What ip6tables says on a node without the module.
fn without_v6_nat(directory: &Path) {
    for name in ["ip6tables-nft", "ip6tables-legacy"] {
        for (suffix, code, says) in [
            ("-save", 0, ""),
            (
                "",
                3,
                "can't initialize ip6tables table `nat': Table does not exist (do you need to insmod?)",
            ),
            ("-restore", 3, "unable to initialize table 'nat'"),
        ] {
            let path = directory.join(format!("{name}{suffix}"));
            fs::write(
                &path,
                format!("#!/bin/sh\necho \"{}\" >&2\nexit {code}\n", says.replace('`', "\\`")),
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

#[test]
fn t34_a_node_without_ipv6_nat_is_enough_for_a_pod_without_ipv6() {
    let pod = Pod::new(Shape {
        v6: false,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    let output = with_programs(&pod, &V4_PROGRAMS, without_v6_nat);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(PROVEN[0]), "{said}");
    assert!(
        said.contains("IPv6: no rules, and none needed without an address") && said.contains("Table does not exist"),
        "{said}"
    );
}

#[test]
fn t34_a_node_without_ipv6_nat_fails_a_pod_that_has_ipv6() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    let output = with_programs(&pod, &V4_PROGRAMS, without_v6_nat);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "IPv6: ",
        "Table does not exist",
        "fd99::2 (eth0)",
        "load the kernel's modules for IPv6 nat on the node",
    ] {
        assert!(said.contains(part), "'{part}' is missing in: {said}");
    }
    assert!(
        pod.pod.saved("iptables-nft-save").contains("-j WEFT_OUTBOUND"),
        "IPv4 stays closed"
    );
}

#[test]
fn an_image_with_one_backend_is_enough_and_one_with_none_says_so() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    let legacy = V4_PROGRAMS[3..]
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.replace("iptables", "ip6tables")]);
    let legacy: Vec<String> = legacy.collect();
    let output = with_programs(&pod, &legacy.iter().map(String::as_str).collect::<Vec<_>>(), |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("rules set with iptables-legacy (nft is not there)"),
        "{said}"
    );
    assert_proven(&said);
    pod.init_ok(&["--undo"]);

    let plain = [
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
    ];
    let output = with_programs(&pod, &plain, |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("rules set with iptables ("),
        "{said}"
    );
    assert_proven(&said);
    pod.init_ok(&["--undo"]);

    let output = with_programs(&pod, &[], |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("IPv4: no iptables for IPv4 works here: iptables-nft-save is not installed"),
        "{said}"
    );
}

#[test]
fn a_backend_that_cannot_set_the_rules_gives_way_to_the_other() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    let names: Vec<String> = V4_PROGRAMS
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.replace("iptables", "ip6tables")])
        .collect();
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !name.ends_with("nft-restore"))
        .collect();
    let output = with_programs(&pod, &names, |directory| {
        for name in ["iptables-nft-restore", "ip6tables-nft-restore"] {
            fs::write(
                directory.join(name),
                "#!/bin/sh\necho 'RULE_APPEND failed (No such file or directory)' >&2\nexit 4\n",
            )
            .unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("rules set with iptables-legacy (iptables-nft did not work)"),
        "{said}"
    );
    assert_proven(&said);
}

#[test]
fn a_read_only_root_does_not_hinder_the_legacy_backend() {
    let pod = Pod::new(Shape {
        backend: Kind::Legacy,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    let script = "mount -t tmpfs -o ro none /run && mount -t tmpfs -o ro none /tmp && exec \"$0\"";
    let output = pod.pod.run(|| {
        Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(init().get_program())
            .output()
            .unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("rules set with iptables-legacy"),
        "{said}"
    );
    assert_proven(&said);
}

#[test]
fn undo_after_a_failed_proof_leaves_nothing() {
    let pod = Pod::new(Shape::default());
    pod.init_fails(&["--check-seconds=1"]);
    pod.init_ok(&["--undo"]);
    for family in Family::BOTH {
        assert!(
            pod.pod
                .run(|| apply::list(Tool::named(family, Kind::Nft)).unwrap())
                .is_nothing()
        );
    }
}
