"""Several gateways on one port, each a process: all serve, each is measured by itself, and one may go at any time."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from infra.local.settings import free_port
from infra.local.valkey import ValkeyServer
from services.gateway.http import acceptor
from tests.support.auth_process import ServiceProcess
from tests.support.gateway import SECRET_KEY, RunningGateway, running_gateway
from tests.support.waiting import until

ASK = f"GET /v1/offers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET_KEY}\r\n".encode()
WIDE = '{"read.server":[10000000,60],"read.account":[10000000,60]}'


@pytest.fixture
async def services(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[RunningGateway]:
    """The services behind, and how they are reached."""
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas=WIDE) as running:
        yield running


@pytest.fixture
async def pair(services: RunningGateway, run_directory: Path) -> AsyncIterator[tuple[int, list[ServiceProcess]]]:
    """Two gateways on one port."""
    port = free_port()
    gateways = []
    for name in ("one", "two"):
        environ = {
            **services.environ,
            "GATEFOLD_LISTEN": f"unix:{run_directory}/shared-{name}.sock",
            "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
            "GATEFOLD_HTTP_SHARED_PORT": "true",
        }
        gateways.append(ServiceProcess("gateway", environ, run_directory, f"shared-{name}"))
    await asyncio.gather(*(gateway.start() for gateway in gateways))
    yield port, gateways
    await asyncio.gather(*(gateway.stop() for gateway in gateways))


class Load:
    """Clients that ask one request after another until they are told to stop."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: Counter[str] = Counter()
        self.stopping = False

    async def anew(self) -> None:
        """Asks over a new connection each time."""
        while not self.stopping:
            await self._ask(ASK + b"Connection: close\r\n\r\n", 1)

    async def again(self) -> None:
        """Asks over the same connection until it is told that it ends."""
        while not self.stopping:
            await self._ask(ASK + b"\r\n", 1_000_000)

    async def _ask(self, request: bytes, times: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            self.answers[f"no connection: {error}"] += 1
            return
        try:
            for _ in range(times):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.answers[head.split(b"\r\n")[0].decode()] += 1
                if self.stopping or b"Connection: close" in head:
                    return
        except (OSError, asyncio.IncompleteReadError) as error:
            self.answers[f"no answer: {type(error).__name__}"] += 1
        finally:
            writer.close()


async def test_who_knocks_while_one_goes_reaches_another_and_is_not_cut_off() -> None:
    (going,) = acceptor.listening("127.0.0.1", 0, shared=True)
    port = going.getsockname()[1]
    (staying,) = acceptor.listening("127.0.0.1", port, shared=True)
    loop = asyncio.get_running_loop()

    async def greet() -> None:
        while True:
            accepted, _ = await loop.sock_accept(staying)
            await loop.sock_sendall(accepted, b"hello")
            accepted.close()

    async def knock() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        greeting = await reader.read()
        writer.close()
        return greeting

    assert acceptor.ignore_new(going)
    greeter = asyncio.create_task(greet())
    knocking = [asyncio.create_task(knock()) for _ in range(40)]
    # The kernel spreads them over both, so some of these were ignored and will knock again.
    await asyncio.wait(knocking, timeout=0.3)
    with pytest.raises(BlockingIOError):
        going.accept()
    going.close()
    assert await asyncio.gather(*knocking) == [b"hello"] * 40
    greeter.cancel()
    staying.close()


async def served(gateway: ServiceProcess) -> int:
    """Returns how many requests of the endpoint a process says it has answered."""
    connector = aiohttp.UnixConnector(str(gateway.admin))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/metrics") as response:
        lines = (await response.text()).splitlines()
    wanted = 'gatefold_gateway_http_seconds_count{method="GET",route="/v1/offers",status="200"} '
    return sum(int(float(line.removeprefix(wanted))) for line in lines if line.startswith(wanted))


async def test_all_serve_and_one_drains_without_a_lost_request(pair: tuple[int, list[ServiceProcess]]) -> None:
    port, (one, two) = pair
    load = Load(port)
    clients = [asyncio.create_task(ask()) for ask in [load.anew] * 6 + [load.again] * 6]
    try:
        await until(lambda: load.answers.total() >= 600)
        counted = [await served(one), await served(two)]
        assert min(counted) > 0
        os.kill(one.pid, signal.SIGTERM)
        assert await one.ended() == 0
        left = load.answers.total()
        await until(lambda: load.answers.total() >= left + 300)
    finally:
        load.stopping = True
        await asyncio.gather(*clients)
    assert set(load.answers) == {"HTTP/1.1 200 OK"}, load.answers
