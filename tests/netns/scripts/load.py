"""Keep-alive and new HTTP/1 connections for some seconds, no retries of its own: load.py HOST PORT SECONDS. Prints 'N done, M failed'."""
import http.client
import sys
import threading
import time

host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end, done, failed = time.monotonic() + seconds, [], []


def work(keep):
    connection = None
    while time.monotonic() < end:
        try:
            if connection is None:
                connection = http.client.HTTPConnection(host, port, timeout=10)
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            (done if answer.status == 200 else failed).append(f"{answer.status} {answer.getheader('weft-error')}")
            # A server may end a kept-alive connection after an answer when it says so.
            if not keep or answer.getheader("connection", "").lower() == "close":
                connection.close()
                connection = None
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{type(error).__name__}: {error}")
            connection = None
        time.sleep(0.02)


threads = [threading.Thread(target=work, args=(n % 2 == 0,)) for n in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{len(done)} done, {len(failed)} failed", *failed[:5], sep="\n  ")
sys.exit(1 if failed or not done else 0)
