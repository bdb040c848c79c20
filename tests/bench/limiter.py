"""Store calls a request at 90 % load, with all let through that one exact counter lets through; and a refusal's CPU."""

import heapq
import io
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import uuid4

from libs.caller import Caller, CallerKind
from libs.clock import SystemClock
from libs.errors import GatefoldError
from libs.redis_client import RedisConfig, connect
from libs.telemetry import Telemetry
from services.gateway.config import ROOT
from services.gateway.http.contracts import Contracts
from services.gateway.http.exchange import Exchange
from services.gateway.http.limits import Limits, LocalLimiter, Quotas, RateStore
from services.gateway.http.limits.store import LEASE_SECONDS
from services.gateway.http.problems import Problems
from tests.bench.harness import Bench
from tests.support.rates import Microseconds, Oracle, TimedStore, gateway
from tests.support.stores import new_valkey

GATEWAYS = 4
SECONDS = 60
LOAD = 0.9
KEYS, READERS = 2, 10
KEY_RATE, READER_RATE = 100.0, 10.0
"""Requests a second that the default quotas of the class `read` give back."""
MOST_CALLS = 0.15
MOST_MICROSECONDS = 40.0
REFUSALS, RUNS = 2000, 9

Arrival = tuple[int, Caller, int]
"""Microsecond, who, at which gateway."""


async def measure(bench: Bench) -> None:
    """Measures both on a real Valkey, whose script reads a clock that jumps from one request to the next."""
    with TemporaryDirectory(prefix="gatefold-bench-") as folder:
        Path(folder).chmod(0o711)
        server = new_valkey(Path(folder) / "valkey")
        server.start()
        client = connect(RedisConfig(server.url()))
        try:
            await _calls(bench, client)
            await _refusal(bench, client)
        finally:
            await client.aclose()
            server.stop()


async def _calls(bench: Bench, client: Any) -> None:
    clock, oracle, quotas = Microseconds(), Oracle(), Quotas({})
    begin = clock.now
    store = TimedStore(client, clock)
    limiters = [gateway(store, clock, lease_seconds=LEASE_SECONDS) for _ in range(GATEWAYS)]
    requests = admitted = expected = 0
    for at, caller, number in _arrivals(random.Random(7)):
        clock.now = begin + at
        limits = quotas.of("read", caller, "203.0.113.7").limits
        requests += 1
        admitted += (await limiters[number].decide(limits, 1)).admitted
        expected += oracle.admits(limits, 1, clock.now)
    bench.add(
        "limiter",
        (store.calls / requests, 1.0, "calls"),
        named=f"one store call a request; {requests} requests at {LOAD:.0%} of all quotas",
        goal=MOST_CALLS,
        higher_is_better=False,
        concurrency=GATEWAYS,
    )
    bench.add(
        "limiter-admitted",
        (float(admitted), float(expected), "requests"),
        named="what one exact counter lets through of them",
        goal=1.0,
        concurrency=GATEWAYS,
    )


def _arrivals(chance: random.Random) -> Iterator[Arrival]:
    """Keys are used through all gateways, as servers do; a reader's browser keeps to one connection."""
    account = uuid4()
    callers = [
        (Caller(kind=CallerKind.SECRET_KEY, actor=f"key_{n}", account=account), KEY_RATE, None) for n in range(KEYS)
    ] + [
        (Caller(kind=CallerKind.SUBSCRIBER, actor=f"subj_{n}", account=account), READER_RATE, n % GATEWAYS)
        for n in range(READERS)
    ]
    due = [(chance.expovariate(rate * LOAD), index) for index, (_, rate, _) in enumerate(callers)]
    heapq.heapify(due)
    while due[0][0] < SECONDS:
        at, index = due[0]
        caller, rate, place = callers[index]
        yield int(at * 1_000_000), caller, chance.randrange(GATEWAYS) if place is None else place
        heapq.heapreplace(due, (at + chance.expovariate(rate * LOAD), index))


async def _refusal(bench: Bench, client: Any) -> None:
    telemetry = Telemetry("bench", stream=io.StringIO())
    limiter = RateStore(client, LocalLimiter(time.monotonic), seconds=5, monotonic=time.monotonic, telemetry=telemetry)
    limits = Limits(
        Quotas({"read.server": (10, 3600)}, monotonic=time.monotonic),
        limiter,
        clock=SystemClock(),
        monotonic=time.monotonic,
        telemetry=telemetry,
    )
    contracts = Contracts.load(ROOT / "gen" / "descriptors.binpb")
    endpoint = next(one for one in contracts.endpoints if one.rpc.endswith("/ListProducts"))
    caller = Caller(kind=CallerKind.SECRET_KEY, actor="key_refused", account=uuid4())
    problems = Problems("/problems/")

    async def ask() -> int:
        exchange = Exchange(cast("Any", None), "r", 0.0, 0.0, "/", "", "203.0.113.7", None)
        try:
            (await limits.admit(exchange, caller, endpoint)).leave()
        except GatefoldError as error:
            return problems.response(error, exchange.request_id).status
        return 200

    while await ask() == 200:
        pass
    taken: list[float] = []
    for _ in range(RUNS):
        began = time.process_time()
        for _ in range(REFUSALS):
            await ask()
        taken.append((time.process_time() - began) / REFUSALS * 1_000_000)
    bench.add(
        "limiter-refusal",
        (statistics.median(taken), MOST_MICROSECONDS, "µs"),
        named=f"{MOST_MICROSECONDS:.0f} µs of CPU, from the known caller to the written problem",
        goal=1.0,
        higher_is_better=False,
        runs=RUNS,
    )
