#!/usr/bin/env python3
"""Every kind of gRPC call, in another language: grpcio against the sample service.

    grpc_client.py HOST:PORT [--calls N] [--ca FILE]

Each check prints one line. The first one that fails ends the program with 1.
"""

import argparse
import collections
import threading
import time

import grpc
import sample
from sample import Request

MEBIBYTE = 1 << 20


def expect(condition, what):
    if not condition:
        raise SystemExit(f"failed: {what}")


def failure(call):
    """The error that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise SystemExit("failed: a call that should fail went well")


def unary(stub):
    reply = stub.Unary(Request(text="hello", payload=b"\0\xff"), timeout=20)
    expect((reply.text, reply.payload) == ("hello", b"\0\xff"), f"unary: {reply}")
    return f"answered by {reply.pod}"


def server_stream(stub):
    replies = list(stub.ServerStream(Request(text="stream", messages=5), timeout=20))
    expect([reply.sequence for reply in replies] == [1, 2, 3, 4, 5], f"server stream: {replies}")
    return f"{len(replies)} replies"


def client_stream(stub):
    reply = stub.ClientStream((Request(payload=b"x" * 1000) for _ in range(7)), timeout=20)
    expect((reply.received, reply.received_bytes) == (7, 7000), f"client stream: {reply}")
    return f"{reply.received} requests received"


def bidirectional(stub):
    """Each request is sent only after the reply to the one before: nothing on the way may wait for more."""
    turn = threading.Semaphore(1)

    def requests():
        for number in range(5):
            expect(turn.acquire(timeout=20), "bidirectional: a reply is held back")
            yield Request(text=str(number))

    texts = []
    for reply in stub.Bidirectional(requests(), timeout=60):
        texts.append(reply.text)
        turn.release()
    expect(texts == ["0", "1", "2", "3", "4"], f"bidirectional: {texts}")
    return "5 requests, each after the reply to the one before"


def calls(stub, count):
    pods = collections.Counter(stub.Unary(Request(), timeout=20).pod for _ in range(count))
    told = ", ".join(f"{pod} {number}" for pod, number in sorted(pods.items()))
    return f"{count} calls on one connection: {told}"


def status(stub):
    """A status with its message and metadata, before any reply (trailers only), and after one."""
    request = Request(status_code=9, status_message="not now, später", trailers={"x-why": "because"})
    error = failure(lambda: stub.Unary(request, timeout=20))
    expect(error.code() == grpc.StatusCode.FAILED_PRECONDITION, f"status: {error}")
    expect(error.details() == "not now, später", f"status: {error.details()}")
    expect(("x-why", "because") in error.trailing_metadata(), f"status: {error.trailing_metadata()}")
    stream = stub.ServerStream(Request(messages=2, status_code=8), timeout=20)
    received = []
    error = failure(lambda: received.extend(iter(stream)) or received)
    expect(error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, f"status of a stream: {error}")
    return "code, message and trailers arrive, at once and behind a stream"


def trailers(stub):
    reply, call = stub.Unary.with_call(Request(trailers={"x-checksum": "7"}), timeout=20)
    expect(("x-checksum", "7") in call.trailing_metadata(), f"trailers: {call.trailing_metadata()}")
    return f"x-checksum behind a reply of {reply.pod}"


def deadline(stub):
    start = time.monotonic()
    error = failure(lambda: stub.Unary(Request(delay_ms=20_000), timeout=0.3))
    took = time.monotonic() - start
    expect(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, f"deadline: {error}")
    expect(took < 5, f"deadline: it took {took:.1f} s")
    return f"exceeded after {took * 1000:.0f} ms"


def cancel(stub):
    stream = stub.ServerStream(Request(messages=1000, delay_ms=100), timeout=60)
    next(stream)
    stream.cancel()
    error = failure(lambda: list(stream))
    expect(error.code() == grpc.StatusCode.CANCELLED, f"cancel: {error}")
    reply = stub.Unary(Request(text="after"), timeout=20)
    expect(reply.text == "after", "cancel: the connection does not go on")
    return "a stream is cancelled, the connection goes on"


def big(stub):
    size = 5 * MEBIBYTE
    reply = stub.Unary(Request(payload=b"b" * size), timeout=60)
    expect(reply.payload == b"b" * size, f"big: {len(reply.payload)} bytes came back")
    replies = stub.ServerStream(Request(messages=4, response_size=size), timeout=60)
    expect([len(reply.payload) for reply in replies] == [size] * 4, "big: a stream of big replies")
    return "5 MiB there and back, and four such replies in a stream"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="HOST:PORT")
    parser.add_argument("--calls", type=int, default=30, help="unary calls on one connection (default 30)")
    parser.add_argument("--ca", help="PEM file of the CA of a TLS server")
    arguments = parser.parse_args()
    with sample.channel(arguments.target, arguments.ca) as channel:
        stub = sample.stub(channel)
        checks = [unary, server_stream, client_stream, bidirectional, status, trailers, deadline, cancel, big]
        for check in checks[:4]:
            print(f"{check.__name__}: {check(stub)}", flush=True)
        print(f"balance: {calls(stub, arguments.calls)}", flush=True)
        for check in checks[4:]:
            print(f"{check.__name__}: {check(stub)}", flush=True)


if __name__ == "__main__":
    main()
