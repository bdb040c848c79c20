"""Several gateways of one machine that are told one address for the rules: one serves them, for all, until it ends."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from infra.local.settings import free_port
from infra.local.valkey import ValkeyServer
from tests.support.auth_process import ServiceProcess
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.operator import WIDE
from tests.support.stores import TestPostgres
from tests.support.waiting import until

ASKED = 40
NOTE = {
    "name": "note",
    "expression": 'request.path.startsWith("/v1/firewall/nothing")',
    "action": "log",
    "mode": "enforce",
}


@dataclass
class Pair:
    """Two gateways on one port for everybody, and on one for the rules."""

    services: RunningGateway
    port: int
    rules_port: int
    gateways: list[ServiceProcess]

    async def ask(self, verb: str, path: str, **rest: Any) -> tuple[int, Any]:
        """Asks over a connection of its own, which reaches either."""
        headers = {"Authorization": f"Bearer {self.services.backend.signer.operator(acr='aal2')}"}
        url = f"http://127.0.0.1:{self.port}/v1/firewall{path}"
        async with aiohttp.ClientSession(headers=headers) as client, client.request(verb, url, **rest) as answer:
            return answer.status, await answer.json()

    async def answers(self) -> bool:
        """Whether the rules are served, whoever is asked."""
        return {status for status, _ in [await self.ask("GET", "/rules") for _ in range(10)]} == {200}

    async def enforced(self, by: int) -> bool:
        """Whether so many gateways report the newest version."""
        status, told = await self.ask("GET", "/status")
        if status != 200:
            return False
        return [each["version"] for each in told["gateways"]].count(told["version"]) == by

    def serving(self) -> ServiceProcess:
        """The process that listens for the rules."""
        return next(gateway for gateway in self.gateways if self.rules_port in _listens_at(gateway.pid))


def _listens_at(pid: int) -> set[int]:
    found = psutil.Process(pid).net_connections("tcp")
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


@pytest.fixture
async def pair(run_directory: Path, valkey_server: ValkeyServer, postgres_server: TestPostgres) -> AsyncIterator[Pair]:
    database = await postgres_server.service_database("gateway")
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas=WIDE) as services:
        port, rules_port = free_port(), free_port()
        environ = {
            **services.environ,
            "GATEFOLD_LISTEN": f"127.0.0.1:{rules_port}",
            "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
            "GATEFOLD_HTTP_SHARED_PORT": "true",
            "GATEFOLD_POSTGRES_APP_DSN": postgres_server.dsn(database, "gateway_app").reveal(),
            "GATEFOLD_POSTGRES_JOBS_DSN": postgres_server.dsn(database, "gateway_jobs").reveal(),
        }
        gateways = [ServiceProcess("gateway", environ, run_directory, f"rules-{name}") for name in ("one", "two")]
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        yield Pair(services, port, rules_port, gateways)
        await asyncio.gather(*(gateway.stop() for gateway in gateways))


async def test_one_serves_the_rules_for_all_and_another_takes_over_when_it_dies(pair: Pair) -> None:
    await until(pair.answers)
    status, rule = await pair.ask("POST", "/rules", json=NOTE)
    assert status == 200
    await until(lambda: pair.enforced(by=2))

    for _ in range(ASKED):
        assert (await pair.ask("GET", "/nothing"))[0] == 404

    async def all_counted() -> bool:
        _, told = await pair.ask("GET", f"/rules/{rule['id']}/hits")
        return sum(each["enforced"] for each in told["data"]) == ASKED

    await until(all_counted)

    died = pair.serving()
    pair.gateways.remove(died)
    os.kill(died.pid, signal.SIGKILL)
    await died.ended()
    await until(pair.answers)
    assert pair.serving() is pair.gateways[0]
    status, _ = await pair.ask("POST", "/rules", json={**NOTE, "name": "after"})
    assert status == 200
    await until(lambda: pair.enforced(by=1))
