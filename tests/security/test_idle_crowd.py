"""Ten thousand connections that do nothing: each ends at its stated time, and meanwhile an honest client is served."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from infra.local.settings import ROOT
from infra.local.valkey import ValkeyServer
from services.gateway.domain.bounds import ConnectionBounds
from tests.support.gateway import SECRET_KEY
from tests.support.idle_crowd import IdleCrowd, allow_files
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-12")

MANY = 10_000
BOUNDS = ConnectionBounds()
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
WIDE = '{"read.server":[1000000,60]}'


class Gateway:
    """A gateway in a process of its own, whose time is the test's."""

    def __init__(self, child: asyncio.subprocess.Process, port: int) -> None:
        self._child = child
        self.port = port

    async def later(self, seconds: float) -> dict[str, float]:
        """Moves its time; returns how many connections wait for what, and why others were ended."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{seconds}\n".encode())
        told: dict[str, float] = json.loads(await self._child.stdout.readline())
        return told

    async def until(self, **states: float) -> None:
        """Returns once so many connections wait for something."""

        async def there() -> bool:
            told = await self.later(0)
            return all(told[name] == count for name, count in states.items())

        await until(there)

    async def serves_the_honest(self) -> None:
        """An honest request, over a connection of its own, answered by a service."""
        headers = {"Authorization": f"Bearer {SECRET_KEY}"}
        url = f"http://127.0.0.1:{self.port}/v1/offers"
        async with aiohttp.ClientSession(headers=headers) as client, client.get(url) as answer:
            assert answer.status == 200


@asynccontextmanager
async def serving(folder: Path, store: ValkeyServer, **settings: str) -> AsyncIterator[tuple[Gateway, IdleCrowd]]:
    """Runs a gateway and the crowd before it."""
    allow_files(MANY)
    told = json.dumps({"rate_quotas": WIDE, **settings})
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.clocked_gateway", str(folder), store.url().reveal(), told),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdout is not None
    gateway = Gateway(child, int(await child.stdout.readline()))
    crowd = IdleCrowd(gateway.port)
    try:
        yield gateway, crowd
    finally:
        crowd.close()
        child.stdin.close()  # type: ignore[union-attr]
        assert await child.wait() == 0


async def test_each_of_ten_thousand_ends_at_its_time(run_directory: Path, valkey_server: ValkeyServer) -> None:
    async with serving(run_directory, valkey_server, connections="12000") as (gateway, crowd):
        await asyncio.to_thread(crowd.open, MANY)
        await gateway.until(open=MANY, new=MANY)
        await gateway.serves_the_honest()
        await asyncio.to_thread(crowd.say, HEALTH, MANY // 2)
        await gateway.until(new=MANY // 2, idle=MANY // 2)
        told = await gateway.later(BOUNDS.first_byte_seconds - 0.1)
        assert (told["new"], told["idle"], told["ended first_byte"]) == (MANY // 2, MANY // 2, 0)
        await gateway.serves_the_honest()
        told = await gateway.later(0.1)
        assert told["ended first_byte"] == MANY // 2
        await asyncio.to_thread(crowd.until, MANY // 2)
        await gateway.serves_the_honest()
        told = await gateway.later(BOUNDS.idle_seconds - BOUNDS.first_byte_seconds - 0.1)
        assert told["ended idle"] == 0
        told = await gateway.later(0.1)
        assert told["ended idle"] == MANY // 2
        await asyncio.to_thread(crowd.until, 0)
        await gateway.serves_the_honest()
