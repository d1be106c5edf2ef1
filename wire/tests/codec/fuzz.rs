//! Fuzz targets (bolero). As ordinary tests they run the corpus beside them and a bounded number of random inputs; with
//! `cargo bolero test -p weft-wire fuzz::head` and a fuzzing engine they run for hours.
//!
//! Random bytes alone never get past a request line. So the input is a script of small changes to one of the corpus'
//! entries, and the bytes themselves are tried as well.

use crate::support::{Ended, read_requests};
use std::path::Path;
use weft_proto::limits;
use weft_wire::h1::{BodyDecoder, BodyLength, Piece, RequestHead, RequestKind, ResponseHead, Scan};
use weft_wire::hello::{self, Hello};
use weft_wire::sniff;

const ITERATIONS: usize = 3000;

/// The corpus of one target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/codec/__fuzz__")
        .join(target)
        .join("corpus");
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", directory.display());
    files
        .iter()
        .map(|file| std::fs::read(file).expect("a corpus file"))
        .collect()
}

/// Applies the script: which entry, then changes of three bytes each (what, where, with what).
fn changed(corpus: &[Vec<u8>], script: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"0\r\n",
        b",",
        b"\0",
        b";",
    ];
    let Some((which, changes)) = script.split_first() else {
        return Vec::new();
    };
    let mut bytes = corpus[*which as usize % corpus.len()].clone();
    for change in changes.chunks_exact(3).take(8) {
        let at = if bytes.is_empty() {
            0
        } else {
            change[1] as usize * 7 % bytes.len()
        };
        match change[0] % 5 {
            0 if !bytes.is_empty() => bytes[at] = change[2],
            1 if !bytes.is_empty() => drop(bytes.drain(at..(at + change[2] as usize % 8).min(bytes.len()))),
            2 => bytes.insert(at, change[2]),
            3 => drop(bytes.splice(at..at, WORDS[change[2] as usize % WORDS.len()].iter().copied())),
            _ => {
                let other = &corpus[change[2] as usize % corpus.len()];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
    bytes
}

fn run(target: &'static str, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let corpus = corpus(target);
    corpus.iter().for_each(|entry| check(entry));
    bolero::check!(name = target)
        .with_iterations(ITERATIONS)
        .with_max_len(256)
        .for_each(|input: &[u8]| {
            check(input);
            check(&changed(&corpus, input));
        });
}

/// Every accepted message, read twice in different pieces, is the same; nothing after a refusal is looked at.
fn check_requests(stream: &[u8]) {
    let whole = read_requests(stream, &[usize::MAX]);
    assert_eq!(whole, read_requests(stream, &[3]));
    for message in &whole.0 {
        let names = |name: &str| {
            message
                .fields
                .iter()
                .filter(|field| field.0.eq_ignore_ascii_case(name))
                .count()
        };
        assert!(names("host") <= 1 && names("content-length") + names("transfer-encoding") <= 1);
        assert!(
            message.fields.iter().all(|(name, value)| !name.is_empty()
                && value.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != 0x7f))
        );
        assert!(
            message
                .target
                .bytes()
                .chain(message.method.bytes())
                .all(|byte| byte > b' ' && byte != 0x7f)
        );
        assert!(
            message
                .trailers
                .iter()
                .all(|(name, _)| !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("host"))
        );
        if let (BodyLength::Length(length), Ended::Clean) = (message.length, &whole.1) {
            assert_eq!(message.body.len() as u64, length);
        }
    }
}

#[test]
fn head() {
    run("head", |input| {
        check_requests(input);
        if let Ok(Some((head, used))) = RequestHead::parse(input, &mut Scan::default()) {
            assert!(used <= input.len() && head.byte_length() <= used);
            let mut out = bytes::BytesMut::new();
            head.encode(&Default::default(), &mut out);
            let (again, all) = RequestHead::parse(&out, &mut Scan::default())
                .expect("reads again")
                .expect("complete");
            assert_eq!(all, out.len(), "one head and nothing after it");
            assert_eq!(
                (again.method(), again.target(), again.body(), again.host()),
                (head.method(), head.target(), head.body(), head.host())
            );
            assert_eq!(again.upgrade(), None);
            let otherwise = "a:80".parse().expect("an authority");
            if let Ok(converted) = head.to_http(http::uri::Scheme::HTTP, &otherwise) {
                let parts = converted.request.into_parts().0;
                let is_said =
                    head.is_connect() || weft_wire::h1::is_target_of(head.method(), head.target(), &parts.uri);
                assert!(is_said || !converted.is_host_exact, "what is routed is what is sent");
                let checked =
                    weft_wire::h2::check_request(&parts).expect("what HTTP/1 accepted, HTTP/2's guard accepts");
                let own = head.host().filter(|_| converted.is_host_exact);
                assert!(
                    own.is_none_or(|own| own.name == checked.host.name),
                    "one host on both hops"
                );
            }
        }
        for kind in [RequestKind::Head, RequestKind::Connect, RequestKind::Other] {
            if let Ok(Some((head, used))) = ResponseHead::parse(input, kind, &mut Scan::default()) {
                assert!(used <= input.len());
                let mut out = bytes::BytesMut::new();
                head.encode(&Default::default(), &mut out);
                let (again, all) = ResponseHead::parse(&out, kind, &mut Scan::default())
                    .expect("reads again")
                    .expect("complete");
                assert_eq!(
                    (all, again.status(), again.body()),
                    (out.len(), head.status(), head.body())
                );
                let _ = head.to_http();
            }
        }
    });
}

#[test]
fn chunked() {
    run("chunked", |input| {
        for mut decoder in [
            BodyDecoder::request(BodyLength::Chunked),
            BodyDecoder::response(BodyLength::Chunked),
        ] {
            let (mut data, mut rest) = (0, input);
            while let Ok((used, piece)) = decoder.step(rest) {
                assert!(used <= rest.len());
                match piece {
                    Piece::Data(bytes) => data += bytes.len(),
                    Piece::Trailers(fields) => assert!(fields.len() <= limits::FIELDS),
                    Piece::End => break,
                    Piece::NeedMore => {
                        assert_eq!(used, rest.len());
                        break;
                    }
                }
                rest = &rest[used..];
            }
            assert!(data <= input.len());
        }
        let mut stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        stream.extend_from_slice(input);
        check_requests(&stream);
    });
}

#[test]
fn client_hello() {
    run("client_hello", |input| match hello::scan(input) {
        hello::Scan::Hello(Hello { sni, alpn }) => {
            assert_eq!(sniff::client(input), sniff::Client::Tls);
            assert!(sni.is_none_or(|name| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
            }));
            assert!(alpn.iter().all(|id| !id.is_empty()));
        }
        hello::Scan::NeedMore => assert!(input.len() < limits::CLIENT_HELLO),
        hello::Scan::NotTls => {}
    });
}

#[test]
fn first_bytes() {
    run("first_bytes", |input| {
        let verdict = sniff::client(input);
        if verdict == sniff::Client::Partial {
            assert!(input.len() < limits::HEAD);
        }
        // Whatever the codec takes for a request is known as HTTP, unless blank lines come first.
        if let Ok(Some((head, used))) = RequestHead::parse(input, &mut Scan::default())
            && head.byte_length() == used
            && head.method().len() <= 32
        {
            assert_eq!(verdict, sniff::Client::Http1, "{head:?}");
        }
        for end in 0..input.len() {
            let earlier = sniff::client(&input[..end]);
            assert!(earlier == sniff::Client::Partial || earlier == verdict);
            let earlier = sniff::server(&input[..end]);
            assert!(earlier == sniff::Server::Partial || earlier == sniff::server(input));
        }
    });
}
