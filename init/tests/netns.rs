//! weft-init in real network namespaces, with real connections: what it redirects, and what it leaves alone.
// Clippy knows the tests by their attribute, but not what they call.
#![allow(clippy::unwrap_used)]

#[path = "netns/harness.rs"]
mod harness;
#[path = "netns/atomic.rs"]
mod atomic;
#[path = "netns/check.rs"]
mod check;

use harness::{BOTH, Listeners, PEER_V4, PEER_V6, POD_V4, POD_V6, Pod, Shape, everywhere};
use rstest::rstest;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use weft_init::backend::Kind;
use weft_proto::names::{PROXY_UID, port};

#[rstest]
#[case::nft(Kind::Nft)]
#[case::legacy(Kind::Legacy)]
fn t34_connections_of_both_families_land_on_the_proxy_with_their_destination(#[case] backend: Kind) {
    let pod = Pod::new(Shape {
        backend,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    pod.init_ok(&["--no-check"]);
    let (used, unused) = if backend == Kind::Nft {
        ("nft", "legacy")
    } else {
        ("legacy", "nft")
    };
    for family in ["iptables", "ip6tables"] {
        assert!(
            pod.pod
                .saved(&format!("{family}-{used}-save"))
                .contains(":WEFT_OUTBOUND"),
            "{family}-{used}"
        );
        assert!(
            !pod.pod.saved(&format!("{family}-{unused}-save")).contains("WEFT"),
            "{family}-{unused}"
        );
    }
    for (own, other) in BOTH {
        assert_eq!(pod.peer.dial(own, 80), format!("inbound {}", SocketAddr::new(own, 80)));
        assert_eq!(
            pod.pod.dial(other, 8080),
            format!("outbound {}", SocketAddr::new(other, 8080))
        );
        // Root is an ordinary user here.
        assert_eq!(
            pod.pod.dial_as(0, other, 8080),
            format!("outbound {}", SocketAddr::new(other, 8080))
        );
        // A self-call goes over the loopback interface, but is the proxy's to hand on.
        assert_eq!(pod.pod.dial(own, 80), format!("outbound {}", SocketAddr::new(own, 80)));
    }
}

#[test]
fn loopback_and_the_proxy_itself_are_left_alone() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    let _application = Listeners::saying(&pod.pod, &everywhere(80), "application");
    let _server = Listeners::saying(&pod.peer, &everywhere(8080), "server");
    pod.init_ok(&["--no-check"]);
    let local: [IpAddr; 5] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 9, 9, 9).into(),
        Ipv6Addr::LOCALHOST.into(),
        // The kernel takes the unspecified address for loopback.
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    for ip in local {
        assert_eq!(pod.pod.dial(ip, 80), "application", "{ip}");
    }
    for (own, other) in BOTH {
        assert_eq!(
            pod.pod.dial_as(PROXY_UID, own, 80),
            "application",
            "inbound hands on to the application"
        );
        assert_eq!(pod.pod.dial_as(PROXY_UID, other, 8080), "server", "outbound's hop");
    }
}

#[test]
fn ports_of_the_proxy_are_reached_as_they_are_dialled() {
    let pod = Pod::new(Shape::default());
    let _proxy = Listeners::proxy(&pod.pod);
    let _metrics = Listeners::saying(&pod.pod, &everywhere(port::METRICS), "metrics");
    pod.init_ok(&["--no-check"]);
    for (own, _) in BOTH {
        assert_eq!(pod.peer.dial(own, port::METRICS), "metrics");
        // Not redirected: by its own port as the original destination, the proxy sees that it was dialled directly.
        assert_eq!(
            pod.peer.dial(own, port::INBOUND),
            format!("inbound {}", SocketAddr::new(own, port::INBOUND))
        );
        assert_eq!(
            pod.peer.dial(own, port::OUTBOUND),
            "refused",
            "outbound listens on loopback only"
        );
    }
}

