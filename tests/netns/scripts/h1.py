"""HTTP/1 on bare sockets, against origin.py: h1.py HOST PORT CHECK. Ends with 'ok CHECK', or raises what was wrong."""
import json
import socket
import sys
import time

host, port, check = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def connect():
    sock = socket.create_connection((host, port), timeout=15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Answers:
    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def more(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return data

    def until(self, mark):
        while mark not in self.buffer:
            assert self.more(), f"the connection ended inside {self.buffer[:200]!r}"
        head, self.buffer = self.buffer.split(mark, 1)
        return head + mark

    def exactly(self, n):
        while len(self.buffer) < n:
            assert self.more(), f"the connection ended with {len(self.buffer)} of {n} bytes"
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def one(self, head_request=False):
        """(status line, [(name, value)], body, trailers) of the next response."""
        head = self.until(b"\r\n\r\n").decode("latin-1")
        line, *rest = head.split("\r\n")
        fields = [tuple(x.split(": ", 1)) for x in rest if x]
        found = {k.lower(): v for k, v in fields}
        status = int(line.split(" ")[1])
        body, trailers = b"", ""
        if head_request or status in (204, 304) or status < 200:
            pass
        elif found.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(self.until(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    break
                body += self.exactly(size + 2)[:-2]
            while True:
                text = self.until(b"\r\n")
                if text == b"\r\n":
                    break
                trailers += text.decode("latin-1")
        elif "content-length" in found:
            body = self.exactly(int(found["content-length"]))
        else:
            while self.more():
                pass
            body, self.buffer = self.buffer, b""
        return line, fields, body, trailers


def ask(text, head_request=False):
    sock = connect()
    sock.sendall(text)
    return Answers(sock).one(head_request)


def keep_alive():
    sock = connect()
    answers = Answers(sock)
    for n in range(20):
        sock.sendall(f"GET /number/{n} HTTP/1.1\r\nHost: origin\r\n\r\n".encode())
        assert answers.one()[2] == f"GET /number/{n}".encode()


def pipelining():
    sock = connect()
    sock.sendall(b"".join(f"GET /number/{n} HTTP/1.1\r\nHost: origin\r\n\r\n".encode() for n in range(50)))
    answers = Answers(sock)
    for n in range(50):
        assert answers.one()[2] == f"GET /number/{n}".encode(), n


def chunked():
    line, _, body, _ = ask(b"POST /seen HTTP/1.1\r\nHost: origin\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n")
    seen = json.loads(body)
    assert (seen["body"], seen["framing"]) == ("abcdefg", "chunked"), seen
    assert "x-sum: 7" in seen["trailers"].lower(), seen
    assert "ext=1" not in str(seen)


def length():
    seen = json.loads(ask(b"POST /seen HTTP/1.1\r\nHost: origin\r\nContent-Length: 5\r\n\r\nhello")[2])
    assert (seen["body"], seen["framing"]) == ("hello", "length"), seen
    seen = json.loads(ask(b"POST /seen HTTP/1.1\r\nHost: origin\r\nContent-Length: 0\r\n\r\n")[2])
    assert (seen["body"], seen["framing"]) == ("", "length"), seen
    seen = json.loads(ask(b"GET /seen HTTP/1.1\r\nHost: origin\r\n\r\n")[2])
    assert seen["framing"] == "none", seen


def trailers():
    line, fields, body, last = ask(b"GET /trailers HTTP/1.1\r\nHost: origin\r\nTE: trailers\r\n\r\n")
    assert body == b"hello world", body
    assert "x-sum: 11" in last.lower() and "x-undeclared: yes" in last.lower(), last


def head():
    sock = connect()
    answers = Answers(sock)
    for _ in range(2):
        sock.sendall(b"HEAD /head HTTP/1.1\r\nHost: origin\r\n\r\n")
        line, fields, body, _ = answers.one(head_request=True)
        assert ("12345" == dict((k.lower(), v) for k, v in fields)["content-length"]) and not body, fields
    sock.sendall(b"GET /empty HTTP/1.1\r\nHost: origin\r\n\r\n")
    assert " 204 " in answers.one()[0]


def interim():
    sock = connect()
    sock.sendall(b"GET /early-hints HTTP/1.1\r\nHost: origin\r\n\r\n")
    answers = Answers(sock)
    first = answers.one()
    assert " 103 " in first[0] and any(k.lower() == "link" for k, _ in first[1]), first
    assert answers.one()[2] == b"hints"


def expect():
    sock = connect()
    sock.sendall(b"POST /seen HTTP/1.1\r\nHost: origin\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    answers = Answers(sock)
    started = time.monotonic()
    assert " 100 " in answers.one()[0]
    assert time.monotonic() - started < 0.9, "the server said 100 at once; it came late"
    sock.sendall(b"hello")
    assert json.loads(answers.one()[2])["body"] == "hello"
    sock = connect()
    sock.sendall(b"POST /refuse-expect HTTP/1.1\r\nHost: origin\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert " 417 " in Answers(sock).one()[0]


def absolute_form():
    seen = json.loads(ask(b"GET http://origin/seen?a=1 HTTP/1.1\r\nHost: origin\r\n\r\n")[2])
    line = seen["head"].split("\r\n")[0]
    assert "/seen?a=1" in line, line
    assert " 400 " in ask(b"GET http://other/seen HTTP/1.1\r\nHost: origin\r\n\r\n")[0]


def half_close():
    sock = connect()
    sock.sendall(b"GET /number/1 HTTP/1.1\r\nHost: origin\r\n\r\n")
    sock.shutdown(socket.SHUT_WR)
    answers = Answers(sock)
    assert answers.one()[2] == b"GET /number/1"
    assert answers.more() == b""


def http10():
    sock = connect()
    sock.sendall(b"GET /number/1 HTTP/1.0\r\n\r\n")
    answers = Answers(sock)
    line, fields, body, _ = answers.one()
    assert body == b"GET /number/1" and " 200 " in line, (line, body)
    assert answers.more() == b"", "a 1.0 connection ends after its answer"
    sock = connect()
    sock.sendall(b"GET /number/1 HTTP/1.0\r\nHost: origin\r\nConnection: keep-alive\r\n\r\n")
    assert Answers(sock).one()[2] == b"GET /number/1"
    sock = connect()
    sock.sendall(b"GET /trailers HTTP/1.0\r\nHost: origin\r\n\r\n")
    raw = Answers(sock)
    while raw.more():
        pass
    assert b"hello world" in raw.buffer and b"chunked" not in raw.buffer.lower(), raw.buffer


def until_close():
    line, fields, body, _ = ask(b"GET /until-close HTTP/1.1\r\nHost: origin\r\n\r\n")
    assert body == b"all that there is", body


def cut():
    """A message that ends early must not look complete."""
    for path, expected in (("/cut", b"only this"), ("/cut-chunked", b"hello")):
        sock = connect()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: origin\r\n\r\n".encode())
        try:
            line, _, body, _ = Answers(sock).one()
        except (AssertionError, ConnectionResetError):
            continue
        assert " 502 " in line, f"{path} was passed on as complete: {line} {body!r}"


def transparency():
    seen = json.loads(ask(b"GET /seen?q=%2F&r=a+b HTTP/1.1\r\nHoSt: origin\r\nX-MiXeD: a  b\r\nx-b: 1\r\nX-A: 2\r\nx-b: 3\r\nAccept-Encoding: x\r\n\r\n")[2])
    text = seen["head"]
    assert text.startswith("GET /seen?q=%2F&r=a+b HTTP/1.1\r\n"), text
    lower = text.lower()
    assert "x-mixed: a  b\r\n" in lower and lower.index("x-b: 1") < lower.index("x-b: 3"), text
    for name in ("weft-", "x-forwarded", "via:", "forwarded:"):
        assert name not in lower, text
    line, fields, _, _ = ask(b"GET /odd-names HTTP/1.1\r\nHost: origin\r\n\r\n")
    assert line == "HTTP/1.1 299 Quite Fine, Thanks", line
    values = [(k.lower(), v) for k, v in fields]
    assert ("x-mixed-case", "Value  with  blanks") in values, values
    assert [v for k, v in values if k == "x-b"] == ["1", "3"], values
    assert not any(k.startswith("weft-") for k, _ in values), values


def case_is_kept():
    seen = json.loads(ask(b"GET /seen HTTP/1.1\r\nHoSt: origin\r\nX-MiXeD: 1\r\nx-LAST: 2\r\n\r\n")[2])
    assert "\r\nX-MiXeD: 1\r\nx-LAST: 2\r\n" in seen["head"] and "\r\nHoSt: " in seen["head"], seen["head"]
    line, fields, _, _ = ask(b"GET /odd-names HTTP/1.1\r\nHost: origin\r\n\r\n")
    assert fields[0][0] == "X-MiXeD-CaSe", fields


def early_answer():
    """T07: an answer before the body was read; the next response belongs to the next request, or the connection ends."""
    sock = connect()
    smuggled = b"GET /number/666 HTTP/1.1\r\nHost: origin\r\n\r\n"
    body = smuggled + b"x" * (1000 - len(smuggled))
    sock.sendall(b"POST /early-answer HTTP/1.1\r\nHost: origin\r\nContent-Length: 1000\r\n\r\n" + body)
    answers = Answers(sock)
    assert " 403 " in answers.one()[0]
    try:
        sock.sendall(b"GET /number/7 HTTP/1.1\r\nHost: origin\r\n\r\n")
        assert answers.one()[2] == b"GET /number/7"
    except (AssertionError, ConnectionError) as error:
        assert "666" not in str(error), error


def unasked_101():
    line = ask(b"GET /unasked-101 HTTP/1.1\r\nHost: origin\r\n\r\n")[0]
    assert " 502 " in line, line


def upgrade_refused():
    """T08: bytes after an Upgrade that the server does not take never reach it."""
    sock = connect()
    sock.sendall(b"GET /no-upgrade HTTP/1.1\r\nHost: origin\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nGET /number/666 HTTP/1.1\r\nHost: origin\r\n\r\n")
    answers = Answers(sock)
    assert answers.one()[2] == b"ok"
    while answers.more():
        pass
    assert b"666" not in answers.buffer, answers.buffer


def h2c_is_dropped():
    seen = json.loads(ask(b"GET /seen HTTP/1.1\r\nHost: origin\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")[2])
    lower = seen["head"].lower()
    assert "h2c" not in lower and "http2-settings" not in lower, seen


BAD = {
    "t02": [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"],
    "t03": [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + v + b"\r\n\r\nhello" for v in (b"+5", b"5, 5", b"5\r\nContent-Length: 6", b"", b"18446744073709551616", b"-1", b"0x5")],
    "t04": [b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    + [b"POST / HTTP/1.1\r\nHost: a\r\n" + v + b"\r\n\r\n0\r\n\r\n" for v in (b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: \x0bchunked")],
    "t05": [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + v for v in (b"5\nhello\r\n0\r\n\r\n", b"5;a\nhello\r\n0\r\n\r\n", b"5;" + b"a" * 65536 + b"\r\nhello\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"5\r\nhelloX0\r\n\r\n")],
    "t06": [b"GET / HTTP/1.1\r\nHost: a\r\n" + v + b"\r\n\r\n" for v in (b"X: a\r\n Transfer-Encoding: chunked", b": v", b"X: a\x00b", b"X: a\rb")],
    "t22": [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a b@c\r\n\r\n", b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n"],
}


def refused(name):
    for text in BAD[name]:
        sock = connect()
        try:
            sock.sendall(text)
            answers = Answers(sock)
            line = answers.one()[0]
            assert " 400 " in line or " 501 " in line, f"{text[:120]!r} was answered {line}"
            while answers.more():
                pass
            assert b"HTTP/1." not in answers.buffer, f"{text[:120]!r} had a second answer: {answers.buffer[:200]!r}"
        except (ConnectionError, AssertionError) as error:
            # An abortive close is a refusal too; an answer other than a refusal is not.
            if isinstance(error, AssertionError) and "ended inside b''" not in str(error):
                raise


if check in BAD:
    refused(check)
else:
    globals()[check]()
print("ok", check)
