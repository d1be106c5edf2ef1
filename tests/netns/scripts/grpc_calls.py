"""N unary calls on one connection: how many each pod answered. grpc_calls.py TARGET N"""
import collections
import sys

from sample import Request, channel, stub

service = stub(channel(sys.argv[1]))
counts = collections.Counter(service.Unary(Request(text="x"), timeout=10).pod for _ in range(int(sys.argv[2])))
for pod, count in sorted(counts.items()):
    print(pod, count)
