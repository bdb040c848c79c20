"""Owns the honest client beside a flood, in a process of its own: one request after another, each of them timed.

Its arguments are host, port, path, the address it comes from, the credential it shows, for how many seconds, and the
pause between two requests. It prints one JSON line, the seconds that each answer took, and fails when one is not 200.
"""

import http.client
import json
import sys
import time


def main(host: str, port: str, path: str, source: str, credential: str, seconds: str, pause_seconds: str) -> None:
    """Asks over one connection, which it opens anew when the server ends it between two requests."""
    took: list[float] = []
    ends = time.perf_counter() + float(seconds)
    client = http.client.HTTPConnection(host, int(port), timeout=30, source_address=(source, 0))
    while time.perf_counter() < ends:
        began = time.perf_counter()
        client.request("GET", path, headers={"Authorization": f"Bearer {credential}"})
        answer = client.getresponse()
        answer.read()
        took.append(time.perf_counter() - began)
        if answer.status != 200:
            raise SystemExit(f"the honest client was answered {answer.status}")
        time.sleep(float(pause_seconds))
    sys.stdout.write(json.dumps(took) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
