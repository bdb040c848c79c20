"""Idempotency keys on a real database: one effect for each key, whoever repeats it and whenever."""

import asyncio
import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.money.v1.money_pb2 import Money

from libs import idempotency
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind
from libs.ids import IdMaker
from libs.postgres import PLATFORM, Connection
from tests.conftest import ServiceDb
from tests.support.stores import ServiceDatabase

METHOD = "CreatePayment"
REQUEST = Money(amount_minor=500, currency="EUR")
RESPONSE = Money(amount_minor=1, currency="EUR")
INSERT = "INSERT INTO consumer_position VALUES ($1, 'billing', 'effect', $2, 1)"
COUNT = "SELECT count(*) FROM consumer_position"


@pytest.fixture(scope="module")
async def probe(service_db: ServiceDb) -> ServiceDatabase:
    return await service_db("probe")


@pytest.fixture
def who(ids: IdMaker) -> Caller:
    return Caller(CallerKind.SECRET_KEY, "key_1", account=ids.new(), idempotency_key="k-1")


class Work:
    """A use case: one effect, its answer recorded with it."""

    def __init__(self, probe: ServiceDatabase, clock: FixedClock) -> None:
        self._probe = probe
        self._clock = clock

    async def run(self, who: Caller, request: Money = REQUEST, *, fail: bool = False) -> str:
        async with self._probe.app.tenant(who.require_account(), "work") as conn:
            claim = await idempotency.claim(conn, who, METHOD, request, clock=self._clock)
            if claim.replay is not None:
                assert Money.FromString(claim.replay) == RESPONSE
                return "replayed"
            await conn.execute(INSERT, who.account, os.urandom(8).hex())
            if fail:
                raise KeyError
            await idempotency.record(conn, who, METHOD, RESPONSE)
            return "done"

    async def effects(self, who: Caller) -> int:
        async with self._probe.app.tenant(who.require_account(), "count") as conn:
            return int(await conn.fetchval(COUNT))


@pytest.fixture
def work(probe: ServiceDatabase, clock: FixedClock) -> Work:
    return Work(probe, clock)


async def claim(conn: Connection, who: Caller, clock: FixedClock, reference: UUID | None = None) -> idempotency.Claim:
    return await idempotency.claim(conn, who, METHOD, REQUEST, clock=clock, reference=reference)


class TestOneTransaction:
    async def test_a_repetition_gets_the_first_answer(self, work: Work, who: Caller) -> None:
        assert [await work.run(who) for _ in range(3)] == ["done", "replayed", "replayed"]
        assert await work.effects(who) == 1

    async def test_without_a_key_every_call_has_its_effect(self, work: Work, who: Caller) -> None:
        keyless = replace(who, idempotency_key=None)
        assert [await work.run(keyless) for _ in range(2)] == ["done", "done"]
        assert await work.effects(who) == 2

    async def test_another_request_under_the_same_key_is_refused(self, work: Work, who: Caller) -> None:
        await work.run(who)
        with pytest.raises(GatefoldError) as raised:
            await work.run(who, Money(amount_minor=501, currency="EUR"))
        assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "idempotency_key_reused")
        assert await work.effects(who) == 1

    async def test_a_failed_call_leaves_the_key_free(self, work: Work, who: Caller) -> None:
        with pytest.raises(KeyError):
            await work.run(who, fail=True)
        assert await work.run(who) == "done"
        assert await work.effects(who) == 1

    async def test_keys_of_other_callers_methods_and_accounts_are_other_keys(
        self, work: Work, who: Caller, ids: IdMaker
    ) -> None:
        others = [
            who,
            replace(who, actor="key_2"),
            replace(who, account=ids.new()),
            replace(who, idempotency_key="k-2"),
        ]
        assert [await work.run(other) for other in others] == ["done"] * 4

    async def test_fifty_parallel_calls_have_one_effect(self, work: Work, who: Caller) -> None:
        async def outcome() -> str:
            try:
                return await work.run(who)
            except GatefoldError as error:
                return error.reason

        outcomes = Counter(await asyncio.gather(*(outcome() for _ in range(50))))
        assert outcomes["done"] == 1
        assert set(outcomes) <= {"done", "replayed", "idempotency_in_flight"}
        assert await work.effects(who) == 1

    async def test_a_twin_does_not_wait_for_the_first_but_is_told_at_once(
        self, probe: ServiceDatabase, work: Work, who: Caller, clock: FixedClock
    ) -> None:
        async with probe.app.tenant(who.require_account(), "first") as conn:
            await claim(conn, who, clock)
            with pytest.raises(GatefoldError) as raised:
                await work.run(who)
            await idempotency.record(conn, who, METHOD, RESPONSE)
        assert (raised.value.kind, raised.value.reason) == (Kind.CONFLICT, "idempotency_in_flight")
        assert raised.value.retry_after_seconds == 1
        assert await work.run(who) == "replayed"

    async def test_recording_what_was_not_claimed_is_refused(self, probe: ServiceDatabase, who: Caller) -> None:
        with pytest.raises(GatefoldError) as raised:
            async with probe.app.tenant(who.require_account(), "record") as conn:
                await idempotency.record(conn, who, METHOD, RESPONSE)
        assert raised.value.reason == "idempotency_not_claimed"


