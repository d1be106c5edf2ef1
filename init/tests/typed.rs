//! Whatever stands in an annotation: either it is refused, or the rules hold exactly what its types say.

use clap::Parser;
use proptest::prelude::*;
use weft_init::{
    config::{Arguments, Redirects},
    plan::{Chain, Family, Plan},
    render::{self, Present},
};

/// Values near the border between right and hostile: real entries, joined with what attackers would put between them.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => any::<u32>().prop_map(|number| number.to_string()),
        3 => (any::<u16>(), any::<u16>()).prop_map(|(low, high)| format!("{}-{}", low.min(high), low.max(high))),
        3 => (any::<[u8; 4]>(), 0..=33_u8).prop_map(|([a, b, c, d], bits)| format!("{a}.{b}.{c}.{d}/{bits}")),
        2 => (any::<u128>(), 0..=129_u8).prop_map(|(address, bits)| format!("{}/{bits}", std::net::Ipv6Addr::from_bits(address))),
        2 => prop::sample::select(vec![
            "\n-A OUTPUT -j ACCEPT", " -j ACCEPT", "\"", "'", "--", "!", "COMMIT", "\nCOMMIT\n", "-j", "\0", "\r", "$(id)", "::", "0",
            "*filter", "#", ":", "\u{2028}", "eth0 -j RETURN", "+80", "８０",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    (
        prop::collection::vec(piece, 0..4),
        prop::sample::select(vec![",", ", ", "", " ", "\n"]),
    )
        .prop_map(|(pieces, separator)| pieces.join(separator))
}

fn redirects(inbound: &str, outbound: &str, cidrs: &str, uids: &str) -> Option<Redirects> {
    let arguments = [
        "weft-init".to_owned(),
        format!("--skip-inbound-ports={inbound}"),
        format!("--skip-outbound-ports={outbound}"),
        format!("--skip-outbound-cidrs={cidrs}"),
        format!("--skip-uids={uids}"),
    ];
    Some(Arguments::try_parse_from(arguments).ok()?.resolve().ok()?.redirects)
}

/// A rule can consist of these words only, apart from numbers, addresses and our own names.
fn is_known_word(word: &str) -> bool {
    const WORDS: [&str; 21] = [
        "-A",
        "-I",
        "-p",
        "-o",
        "-d",
        "-m",
        "-j",
        "tcp",
        "lo",
        "owner",
        "comment",
        "1",
        "--uid-owner",
        "--dport",
        "--comment",
        "--to-ports",
        "RETURN",
        "REDIRECT",
        "PREROUTING",
        "OUTPUT",
        "NAME",
    ];
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let range = |text: &str| text.split(['-', ':']).count() <= 2 && text.split(['-', ':']).all(number);
    WORDS.contains(&word)
        || Chain::BOTH.iter().any(|chain| chain.name() == word)
        || range(word)
        || word.parse::<ipnet::IpNet>().is_ok_and(|net| net == net.trunc())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn t38_no_argument_can_write_into_the_rules(
        inbound in hostile(), outbound in hostile(), cidrs in hostile(), uids in hostile(), uid in any::<u32>(),
    ) {
        // Each list alone, since most are refused, and all together.
        for (i, o, c, u) in [(&*inbound, "", "", ""), ("", &*outbound, "", ""), ("", "", &*cidrs, ""), ("", "", "", &*uids), (&*inbound, &*outbound, &*cidrs, &*uids)] {
            let Some(redirects) = redirects(i, o, c, u) else { continue };
            for family in Family::BOTH {
                let plan = Plan::new(&redirects, family, uid);
                let text = render::install(&plan, &Present::default());
                let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or_default().split('\n').collect();
                prop_assert_eq!(lines.len(), 6 + plan.inbound.len() + plan.outbound.len());
                prop_assert_eq!(&lines[..3], &["*nat", ":WEFT_INBOUND - [0:0]", ":WEFT_OUTBOUND - [0:0]"]);
                prop_assert_eq!(lines[lines.len() - 1], "COMMIT");
                for line in &lines[3..lines.len() - 1] {
                    // The comment's text is the rule's name, which is ours; what is left must be known words.
                    let parts: Vec<&str> = line.split('"').collect();
                    prop_assert_eq!(parts.len(), 3, "{}", line);
                    prop_assert!(parts[1].strip_prefix("weft: ").is_some_and(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b" -".contains(&b))));
                    for word in [parts[0], parts[2]].concat().split(' ').filter(|word| !word.is_empty()) {
                        prop_assert!(is_known_word(word), "{:?} in {:?}", word, line);
                    }
                }
            }
        }
    }

    #[test]
    fn t38_every_list_that_is_taken_becomes_one_rule_for_each_entry(ports in prop::collection::vec((1..=u16::MAX, 1..=u16::MAX), 0..20)) {
        let text: Vec<String> = ports.iter().map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))).collect();
        let redirects = redirects(&text.join(","), "", "", "").expect("a list of ranges is right");
        prop_assert_eq!(Plan::new(&redirects, Family::V4, 0).inbound.len(), 3 + ports.len() + 1);
    }
}
