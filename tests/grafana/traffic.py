"""HTTP requests for some seconds, in waves: traffic.py SECONDS PER_SECOND URL... A URL that is named more often is asked more often."""
import http.client
import math
import random
import sys
import threading
import time
import urllib.parse

seconds, rate, urls = float(sys.argv[1]), float(sys.argv[2]), [urllib.parse.urlsplit(u) for u in sys.argv[3:]]
begin = time.monotonic()
WORKERS = 4


def work(number):
    kept = {}
    while (now := time.monotonic() - begin) < seconds:
        url = random.choice(urls)
        try:
            connection = kept.pop(url.netloc, None) or http.client.HTTPConnection(url.hostname, url.port or 80, timeout=8)
            connection.request("GET", url.path or "/")
            answer = connection.getresponse()
            answer.read()
            if not answer.will_close:
                kept[url.netloc] = connection
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(random.expovariate(rate / WORKERS * (1 + 0.5 * math.sin(now / 9 + number))))


threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
