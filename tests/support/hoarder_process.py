"""Runs one gateway's limiter in a process of its own, and against it a client that hoards: settings come on stdin."""

import asyncio
import sys
import time

import orjson

from libs.config import Secret
from libs.redis_client import RedisConfig, connect
from libs.telemetry import Telemetry
from services.gateway.http.limits import LocalLimiter, RateStore
from services.gateway.http.limits.limit import Limit

WARM = 16


async def hoard(limiter: RateStore, limit: Limit, starts: list[float], hold_seconds: float) -> list[tuple[int, int]]:
    """Has as much leased as it can, lets what is owed come back while it holds that, and spends all at once.

    Returns when each admitted request was asked and answered, in microseconds of the clock that all processes share.
    """
    admitted: list[tuple[int, int]] = []

    async def ask() -> bool:
        asked = time.monotonic_ns() // 1000
        decision = await limiter.decide([limit], 1)
        if decision.admitted:
            admitted.append((asked, time.monotonic_ns() // 1000))
        return decision.admitted

    for start in starts:
        await asyncio.sleep(max(0.0, start - time.monotonic()))
        for _ in range(WARM):
            await ask()
            await asyncio.sleep(0.002)
        await asyncio.sleep(max(0.0, start + hold_seconds - time.monotonic()))
        refused = 0
        while refused < 3:
            refused += not await ask()
    return admitted


async def main() -> None:
    """Says when it is ready, reads when to start, and writes what was let through."""
    settings = orjson.loads(sys.stdin.readline())
    client, telemetry = connect(RedisConfig(Secret(settings["url"]))), Telemetry("gateway")
    limiter = RateStore(
        client,
        LocalLimiter(time.monotonic),
        # However busy the machine is, no decision is this process's own.
        seconds=60,
        monotonic=time.monotonic,
        telemetry=telemetry,
        lease_seconds=settings["lease_seconds"],
    )
    await limiter.warm()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    starts = orjson.loads(sys.stdin.readline())
    limit = Limit("read-hoard", settings["key"], settings["amount"], settings["seconds"])
    admitted = await hoard(limiter, limit, starts, settings["hold_seconds"])
    calls = telemetry.registry.get_sample_value("gatefold_gateway_rate_store_calls_total")
    sys.stdout.write(orjson.dumps({"admitted": admitted, "calls": calls}).decode() + "\n")
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
