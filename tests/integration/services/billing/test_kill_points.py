"""Shows that billing may be killed before and after every commit and call, and each reader is charged once a period."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import aiohttp
import pytest
from gatefold.billing.v1 import checkout_pb2

from infra.local.stripe.app import create_app, running
from libs.clock import FixedClock
from libs.config import Secret
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.vault import Vault
from services.billing.clients import StripeProvider
from services.billing.usecases.parts import Parts
from tests.conftest import ServiceDb
from tests.integration.services.billing.conftest import GRACE, HIDDEN, House, Neighbours

MONTH = timedelta(days=31)
# Longer than every lease: of idempotency keys and of due work.
LEASES = timedelta(seconds=61)


T = TypeVar("T")


class Killed(BaseException):
    """The process died here: nothing in it goes on, and its open transaction is rolled back."""


def die() -> None:
    raise Killed


async def survive(house: House, step: Callable[[], Awaitable[T]]) -> tuple[T, int]:
    """Takes a step, again after every death, once leases have ended; returns what it gave, and the deaths."""
    deaths = 0
    while True:
        try:
            return await step(), deaths
        except Killed:
            deaths += 1
            assert deaths == 1
            house.clock.advance(LEASES)


async def journey(house: House) -> int:
    """A reader subscribes and is renewed once; returns how often the service died on the way."""
    price, subject = await house.price(), house.ids.new()

    async def check_out() -> checkout_pb2.Checkout:
        return await house.checkout(price, subject, "the-key")

    async def deliver() -> None:
        for event in await house.stripe_events():
            await house.deliver(event)
        await house.work()

    checkout, died = await survive(house, check_out)
    await house.confirm(checkout)
    deaths = died + (await survive(house, deliver))[1]
    again, died = await survive(house, check_out)
    assert again.SerializeToString(deterministic=True) == checkout.SerializeToString(deterministic=True)
    house.clock.advance(MONTH)
    deaths += (await survive(house, deliver))[1]
    deaths += (await survive(house, deliver))[1]
    return deaths + died


async def assert_charged_once_a_period(house: House) -> None:
    intents = await house.made("payment_intents")
    assert [intent["status"] for intent in intents] == ["succeeded", "succeeded"]
    assert len(await house.made("customers")) == 1
    assert await house.rows("SELECT state, period_number FROM subscription") == [("active", 2)]
    assert await house.rows("SELECT state, number FROM invoice ORDER BY number") == [
        ("paid", "000001"),
        ("paid", "000002"),
    ]
    assert await house.rows("SELECT state FROM payment") == [("succeeded",), ("succeeded",)]
    assert await house.value("SELECT count(*) FROM ledger_entry") == 4
    assert (await house.balances())["processor_receivable"] == 1980
    assert await house.event_types() == [
        "invoice.paid", "subscription.activated", "invoice.paid", "subscription.renewed",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.case("billing-18")
@pytest.mark.case("billing-19")
async def test_a_death_at_any_point_doubles_and_loses_nothing(
    service_db: ServiceDb, vault: Vault, clock: FixedClock, ids: IdMaker, tmp_path: Path
) -> None:
    owner_dsn = (await service_db("billing")).owner_dsn.reveal()

    async def travel(kill_points: KillPoints) -> int:
        async def opened(role: Literal["app", "jobs"]) -> Database:
            dsn = Secret(owner_dsn.replace("billing_owner", f"billing_{role}"))
            return await Database.open(dsn, service="billing", role=role, kill_points=kill_points)

        app, jobs = await opened("app"), await opened("jobs")
        async with running(create_app(None, clock=clock)) as address, aiohttp.ClientSession() as http:
            provider = StripeProvider(kill_points, api_base=address)
            next_door = Neighbours()
            parts = Parts(
                app, vault, provider, next_door, next_door, clock, ids, pseudonyms=HIDDEN, grace=GRACE, trace=dict
            )
            house = House(app, jobs, clock, ids, ids.new(), vault, parts, next_door, provider, http, address)
            try:
                await survive(house, house.connect)
                deaths = await journey(house)
                await assert_charged_once_a_period(house)
                async with app.transaction("forget_due") as conn:
                    await conn.execute("DELETE FROM due")
                return deaths
            finally:
                await provider.close()
                await app.close()
                await jobs.close()

    seen = tmp_path / "seen"
    assert await travel(KillPoints("billing", kill_log=seen)) == 0
    points = [
        point
        for point in dict.fromkeys(seen.read_text().split())
        if not point.endswith((":create_payment_connection", ":forget_due"))
        and not point.endswith((":create_product", ":create_plan", ":create_price", "stripe.accounts.retrieve"))
    ]
    assert len(points) >= 30
    for number, point in enumerate(points):
        log = tmp_path / f"killed-{number}"
        assert await travel(KillPoints("billing", kill_at=point, kill_log=log, die=die)) == 1, point
