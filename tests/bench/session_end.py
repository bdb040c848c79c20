"""How long an ended session or API key is still taken, by the gateway that is slower to know."""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
from gatefold.auth.v1 import api_key_pb2, session_pb2

from libs import caller
from tests.bench.harness import Bench
from tests.bench.sign_in import percentile
from tests.support.auth_process import AuthStack, auth_stack

ENDS = 200
AT_ONCE = 4
GATEWAYS = 2
LOOK_SECONDS = 0.01
LIMIT_SECONDS = 1.0

_QUOTAS = {
    f"{rate}.{whom}": [1_000_000, 60]
    for rate in ("read", "write", "strict")
    for whom in ("person", "server", "account", "address")
}

Credential = tuple[str, Callable[[], Awaitable[object]]]
"""What a client shows, and what ends it."""


async def measure(bench: Bench) -> None:
    """Counts from before the end is asked for until both gateways refuse what they took a moment ago."""
    async with (
        auth_stack(GATEWAYS, edge_settings={"GATEFOLD_RATE_QUOTAS": json.dumps(_QUOTAS)}) as stack,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
    ):
        sessions, keys = await _sessions(stack, client), await _keys(stack)
        for case, make in (("session-end", sessions), ("session-end-api-key", keys)):
            await _measure(bench, case, stack, client, make)


async def _measure(
    bench: Bench,
    case: str,
    stack: AuthStack,
    client: aiohttp.ClientSession,
    make: Callable[[], Awaitable[Credential]],
) -> None:
    taken: list[float] = []
    left = itertools.repeat(None, ENDS)

    async def one_after_another() -> None:
        for _ in left:
            shown, end = await make()
            for url in stack.urls:
                assert await _status(client, url, shown) != 401
            watching = [asyncio.create_task(_until_refused(client, url, shown)) for url in stack.urls]
            began = time.perf_counter()
            await end()
            taken.append(max(await asyncio.gather(*watching)) - began)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    bench.add(
        case,
        (percentile(taken, 0.99), LIMIT_SECONDS, "s"),
        named=f"1 s for the p99 of {ENDS}, median {percentile(taken, 0.5):.3f} s",
        goal=1.0,
        higher_is_better=False,
        runs=ENDS,
        concurrency=AT_ONCE,
    )


async def _until_refused(client: aiohttp.ClientSession, url: str, shown: str) -> float:
    # A gateway tells nobody what it has read.
    while await _status(client, url, shown) != 401:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    return time.perf_counter()


async def _status(client: aiohttp.ClientSession, url: str, shown: str) -> int:
    """Asks for what a reader may see: a key that is good is told that it is not a reader (403)."""
    headers = {"Authorization": f"Bearer {shown}"}
    async with client.get(f"{url}/v1/session/devices", headers=headers) as response:
        await response.read()
        return response.status


async def _sessions(stack: AuthStack, client: aiohttp.ClientSession) -> Callable[[], Awaitable[Credential]]:
    account = (await stack.house.publisher()).live
    emails = itertools.cycle(await stack.add_readers(account, 2 * AT_ONCE, cost=4))

    async def make() -> Credential:
        tokens: session_pb2.Tokens = await stack.house.sign_in(account, next(emails))
        headers = {"Authorization": f"Bearer {tokens.access_token}"}

        async def end() -> None:
            async with client.post(f"{stack.urls[0]}/v1/session/sign_out", json={}, headers=headers) as response:
                assert response.status == 200

        return tokens.access_token, end

    return make


async def _keys(stack: AuthStack) -> Callable[[], Awaitable[Credential]]:
    house = stack.house
    account = (await house.publisher()).live

    async def make() -> Credential:
        staff = replace(house.staff(account), auth_time=house.clock.wall(), acr="aal1")
        request = api_key_pb2.CreateApiKeyRequest(kind=api_key_pb2.API_KEY_KIND_SECRET, name="bench")
        made = await house.call(staff, house.api_keys.CreateApiKey, request)
        assert isinstance(made, api_key_pb2.CreateApiKeyResponse)

        async def end() -> None:
            with caller.acting(staff):
                await house.api_keys.RevokeApiKey(api_key_pb2.RevokeApiKeyRequest(id=made.api_key.id), timeout=10)

        return made.secret, end

    return make
