"""What one client's flood does to another, through the gateway and through nginx with `limit_req` before a service.

Both servers refuse by address beyond the same rate, and one after the other has one core; the flood (wrk), the honest
client and the service behind have the other. The honest client yields to nobody on its core: what it waits for is the
server.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil

from infra.local.settings import free_port
from services.gateway.domain.bounds import ConnectionBounds
from tests.bench.harness import Bench
from tests.support.bare_server import bare_process
from tests.support.gateway import PUBLISHABLE_KEY
from tests.support.gateway_process import gateway_process, pin
from tests.support.patient_client import patience
from tests.support.stores import RunDirectory

RUNS = 5
SECONDS = 3.0
WARM_SECONDS = 1.0
"""How long the flood lasts before anything is measured: what may be had at once is used up by then."""
CONNECTIONS = 32
PATH = "/v1/offers"
RATE, BURST = 200, 400
"""Requests that one address has a second, and at once; the honest client asks less."""
WIDE = [1_000_000_000, 60]
QUOTAS = json.dumps({"read.browser": [BURST, BURST // RATE], "read.account": WIDE})
MOST_TIMES = 2.0
"""How many times as long as without a flood the honest client's slowest hundredth may take."""
FLOODS = {
    "flood": ("over connections that stay", ()),
    "flood-anew": ("a connection for each request", ("-H", "Connection: close")),
}
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    limit_req_zone $binary_remote_addr zone=address:10m rate={rate}r/s;
    upstream service {{ server 127.0.0.1:{service}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        limit_req zone=address burst={burst} nodelay; limit_req_status 429;
        location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""


@dataclass(frozen=True)
class Seen:
    """One run: what the honest client waited for, in seconds, and what became of the flood, a second."""

    before: Sequence[float]
    during: Sequence[float]
    refused: float
    admitted: float


async def measure(bench: Bench) -> None:
    """Measures both in turns."""
    cores = sorted(os.sched_getaffinity(0))
    missing = [name for name in ("wrk", "nginx") if shutil.which(name) is None]
    if missing or len(cores) < 2:
        sys.stdout.write("flood: left out, it needs wrk and nginx (apt-get install wrk nginx-light) and two cores\n")
        return
    os.sched_setaffinity(0, set(cores[1:]))
    try:
        least = str(ConnectionBounds().refusals_per_client)
        gateway = gateway_process(cores[0], rate_quotas=QUOTAS, rate_store_seconds="0.02", refusals_per_client=least)
        async with gateway as (ours, _), _nginx(cores[0]) as theirs:
            for case, (words, arguments) in FLOODS.items():
                runs: dict[int, list[Seen]] = {ours: [], theirs: []}
                for run in range(RUNS):
                    for port in (ours, theirs) if run % 2 == 0 else (theirs, ours):
                        runs[port].append(await _run(port, arguments))
                _tell(bench, case, words, runs[ours], runs[theirs])
    finally:
        os.sched_setaffinity(0, set(cores))


def _tell(bench: Bench, case: str, words: str, ours: Sequence[Seen], theirs: Sequence[Seen]) -> None:
    for name, runs in (("gateway", ours), ("nginx", theirs)):
        sys.stdout.write(
            f"{case}: {name:<8} before p50 {_ms(runs, 'before', 50):.2f} p99 {_ms(runs, 'before', 99):.2f} ms, "
            f"during p50 {_ms(runs, 'during', 50):.2f} p99 {_ms(runs, 'during', 99):.2f} ms; of the flood "
            f"{median(one.refused for one in runs):,.0f}/s refused, "
            f"{median(one.admitted for one in runs):,.0f}/s let in\n"
        )
    before, during = _ms(ours, "before", 99), _ms(ours, "during", 99)
    bench.add(
        case,
        (during, _ms(theirs, "during", 99), "ms"),
        named=f"nginx limit_req; the honest client's p99 during a flood, {words}",
        higher_is_better=False,
        runs=RUNS,
        concurrency=CONNECTIONS,
    )
    bench.add(
        f"{case}-held",
        (during, before, "ms"),
        named="the honest client's p99 before it",
        goal=MOST_TIMES,
        higher_is_better=False,
        runs=RUNS,
        concurrency=CONNECTIONS,
    )


def _ms(runs: Sequence[Seen], when: str, percent: int) -> float:
    """Returns the runs' median of a percentile, in milliseconds."""
    return 1000 * median(quantiles(getattr(run, when), n=100)[percent - 1] for run in runs)


async def _run(port: int, arguments: Sequence[str]) -> Seen:
    before = await patience(port, PATH, PUBLISHABLE_KEY, SECONDS)
    command = ["nice", "-n", "19", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{WARM_SECONDS + SECONDS + 1:g}s", *arguments]
    command += ["-H", f"Authorization: Bearer {PUBLISHABLE_KEY}", f"http://127.0.0.1:{port}{PATH}"]
    flood = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        await asyncio.sleep(WARM_SECONDS)
        during = await patience(port, PATH, PUBLISHABLE_KEY, SECONDS)
        out = (await flood.communicate())[0].decode()
    finally:
        if flood.returncode is None:
            flood.kill()
    total, seconds = re.search(r"(\d+) requests in ([\d.]+)s", out).groups()  # type: ignore[union-attr]
    found = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    refused = int(found[1]) if found else 0
    assert refused, out
    return Seen(before, during, refused / float(seconds), (int(total) - refused) / float(seconds))


@asynccontextmanager
async def _nginx(core: int) -> AsyncIterator[int]:
    """nginx in front of a service that answers at once; yields its port."""
    directory = RunDirectory()
    with bare_process("{}") as (service, _):
        port = free_port()
        folder = Path(directory.path)
        told = folder / "nginx.conf"
        told.write_text(NGINX.format(folder=folder, port=port, service=service, rate=RATE, burst=BURST))
        nginx = await asyncio.create_subprocess_exec("nginx", "-p", str(folder), "-c", str(told))
        try:
            pin(psutil.Process(nginx.pid), core)
            await _listens(port)
            yield port
        finally:
            nginx.terminate()
            await nginx.wait()
            directory.remove()


async def _listens(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
