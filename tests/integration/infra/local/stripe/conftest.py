"""Owns a running Stripe simulator with Stripe's own client in front of it, and a receiver of its webhooks."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from infra.local.stripe import create_app, running
from libs.clock import FixedClock

CARD_TYPES = {"payment_method_types": ["card"]}


@dataclass
class Simulator:
    """A running simulator: its address, its clock, its file."""

    url: str
    clock: FixedClock
    state: Path
    session: aiohttp.ClientSession

    def client(self, name: str = "gazette") -> stripe.StripeClient:
        """Returns Stripe's client for an account, without its own retries."""
        return stripe.StripeClient(
            f"sk_test_sim_{name}",
            base_addresses={"api": self.url},
            http_client=stripe.AIOHTTPClient(session=self.session),
            max_network_retries=0,
        )

    async def fault(self, **values: Any) -> None:
        """Asks for a fault."""
        async with self.session.post(f"{self.url}/_sim/faults", json=values) as response:
            assert response.status == 200, await response.text()

    async def get(self, path: str) -> Any:
        """Returns what a path of the simulator answers."""
        async with self.session.get(self.url + path) as response:
            return await response.json()

    async def post(self, path: str, data: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Posts a form; returns status, body, headers."""
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, await response.json(), response.headers


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    clock = FixedClock(datetime(2026, 5, 1, 12, tzinfo=UTC))
    state = tmp_path / "stripe.sqlite"
    async with running(create_app(state, clock=clock)) as url, aiohttp.ClientSession() as session:
        yield Simulator(url, clock, state, session)


@dataclass
class Receiver:
    """Takes webhooks; answers `answers` in turn, 200 when they are used up."""

    url: str = ""
    taken: list[tuple[bytes, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append((await request.read(), request.headers["Stripe-Signature"]))
        self._changed.set()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    async def until(self, count: int) -> list[tuple[bytes, str]]:
        """Waits until that many webhooks came."""
        async with asyncio.timeout(10):
            while len(self.taken) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.taken


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    async with running(app) as url:
        receiver.url = f"{url}/hook"
        yield receiver
