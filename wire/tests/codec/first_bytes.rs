//! T57: the protocol from first bytes, as soon as it is certain and no later; ClientHellos of all kinds, in any pieces.

use crate::support::bytes;
use rstest::rstest;
use std::sync::Arc;
use weft_proto::limits;
use weft_wire::hello::{Hello, Scan, scan};
use weft_wire::sniff::{Client, Server, client, server};

/// How many bytes it takes to be certain, and of what.
fn certain(stream: &[u8]) -> (usize, Client) {
    let at = (0..=stream.len()).find(|&end| client(&stream[..end]) != Client::Partial);
    let at = at.unwrap_or(stream.len());
    let verdict = client(&stream[..at]);
    for end in at..=stream.len() {
        assert_eq!(
            client(&stream[..end]),
            verdict,
            "a verdict stands: {:?}",
            String::from_utf8_lossy(&stream[..end])
        );
    }
    (at, verdict)
}

#[rstest]
#[case("GET / HTTP/1.1⏎", "GET / HTTP/1.")]
#[case("GET /a?b=c#d HTTP/1.0⏎", "GET /a?b=c#d HTTP/1.")]
#[case("M-SEARCH * HTTP/1.1⏎", "M-SEARCH * HTTP/1.")]
#[case("OPTIONS * HTTP/1.1⏎", "OPTIONS * HTTP/1.")]
#[case("weird!#$%&'*+-.^_`|~0 /x HTTP/1.1⏎", "weird!#$%&'*+-.^_`|~0 /x HTTP/1.")]
#[case("GET http://a/ HTTP/1.1⏎", "GET http://a/ HTTP/1.")]
#[case("GET https://a HTTP/1.1⏎", "GET https://a HTTP/1.")]
#[case("CONNECT a.b:443 HTTP/1.1⏎", "CONNECT a.b:443 HTTP/1.")]
#[case("CONNECT [::1]:443 HTTP/1.1⏎", "CONNECT [::1]:443 HTTP/1.")]
#[case("GET /é HTTP/1.1⏎", "GET /é HTTP/1.")]
#[case("PRI * HTTP/1.1⏎", "PRI * HTTP/1.")]
#[case("SUBSCRIBE /event HTTP/1.1⏎", "SUBSCRIBE /event HTTP/1.")]
fn t57_a_request_line_is_http_once_its_version_begins(#[case] stream: &str, #[case] until: &str) {
    assert_eq!(certain(&bytes(stream)), (until.len(), Client::Http1));
}

#[rstest]
#[case::redis_inline("GET key⏎", "GET key\r")]
#[case::redis_path("GET /key⏎", "GET /key\r")]
#[case::redis_array("*1⏎$4⏎PING⏎", "*1\r")]
#[case::redis_ping("PING⏎", "PING\r")]
#[case::memcached_set("set a 0 0 1⏎x⏎", "set a ")]
#[case::memcached_path("get /a /b⏎", "get /a /")]
#[case::memcached_meta("mg foo v⏎", "mg foo ")]
#[case::smtp("EHLO mail.example.com⏎", "EHLO mail.example.com\r")]
#[case::smtp_mail("MAIL FROM:<a@b>⏎", "MAIL FROM:<")]
#[case::nats("CONNECT {\"verbose\":false}⏎", "CONNECT {")]
#[case::nats_pub("PUB a.b 5⏎hello⏎", "PUB a.b ")]
#[case::stomp("CONNECT\naccept-version:1.2\n\n\0", "CONNECT\n")]
#[case::irc("NICK me⏎", "NICK me\r")]
#[case::irc_path("JOIN /x⏎", "JOIN /x\r")]
#[case::ftp("USER anonymous⏎", "USER anonymous\r")]
#[case::pop3("STAT⏎", "STAT\r")]
#[case::imap("a1 LOGIN b c⏎", "a1 LOGIN ")]
#[case::ssh("SSH-2.0-OpenSSH_9.2p1 Debian-2⏎", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r")]
#[case::ssh_plain("SSH-2.0-Go⏎", "SSH-2.0-Go\r")]
#[case::sip("INVITE sip:bob@example.com SIP/2.0⏎", "INVITE sip:b")]
#[case::rtsp("OPTIONS rtsp://a/b RTSP/1.0⏎", "OPTIONS rtsp://a/b R")]
#[case::rtsp_asterisk("OPTIONS * RTSP/1.0⏎", "OPTIONS * R")]
#[case::icap("REQMOD icap://a/b ICAP/1.0⏎", "REQMOD icap://a/b I")]
#[case::http_0_9("GET /⏎", "GET /\r")]
#[case::http_3_as_text("GET / HTTP/3.0⏎", "GET / HTTP/3")]
#[case::two_blanks("GET  / HTTP/1.1⏎", "GET  ")]
#[case::no_target("GET HTTP/1.1⏎", "GET HTTP/")]
#[case::connect_without_port("CONNECT a HTTP/1.1⏎", "CONNECT a ")]
#[case::connect_to_path("CONNECT /a HTTP/1.1⏎", "CONNECT /")]
#[case::blank_line_first("⏎GET / HTTP/1.1⏎", "\r")]
#[case::preface_gone_wrong("PRI * HTTP/2.0⏎⏎XX⏎⏎", "PRI * HTTP/2.0\r\n\r\nX")]
#[case::json("{\"a\":1}", "{")]
#[case::xml("<stream>", "<")]
#[case::gopher("/path⏎", "/")]
#[case::proxy_protocol("PROXY TCP4 10.0.0.1 10.0.0.2 1 2⏎", "PROXY TCP4 ")]
#[case::ldap("0\u{c}\u{2}\u{1}\u{1}", "0\u{c}")]
#[case::postgres("\0\0\0\u{8}\u{4}", "\0")]
#[case::mqtt("\u{10}\u{1d}\0\u{4}MQTT", "\u{10}")]
#[case::amqp("AMQP\0\0\u{9}\u{1}", "AMQP\0")]
#[case::kafka("\0\0\0#", "\0")]
#[case::fix("8=FIX.4.2\u{1}", "8=")]
#[case::long_word("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
fn t57_what_cannot_become_http_is_opaque_at_that_byte(#[case] stream: &str, #[case] until: &str) {
    assert_eq!(certain(&bytes(stream)), (until.len(), Client::Opaque), "{stream:?}");
}