#[rstest]
#[case::nft(Kind::Nft)]
#[case::legacy(Kind::Legacy)]
fn what_is_skipped_is_left_alone_and_nothing_else(#[case] backend: Kind) {
    let pod = Pod::new(Shape {
        backend,
        ..Shape::default()
    });
    let _proxy = Listeners::proxy(&pod.pod);
    let ports = |ports: &[u16]| ports.iter().flat_map(|&port| everywhere(port)).collect::<Vec<_>>();
    let _application = Listeners::saying(&pod.pod, &ports(&[22, 8000, 8005, 8010, 8011]), "application");
    let _server = Listeners::saying(&pod.peer, &ports(&[25, 3300, 3310, 3311, 8080]), "server");
    pod.init_ok(&[
        "--no-check",
        "--skip-inbound-ports=22,8000-8010",
        "--skip-outbound-ports=25,3300-3310",
        "--skip-uids=2000,3000-3010",
    ]);
    for (own, other) in BOTH {
        for skipped in [22, 8000, 8005, 8010] {
            assert_eq!(pod.peer.dial(own, skipped), "application", "{own} {skipped}");
        }
        assert_eq!(
            pod.peer.dial(own, 8011),
            format!("inbound {}", SocketAddr::new(own, 8011))
        );
        for skipped in [25, 3300, 3310] {
            assert_eq!(pod.pod.dial(other, skipped), "server", "{other} {skipped}");
        }
        assert_eq!(
            pod.pod.dial(other, 3311),
            format!("outbound {}", SocketAddr::new(other, 3311))
        );
        for uid in [2000, 3000, 3010] {
            assert_eq!(pod.pod.dial_as(uid, other, 8080), "server", "user {uid}");
        }
        for uid in [1999, 2001, 3011] {
            assert_eq!(
                pod.pod.dial_as(uid, other, 8080),
                format!("outbound {}", SocketAddr::new(other, 8080)),
                "user {uid}"
            );
        }
    }
    // Ranges act in their own family only. The second run replaces the first one's exceptions.
    pod.init_ok(&["--no-check", "--skip-outbound-cidrs=10.99.0.0/24"]);
    assert_eq!(pod.pod.dial(PEER_V4, 8080), "server");
    assert_eq!(
        pod.pod.dial(PEER_V6, 8080),
        format!("outbound {}", SocketAddr::new(PEER_V6, 8080))
    );
    assert_eq!(
        pod.pod.dial(PEER_V6, 25),
        format!("outbound {}", SocketAddr::new(PEER_V6, 25))
    );
    pod.init_ok(&["--no-check", "--skip-outbound-cidrs=fd99::1"]);
    assert_eq!(
        pod.pod.dial(PEER_V4, 8080),
        format!("outbound {}", SocketAddr::new(PEER_V4, 8080))
    );
    assert_eq!(pod.pod.dial(PEER_V6, 8080), "server");
}

#[test]
fn udp_passes_untouched() {
    let pod = Pod::new(Shape::default());
    pod.init_ok(&["--no-check"]);
    for (own, other) in BOTH {
        let socket = pod.pod.run(|| UdpSocket::bind((own, 53)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let peer = pod.peer.run(|| UdpSocket::bind((other, 5353)).unwrap());
        peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut buffer = [0; 16];
        peer.send_to(b"question", (own, 53)).unwrap();
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (8, (other, 5353).into()));
        socket.send_to(b"answer", (other, 5353)).unwrap();
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (6, (own, 53).into()));
    }
}

