"""A custom Upgrade token on a POST-less request, with bytes sent before the 101: hotrod.py HOST PORT"""
import socket
import sys

sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15)
sock.sendall(b"GET /cache HTTP/1.1\r\nHost: upgrade\r\nConnection: Upgrade\r\nUpgrade: hotrod\r\n\r\n" + b"early bytes;")
got = b""
while b"\r\n\r\n" not in got:
    data = sock.recv(4096)
    assert data, got
    got += data
head, rest = got.split(b"\r\n\r\n", 1)
assert head.startswith(b"HTTP/1.1 101") and b"hotrod" in head.lower(), head
sock.sendall(b"late bytes")
while len(rest) < 22:
    data = sock.recv(4096)
    assert data, rest
    rest += data
assert rest == b"early bytes;late bytes", rest
sock.shutdown(socket.SHUT_WR)
assert sock.recv(1) == b"", "the end of our half comes back as the end of the echo"
print("ok")
