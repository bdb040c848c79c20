"""Signing in at cost 12: how many a second, and what health, refusals and memory do while 500 want to at once."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from uuid import UUID

import aiohttp
import bcrypt
import psutil
from gatefold.auth.v1 import api_key_pb2, subscriber_session_pb2

from infra.local.settings import ROOT
from libs import caller
from libs.errors import GatefoldError, Kind
from services.auth.domain import password as rules
from tests.bench.harness import Bench
from tests.support.auth import PASSWORD
from tests.support.auth_process import AuthStack, auth_stack

COST = 12
READERS = 64
AT_ONCE = 500
FLOODS = 3
IN_FLIGHT = 8
"""As many as keep all cores hashing, and fewer than the queue takes."""
RUNS = 5
SECONDS = 4.0
MEGABYTE = 1_000_000

_QUOTAS = {
    f"{kind}.{whom}": [1_000_000, 60] for kind in ("strict", "in_flight") for whom in ("browser", "account", "address")
}
SETTINGS = {"GATEFOLD_BCRYPT_COST": str(COST), "GATEFOLD_HASH_QUEUE": "16"}
EDGE_SETTINGS = {
    # Each client has an address of its own: what is measured here is the queue, not the limits in front of it.
    "GATEFOLD_TRUSTED_PROXIES": "127.0.0.1/32",
    "GATEFOLD_RATE_QUOTAS": json.dumps(_QUOTAS),
}

SignIn = Callable[[str], Awaitable[int]]
"""Signs a reader in; returns the HTTP status, or the one that the edge would answer."""


async def measure(bench: Bench) -> None:
    """Measures over gRPC, as the gateway calls, and over HTTP through a gateway: three processes on the same cores."""
    async with auth_stack(1, SETTINGS, EDGE_SETTINGS) as stack, AsyncExitStack() as exits:
        account = (await stack.house.publisher()).live
        key = await publishable_key(stack, account)
        client = await exits.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        ways = {"grpc": by_grpc(stack, account), "http": by_http(stack, client, key)}
        emails = await stack.add_readers(account, READERS, cost=COST)
        for name, way in ways.items():
            await _rate(bench, f"sign-in-{name}", stack, way, emails)
        many = await stack.add_readers(account, AT_ONCE, cost=COST)
        for name, way in ways.items():
            await _flood(bench, f"sign-in-{name}", stack, way, many)


async def _rate(bench: Bench, case: str, stack: AuthStack, way: SignIn, emails: Sequence[str]) -> None:
    following = itertools.cycle(emails)
    stored = stack.hashed(COST).hash.encode()
    raw = rules.material(PASSWORD, stack.house.environ["GATEFOLD_PASSWORD_PEPPER"].encode())
    pool = ThreadPoolExecutor(os.cpu_count())
    loop = asyncio.get_running_loop()

    async def ours() -> None:
        assert await way(next(following)) == 200

    async def bare() -> None:
        assert await loop.run_in_executor(pool, bcrypt.checkpw, raw, stored)

    named = f"bare bcrypt.checkpw at cost {COST} on all {os.cpu_count()} cores"
    await bench.compare(case, ours, bare, named=named, goal=0.9, concurrency=IN_FLIGHT, runs=RUNS, seconds=SECONDS)
    pool.shutdown()


@dataclass
class _Flood:
    """What happened while many wanted to sign in at once."""

    statuses: Counter[int]
    refused: list[float]
    """Seconds until each refusal."""
    health: dict[str, list[float]]
    memory: int
    """Most bytes that auth had to itself, or its share of (PSS)."""


async def _flood(bench: Bench, case: str, stack: AuthStack, way: SignIn, emails: Sequence[str]) -> None:
    floods = [await flood(stack, way, emails) for _ in range(FLOODS)]
    statuses = sum((one.statuses for one in floods), Counter[int]())
    sys.stdout.write(f"{case}: of {FLOODS} × {len(emails)} at once {dict(statuses)}\n")
    refused = percentile([seconds for one in floods for seconds in one.refused], 0.99)
    limits = {"runs": FLOODS, "concurrency": len(emails), "goal": 1.0, "higher_is_better": False}
    said = f"1 s for the p99 of refusals, {len(emails)} sign-ins at once"
    bench.add(f"{case}-refusal", (refused, 1.0, "s"), named=said, **limits)  # type: ignore[arg-type]
    for name in floods[0].health:
        worst = percentile([seconds for one in floods for seconds in one.health[name]], 0.99)
        said = f"100 ms for the p99 of health, {len(emails)} sign-ins at once"
        bench.add(f"{case}-health-{name}", (worst * 1000, 100.0, "ms"), named=said, **limits)  # type: ignore[arg-type]
    memory = max(one.memory for one in floods) / MEGABYTE
    bench.add(f"{case}-memory", (memory, 200.0, "MB"), named="200 MB for auth, PSS", **limits)  # type: ignore[arg-type]
    bench.add(
        f"{case}-unexpected",
        (float(sum(statuses.values()) - statuses[200] - statuses[503] - statuses[429]), 1.0, ""),
        named="answers but 200, 429 and 503",
        **{**limits, "goal": 0.0},  # type: ignore[arg-type]
    )


async def flood(stack: AuthStack, way: SignIn, emails: Sequence[str]) -> _Flood:
    """Signs all in at once while health is asked for."""
    listen = stack.house.environ["GATEFOLD_LISTEN"]
    targets = {
        "auth-grpc": f"grpc:{listen}",
        "auth-http": f"unix:{stack.auth.admin}",
        "gateway": f"{stack.urls[0]}/healthz",
    }
    prober = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.prober",
        *targets.values(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**24,
    )
    assert prober.stdout is not None
    await prober.stdout.readline()
    memory = [_memory(stack)]

    async def one(email: str) -> tuple[int, float]:
        began = time.perf_counter()
        status = await way(email)
        return status, time.perf_counter() - began

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.5)
            memory.append(_memory(stack))

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(one(email) for email in emails))
    watching.cancel()
    out, _ = await prober.communicate(b"")
    measured = json.loads(out)
    return _Flood(
        Counter(status for status, _ in answers),
        [seconds for status, seconds in answers if status in (429, 503)],
        {name: measured[target] for name, target in targets.items()},
        max(memory),
    )


def _memory(stack: AuthStack) -> int:
    return int(psutil.Process(stack.auth.pid).memory_full_info().pss)


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value below which that share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def by_grpc(stack: AuthStack, account: UUID) -> SignIn:
    """Signs in as the gateway does it."""
    house = stack.house

    async def sign_in(email: str) -> int:
        request = subscriber_session_pb2.SignInRequest(email=email, password=PASSWORD)
        try:
            with caller.acting(house.page(account)):
                await house.readers.SignIn(request, timeout=30)
        except GatefoldError as error:
            return {Kind.UNAVAILABLE: 503, Kind.TOO_MANY: 429}.get(error.kind, 500)
        return 200

    return sign_in


def by_http(stack: AuthStack, client: aiohttp.ClientSession, key: str) -> SignIn:
    """Signs in as a page does it, each time from another address."""
    numbers = itertools.count()
    url = f"{stack.urls[0]}/v1/sessions"

    async def sign_in(email: str) -> int:
        number = next(numbers)
        headers = {
            "Authorization": f"Bearer {key}",
            "X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        }
        async with client.post(url, json={"email": email, "password": PASSWORD}, headers=headers) as response:
            await response.read()
            return response.status

    return sign_in


async def publishable_key(stack: AuthStack, account: UUID) -> str:
    """Makes a publishable key."""
    house = stack.house
    staff = replace(house.staff(account), auth_time=house.clock.wall(), acr="aal1")
    request = api_key_pb2.CreateApiKeyRequest(kind=api_key_pb2.API_KEY_KIND_PUBLISHABLE, name="bench")
    answer = await house.call(staff, house.api_keys.CreateApiKey, request)
    assert isinstance(answer, api_key_pb2.CreateApiKeyResponse)
    return answer.secret