#[test]
fn t57_the_preface_is_certain_when_complete() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04";
    assert_eq!(certain(preface), (24, Client::H2Preface));
}

#[test]
fn t57_a_word_may_still_become_anything() {
    for start in [
        "",
        "G",
        "GET",
        "GET ",
        "GET /",
        "GET /a",
        "GET /a ",
        "GET /a HTTP",
        "ruok",
        "P",
        "PRI ",
        "\u{16}",
        "\u{16}\u{3}",
    ] {
        assert_eq!(client(start.as_bytes()), Client::Partial, "{start:?}");
    }
}

#[test]
fn t57_a_target_without_end_is_not_watched_for_ever() {
    let stream = format!("GET /{}", "a".repeat(2 * limits::HEAD));
    assert_eq!(client(&stream.as_bytes()[..limits::HEAD - 1]), Client::Partial);
    assert_eq!(client(&stream.as_bytes()[..limits::HEAD]), Client::Opaque);
    assert_eq!(client(stream.as_bytes()), Client::Opaque);
}

#[rstest]
#[case::settings(b"\0\0\x12\x04\0\0\0\0\0\0\x03", 9, Server::H2Settings)]
#[case::empty_settings(b"\0\0\0\x04\0\0\0\0\0", 9, Server::H2Settings)]
#[case::settings_acknowledged(b"\0\0\0\x04\x01\0\0\0\0", 5, Server::Opaque)]
#[case::settings_of_odd_length(b"\0\0\x07\x04\0\0\0\0\0", 3, Server::Opaque)]
#[case::ping_frame(b"\0\0\x08\x06\0\0\0\0\0", 3, Server::Opaque)]
#[case::mysql(b"\x4a\0\0\0\x0a8.0.36\0", 1, Server::Opaque)]
#[case::mysql_of_round_length(b"\0\x01\0\0\x0a8.0.36\0", 3, Server::Opaque)]
#[case::status(b"HTTP/1.1 408 Request Timeout\r\n", 7, Server::Http1Status)]
#[case::other_version(b"HTTP/2.0 200\r\n", 6, Server::Opaque)]
#[case::smtp(b"220 mail ESMTP\r\n", 1, Server::Opaque)]
#[case::ssh(b"SSH-2.0-Go\r\n", 1, Server::Opaque)]
#[case::redis_error(b"-ERR\r\n", 1, Server::Opaque)]
#[case::tls_alert(b"\x15\x03\x03\0\x02\x02\x28", 5, Server::Tls)]
#[case::tls_of_no_length(b"\x15\x03\x03\0\0", 5, Server::Opaque)]
#[case::nats(b"INFO {}\r\n", 1, Server::Opaque)]
fn t57_a_server_that_speaks_first_is_known_by_its_first_bytes(
    #[case] stream: &[u8],
    #[case] at: usize,
    #[case] verdict: Server,
) {
    for end in 0..=stream.len() {
        let expected = if end < at { Server::Partial } else { verdict };
        assert_eq!(server(&stream[..end]), expected, "{end} bytes");
    }
}

