"""The client of peer.py: tcp.py HOST PORT CHECK [ARGUMENT]."""
import hashlib
import socket
import struct
import sys
import time

host, port, check = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def connect(line):
    sock = socket.create_connection((host, port), timeout=20)
    sock.sendall(line)
    return sock


def expect(sock, text):
    got = b""
    while len(got) < len(text):
        data = sock.recv(len(text) - len(got))
        assert data, f"ended after {got!r}"
        got += data
    assert got == text, got


def reset_by_server():
    sock = connect(b"reset\n")
    expect(sock, b"now\n")
    sock.sendall(b"go\n")
    try:
        data = sock.recv(1)
        raise AssertionError(f"the server's reset arrived as {data!r}")
    except ConnectionResetError:
        pass


def reset_by_client():
    sock = connect(f"was-reset {sys.argv[4]}\n".encode())
    expect(sock, b"ready\n")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def close_by_server():
    sock = connect(b"close\n")
    expect(sock, b"bye\n")
    assert sock.recv(1) == b""


def half_close_by_client():
    sock = connect(b"count\n")
    data = b"x" * 300_000
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    expect(sock, f"{len(data)} {hashlib.sha256(data).hexdigest()}\n".encode())
    assert sock.recv(1) == b""


def half_close_by_server():
    sock = connect(b"half-close\n")
    expect(sock, b"mine is done\n")
    assert sock.recv(1) == b""
    for _ in range(10):
        sock.sendall(b"y" * 1000)
        time.sleep(0.02)
    sock.shutdown(socket.SHUT_WR)


def bulk():
    size = 64 << 20
    sock = connect(f"send {size}\n".encode())
    total, last = 0, b""
    while data := sock.recv(1 << 20):
        total += len(data)
        last = data
    assert total == size and last[-1] == 255, total
    sock = connect(b"count\n")
    block, digest = bytes(range(256)) * 4096, hashlib.sha256()
    for _ in range(32):
        sock.sendall(block)
        digest.update(block)
    sock.shutdown(socket.SHUT_WR)
    expect(sock, f"{32 << 20} {digest.hexdigest()}\n".encode())


def refused():
    """A port that nothing listens on: the client sees a reset, at once."""
    started = time.monotonic()
    try:
        sock = socket.create_connection((host, port), timeout=10)
        sock.sendall(b"\x00\x01opaque\n")
        data = sock.recv(1)
        raise AssertionError(f"something answered: {data!r}")
    except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
        pass
    took = time.monotonic() - started
    assert took < 1, f"it took {took:.2f} s"


globals()[check]()
print("ok", check)
