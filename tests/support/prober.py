"""Owns a prober of health in a process of its own, so that who makes the load does not delay who measures it.

Its arguments are addresses, `http://…/healthz`, `unix:/….sock` (HTTP, /healthz) or `grpc:unix:/….sock` (the health
service of gRPC). It asks each in turn without end, with a pause between, prints a line when it has begun, and with the
end of its standard input one JSON line: for each address the seconds that every answer took.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

PAUSE_SECONDS = 0.02

Probe = Callable[[], Awaitable[None]]


async def main(addresses: list[str]) -> None:
    """Probes until standard input ends."""
    seconds: dict[str, list[float]] = {address: [] for address in addresses}
    tasks = [asyncio.create_task(_ask(address, seconds[address])) for address in addresses]
    sys.stdout.write("probing\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    for task in tasks:
        task.cancel()
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(failure, Exception):
            raise failure
    sys.stdout.write(json.dumps(seconds) + "\n")


async def _ask(address: str, seconds: list[float]) -> None:
    if address.startswith("grpc:"):
        async with grpc.aio.insecure_channel(address.removeprefix("grpc:")) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def check() -> None:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

            await _over_and_over(check, seconds)
    path = address.removeprefix("unix:")
    connector = aiohttp.TCPConnector() if path == address else aiohttp.UnixConnector(path)
    url = address if path == address else "http://service/healthz"
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get() -> None:
            async with session.get(url) as response:
                await response.read()
                assert response.status == 200

        await _over_and_over(get, seconds)


async def _over_and_over(probe: Probe, seconds: list[float]) -> None:
    await probe()  # opens the connection
    while True:
        began = time.perf_counter()
        await probe()
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(sys.argv[1:]))
