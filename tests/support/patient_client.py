"""Owns the honest client of benchmarks, in a process of its own: one request after another, each of them timed.

Its arguments are port, path, the address it comes from, the credential it shows, for how many seconds, and the pause
between two requests. It prints one JSON line, the seconds that each answer took, and fails when one is not 200.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import time

ADDRESS = "127.0.0.2"
PAUSE_SECONDS = 0.006


async def patience(port: int, path: str, credential: str, seconds: float) -> list[float]:
    """Returns the seconds that each answer of a server on this machine took an honest client."""
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.patient_client", str(port), path, ADDRESS, credential),
        *(str(seconds), str(PAUSE_SECONDS)),
        stdout=subprocess.PIPE,
    )
    out, _ = await client.communicate()
    assert client.returncode == 0
    took: list[float] = json.loads(out)
    return took


def main(port: str, path: str, source: str, credential: str, seconds: str, pause_seconds: str) -> None:
    """Asks over one connection."""
    took: list[float] = []
    ends = time.perf_counter() + float(seconds)
    client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30, source_address=(source, 0))
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
