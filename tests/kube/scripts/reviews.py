"""Sends what no API server would to the webhook: HOST ROUNDS. Tells how it was answered; hanging up without an answer counts apart."""

import collections
import http.client
import json
import random
import ssl
import sys

HOST, ROUNDS = sys.argv[1], int(sys.argv[2])
RANDOM = random.Random(7)
CONTEXT = ssl._create_unverified_context()
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}


def review(pod=POD, **request):
    request = {"uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE", "namespace": "x", "object": pod, **request}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def deep(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


GOOD = json.dumps(review()).encode()
BODIES = [
    b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"apiVersion":', deep(100_000), b"[" * 200_000,
    b" " * (4 << 20), GOOD + b" " * (4 << 20), b'{"a":"' + b"a" * (2 << 20) + b'"}',
    json.dumps(review(operation="DELETE")).encode(),
    json.dumps(review(operation="CONNECT", subResource="exec")).encode(),
    json.dumps(review(kind={"group": "apps", "version": "v1", "kind": "Deployment"})).encode(),
    json.dumps(review(pod=None)).encode(), json.dumps(review(pod=[])).encode(), json.dumps(review(pod={"spec": 7})).encode(),
    json.dumps(review(uid=None)).encode(), json.dumps({**review(), "apiVersion": "admission.k8s.io/v9"}).encode(),
    json.dumps(review({**POD, "spec": {"containers": [{}] * 50_000}})).encode(),
    json.dumps(review({**POD, "metadata": {"annotations": {"weft.dev/skip-uids": "9" * 100_000}}})).encode(),
    json.dumps(review({**POD, "metadata": {"name": "\x1b[2J\r\nx"}})).encode(),
]


def send(body, method="POST", path="/inject", fields=None):
    connection = http.client.HTTPSConnection(HOST, 443, context=CONTEXT, timeout=15)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **(fields or {})})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, http.client.RemoteDisconnected):
        # An answer that came before the whole body was taken may be lost with the connection.
        return "closed" if len(body) > 64 << 10 else "unanswered"
    except TimeoutError:
        return "unanswered"
    finally:
        connection.close()


seen = collections.Counter()
for body in BODIES:
    for path in ("/inject", "/inject/strict", "/inject/pod-security", "/", "/inject/../x"):
        seen[send(body, path=path)] += 1
for method in ("GET", "PUT", "DELETE", "OPTIONS", "TRACE"):
    seen[send(GOOD, method)] += 1
seen[send(GOOD, fields={"Content-Type": "text/plain"})] += 1
for _ in range(ROUNDS):
    # One good review with a few bytes changed.
    body = bytearray(GOOD)
    for _ in range(RANDOM.randint(1, 8)):
        body[RANDOM.randrange(len(body))] = RANDOM.randrange(256)
    seen[send(bytes(body))] += 1
unanswered = seen.pop("unanswered", 0)
print(f"{sum(seen.values()) + unanswered} reviews:", ", ".join(f"{status} {count} times" for status, count in sorted(seen.items())) + f"; {unanswered} unanswered")
