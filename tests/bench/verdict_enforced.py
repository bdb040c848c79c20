"""How long an attacker is still served after the event by which the detectors decide, by the slower of two gateways.

Events go the way they go in use: recorded and batched as a gateway or auth does it, through the sharded streams to the
abuse service, its database, and the stream of verdicts to the gateways.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
from gatefold.activity.v1 import activity_pb2

from infra.local.settings import free_port
from libs import ids
from libs.activity import ActivityStream, Pseudonyms, network_of
from libs.clock import SystemClock
from libs.ids import IdMaker
from libs.redis_client import RedisConfig, connect
from libs.telemetry import Telemetry
from libs.vault import create_key_file
from tests.bench.harness import Bench
from tests.bench.sign_in import percentile
from tests.conftest import SERVICES_WITH_KEYS
from tests.support.abuse import environment
from tests.support.auth_process import ServiceProcess
from tests.support.gateway import PEPPER, running_gateway
from tests.support.stores import RunDirectory, TestPostgres, new_valkey

ATTACKERS = 200
AT_ONCE = 4
GATEWAYS = 2
PEOPLE = 20
"""Whose passwords an attacker tries; fewer suffice for a verdict."""
LOOK_SECONDS = 0.01
LIMIT_SECONDS = 1.0


@dataclass
class _Edge:
    urls: list[str]
    stream: ActivityStream


async def measure(bench: Bench) -> None:
    """Counts from the last of an attacker's events until both gateways refuse what they served a moment ago."""
    taken: list[float] = []
    numbers = iter(range(ATTACKERS))
    async with _edge() as edge, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def one_after_another() -> None:
            for number in numbers:
                seconds = await _attack(edge, client, f"198.51.{number}.1")
                taken.append(seconds)

        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    bench.add(
        "verdict-enforced",
        (percentile(taken, 0.99), LIMIT_SECONDS, "s"),
        named=f"1 s for the p99 of {ATTACKERS}, median {percentile(taken, 0.5):.3f} s",
        goal=1.0,
        higher_is_better=False,
        runs=ATTACKERS,
        concurrency=AT_ONCE,
    )


async def _attack(edge: _Edge, client: aiohttp.ClientSession, address: str) -> float:
    for url in edge.urls:
        assert await _status(client, url, address) == 401
    for event in _stuffing(address):
        edge.stream.record(event)
    began = time.perf_counter()
    return max(await asyncio.gather(*(_until_refused(client, url, address) for url in edge.urls))) - began


def _stuffing(address: str) -> list[activity_pb2.Activity]:
    """Returns passwords of many people, tried from one address."""
    clock, hidden = SystemClock(), Pseudonyms(PEPPER).of
    account = ids.encode("acct", IdMaker(clock, os.urandom).new())
    made = [
        activity_pb2.Activity(
            event_name="sign_in.password",
            http_request_method="POST",
            http_route="/v1/sessions",
            http_response_status_code=401,
            problem_reason="credentials_invalid",
            caller_kind="ANONYMOUS",
            account_id=account,
            request_id=f"{address}-{number}",
            client_address_hash=hidden("address", address),
            client_network_hash=hidden("network", network_of(address)),
            user_agent_hash=hidden("user_agent", f"agent of {address}"),
            target_hash=hidden("target", f"{number}@{address}"),
        )
        for number in range(PEOPLE)
    ]
    for event in made:
        event.time.FromDatetime(clock.wall())
    return made


async def _until_refused(client: aiohttp.ClientSession, url: str, address: str) -> float:
    # A gateway tells nobody what it has read.
    async with asyncio.timeout(60):
        while await _status(client, url, address) != 403:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
    return time.perf_counter()


async def _status(client: aiohttp.ClientSession, url: str, address: str) -> int:
    async with client.get(f"{url}/v1/products", headers={"X-Forwarded-For": address}) as response:
        await response.read()
        return response.status


@asynccontextmanager
async def _edge() -> AsyncIterator[_Edge]:
    """Stores, the abuse service and gateways, each in a process of its own; other services answer at once."""
    directory = RunDirectory()
    folder = directory.path
    postgres, valkey = TestPostgres(folder / "postgres"), new_valkey(folder / "valkey")
    async with AsyncExitStack() as stack:
        stack.callback(directory.remove)
        postgres.server.start()
        stack.callback(postgres.server.stop)
        valkey.start()
        stack.callback(valkey.stop)
        database = await postgres.open(await postgres.service_database("abuse"), "abuse")
        stack.push_async_callback(database.app.close)
        stack.push_async_callback(database.jobs.close)
        key_file = folder / "provider.key"
        create_key_file(key_file)
        keys_dsn = postgres.dsn(await postgres.keys_database(SERVICES_WITH_KEYS), "billing_keys").reveal()
        url = valkey.url()
        told = environment(database, keys_dsn, url.reveal(), key_file, folder, folder / "objects")
        abuse = ServiceProcess("abuse", told, folder)
        stack.push_async_callback(abuse.stop)
        await abuse.start()
        quotas = '{"strict.address":[1000000,1],"read.address":[1000000,1]}'
        services = await stack.enter_async_context(running_gateway(folder, url, rate_quotas=quotas))
        urls = []
        for number in range(GATEWAYS):
            port = free_port()
            environ = {
                **services.environ,
                "GATEFOLD_LISTEN": f"unix:{folder}/edge{number}.sock",
                "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
                "GATEFOLD_TRUSTED_PROXIES": "127.0.0.0/8",
            }
            gateway = ServiceProcess("gateway", environ, folder, f"edge{number}")
            stack.push_async_callback(gateway.stop)
            await gateway.start()
            urls.append(f"http://127.0.0.1:{port}")
        store = connect(RedisConfig(url))
        stack.push_async_callback(store.aclose)
        stream = ActivityStream(store, Telemetry("bench"))
        stop = asyncio.Event()
        running = asyncio.create_task(stream.run(stop))
        stack.push_async_callback(lambda: asyncio.wait([running]))
        stack.callback(stop.set)
        yield _Edge(urls, stream)
