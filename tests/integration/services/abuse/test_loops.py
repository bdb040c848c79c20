"""What the small loops say of themselves."""

import asyncio
from uuid import UUID

import pytest

from libs.telemetry import Telemetry
from services.abuse.repository import detectors
from services.abuse.worker.loops import Counting
from tests.support.abuse import Desk
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-18")


async def test_demotions_are_counted_by_accounts_and_forgotten_with_a_change(
    desk: Desk, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.abuse.worker.loops.COUNT_SECONDS", 0.01)
    telemetry, stop, name = Telemetry("abuse"), asyncio.Event(), "scraping-actor"

    def demoted() -> float | None:
        return telemetry.registry.get_sample_value("gatefold_abuse_detector_demotions", {"detector": name})

    for one in (account, desk.ids.new()):
        async with desk.database.app.tenant(one, "demote") as conn:
            await detectors.demote(conn, one, name, desk.clock.wall())
    counting = asyncio.create_task(Counting(desk.database.jobs, telemetry).run(stop))
    try:
        await until(lambda: demoted() == 2)
        async with desk.database.jobs.transaction("restore") as conn:
            await detectors.restore(conn, name)
        await until(lambda: demoted() == 0)
    finally:
        stop.set()
        await counting
