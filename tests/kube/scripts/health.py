"""A gRPC server of which nothing is known but its health (grpc.health.v1): health.py PORT"""
import concurrent.futures
import sys

import grpc

SERVING = b"\x08\x01"
check = grpc.unary_unary_rpc_method_handler(lambda request, context: SERVING)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})])
server.add_insecure_port(f"[::]:{sys.argv[1]}")
server.start()
server.wait_for_termination()
