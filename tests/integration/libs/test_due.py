"""Due work on a real database: fair over accounts, on each account's clock, never lost and never taken twice."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import pytest

from libs import due
from libs.clock import FixedClock
from libs.due import BEFORE_ALL, Due, DueWorker
from libs.ids import IdMaker
from libs.postgres import PLATFORM, Database
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase, role_dsn
from tests.support.waiting import until

KIND = "renewal"


@pytest.fixture
async def databases(service_db: ServiceDb) -> ServiceDatabase:
    opened = await service_db("notify")
    async with opened.app.transaction("empty") as conn:
        await conn.execute("DELETE FROM due")
        await conn.execute("DELETE FROM account_clock")
    return opened


def worker(
    jobs: Database, clock: FixedClock, handler: Callable[[Due], Awaitable[None]] | None = None, **options: int
) -> DueWorker:
    async def nothing(item: Due) -> None:
        return None

    return DueWorker(jobs, clock, {KIND: handler or nothing}, logging.getLogger("test"), jitter=lambda: 1.0, **options)


async def schedule(
    app: Database, account: UUID, clock: FixedClock, count: int = 1, after: timedelta = timedelta()
) -> None:
    async with app.transaction("schedule") as conn:
        for number in range(count):
            await due.schedule(conn, account, KIND, UUID(int=number + 1), clock.wall() + after)


async def test_nothing_is_taken_before_its_time(databases: ServiceDatabase, clock: FixedClock, ids: IdMaker) -> None:
    await schedule(databases.app, ids.new(), clock, after=timedelta(seconds=1))
    assert await worker(databases.jobs, clock).claim(BEFORE_ALL) == ([], BEFORE_ALL)
    clock.advance(timedelta(seconds=1))
    items, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    assert [item.attempts for item in items] == [1]


async def test_the_platforms_own_work_has_its_turn(databases: ServiceDatabase, clock: FixedClock, ids: IdMaker) -> None:
    account = ids.new()
    for whose in (PLATFORM, account):
        await schedule(databases.app, whose, clock, count=2)
    taker = worker(databases.jobs, clock, concurrency=1, per_account=1)
    first, cursor = await taker.claim(BEFORE_ALL)
    second, _ = await taker.claim(cursor)
    assert [item.account for item in first + second] == [PLATFORM, account]


async def test_a_test_accounts_clock_decides_for_its_own_work_only(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    ahead, level = ids.new(), ids.new()
    for account in (ahead, level):
        await schedule(databases.app, account, clock, after=timedelta(days=30))
    async with databases.app.transaction("offset") as conn:
        await conn.execute("INSERT INTO account_clock (account_id, offset_seconds) VALUES ($1, $2)", ahead, 30 * 86_400)
    items, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    assert [item.account for item in items] == [ahead]


async def test_a_thousand_rows_of_one_account_do_not_keep_another_waiting(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    busy, quiet = ids.new(), ids.new()
    await schedule(databases.app, busy, clock, count=1000)
    await schedule(databases.app, quiet, clock)
    items, _ = await worker(databases.jobs, clock, concurrency=8, per_account=4).claim(BEFORE_ALL)
    assert [item.account for item in items].count(quiet) == 1
    assert [item.account for item in items].count(busy) == 4


async def test_every_account_has_its_turn_before_the_first_has_another(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    accounts = [ids.new() for _ in range(10)]
    for account in accounts:
        await schedule(databases.app, account, clock, count=5)
    taker = worker(databases.jobs, clock, concurrency=2, per_account=1)
    seen, cursor = [], BEFORE_ALL
    for _ in range(5):
        items, cursor = await taker.claim(cursor)
        seen += [item.account for item in items]
    assert sorted(seen) == sorted(accounts)


async def test_two_workers_never_take_the_same_row(databases: ServiceDatabase, clock: FixedClock, ids: IdMaker) -> None:
    await schedule(databases.app, ids.new(), clock, count=40)
    takers = [worker(databases.jobs, clock, concurrency=8, per_account=8) for _ in range(4)]
    claims = await asyncio.gather(*(taker.claim(BEFORE_ALL) for taker in takers for _ in range(2)))
    taken = [item.reference for items, _ in claims for item in items]
    assert len(taken) == len(set(taken))


async def test_a_row_whose_worker_died_comes_back_when_its_lease_ends(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    await schedule(databases.app, ids.new(), clock)
    taker = worker(databases.jobs, clock, lease_seconds=60)
    assert len((await taker.claim(BEFORE_ALL))[0]) == 1
    assert (await taker.claim(BEFORE_ALL))[0] == []
    clock.advance(timedelta(seconds=60))
    assert [item.attempts for item in (await taker.claim(BEFORE_ALL))[0]] == [2]


async def test_work_longer_than_a_lease_is_not_claimed_a_second_time(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    await schedule(databases.app, ids.new(), clock)
    stop, release = asyncio.Event(), asyncio.Event()
    claims: list[int] = []

    async def handler(item: Due) -> None:
        claims.append(item.attempts)
        await release.wait()
        async with databases.app.tenant(item.account, "finish") as conn:
            await due.finish(conn, item)

    async def leased(until: datetime | None) -> bool:
        async with databases.app.transaction("look") as conn:
            return bool(await conn.fetchval("SELECT leased_until FROM due") == until)

    holder = asyncio.create_task(worker(databases.jobs, clock, handler, lease_seconds=15).run(stop))
    other = worker(databases.jobs, clock)
    for _ in range(4):
        await until(partial(leased, clock.wall() + timedelta(seconds=15)))
        clock.advance(timedelta(seconds=10))
        assert (await other.claim(BEFORE_ALL))[0] == []
    release.set()
    await until(partial(leased, None))
    stop.set()
    await asyncio.wait_for(holder, 20)
    assert claims == [1]


async def test_renewing_a_lease_does_not_wait_for_a_handler_that_holds_its_row(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    locking, other = ids.new(), ids.new()
    await schedule(databases.app, locking, clock)
    stop, release, locked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(item: Due) -> None:
        async with databases.app.tenant(item.account, "finish") as conn:
            await due.finish(conn, item)
            if item.account == locking:
                locked.set()
                await release.wait()
            else:
                release.set()
                stop.set()

    running = asyncio.create_task(worker(databases.jobs, clock, handler).run(stop))
    await asyncio.wait_for(locked.wait(), 20)
    clock.advance(timedelta(seconds=10))
    await schedule(databases.app, other, clock)
    await asyncio.wait_for(running, 20)


async def test_a_row_scheduled_anew_while_it_was_worked_on_is_kept(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    account = ids.new()
    await schedule(databases.app, account, clock)
    (item,), _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    await schedule(databases.app, account, clock, after=timedelta(hours=1))
    async with databases.app.tenant(account, "finish") as conn:
        await due.finish(conn, item)
    assert await due.waiting(databases.jobs, clock.wall() + timedelta(hours=1), account, [KIND]) == 1


async def test_a_failing_row_backs_off_and_leaves_the_others_alone(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    bad, good = ids.new(), ids.new()
    for account in (bad, good):
        await schedule(databases.app, account, clock)
    stop = asyncio.Event()
    done: list[UUID] = []

    async def handler(item: Due) -> None:
        done.append(item.account)
        if item.account == bad:
            raise RuntimeError("vendor away")
        async with databases.app.tenant(item.account, "finish") as conn:
            await due.finish(conn, item)
        stop.set()

    await asyncio.wait_for(worker(databases.jobs, clock, handler).run(stop), 20)
    assert sorted(done) == sorted([bad, good])
    assert (await worker(databases.jobs, clock).claim(BEFORE_ALL))[0] == []
    clock.advance(timedelta(seconds=2))
    assert [item.account for item in (await worker(databases.jobs, clock).claim(BEFORE_ALL))[0]] == [bad]


async def test_a_wake_up_is_answered_at_once(databases: ServiceDatabase, clock: FixedClock, ids: IdMaker) -> None:
    stop = asyncio.Event()

    async def handler(item: Due) -> None:
        async with databases.app.tenant(item.account, "finish") as conn:
            await due.finish(conn, item)
        stop.set()

    sleeper = DueWorker(databases.jobs, clock, {KIND: handler}, logging.getLogger("test"), poll_seconds=3600)
    running = asyncio.create_task(sleeper.run(stop))
    await schedule(databases.app, ids.new(), clock)
    sleeper.wake()
    await asyncio.wait_for(running, 20)


async def test_a_slow_handler_holds_its_own_slot_only(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    slow, quick = sorted((ids.new(), ids.new()))
    await schedule(databases.app, slow, clock, count=3)
    await schedule(databases.app, quick, clock, count=3)
    stop, release = asyncio.Event(), asyncio.Event()
    done: list[UUID] = []

    async def handler(item: Due) -> None:
        if item.account == slow:
            await release.wait()
        done.append(item.account)
        async with databases.app.tenant(item.account, "finish") as conn:
            await due.finish(conn, item)
        if done.count(quick) == 3:
            stop.set()
            release.set()

    await asyncio.wait_for(worker(databases.jobs, clock, handler, concurrency=4, per_account=2).run(stop), 20)
    assert done[:3] == [quick] * 3


async def test_who_is_stopped_lets_work_end_for_a_while_and_gives_back_what_takes_longer(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    quick, endless = sorted((ids.new(), ids.new()))
    await schedule(databases.app, quick, clock)
    await schedule(databases.app, endless, clock)
    stop, both = asyncio.Event(), asyncio.Barrier(2)
    cut: list[UUID] = []

    async def handler(item: Due) -> None:
        await both.wait()
        stop.set()
        if item.account == endless:
            try:
                await asyncio.Event().wait()
            finally:
                cut.append(item.account)
        async with databases.app.tenant(item.account, "finish") as conn:
            await due.finish(conn, item)

    await asyncio.wait_for(worker(databases.jobs, clock, handler, finish_seconds=1).run(stop), 20)
    assert cut == [endless]
    # The clock stands still: no lease has run out.
    left, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    assert [(item.account, item.attempts) for item in left] == [(endless, 2)]


async def test_who_is_cancelled_takes_the_work_under_way_along(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    account = ids.new()
    await schedule(databases.app, account, clock)
    begun = asyncio.Event()
    cut: list[UUID] = []

    async def handler(item: Due) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.append(item.account)

    running = asyncio.create_task(worker(databases.jobs, clock, handler).run(asyncio.Event()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cut == [account]
    left, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    assert [(item.account, item.attempts) for item in left] == [(account, 2)]


async def test_work_that_fails_while_the_database_is_away_is_said_and_taken_up_again(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker, caplog: pytest.LogCaptureFixture
) -> None:
    account = ids.new()
    await schedule(databases.app, account, clock)
    opened = await Database.open(role_dsn(databases.owner_dsn, "notify_jobs"), service="notify", role="jobs")
    stop = asyncio.Event()

    async def handler(item: Due) -> None:
        await opened.close()
        stop.set()
        raise RuntimeError("vendor away")

    await asyncio.wait_for(worker(opened, clock, handler).run(stop), 20)
    assert [record.getMessage() for record in caplog.records] == ["due work failed", "due work does not back off"]
    clock.advance(timedelta(seconds=due.LEASE_SECONDS))
    left, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    assert [(item.account, item.attempts) for item in left] == [(account, 2)]


async def test_work_scheduled_anew_counts_its_attempts_anew(
    databases: ServiceDatabase, clock: FixedClock, ids: IdMaker
) -> None:
    account = ids.new()
    for _ in range(2):
        await schedule(databases.app, account, clock)
        items, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
        assert [item.attempts for item in items] == [1]
    async with databases.app.transaction("schedule") as conn:
        await due.schedule_many(conn, account, KIND, [UUID(int=1)], clock.wall())
    items, _ = await worker(databases.jobs, clock).claim(BEFORE_ALL)
    assert [item.attempts for item in items] == [1]
