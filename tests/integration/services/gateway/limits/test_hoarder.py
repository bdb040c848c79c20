"""Four gateways in processes of their own, each with a client that hoards leases: every window holds the bound."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from typing import Any

import pytest

from infra.local.valkey import ValkeyServer
from libs.redis_client import Store
from services.gateway.config import ROOT
from services.gateway.http.limits.holdings import LEASE_SHARE
from services.gateway.http.limits.limit import Limit

GATEWAYS = 4
AMOUNT, SECONDS, LEASE_SECONDS = 200, 1, 2
HOLD_SECONDS = 1.6
ROUNDS = 2


async def _line(process: Process, **written: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(written.get("value", written)).encode() + b"\n")
    await process.stdin.drain()


def _units_in_the_worst_window(admitted: list[tuple[int, int]], emission: int) -> float:
    """Returns the most units beyond rate × window; all of them were decided between a window's begin and end."""
    ends = sorted(admitted, key=lambda one: one[1])
    worst = 0.0
    for begin, _ in admitted:
        units = 0
        for asked, answered in ends:
            if asked >= begin:
                units += 1
                worst = max(worst, units - (answered - begin) / emission)
    return worst


@pytest.mark.case("edge-2")
async def test_no_window_has_more_than_rate_burst_and_what_may_be_held(
    valkey_server: ValkeyServer, redis: Store
) -> None:
    settings = {
        "url": valkey_server.url().reveal(),
        "key": "hoarded",
        "amount": AMOUNT,
        "seconds": SECONDS,
        "lease_seconds": LEASE_SECONDS,
        "hold_seconds": HOLD_SECONDS,
    }
    command = (sys.executable, "-m", "tests.support.hoarder_process")
    processes = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE) for _ in range(GATEWAYS)
    ]
    try:
        for process in processes:
            await _line(process, **settings)
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        begin = time.monotonic() + 0.2
        starts = [begin + number * (HOLD_SECONDS + 0.4) for number in range(ROUNDS)]
        for process in processes:
            await _line(process, value=starts)
        told = [json.loads((await process.communicate())[0]) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    admitted = [(asked, answered) for one in told for asked, answered in one["admitted"]]
    limit = Limit("read-hoard", "hoarded", AMOUNT, SECONDS)
    rate = AMOUNT / SECONDS
    held = min(GATEWAYS * (AMOUNT // LEASE_SHARE), rate * LEASE_SECONDS)
    assert _units_in_the_worst_window(admitted, limit.emission) <= AMOUNT + held
    assert len(admitted) >= AMOUNT
    assert sum(one["calls"] for one in told) < len(admitted), "much was decided from leases"
