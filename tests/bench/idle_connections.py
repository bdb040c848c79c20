"""Ten thousand connections that do nothing: what each takes of memory, when it ends, and what others notice of it."""

import asyncio
import os
import sys
import time
from statistics import quantiles

import psutil

from tests.bench.harness import Bench
from tests.support.gateway import PUBLISHABLE_KEY
from tests.support.gateway_process import gateway_process
from tests.support.idle_crowd import IdleCrowd, allow_files
from tests.support.patient_client import patience

MANY = 10_000
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
FIRST_BYTE_SECONDS, IDLE_SECONDS = 60.0, 10.0
"""The first is longer than it takes to open all; the second is measured."""
SETTINGS = {
    "connections": str(2 * MANY),
    "first_byte_seconds": str(FIRST_BYTE_SECONDS),
    "idle_seconds": str(IDLE_SECONDS),
    "rate_quotas": '{"read.browser":[1000000,60],"read.account":[1000000,60]}',
}
SECONDS = 5.0
MOST_TIMES = 2.0
LATE_SECONDS = 2.0
"""Connections are looked at once a second, and are then to be closed."""
MOST_KILOBYTES = 32.0


async def measure(bench: Bench) -> None:
    """Opens them, lets each ask once, and waits until the gateway has ended them."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        allow_files(MANY)
    except OSError as error:
        sys.stdout.write(f"idle-connections: left out, {error}\n")
        return
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))
    try:
        async with gateway_process(cores[0], **SETTINGS) as (port, process):
            await _measure(bench, port, process)
    finally:
        os.sched_setaffinity(0, set(cores))


async def _measure(bench: Bench, port: int, process: psutil.Process) -> None:
    before = await patience(port, "/v1/offers", PUBLISHABLE_KEY, SECONDS)
    crowd, empty = IdleCrowd(port), process.memory_info().rss
    try:
        await asyncio.to_thread(crowd.open, MANY)
        silent = process.memory_info().rss
        during = await patience(port, "/v1/offers", PUBLISHABLE_KEY, SECONDS)
        assert len(crowd) == MANY
        began = time.perf_counter()
        await asyncio.to_thread(crowd.say, HEALTH, MANY)
        answered, idle = time.perf_counter(), process.memory_info().rss
        await asyncio.to_thread(crowd.until, 0)
        last = time.perf_counter() - answered
    finally:
        crowd.close()
    sys.stdout.write(
        f"idle-connections: {(silent - empty) / MANY / 1024:.1f} KiB each before it says anything; all asked once "
        f"in {answered - began:.1f} s; the last was ended {last:.1f} s later\n"
    )
    p99 = [1000 * quantiles(took, n=100)[98] for took in (during, before)]
    bench.add(
        "idle-connections-memory",
        ((idle - empty) / MANY / 1024, MOST_KILOBYTES, "KiB"),
        named=f"the most that one of {MANY} idle connections may take, once it has asked something",
        goal=1.0,
        higher_is_better=False,
        concurrency=MANY,
    )
    bench.add(
        "idle-connections-end",
        (last, IDLE_SECONDS + LATE_SECONDS, "s"),
        named=f"their time of {IDLE_SECONDS:g} s and {LATE_SECONDS:g} s for looking",
        goal=1.0,
        higher_is_better=False,
        concurrency=MANY,
    )
    bench.add(
        "idle-connections-held",
        (p99[0], p99[1], "ms"),
        named="the honest client's p99 without them",
        goal=MOST_TIMES,
        higher_is_better=False,
        concurrency=MANY,
    )
