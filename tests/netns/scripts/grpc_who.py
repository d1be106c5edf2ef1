"""Which pod answers which method. grpc_who.py TARGET"""
import sys

from sample import Request, channel, stub

service = stub(channel(sys.argv[1]))
print("unary", service.Unary(Request(), timeout=5).pod)
print("server_stream", next(iter(service.ServerStream(Request(messages=1), timeout=5))).pod)
