"""Tests of libs/account_clock on a real PostgreSQL."""

from datetime import timedelta
from uuid import UUID

from libs.account_clock import AccountClocks

TEST, OTHER = UUID(int=1), UUID(int=2)
DAY = timedelta(days=1)


async def test_offsets_are_read_back_for_all_accounts(service_db) -> None:  # type: ignore[no-untyped-def]
    clocks = AccountClocks((await service_db("billing")).app)

    await clocks.store(TEST, DAY)
    await clocks.store(OTHER, timedelta(seconds=1))

    assert dict(await clocks.read()) == {TEST: DAY, OTHER: timedelta(seconds=1)}


async def test_of_two_offsets_the_greater_stays(service_db) -> None:  # type: ignore[no-untyped-def]
    clocks = AccountClocks((await service_db("billing")).app)

    await clocks.store(TEST, 3 * DAY)
    await clocks.store(TEST, 2 * DAY)

    assert (await clocks.read())[TEST] == 3 * DAY
