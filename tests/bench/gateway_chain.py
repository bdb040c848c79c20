"""What the gateway adds to bare aiohttp: the whole way to a service and back, and what it answers by itself.

All of it with 200 rules and a list of 100,000 networks in force, and with limits, telemetry and activities at work.
Each server has one core, the load (wrk), the store and the service behind have the others. What is compared is
requests for each second of CPU time that the server took, which is its rate on a core of its own; what was seen on the
wire is printed beside it, and says as much of the load as of the server.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from uuid import UUID

import psutil
from gatefold.gateway.v1 import bundle_pb2

from infra.local.settings import free_port
from services.gateway.clients.bundle_file import BundleFile
from services.gateway.domain.bundle import EntryList, ListKind
from services.gateway.domain.register import Contents, HeldList, HeldRule
from services.gateway.usecases import packing
from tests.bench.firewall import NETWORKS, RULES, rule
from tests.bench.harness import Bench
from tests.support.auth_process import ServiceProcess
from tests.support.bare_server import bare_process
from tests.support.gateway import SECRET_KEY, running_gateway
from tests.support.gateway_process import pin
from tests.support.stores import RunDirectory, new_valkey

RUNS = 5
SECONDS = 1.0
CONNECTIONS = 32
OPEN = {f"read.{whom}": [1_000_000_000, 60] for whom in ("person", "account", "address")}
UNWANTED = "unwanted/1.0"
"""The agent that a rule refuses."""
QUOTAS = json.dumps({**OPEN, "read.server": [1, 3600]})


@dataclass(frozen=True)
class Case:
    """One kind of request."""

    name: str
    path: str
    credential: str
    status: int
    goal: float
    agent: str = ""


@dataclass(frozen=True)
class Measured:
    """One run."""

    per_cpu_second: float
    per_second: float


async def measure(bench: Bench) -> None:
    """Measures the cases in turns with a bare handler."""
    cores = sorted(os.sched_getaffinity(0))
    if shutil.which("wrk") is None or len(cores) < 2:
        sys.stdout.write("gateway-full-chain: left out, it needs wrk (apt-get install wrk) and two cores\n")
        return
    os.sched_setaffinity(0, set(cores[1:]))
    try:
        async with _gateway(cores[0]) as (url, process, cases), _bare(cores[0]) as (bare_url, bare):
            await _compare(bench, cases, (url, process), (bare_url, bare))
    finally:
        os.sched_setaffinity(0, set(cores))


async def _compare(
    bench: Bench, cases: list[Case], gateway: tuple[str, psutil.Process], bare: tuple[str, psutil.Process]
) -> None:
    yardstick = Case("bare", "/", "", 200, 0)
    runs: dict[str, list[Measured]] = {case.name: [] for case in (yardstick, *cases)}
    for _ in range(RUNS):
        runs["bare"].append(await _run(bare, yardstick))
        for case in cases:
            runs[case.name].append(await _run(gateway, case))
    for case in cases:
        ours, theirs = runs[case.name], runs["bare"]
        ratio = median(one.per_cpu_second / two.per_cpu_second for one, two in zip(ours, theirs, strict=True))
        rates = (median(one.per_cpu_second for one in ours), median(one.per_cpu_second for one in theirs), "/s")
        bench.add(
            case.name,
            rates,
            named="bare aiohttp, by CPU time of the server",
            ratio=ratio,
            goal=case.goal,
            runs=RUNS,
            concurrency=CONNECTIONS,
        )
        seen = median(one.per_second for one in ours), median(one.per_second for one in theirs)
        sys.stdout.write(
            f"{case.name}: {1e6 / rates[0]:.0f} µs of CPU a request (bare {1e6 / rates[1]:.0f}); "
            f"on the wire {seen[0]:,.0f}/s (bare {seen[1]:,.0f}/s)\n"
        )


async def _run(server: tuple[str, psutil.Process], case: Case) -> Measured:
    url, process = server
    before = _cpu(process)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:g}s", f"{url}{case.path}"]
    if case.credential:
        command += ["-H", f"Authorization: Bearer {case.credential}"]
    if case.agent:
        command += ["-H", f"User-Agent: {case.agent}"]
    made = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out = (await made.communicate())[0].decode()
    spent = _cpu(process) - before
    requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    # A server that answers something else than the case says would be measured doing something else.
    others = requests - int(refused[1]) if refused and case.status >= 400 else int(refused[1]) if refused else 0
    assert requests > 0, out
    assert case.status < 400 or refused, out
    assert others <= CONNECTIONS, out
    return Measured(requests / spent, float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]))  # type: ignore[index]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def _gateway(core: int) -> AsyncIterator[tuple[str, psutil.Process, list[Case]]]:
    """A gateway in a process of its own, in front of services that answer at once."""
    directory = RunDirectory()
    valkey = new_valkey(directory.path / "valkey")
    valkey.start()
    try:
        async with running_gateway(directory.path, valkey.url(), rate_quotas=QUOTAS) as services:
            port = free_port()
            environ: Mapping[str, str] = {
                **services.environ,
                "GATEFOLD_LISTEN": f"unix:{directory.path}/bench.sock",
                "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
                "GATEFOLD_RATE_STORE_SECONDS": "0.02",
                "GATEFOLD_BUNDLE_FILE": str(directory.path / "bundle" / "version"),
            }
            _keep_version(directory.path / "bundle" / "version")
            gateway = ServiceProcess("gateway", dict(environ), directory.path, "bench")
            await gateway.start()
            process = psutil.Process(gateway.pid)
            pin(process, core)
            signer = services.backend.signer
            reader = signer.token(exp=_tomorrow())
            other = signer.staff(exp=_tomorrow())
            try:
                yield (
                    f"http://127.0.0.1:{port}",
                    process,
                    [
                        Case("gateway-full-chain", "/v1/access?feature=premium", reader, 200, 0.40),
                        Case("gateway-local-403", "/v1/products", reader, 403, 0.70, agent=UNWANTED),
                        Case("gateway-local-403-scope", "/v1/products", reader, 403, 0.70),
                        Case("gateway-local-429", "/v1/products", SECRET_KEY, 429, 0.70),
                        Case("gateway-local-404", "/v1/nothing", other, 404, 0.70),
                    ],
                )
            finally:
                await gateway.stop()
    finally:
        valkey.stop()
        directory.remove()


def _keep_version(path: Path) -> None:
    """Writes the file of the last good version, which a gateway without a database starts with."""
    now = datetime.now(UTC)
    refused = "client.address", f'request.user_agent == "{UNWANTED}" || in_list(client.address, "unwanted")'
    made = [rule(number) for number in range(1, RULES)]
    made.append(replace(made[0], id=UUID(int=RULES), name=refused[0], expression=refused[1]))
    networks = sorted(f"{10 + number // 65536}.{number // 256 % 256}.{number % 256}.0/24" for number in range(NETWORKS))
    entries = tuple((network, None) for network in networks)
    entry_list = EntryList(UUID(int=1), "unwanted", ListKind.NETWORKS)
    held = packing.packed(entries)
    contents = Contents(
        tuple(HeldRule(one, "ops", now, 1) for one in made),
        (HeldList(entry_list, "", len(entries), held.digest, now, 1),),
    )
    content = packing.serialised(contents)
    snapshot = bundle_pb2.Snapshot(
        lineage=bytes(16), version=1, digest=hashlib.sha256(content).digest(), content=content, sets=[held]
    )
    snapshot.made_at.FromDatetime(now)
    BundleFile(path).save(snapshot.SerializeToString())


def _tomorrow() -> int:
    return int(time.time()) + 86_400


@asynccontextmanager
async def _bare(core: int) -> AsyncIterator[tuple[str, psutil.Process]]:
    """aiohttp that does nothing but answer."""
    answer = json.dumps({"allowed": True, "reason": "entitled"})
    with bare_process(answer) as (port, process):
        pin(process, core)
        yield f"http://127.0.0.1:{port}", process