#[rstest]
#[case::nft(Kind::Nft)]
#[case::legacy(Kind::Legacy)]
fn a_second_run_changes_nothing_and_undo_leaves_nothing(#[case] backend: Kind) {
    let pod = Pod::new(Shape {
        backend,
        ..Shape::default()
    });
    let programs = match backend {
        Kind::Nft => ["iptables-nft", "ip6tables-nft"],
        Kind::Legacy => ["iptables-legacy", "ip6tables-legacy"],
    };
    let saved = || programs.map(|program| pod.pod.saved(&format!("{program}-save")));
    // Somebody else's rules are there before, and stay as they are.
    for program in programs {
        pod.pod.must(
            program,
            &["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7", "-j", "RETURN"],
        );
        pod.pod.must(
            program,
            &[
                "-t",
                "nat",
                "-A",
                "PREROUTING",
                "-p",
                "tcp",
                "--dport",
                "7",
                "-j",
                "RETURN",
            ],
        );
    }
    let before = saved();
    pod.init_ok(&["--no-check", "--skip-uids=1000"]);
    let once = saved();
    assert_ne!(before, once);
    pod.init_ok(&["--no-check", "--skip-uids=1000"]);
    assert_eq!(saved(), once, "the second run");

    // Whatever happened to the jumps in between: afterwards each is there once, and first.
    for program in programs {
        pod.pod.must(program, &["-t", "nat", "-D", "OUTPUT", "1"]);
        pod.pod.must(
            program,
            &["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "WEFT_OUTBOUND"],
        );
        pod.pod
            .must(program, &["-t", "nat", "-A", "PREROUTING", "-j", "WEFT_INBOUND"]);
        pod.pod.must(program, &["-t", "nat", "-F", "WEFT_OUTBOUND"]);
    }
    assert_ne!(saved(), once);
    let said = pod.init_ok(&["--no-check", "--skip-uids=1000"]);
    assert!(said.contains("weft's rules of an earlier run"), "{said}");
    assert_eq!(saved(), once, "the repair");

    let said = pod.init_ok(&["--undo"]);
    assert!(
        programs
            .iter()
            .all(|program| said.contains(&format!("rules removed with {program}"))),
        "{said}"
    );
    assert_eq!(saved(), before, "undo");
    let said = pod.init_ok(&["--undo"]);
    assert!(
        said.contains("IPv4: nothing to remove") && said.contains("IPv6: nothing to remove"),
        "{said}"
    );
}

#[test]
fn rules_of_an_earlier_run_in_the_other_backend_do_not_stay() {
    let pod = Pod::new(Shape {
        backend: Kind::Legacy,
        ..Shape::default()
    });
    pod.init_ok(&["--no-check", "--skip-outbound-ports=25"]);
    // The node has gone over to nft, and shows it.
    for program in ["iptables", "ip6tables"] {
        pod.pod.must(&format!("{program}-legacy"), &["-t", "mangle", "-X"]);
        pod.pod
            .must(&format!("{program}-nft"), &["-t", "nat", "-N", "WEFT_INBOUND"]);
    }
    pod.init_ok(&["--no-check"]);
    for program in ["iptables", "ip6tables"] {
        assert!(!pod.pod.saved(&format!("{program}-legacy-save")).contains("WEFT"));
        assert!(
            pod.pod
                .saved(&format!("{program}-nft-save"))
                .contains("-j WEFT_OUTBOUND")
        );
    }
}

#[test]
fn dry_run_and_wrong_arguments_change_nothing() {
    let pod = Pod::new(Shape::default());
    pod.init_ok(&["--dry-run"]);
    pod.init_fails(&["--skip-inbound-ports=80,abc"]);
    for program in [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ] {
        assert_eq!(pod.pod.saved(program), "", "{program}");
    }
    pod.init_ok(&["--no-check"]);
    let output = pod.init(&["--undo", "--dry-run"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("# IPv6, ip6tables-nft\n*nat\n-D PREROUTING 1\n-D OUTPUT 1\n-F WEFT_INBOUND\n"),
        "{printed}"
    );
    assert!(pod.pod.saved("iptables-nft-save").contains("-j WEFT_OUTBOUND"));
}

#[test]
fn undo_gives_the_application_its_connections_back() {
    let pod = Pod::new(Shape::default());
    let _application = Listeners::saying(&pod.pod, &everywhere(80), "application");
    pod.init_ok(&["--no-check"]);
    assert_eq!(
        pod.peer.dial(POD_V4, 80),
        "refused",
        "redirected, and nobody listens there"
    );
    pod.init_ok(&["--undo"]);
    assert_eq!(pod.peer.dial(POD_V4, 80), "application");
    assert_eq!(pod.peer.dial(POD_V6, 80), "application");
}
