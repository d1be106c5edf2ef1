"""One WebSocket and one bidirectional gRPC call that talk until /tmp/stop is there: streams.py WEBSOCKET-URL GRPC-TARGET.
Each answer is a line in /tmp/websocket or /tmp/grpc. Fails when a stream ends by itself."""
import os
import sys
import threading
import time

from sample import Request, channel, stub
from websockets.sync.client import connect

failed = []


def going():
    return not (os.path.exists("/tmp/stop") or failed)


def websocket():
    with connect(sys.argv[1], ping_interval=None) as socket, open("/tmp/websocket", "w", buffering=1) as told:
        while going():
            socket.send("again")
            assert socket.recv(timeout=10) == "again"
            print("again", file=told)
            time.sleep(0.1)


def requests():
    while going():
        yield Request(text="again")
        time.sleep(0.1)


def grpc():
    with open("/tmp/grpc", "w", buffering=1) as told:
        for reply in stub(channel(sys.argv[2])).Bidirectional(requests(), timeout=300):
            print(reply.text, file=told)
    assert not going(), "the call ended by itself"


def run(stream):
    try:
        stream()
    except Exception as error:
        failed.append(f"{stream.__name__}: {error!r}")


threads = [threading.Thread(target=run, args=(stream,)) for stream in (websocket, grpc)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("; ".join(failed) or 0)
