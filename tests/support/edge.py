"""Owns gateways in front of the real auth service, for tests of what both do together."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from gatefold.auth.v1 import session_pb2

from libs import caller
from libs.process import Process, ProcessConfig
from libs.telemetry import Telemetry
from services.gateway.__main__ import compose
from services.gateway.http.server import HttpServer
from tests.support.auth import AuthHouse
from tests.support.auth_process import SHARED
from tests.support.gateway import PATIENT, Answer, asked
from tests.support.living import end


@dataclass
class Edge:
    """A gateway that listens, and a client without a cookie jar."""

    url: str
    process: Process
    client: aiohttp.ClientSession

    async def ask(self, verb: str, path: str, **said: Any) -> Answer:
        """Sends a request, as `asked` does."""
        return await asked(self.client, verb, f"{self.url}{path}", **said)

    async def devices(self, access_token: str) -> Answer:
        """Lists the devices of whoever holds a token: what anybody who is signed in may do."""
        return await self.ask("GET", "/v1/session/devices", credential=access_token)


@asynccontextmanager
async def running_edge(house: AuthHouse, *, port: int = 0, **environ: str) -> AsyncIterator[Edge]:
    """Runs a gateway with its background work in front of a house; `environ` as of `running_gateway`."""
    folder = Path(house.environ["GATEFOLD_READY_FILE"]).parent / f"edge-{os.urandom(3).hex()}"
    process = Process(
        "gateway",
        ProcessConfig(
            listen=f"unix:{folder}/gateway.sock", metrics_listen=f"unix:{folder}/metrics.sock", drain_seconds=2
        ),
        Telemetry("gateway"),
    )
    process.clock = house.clock
    settings = {
        **{name: house.environ[name] for name in SHARED},
        "GATEFOLD_CONNECT_SECONDS": "0.2",
        "GATEFOLD_HTTP_LISTEN": f"127.0.0.1:{port}",
        **{f"GATEFOLD_{name.upper()}": value for name, value in PATIENT.items()},
        "GATEFOLD_RATE_QUOTAS": '{"strict.address":[100000,60],"read.address":[100000,60]}',
        **{f"GATEFOLD_{name.upper()}": value for name, value in environ.items()},
    }
    client = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
    try:
        await compose(process, settings)
        process._background.start()
        (server,) = [served for served in process._servers if isinstance(served, HttpServer)]
        yield Edge(f"http://127.0.0.1:{server.port}", process, client)
    finally:
        await client.close()
        await end(process)


async def until_refused(edge: Edge, access_token: str, seconds: float = 10.0) -> Answer:
    """Asks until a token is refused; fails when it never is."""
    async with asyncio.timeout(seconds):
        # A gateway tells nobody what it has read; its answers are all there is to see.
        while (answer := await edge.devices(access_token)).status != 401:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return answer


async def listed_ends(house: AuthHouse, cursor: str = "") -> session_pb2.ListSessionEndsResponse:
    """Asks auth for ends of sessions, as a gateway does."""
    with caller.acting(house.service("gateway")):
        answer: session_pb2.ListSessionEndsResponse = await house.sessions.ListSessionEnds(
            session_pb2.ListSessionEndsRequest(cursor=cursor), timeout=10
        )
    return answer
