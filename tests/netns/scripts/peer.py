"""A TCP server on bare sockets whose first line from the client says what it shall do: for FIN, RST, half-close and bulk. peer.py PORT"""
import hashlib
import socket
import struct
import sys
import threading


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def serve(sock):
    try:
        line = b""
        while not line.endswith(b"\n"):
            byte = sock.recv(1)
            if not byte:
                return
            line += byte
        word, *rest = line.decode().split()
        if word == "reset":
            sock.sendall(b"now\n")
            if sock.recv(4) == b"go\n":
                reset(sock)
                return
        elif word == "close":
            sock.sendall(b"bye\n")
        elif word == "half-close":
            # Ends its own half at once, and goes on reading.
            sock.sendall(b"mine is done\n")
            sock.shutdown(socket.SHUT_WR)
            total = 0
            while data := sock.recv(65536):
                total += len(data)
            print(f"half-close {total}", flush=True)
            return
        elif word == "count":
            # Answers only when the client has ended its half.
            digest, total = hashlib.sha256(), 0
            while data := sock.recv(65536):
                digest.update(data)
                total += len(data)
            sock.sendall(f"{total} {digest.hexdigest()}\n".encode())
        elif word == "send":
            left, block = int(rest[0]), bytes(range(256)) * 256
            while left > 0:
                left -= sock.send(block[:min(left, len(block))])
        elif word == "was-reset":
            sock.sendall(b"ready\n")
            try:
                while sock.recv(65536):
                    pass
                print(f"{rest[0]} closed", flush=True)
            except ConnectionResetError:
                print(f"{rest[0]} reset", flush=True)
    except OSError:
        pass
    finally:
        sock.close()


listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
