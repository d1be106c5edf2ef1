//! Streams on which two readers of HTTP/1 have disagreed, somewhere, once. What follows in each is a request that
//! nobody may see unless it is one (T01).

use crate::support::bytes;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1⏎Host: a⏎⏎";

/// All streams, each with a name.
pub fn streams() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |group: &str, probe: String| {
        let number = all.iter().filter(|(name, _)| name.starts_with(group)).count();
        all.push((
            format!("{group} {number}: {}", probe.chars().take(120).collect::<String>()),
            bytes(&(probe + SMUGGLED)),
        ));
    };
    for value in [
        "5",
        " 5",
        "5 ",
        "\t5",
        "+5",
        "-5",
        "05",
        "0",
        "00",
        "5,5",
        "5, 6",
        "",
        " ",
        "5 5",
        "0x5",
        "5.0",
        "5e1",
        "5;a",
        "\"5\"",
        "a",
        "18446744073709551615",
        "18446744073709551616",
        "9999999999999999999999",
        "5\u{b}",
        "٥",
    ] {
        add(
            "length",
            format!("POST / HTTP/1.1⏎Host: a⏎Content-Length: {value}⏎⏎hello"),
        );
        add(
            "length on get",
            format!("GET / HTTP/1.1⏎Host: a⏎Content-Length: {value}⏎⏎hello"),
        );
        add(
            "length in 1.0",
            format!("POST / HTTP/1.0⏎Host: a⏎Connection: keep-alive⏎Content-Length: {value}⏎⏎hello"),
        );
    }
    for pair in [["5", "5"], ["5", "0"], ["0", "5"], ["", "5"], ["5", "x"]] {
        add(
            "two lengths",
            format!(
                "POST / HTTP/1.1⏎Host: a⏎Content-Length: {}⏎Content-Length: {}⏎⏎hello",
                pair[0], pair[1]
            ),
        );
        add(
            "two lengths apart",
            format!(
                "POST / HTTP/1.1⏎Content-Length: {}⏎Host: a⏎CONTENT-LENGTH: {}⏎⏎hello",
                pair[0], pair[1]
            ),
        );
    }
    for name in [
        "Content_Length",
        "Content-Length ",
        "Content Length",
        " Content-Length",
        "Content-Length\t",
        "Content-Length\0",
        "\u{b}Content-Length",
        "Content-Length:",
        "X:Content-Length",
    ] {
        add("length's name", format!("POST / HTTP/1.1⏎Host: a⏎{name}: 5⏎⏎"));
    }
    for value in [
        "chunked",
        "Chunked",
        "CHUNKED",
        " chunked ",
        "\tchunked",
        "\u{b}chunked",
        "chunked\u{c}",
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        ", chunked",
        "gzip, chunked",
        "chunked, gzip",
        "chunked;a=b",
        "chunked ;",
        "\"chunked\"",
        "'chunked'",
        "chun ked",
        "chunked\u{a0}",
        "cow",
        "",
        "chunked\0",
        "chunKed, ",
    ] {
        add(
            "encoding",
            format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: {value}⏎⏎5⏎hello⏎0⏎⏎"),
        );
        add(
            "encoding in 1.0",
            format!("POST / HTTP/1.0⏎Host: a⏎Connection: keep-alive⏎Transfer-Encoding: {value}⏎⏎5⏎hello⏎0⏎⏎"),
        );
        add(
            "both",
            format!("POST / HTTP/1.1⏎Host: a⏎Content-Length: 15⏎Transfer-Encoding: {value}⏎⏎5⏎hello⏎0⏎⏎"),
        );
        add(
            "both, length last",
            format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: {value}⏎Content-Length: 3⏎⏎5⏎hello⏎0⏎⏎"),
        );
    }
    for name in [
        "Transfer_Encoding",
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "Transfer Encoding",
        "Transfer-Encoding\t",
        "\nTransfer-Encoding",
        "X⏎ Transfer-Encoding",
        "X: y\nTransfer-Encoding",
        "X: y\rTransfer-Encoding",
        "Foo:⏎ Transfer-Encoding",
    ] {
        add(
            "encoding's name",
            format!("POST / HTTP/1.1⏎Host: a⏎{name}: chunked⏎⏎5⏎hello⏎0⏎⏎"),
        );
    }
    for second in ["chunked", "identity", "", "x"] {
        add(
            "two encodings",
            format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎Transfer-Encoding: {second}⏎⏎5⏎hello⏎0⏎⏎"),
        );
        add(
            "two encodings, other first",
            format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: {second}⏎Transfer-Encoding: chunked⏎⏎5⏎hello⏎0⏎⏎"),
        );
    }
    for body in [
        "5⏎hello⏎0⏎⏎",
        "0⏎⏎",
        "00⏎⏎",
        "5⏎hello⏎00000⏎⏎",
        "5\nhello⏎0⏎⏎",
        "5⏎hello\n0⏎⏎",
        "5⏎hello⏎0\n⏎",
        "5⏎hello⏎0⏎\n",
        "5;a⏎hello⏎0⏎⏎",
        "5;a=b;c=\"d;⏎\"⏎hello⏎0⏎⏎",
        "5;\nhello⏎0⏎⏎",
        "5;a\n⏎hello⏎0⏎⏎",
        "5 ⏎hello⏎0⏎⏎",
        " 5⏎hello⏎0⏎⏎",
        "5\t;a⏎hello⏎0⏎⏎",
        "0x5⏎hello⏎0⏎⏎",
        "+5⏎hello⏎0⏎⏎",
        "-5⏎hello⏎0⏎⏎",
        "5_⏎hello⏎0⏎⏎",
        "g⏎hello⏎0⏎⏎",
        "⏎5⏎hello⏎0⏎⏎",
        "4⏎hello⏎0⏎⏎",
        "6⏎hello⏎0⏎⏎",
        "5⏎hello0⏎⏎",
        "5⏎hello⏎⏎0⏎⏎",
        "5⏎hello⏎",
        "5⏎hello⏎0⏎",
        "FFFFFFFFFFFFFFFF⏎hello⏎0⏎⏎",
        "10000000000000005⏎hello⏎0⏎⏎",
        "00000000000000005⏎hello⏎0⏎⏎",
        "5\r⏎hello⏎0⏎⏎",
        "5\0⏎hello⏎0⏎⏎",
        "A⏎helloworld⏎a⏎helloworld⏎0⏎⏎",
        "5⏎hello⏎0⏎Sum: 1⏎⏎",
        "5⏎hello⏎0⏎Content-Length: 9⏎⏎",
        "5⏎hello⏎0⏎Transfer-Encoding: chunked⏎⏎",
        "5⏎hello⏎0⏎Host: b⏎⏎",
        "5⏎hello⏎0⏎: x⏎⏎",
        "5⏎hello⏎0⏎A : x⏎⏎",
        "5⏎hello⏎0⏎A: x⏎ y⏎⏎",
        "5⏎hello⏎0⏎A: x\n⏎",
        "5⏎hello⏎0⏎GET /in-trailer HTTP/1.1⏎Host: a⏎⏎",
        "5⏎hello⏎0;a=b⏎⏎",
        "",
    ] {
        add(
            "chunks",
            format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎⏎{body}"),
        );
    }
    for line in [
        "GET / HTTP/1.1",
        "get / HTTP/1.1",
        "WEIRD!# / HTTP/1.1",
        "GET /%00%0d%0a HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a\\b HTTP/1.1",
        "GET /é HTTP/1.1",
        "GET /a?b=\"<>{}|^` HTTP/1.1",
        "GET //a//b HTTP/1.1",
        "GET /a/../b;c HTTP/1.1",
        "GET http://a/b HTTP/1.1",
        "GET http://a HTTP/1.1",
        "GET HTTP://A/ HTTP/1.1",
        "GET http://b/ HTTP/1.1",
        "GET http://x@a/ HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        " GET / HTTP/1.1",
        "⏎GET / HTTP/1.1",
        "\nGET / HTTP/1.1",
        "⏎⏎GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / http/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/01.1",
        "GET / HTTP/1.10",
        "GET / HTTP/0.9",
        "GET /",
        "GET",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS / HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "TRACE / HTTP/1.1",
        "HEAD / HTTP/1.1",
        "DELETE / HTTP/1.1",
        "PATCH / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /\rx HTTP/1.1",
        "GE\0T / HTTP/1.1",
        "G:ET / HTTP/1.1",
        "GET ?a HTTP/1.1",
        "PRI * HTTP/2.0",
    ] {
        add("line", format!("{line}⏎Host: a⏎⏎"));
        add("line with body", format!("{line}⏎Host: a⏎Content-Length: 5⏎⏎hello"));
    }
    for fields in [
        "Host: b",
        "host: a",
        "Host : a",
        "Host: a b",
        "Host:",
        "Host: a,b",
        "Host: a@b",
        "X: y⏎ Host: b",
        "X: y⏎\tz",
        ": v",
        "X",
        "X : v",
        "X\t: v",
        "X Y: v",
        "X/Y: v",
        "Xé: v",
        "X\0: v",
        "X: a\0b",
        "X: a\rb",
        "X: a\nb",
        "X: \u{1b}",
        "X: \u{7f}",
        "X: é",
        "X:",
        "X:v",
        "X:  v  ",
        "X:\tv\t",
        "X: a\u{b}b",
        "\rX: v",
        "X: v\r",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: x⏎X: y",
        "Connection: content-length⏎Content-Length: 0",
        "Connection: host",
        "Expect: 100-continue",
        "Expect: x",
        "TE: trailers",
        "Trailer: x",
        "Connection: Upgrade⏎Upgrade: h2c⏎HTTP2-Settings: AAMAAABk",
        "Keep-Alive: 5",
        "Proxy-Connection: close",
        "X: y⏎x: z⏎X: w",
        "Cookie: a=b⏎Cookie: c=d",
        "Upgrade: websocket",
        "weft-version: 1.0",
    ] {
        add("field", format!("GET / HTTP/1.1⏎Host: a⏎{fields}⏎⏎"));
        add("field before host", format!("GET / HTTP/1.1⏎{fields}⏎Host: a⏎⏎"));
        add(
            "field and chunks",
            format!("POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎{fields}⏎⏎5⏎hello⏎0⏎⏎"),
        );
    }
    for line in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1⏎Host: a\n\n",
        "GET / HTTP/1.1⏎Host: a⏎\n",
        "GET / HTTP/1.1⏎Host: a\n⏎",
        "GET / HTTP/1.1\r⏎Host: a⏎⏎",
        "GET / HTTP/1.1⏎⏎",
        "GET / HTTP/1.0⏎⏎",
        "GET / HTTP/1.0⏎Connection: keep-alive⏎⏎",
        "POST / HTTP/1.1⏎Host: a⏎⏎hello",
        "POST / HTTP/1.0⏎⏎hello",
        "PUT / HTTP/1.1⏎Host: a⏎Content-Length: 0⏎⏎",
        "GET / HTTP/1.1⏎Host: a⏎⏎GET /two HTTP/1.1⏎Host: a⏎⏎POST /three HTTP/1.1⏎Host: a⏎Content-Length: 3⏎⏎abc",
    ] {
        add("lines", line.to_owned());
    }
    assert!(all.len() >= 150, "T01 asks for 150 streams, here are {}", all.len());
    all
}
