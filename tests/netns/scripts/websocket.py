"""A WebSocket client with the `websockets` library: websocket.py URL CHECK"""
import os
import sys
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

url = sys.argv[1]


def messages():
    with connect(url, max_size=None) as socket:
        for text in ("", "hello", "ü" * 1000):
            socket.send(text)
            assert socket.recv(timeout=10) == text
        data = os.urandom(70_000)
        socket.send(data)
        assert socket.recv(timeout=10) == data
        assert socket.ping().wait(10), "no pong"


def close():
    with connect(url) as socket:
        socket.send("close 4001 so long")
        try:
            socket.recv(timeout=10)
            raise AssertionError("it was not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "so long"), closed
    socket = connect(url)
    socket.close(4002, "and thanks")
    assert socket.close_code == 4002 or socket.protocol.close_rcvd.code == 4002, socket.protocol.close_rcvd


def big():
    with connect(url, max_size=None, compression=None) as socket:
        for _ in range(3):
            data = os.urandom(1 << 20)
            socket.send(data)
            assert socket.recv(timeout=20) == data


def silence():
    with connect(url, ping_interval=None) as socket:
        socket.send("before")
        assert socket.recv(timeout=10) == "before"
        time.sleep(20)
        socket.send("after")
        assert socket.recv(timeout=10) == "after"


globals()[sys.argv[2]]()
print("ok", sys.argv[2])