class TestReserveCallRecord:
    async def test_a_repetition_during_the_call_is_refused_and_told_when_to_come_back(
        self, probe: ServiceDatabase, who: Caller, clock: FixedClock, ids: IdMaker
    ) -> None:
        async with probe.app.tenant(who.require_account(), "reserve") as conn:
            assert await claim(conn, who, clock, ids.new()) == idempotency.Claim(None, None)
        clock.advance(timedelta(seconds=3.5))
        with pytest.raises(GatefoldError) as raised:
            async with probe.app.tenant(who.require_account(), "reserve") as conn:
                await claim(conn, who, clock, ids.new())
        assert (raised.value.reason, raised.value.retry_after_seconds) == ("idempotency_in_flight", 7)

    async def test_after_the_lease_one_repetition_goes_on_with_the_same_intent(
        self, probe: ServiceDatabase, who: Caller, clock: FixedClock, ids: IdMaker
    ) -> None:
        intent = ids.new()
        async with probe.app.tenant(who.require_account(), "reserve") as conn:
            await claim(conn, who, clock, intent)
        clock.advance(timedelta(seconds=idempotency.LEASE_SECONDS))

        async def resume() -> UUID | str | None:
            try:
                async with probe.app.tenant(who.require_account(), "reserve") as conn:
                    return (await claim(conn, who, clock, ids.new())).reference
            except GatefoldError as error:
                return error.reason

        found = await asyncio.gather(*(resume() for _ in range(4)))
        assert sorted(map(str, found)) == sorted([str(intent), *["idempotency_in_flight"] * 3])
        async with probe.app.tenant(who.require_account(), "record") as conn:
            await idempotency.record(conn, who, METHOD, RESPONSE)
        async with probe.app.tenant(who.require_account(), "reserve") as conn:
            assert await claim(conn, who, clock) == idempotency.Claim(RESPONSE.SerializeToString(), intent)

    async def test_a_released_key_may_be_taken_up_at_once(
        self, probe: ServiceDatabase, who: Caller, clock: FixedClock, ids: IdMaker
    ) -> None:
        intent = ids.new()
        async with probe.app.tenant(who.require_account(), "reserve") as conn:
            await claim(conn, who, clock, intent)
        async with probe.app.tenant(who.require_account(), "give_up") as conn:
            await idempotency.release(conn, who, METHOD, clock=clock)
        async with probe.app.tenant(who.require_account(), "reserve") as conn:
            assert await claim(conn, who, clock) == idempotency.Claim(None, intent)


