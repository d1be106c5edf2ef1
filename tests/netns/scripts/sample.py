"""The sample service's messages and stub, from its proto file."""
import os
import sys

import grpc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../apps/proto"))
messages, services = grpc.protos_and_services("sample.proto")
Request = messages.Request


def stub(target, wait=15, **options):
    """A stub on one channel, which is one connection: 127.0.0.1 style targets and names alike."""
    channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                                                     ("grpc.use_local_subchannel_pool", 1), *options.items()])
    grpc.channel_ready_future(channel).result(timeout=wait)
    return services.SampleStub(channel)
