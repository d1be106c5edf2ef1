"""A TLS client whose ClientHello leaves in segments of a few bytes, then echoes. split_hello.py HOST PORT"""
import socket
import ssl
import sys
import time

host, port = sys.argv[1], int(sys.argv[2])
for step in (1, 7, 100):
    sock = socket.create_connection((host, port), timeout=15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=host)

    def flush(small):
        data = outgoing.read()
        for at in range(0, len(data), small or max(1, len(data))):
            sock.sendall(data[at:at + (small or len(data))])
            if small:
                time.sleep(0.001)

    def drive(act):
        small = step
        while True:
            try:
                result = act()
                flush(0)
                return result
            except ssl.SSLWantReadError:
                flush(small)
                small = 0
                data = sock.recv(65536)
                assert data, "the connection ended"
                incoming.write(data)

    drive(tls.do_handshake)
    tls.write(b"hello through segments")
    flush(0)
    got = b""
    while len(got) < 22:
        got += drive(lambda: tls.read(100))
    assert got == b"hello through segments", got
    sock.close()
print("ok")