/// The parts of a handmade ClientHello.
#[derive(Default)]
struct Made {
    extensions: Vec<(u16, Vec<u8>)>,
    no_extensions: bool,
    record_version: u8,
    version: u8,
    record_length: Option<usize>,
}

impl Made {
    fn message(&self) -> Vec<u8> {
        let mut content = vec![3, self.version];
        content.extend([7; 32]);
        content.extend([0, 0, 4, 0x0a, 0x0a, 0x13, 0x01, 1, 0]);
        if !self.no_extensions {
            let mut list = Vec::new();
            for (kind, data) in &self.extensions {
                list.extend(kind.to_be_bytes());
                list.extend((data.len() as u16).to_be_bytes());
                list.extend(data);
            }
            content.extend((list.len() as u16).to_be_bytes());
            content.extend(list);
        }
        let mut message = vec![1];
        message.extend(&(content.len() as u32).to_be_bytes()[1..]);
        message.extend(content);
        message
    }

    fn records(&self) -> Vec<u8> {
        let message = self.message();
        let mut records = Vec::new();
        for part in message.chunks(self.record_length.unwrap_or(16 << 10)) {
            records.extend([0x16, 3, self.record_version]);
            records.extend((part.len() as u16).to_be_bytes());
            records.extend(part);
        }
        records
    }
}

fn name_extension(name: &[u8]) -> (u16, Vec<u8>) {
    let mut data = ((name.len() + 3) as u16).to_be_bytes().to_vec();
    data.push(0);
    data.extend((name.len() as u16).to_be_bytes());
    data.extend(name);
    (0, data)
}

fn alpn_extension(ids: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = ids
        .iter()
        .flat_map(|id| std::iter::once(id.len() as u8).chain(id.iter().copied()))
        .collect();
    let mut data = (list.len() as u16).to_be_bytes().to_vec();
    data.extend(list);
    (16, data)
}

fn hello(sni: Option<&str>, alpn: &[&[u8]]) -> Scan {
    Scan::Hello(Hello {
        sni: sni.map(Into::into),
        alpn: alpn.iter().map(|&id| id.into()).collect(),
    })
}

/// Every beginning is incomplete; the whole, whatever follows it, is this.
fn check_all_segments(records: &[u8], expected: &Scan) {
    for end in 0..records.len() {
        assert_eq!(
            scan(&records[..end]),
            Scan::NeedMore,
            "{end} of {} bytes",
            records.len()
        );
        assert!(matches!(client(&records[..end]), Client::Partial | Client::Tls));
    }
    assert_eq!(&scan(records), expected);
    assert_eq!(client(records), Client::Tls);
    let mut more = records.to_vec();
    more.extend(b"\x17\x03\x03\0\x05early");
    assert_eq!(&scan(&more), expected, "what follows is not looked at");
}

#[rstest]
#[case::tls_1_0_without_extensions(Made { no_extensions: true, record_version: 1, version: 1, ..Made::default() }, hello(None, &[]))]
#[case::tls_1_1(Made { record_version: 1, version: 2, extensions: vec![name_extension(b"a.test")], ..Made::default() }, hello(Some("a.test"), &[]))]
#[case::ssl_3_0_record(Made { record_version: 0, version: 3, ..Made::default() }, hello(None, &[]))]
#[case::no_sni(Made { version: 3, extensions: vec![alpn_extension(&[b"h2"])], ..Made::default() }, hello(None, &[b"h2"]))]
#[case::upper_case(Made { version: 3, extensions: vec![name_extension(b"A.Test.")], ..Made::default() }, hello(Some("a.test"), &[]))]
#[case::nonsense_name(Made { version: 3, extensions: vec![name_extension(b"a b\0")], ..Made::default() }, hello(None, &[]))]
#[case::name_with_high_bytes(Made { version: 3, extensions: vec![name_extension(b"\xff\xfe")], ..Made::default() }, hello(None, &[]))]
#[case::empty_name(Made { version: 3, extensions: vec![name_extension(b"")], ..Made::default() }, hello(None, &[]))]
#[case::empty_name_extension(Made { version: 3, extensions: vec![(0, vec![])], ..Made::default() }, hello(None, &[]))]
#[case::grease(
    Made { version: 3, extensions: vec![(0x0a0a, vec![]), alpn_extension(&[b"\x0a\x0a", b"h2", b"http/1.1"]), (0xfafa, vec![0])], ..Made::default() },
    hello(None, &[b"\x0a\x0a", b"h2", b"http/1.1"])
)]
#[case::encrypted_hello(
    Made { version: 3, extensions: vec![(0xfe0d, vec![0; 200]), name_extension(b"public.test")], ..Made::default() },
    hello(Some("public.test"), &[])
)]
#[case::several_records(
    Made { version: 3, record_length: Some(7), extensions: vec![name_extension(b"a.test"), alpn_extension(&[b"weft/1"])], ..Made::default() },
    hello(Some("a.test"), &[b"weft/1"])
)]
#[case::records_of_one_byte(
    Made { version: 3, record_length: Some(1), extensions: vec![name_extension(b"a.test")], ..Made::default() },
    hello(Some("a.test"), &[])
)]
#[case::post_quantum(
    Made { version: 3, extensions: vec![(51, vec![9; 6000]), name_extension(b"a.test")], ..Made::default() },
    hello(Some("a.test"), &[])
)]
fn t57_a_hello_is_read_in_any_segments(#[case] made: Made, #[case] expected: Scan) {
    check_all_segments(&made.records(), &expected);
}

