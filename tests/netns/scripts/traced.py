"""One call within a span: traced.py h1|grpc|websocket TARGET TRACEPARENT. Prints the trace context that arrived, where the server tells it."""
import sys
import urllib.request

kind, target, parent = sys.argv[1:]
if kind == "h1":
    request = urllib.request.Request(f"http://{target}/", headers={"traceparent": parent, "tracestate": "a=1,b=2"})
    print(urllib.request.urlopen(request, timeout=10).read().decode())
elif kind == "grpc":
    from sample import Request, channel, stub

    stub(channel(target)).Unary(Request(text="x"), timeout=10, metadata=[("traceparent", parent)])
else:
    from websockets.sync.client import connect

    with connect(f"ws://{target}/echo", additional_headers={"traceparent": parent}) as socket:
        socket.send("x")
        assert socket.recv(timeout=10) == "x"
