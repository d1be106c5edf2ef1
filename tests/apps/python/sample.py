"""The messages and stubs of ../proto/sample.proto, made when this is imported, so that nothing generated lies about."""

import importlib
import os
import sys
import tempfile

import grpc
from grpc_tools import protoc

OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def _generate():
    proto = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "proto")
    with tempfile.TemporaryDirectory(prefix="weft-sample-") as made:
        status = protoc.main(["protoc", f"-I{proto}", f"--python_out={made}", f"--grpc_python_out={made}", "sample.proto"])
        if status:
            raise RuntimeError(f"protoc ended with {status}")
        sys.path.insert(0, made)
        try:
            return importlib.import_module("sample_pb2"), importlib.import_module("sample_pb2_grpc")
        finally:
            sys.path.remove(made)


messages, services = _generate()
Request = messages.Request
Reply = messages.Reply


def channel(target, ca=None):
    """A channel to HOST:PORT; TLS when the file of a CA is given."""
    if ca is None:
        return grpc.insecure_channel(target, options=OPTIONS)
    with open(ca, "rb") as file:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()), options=OPTIONS)


def stub(channel):
    """The service on a channel."""
    return services.SampleStub(channel)
