"""Everything that gRPC promises, with grpcio: grpc_kinds.py TARGET CHECK"""
import sys
import threading
import time

import grpc
from sample import Request, channel, stub

service = stub(channel(sys.argv[1]))


def unary():
    assert service.Unary(Request(text="a", payload=b"b"), timeout=5).payload == b"b"


def server_stream():
    replies = [r.sequence for r in service.ServerStream(Request(messages=50), timeout=10)]
    assert replies == list(range(1, 51)), replies


def client_stream():
    reply = service.ClientStream((Request(payload=b"x" * 1000) for _ in range(50)), timeout=10)
    assert (reply.received, reply.received_bytes) == (50, 50_000), reply


def bidirectional():
    """Each reply comes before the next request is sent: nothing waits for more."""
    turn = threading.Semaphore(1)

    def requests():
        for n in range(20):
            assert turn.acquire(timeout=5)
            yield Request(text=str(n))

    seen = []
    for reply in service.Bidirectional(requests(), timeout=20):
        seen.append(reply.text)
        turn.release()
    assert seen == [str(n) for n in range(20)], seen


def trailers():
    reply, call = service.Unary.with_call(Request(trailers={"x-after": "the end"}), timeout=5)
    assert ("x-after", "the end") in call.trailing_metadata(), call.trailing_metadata()


def trailers_only():
    try:
        service.Unary(Request(status_code=9, status_message="not now: ü", trailers={"x-why": "because"}), timeout=5)
        raise AssertionError("it succeeded")
    except grpc.RpcError as error:
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: ü"), error
        assert ("x-why", "because") in error.trailing_metadata(), error.trailing_metadata()
    # A stream that breaks after two messages: both arrive, then the status.
    seen = []
    try:
        for reply in service.ServerStream(Request(messages=2, status_code=8, status_message="enough"), timeout=5):
            seen.append(reply.sequence)
        raise AssertionError("it succeeded")
    except grpc.RpcError as error:
        assert seen == [1, 2] and error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, (seen, error)


def deadline():
    started = time.monotonic()
    try:
        service.Unary(Request(delay_ms=5000), timeout=0.5)
        raise AssertionError("it succeeded")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - started < 2
    unary()


def cancel():
    for _ in range(20):
        call = service.ServerStream(Request(messages=100_000, delay_ms=5))
        next(iter(call))
        call.cancel()
    unary()


def big():
    payload = bytes(range(256)) * (5 * 1024 * 4)
    assert len(payload) == 5 << 20
    assert service.Unary(Request(payload=payload), timeout=20).payload == payload
    reply = service.ClientStream(iter([Request(payload=payload)] * 3), timeout=30)
    assert reply.received_bytes == 15 << 20, reply.received_bytes


globals()[sys.argv[2]]()
print("ok", sys.argv[2])
