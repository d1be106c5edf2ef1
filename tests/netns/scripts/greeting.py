"""Milliseconds from connect to the first byte of a server that speaks first: the least of 20. greeting.py HOST PORT"""
import socket
import sys
import time

least = 1e9
for _ in range(20):
    started = time.monotonic()
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=15) as sock:
        assert sock.recv(3) == b"220"
    least = min(least, (time.monotonic() - started) * 1000)
print(f"{least:.3f}")