class TestExpiry:
    async def test_after_a_day_the_key_is_new_with_any_request(
        self, work: Work, who: Caller, clock: FixedClock
    ) -> None:
        await work.run(who)
        clock.advance(timedelta(hours=24) - timedelta(seconds=1))
        assert await work.run(who) == "replayed"
        clock.advance(timedelta(seconds=1))
        assert await work.run(who, Money(amount_minor=7, currency="EUR")) == "done"
        assert await work.effects(who) == 2

    async def test_expired_keys_of_all_accounts_are_purged_and_no_others(
        self, probe: ServiceDatabase, work: Work, who: Caller, clock: FixedClock, ids: IdMaker
    ) -> None:
        await idempotency.purge_expired(probe.jobs, FixedClock(clock.wall() + timedelta(days=9)))
        for _ in range(3):
            await work.run(replace(who, account=ids.new()))
        clock.advance(timedelta(hours=1))
        await work.run(who)
        clock.advance(timedelta(hours=23))
        assert await idempotency.purge_expired(probe.jobs, clock) == 3
        assert await idempotency.purge_expired(probe.jobs, clock) == 0
        assert await work.run(who) == "replayed"

    async def test_the_purger_works_until_it_is_stopped(
        self, probe: ServiceDatabase, work: Work, who: Caller, clock: FixedClock
    ) -> None:
        await work.run(who)
        clock.advance(timedelta(hours=25))
        stop = asyncio.Event()
        task = asyncio.create_task(idempotency.Purger(probe.jobs, clock).run(stop))
        async with asyncio.timeout(10):
            while await kept(probe, who):
                continue
        stop.set()
        await asyncio.wait_for(task, 10)


async def kept(probe: ServiceDatabase, who: Caller) -> int:
    async with probe.app.tenant(who.require_account(), "count", read_only=True) as conn:
        return int(await conn.fetchval("SELECT count(*) FROM idempotency_key"))


class TestPlatformPlane:
    @pytest.fixture
    def operator(self) -> Caller:
        key = os.urandom(8).hex()
        return Caller(CallerKind.PLATFORM_OPERATOR, "per_1", idempotency_key=key)

    async def test_a_key_without_an_account_works_without_a_tenant(
        self, probe: ServiceDatabase, operator: Caller, clock: FixedClock
    ) -> None:
        async with probe.app.transaction("work") as conn:
            assert (await claim(conn, operator, clock)).replay is None
            await idempotency.record(conn, operator, METHOD, RESPONSE)
            # The transaction is left as it was: without a tenant.
            assert not await conn.fetchval("SELECT current_setting('app.account_id', true)")
        async with probe.app.transaction("work") as conn:
            assert (await claim(conn, operator, clock)).replay == RESPONSE.SerializeToString()

    async def test_a_key_without_an_account_works_while_a_tenant_is_being_made(
        self, probe: ServiceDatabase, operator: Caller, clock: FixedClock, ids: IdMaker
    ) -> None:
        made = ids.new()
        async with probe.app.tenant(made, "work") as conn:
            await claim(conn, operator, clock)
            await conn.execute(INSERT, made, "account")
            await idempotency.record(conn, operator, METHOD, RESPONSE)
        async with probe.app.tenant(ids.new(), "work") as conn:
            assert (await claim(conn, operator, clock)).replay == RESPONSE.SerializeToString()

    async def test_no_tenant_sees_the_platforms_keys(
        self, probe: ServiceDatabase, operator: Caller, clock: FixedClock, ids: IdMaker
    ) -> None:
        count = "SELECT count(*) FROM idempotency_key WHERE key = $1"
        async with probe.app.transaction("work") as conn:
            await claim(conn, operator, clock)
        for account, rows in ((ids.new(), 0), (PLATFORM, 1)):
            async with probe.app.tenant(account, "peek") as conn:
                assert await conn.fetchval(count, operator.idempotency_key) == rows
