"""A gRPC client behind a relay that connects at once, and passes the client's first byte on only after some seconds.

late_grpc.py TARGET SECONDS CALLS: how many calls each pod answered."""
import collections
import socket
import sys
import threading
import time

from sample import Request, channel, stub

host, port = sys.argv[1].rsplit(":", 1)


def pump(source, sink, delay):
    try:
        data = source.recv(65536)
        time.sleep(delay)
        while data:
            sink.sendall(data)
            data = source.recv(65536)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def relay(listener):
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((host, int(port)))
        threading.Thread(target=pump, args=(near, far, float(sys.argv[2])), daemon=True).start()
        threading.Thread(target=pump, args=(far, near, 0), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=relay, args=(listener,), daemon=True).start()
service = stub(channel(f"127.0.0.1:{listener.getsockname()[1]}"))
counts = collections.Counter(service.Unary(Request(text="x"), timeout=60, wait_for_ready=True).pod for _ in range(int(sys.argv[3])))
for pod, count in sorted(counts.items()):
    print(pod, count)
