"""Prints a ServiceAccount token as the sandbox's would be: ES256, signed by openssl. token.py KEY NAMESPACE POD UID"""
import base64, json, subprocess, sys, time


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(der):
    """A DER signature (two INTEGERs) as the 64 bytes that JWS wants (RFC 7518 3.4)."""
    out, at = b"", 2
    for _ in range(2):
        length = der[at + 1]
        out += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + length
    return out


key, namespace, pod, uid = sys.argv[1:]
now = int(time.time())
claims = {"iss": "weft-sandbox", "aud": ["weft-ca"], "sub": f"system:serviceaccount:{namespace}:{pod}", "iat": now, "nbf": now - 60, "exp": now + 7 * 86400,
          "kubernetes.io": {"namespace": namespace, "pod": {"name": pod, "uid": uid}, "serviceaccount": {"name": pod, "uid": uid}}}
text = b64(json.dumps({"alg": "ES256", "typ": "JWT"}).encode()) + "." + b64(json.dumps(claims).encode())
signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text.encode(), capture_output=True, check=True).stdout
print(f"{text}.{b64(raw(signature))}", end="")