#[rstest]
#[case::two_names(vec![name_extension(b"a"), name_extension(b"b")])]
#[case::two_alpn(vec![alpn_extension(&[b"a"]), alpn_extension(&[b"b"])])]
#[case::empty_id(vec![alpn_extension(&[b""])])]
#[case::list_too_long(vec![(16, vec![0, 9, 1, b'a'])])]
#[case::name_too_long(vec![(0, vec![0, 9, 0, 0, 9, b'a'])])]
fn t57_a_hello_that_does_not_hold_together_is_for_the_server_to_judge(#[case] extensions: Vec<(u16, Vec<u8>)>) {
    assert_eq!(
        scan(
            &Made {
                version: 3,
                extensions,
                ..Made::default()
            }
            .records()
        ),
        Scan::NotTls
    );
}

#[rstest]
#[case::http(b"GET / HTTP/1.1\r\n".to_vec())]
#[case::server_hello(vec![0x16, 3, 3, 0, 4, 2])]
#[case::alert(vec![0x15, 3, 3, 0, 2, 2, 40])]
#[case::sslv2(vec![0x80, 0x2e, 1, 0, 2])]
#[case::version_2(vec![0x16, 2, 0])]
#[case::version_3_9(vec![0x16, 3, 9])]
#[case::empty_record(vec![0x16, 3, 1, 0, 0])]
#[case::record_too_long(vec![0x16, 3, 1, 0xff, 0xff])]
#[case::longer_than_read(vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x80, 0])]
#[case::alert_between(vec![0x16, 3, 1, 0, 1, 1, 0x15, 3, 1])]
fn t57_what_is_no_client_hello_is_seen_early(#[case] stream: Vec<u8>) {
    assert_eq!(scan(&stream), Scan::NotTls);
}

#[test]
fn t57_a_hello_longer_than_the_limit_is_opaque() {
    let long = Made {
        version: 3,
        extensions: vec![(51, vec![9; limits::CLIENT_HELLO])],
        ..Made::default()
    }
    .records();
    assert_eq!(scan(&long[..20]), Scan::NotTls, "its length says so at once");
    let endless: Vec<u8> = [0x16, 3, 1, 0, 1, 1]
        .into_iter()
        .chain([0x16, 3, 1, 0, 1, 0].repeat(limits::CLIENT_HELLO))
        .collect();
    assert_eq!(scan(&endless[..limits::CLIENT_HELLO]), Scan::NotTls);
}

#[test]
fn t57_the_hello_of_a_real_library_is_read() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for versions in [
        rustls::DEFAULT_VERSIONS,
        &[&rustls::version::TLS12],
        &[&rustls::version::TLS13],
    ] {
        let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = "Shop.Example".to_owned().try_into().expect("a name");
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut records = Vec::new();
        connection.write_tls(&mut records).expect("into memory");
        check_all_segments(&records, &hello(Some("shop.example"), &[b"h2", b"http/1.1"]));
    }
}

#[test]
fn the_mesh_is_known_by_its_id_offered_alone() {
    let offers = |ids: &[&[u8]]| match scan(
        &Made {
            version: 3,
            extensions: vec![alpn_extension(ids)],
            ..Made::default()
        }
        .records(),
    ) {
        Scan::Hello(hello) => hello.offers_only(weft_proto::names::MESH_ALPN),
        other => panic!("{other:?}"),
    };
    assert!(offers(&[b"weft/1"]));
    assert!(!offers(&[b"weft/1", b"h2"]));
    assert!(!offers(&[b"h2"]));
}
