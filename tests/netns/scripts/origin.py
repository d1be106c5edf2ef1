"""An HTTP/1 server on bare sockets that answers exactly what it is told, for what libraries would smooth over.

origin.py PORT: every path is a behaviour; /seen answers with what arrived, byte for byte, as JSON (the head in latin-1, the body, trailers).
"""
import json
import socket
import sys
import threading


class Gone(Exception):
    pass


class Reader:
    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Gone
        self.buffer += data

    def until(self, mark):
        while mark not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(mark, 1)
        return head + mark

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data


def fields(head):
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [tuple(x.strip() for x in line.split(":", 1)) for line in lines]


def body_of(reader, found):
    if found.get("transfer-encoding", "").lower() == "chunked":
        body, chunks = b"", 0
        while True:
            size = int(reader.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                break
            body += reader.exactly(size + 2)[:-2]
            chunks += 1
        trailers = b""
        while True:
            line = reader.until(b"\r\n")
            if line == b"\r\n":
                return body, trailers.decode("latin-1"), "chunked"
            trailers += line
    if "content-length" in found:
        return reader.exactly(int(found["content-length"])), "", "length"
    return b"", "", "none"


def answer(sock, status, headers, body=b"", head=False):
    out = f"HTTP/1.1 {status}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers)
    sock.sendall(out.encode("latin-1") + b"\r\n" + (b"" if head else body))


def serve(sock):
    reader = Reader(sock)
    try:
        while True:
            head = reader.until(b"\r\n\r\n")
            method, target, version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            found = {k.lower(): v for k, v in fields(head)}
            path = target.split("?")[0]
            if "//" in path:
                path = "/" + path.split("//", 1)[1].split("/", 1)[-1]
            if path == "/refuse-expect":
                answer(sock, "417 Expectation Failed", [("Content-Length", "0"), ("Connection", "close")])
                return
            if found.get("expect", "").lower() == "100-continue":
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if path == "/early-answer":
                answer(sock, "403 Forbidden", [("Content-Length", "2")], b"no")
                continue_body = body_of(reader, found)
                del continue_body
                continue
            body, trailers, framing = body_of(reader, found)
            is_head = method == "HEAD"
            if path == "/seen":
                seen = json.dumps({"head": head.decode("latin-1"), "body": body.decode("latin-1"), "trailers": trailers, "framing": framing}).encode()
                answer(sock, "200 OK", [("Content-Length", len(seen)), ("Content-Type", "application/json")], seen, is_head)
            elif path == "/early-hints":
                sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
                answer(sock, "200 OK", [("Content-Length", "5")], b"hints")
            elif path == "/trailers":
                sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\nX-Undeclared: yes\r\n\r\n")
            elif path == "/odd-names":
                answer(sock, "299 Quite Fine, Thanks", [("X-MiXeD-CaSe", "Value  with  blanks"), ("x-b", "1"), ("X-A", "2"), ("x-b", "3"), ("Content-Length", "0")])
            elif path == "/head":
                answer(sock, "200 OK", [("Content-Length", "12345")], b"x" * 12345, is_head)
            elif path == "/until-close":
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nall that there is")
                sock.shutdown(socket.SHUT_WR)
                return
            elif path == "/empty":
                answer(sock, "204 No Content", [])
            elif path == "/cut":
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
                return
            elif path == "/cut-chunked":
                sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                return
            elif path == "/unasked-101":
                sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n")
                return
            elif path == "/no-upgrade":
                answer(sock, "200 OK", [("Content-Length", "2")], b"ok")
            else:
                text = f"{method} {target}".encode()
                answer(sock, "200 OK", [("Content-Length", len(text))], text, is_head)
            if version == "HTTP/1.0" or found.get("connection", "").lower() == "close":
                return
    except (Gone, OSError, ValueError):
        pass
    finally:
        sock.close()


def main():
    listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


main()
