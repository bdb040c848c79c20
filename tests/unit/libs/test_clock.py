"""Tests of libs/clock."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from gatefold.clock.v1 import clock_pb2

from libs import caller
from libs.clock import ClockServicer, FixedClock, OffsetRefresher, SystemClock
from libs.errors import GatefoldError, Kind

TEST, OTHER = UUID(int=1), UUID(int=2)
DAY = timedelta(days=1)


@pytest.mark.parametrize("clock", [SystemClock(), FixedClock(datetime(2026, 11, 1, 12, 0, 0, 250_000, UTC))])
def test_seconds_are_the_walls(clock: SystemClock) -> None:
    before, seconds, after = clock.wall(), clock.seconds(), clock.wall()
    assert before.timestamp() <= seconds <= after.timestamp() + 1e-6


class Offsets:
    """A table of offsets."""

    def __init__(self, rows: Mapping[UUID, timedelta] | None = None) -> None:
        self.rows = dict(rows or {})
        self.reads = 0
        self.read_happened = asyncio.Event()

    async def read(self) -> Mapping[UUID, timedelta]:
        self.reads += 1
        self.read_happened.set()
        return dict(self.rows)

    async def store(self, account: UUID, offset: timedelta) -> None:
        self.rows[account] = offset


def advance(by: timedelta) -> clock_pb2.AdvanceRequest:
    request = clock_pb2.AdvanceRequest()
    request.offset.FromTimedelta(by)
    return request


def of_account(account: UUID | None = TEST, *, live: bool = False) -> caller.Caller:
    return caller.service_caller("auth", account, live=live, request_id="r")


def test_the_system_clock_is_in_utc() -> None:
    assert SystemClock().wall().tzinfo is UTC


def test_an_account_without_offset_runs_with_the_wall() -> None:
    clock = FixedClock()

    assert clock.now(TEST) == clock.wall()


def test_an_offset_moves_one_account_and_not_the_wall() -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    clock.set_offset(TEST, DAY)

    assert clock.now(TEST) == datetime(2026, 1, 2, tzinfo=UTC)
    assert clock.now(OTHER) == clock.wall() == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_fixed_clock_moves_when_told() -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    clock.advance(DAY)
    assert clock.wall() == datetime(2026, 1, 2, tzinfo=UTC)
    clock.set(datetime(2027, 1, 1, tzinfo=UTC))
    assert clock.wall() == datetime(2027, 1, 1, tzinfo=UTC)


async def test_offsets_that_another_replica_stored_are_taken_over() -> None:
    clock, table = FixedClock(), Offsets({TEST: DAY})
    clock.set_offset(OTHER, DAY)

    await OffsetRefresher(clock, table.read).refresh()

    assert (clock.offset(TEST), clock.offset(OTHER)) == (DAY, timedelta())


async def test_the_refresher_reads_again_until_it_is_stopped() -> None:
    clock, table, stop = FixedClock(), Offsets(), asyncio.Event()
    running = asyncio.create_task(OffsetRefresher(clock, table.read, every_seconds=0.001).run(stop))
    for _ in range(3):
        table.read_happened.clear()
        await table.read_happened.wait()

    stop.set()
    await running

    assert table.reads >= 3


async def test_advancing_stores_the_offset_and_moves_the_clock() -> None:
    clock, table = FixedClock(), Offsets()
    servicer = ClockServicer(clock, table.read, table.store, {})

    with caller.serving(of_account()):
        response = await servicer.Advance(advance(DAY), None)

    assert response.offset.ToTimedelta() == DAY == table.rows[TEST] == clock.offset(TEST)


async def test_a_fraction_of_a_second_is_rounded_up() -> None:
    table = Offsets()

    with caller.serving(of_account()):
        response = await ClockServicer(FixedClock(), table.read, table.store, {}).Advance(
            advance(timedelta(milliseconds=1)), None
        )

    assert response.offset.ToTimedelta() == timedelta(seconds=1)


async def test_a_live_account_is_refused() -> None:
    table = Offsets()
    servicer = ClockServicer(FixedClock(), table.read, table.store, {})

    with caller.serving(of_account(live=True)):
        for call in (servicer.Advance(advance(DAY), None), servicer.Drained(clock_pb2.DrainedRequest(), None)):
            with pytest.raises(GatefoldError) as caught:
                await call
            assert (caught.value.kind, caught.value.reason) == (Kind.FORBIDDEN, "live_clock")

    assert table.rows == {}


async def test_going_backwards_is_refused_also_when_another_replica_went_ahead() -> None:
    table = Offsets({TEST: 2 * DAY})
    servicer = ClockServicer(FixedClock(), table.read, table.store, {})

    with caller.serving(of_account()), pytest.raises(GatefoldError) as caught:
        await servicer.Advance(advance(DAY), None)

    assert caught.value.reason == "clock_backwards"
    assert table.rows[TEST] == 2 * DAY


async def test_the_same_offset_again_is_harmless() -> None:
    table = Offsets({TEST: DAY})

    with caller.serving(of_account()):
        await ClockServicer(FixedClock(), table.read, table.store, {}).Advance(advance(DAY), None)

    assert table.rows[TEST] == DAY


async def test_an_account_is_drained_when_nothing_of_it_waits() -> None:
    waiting = {"renewals": {TEST: 2}, "outbox": {TEST: 0, OTHER: 7}}

    def of(queue: str):  # type: ignore[no-untyped-def]
        async def count(account: UUID) -> int:
            return waiting[queue][account]

        return count

    servicer = ClockServicer(FixedClock(), Offsets().read, Offsets().store, {queue: of(queue) for queue in waiting})

    with caller.serving(of_account()):
        busy = await servicer.Drained(clock_pb2.DrainedRequest(), None)
        waiting["renewals"][TEST] = 0
        quiet = await servicer.Drained(clock_pb2.DrainedRequest(), None)

    assert (busy.drained, dict(busy.waiting)) == (False, {"renewals": 2})
    assert (quiet.drained, dict(quiet.waiting)) == (True, {})
