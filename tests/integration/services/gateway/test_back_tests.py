"""An expression is tried on what all gateways saw lately; hits are kept by hour. Numbers travel, requests do not."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from gatefold.gateway.v1 import bundle_pb2, firewall_pb2

from infra.local.valkey import ValkeyServer
from libs import errors
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.postgres import Database
from libs.redis_client import RedisConfig, Store, connect
from services.gateway.clients import BackTestBoard, RollCall
from services.gateway.domain.hits import HitCounter
from services.gateway.domain.lookback import Lookback, Trial
from services.gateway.domain.register import Hits
from services.gateway.usecases import back_tests
from services.gateway.usecases.back_tests import BackTests
from services.gateway.usecases.hits import KEEP, HitCounts
from services.gateway.worker.telling import Answering
from tests.conftest import ServiceDb
from tests.support.rules import Register, acting


def matcher(expression: str) -> Callable[[Any], bool]:
    """Stands for the compiler of rules: an expression is the one request that it matches."""
    if expression == "nonsense":
        raise errors.invalid("expression_invalid", "This is no expression.", field="expression")
    return lambda fields: bool(fields == expression)


class Fleet:
    """Gateways that answer."""

    def __init__(self, redis: Store, clock: FixedClock, ids: IdMaker, blocking: Callable[[], Store]) -> None:
        self._redis = redis
        self._clock = clock
        self._ids = ids
        self._blocking = blocking
        self.roll_call = RollCall(redis)

    async def gateway(self, name: str, *seen: str) -> tuple[BackTests, Answering]:
        """Makes a gateway that saw these requests."""
        board = BackTestBoard(self._redis, self._blocking())
        lookback: Lookback[Any] = Lookback(self._clock.wall, random.Random(7).random)
        for fields in seen:
            lookback.note(partial(str, fields), self._clock.wall().timestamp())
        tests = BackTests(board, self.roll_call, lookback, matcher, self._clock, self._ids)
        gateway = firewall_pb2.Gateway(name=name)
        gateway.seen_at.FromDatetime(self._clock.wall())
        await self.roll_call.report(gateway)
        return tests, Answering(tests, board, lookback)


@pytest.fixture
async def fleet(redis: Store, valkey_server: ValkeyServer, clock: FixedClock, ids: IdMaker) -> AsyncIterator[Fleet]:
    opened: list[Store] = []

    def blocking() -> Store:
        opened.append(connect(RedisConfig(valkey_server.url()), blocking_seconds=2, most_connections=1))
        return opened[-1]

    yield Fleet(redis, clock, ids, blocking)
    for client in opened:
        await client.aclose()


@asynccontextmanager
async def answering(*loops: Answering) -> AsyncIterator[None]:
    """Runs the loops that answer."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(loop.run(stop)) for loop in loops]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


class TestBackTests:
    async def test_all_gateways_answers_are_added_up(self, fleet: Fleet, clock: FixedClock) -> None:
        one, first = await fleet.gateway("one", "a", "a", "b")
        _, second = await fleet.gateway("two", "a", "c")
        async with answering(first, second):
            found = await one.run("a")
        assert found.trial == Trial(5, 5, 3, 3, clock.wall())
        assert (found.gateways, found.answered) == (2, 2)

    async def test_a_gateway_that_does_not_answer_is_told_of(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(back_tests, "PATIENCE", timedelta(seconds=0.5))
        one, first = await fleet.gateway("one", "a")
        await fleet.gateway("two", "a")
        async with answering(first):
            found = await one.run("a")
        assert found.gateways == 2
        assert found.answered <= 1

    async def test_what_is_no_expression_is_refused_and_nobody_is_asked(self, fleet: Fleet, redis: Store) -> None:
        one, _ = await fleet.gateway("one")
        with pytest.raises(GatefoldError, match="expression_invalid"):
            await one.run("nonsense")
        assert await redis.exists("gatefold:back_tests") == 0

    async def test_questions_that_nobody_waits_for_are_passed_over(
        self, fleet: Fleet, clock: FixedClock, redis: Store
    ) -> None:
        one, _ = await fleet.gateway("one", "a")
        for question in (
            bundle_pb2.BackTestQuestion(id="old", expression="a"),
            bundle_pb2.BackTestQuestion(id="bad", expression="nonsense"),
        ):
            if question.id == "bad":
                question.until.FromDatetime(clock.wall() + timedelta(seconds=5))
            await one.answer(question)
        assert await redis.keys("gatefold:back_test:*") == []

    async def test_rubbish_on_the_board_keeps_nobody_from_answering(self, fleet: Fleet, redis: Store) -> None:
        await redis.xadd("gatefold:back_tests", {b"question": b"\xff\xff"})
        await redis.hset("gatefold:gateways", "rubbish", b"\xff\xff")
        one, first = await fleet.gateway("one", "a")
        async with answering(first):
            assert (await one.run("a")).trial.matched == 1

    async def test_no_request_leaves_its_gateway(self, fleet: Fleet, redis: Store) -> None:
        one, first = await fleet.gateway("one", "a secret of a request")
        async with answering(first):
            await one.run("something else")
        for key in await redis.keys("*"):
            assert b"a secret" not in (await redis.dump(key) or b"")


class TestHits:
    async def test_hits_are_kept_by_the_hour_and_summed_up(
        self, service_db: ServiceDb, redis: Store, clock: FixedClock, ids: IdMaker
    ) -> None:
        opened = await service_db("gateway")
        register = Register(opened.app, opened.jobs, redis, clock, ids)
        rule, other = await register.add_rule("counted"), await register.add_rule("counted-too")
        counter = HitCounter()
        hits = HitCounts(opened.app, counter, clock)
        assert await hits.flush() == 0
        one, two, enforced = rule.rule.id, other.rule.id, {rule.rule.id}
        # A rule that is gone meanwhile keeps no other from being kept.
        counter.advance({one: (3, 0), two: (1, 0), ids.new(): (1, 0)}, enforced)
        await hits.flush()
        counter.advance({one: (4, 2), two: (1, 0)}, enforced)
        await hits.flush()
        began = clock.wall().replace(minute=0, second=0, microsecond=0)
        assert await hits.of_rule(rule.rule.id, 1) == [(began, Hits(4, 0, 2))]
        clock.advance(timedelta(hours=1))
        counter.advance({one: (5, 2), two: (1, 0)}, ())
        await hits.flush()
        assert await hits.of_rule(rule.rule.id, 0) == [(began + timedelta(hours=1), Hits(0, 1)), (began, Hits(4, 0, 2))]
        assert await hits.of_rule(rule.rule.id, 1) == [(began + timedelta(hours=1), Hits(0, 1))]
        assert await hits.summed(24) == [
            (rule.rule.id, Hits(4, 1, 2), began + timedelta(hours=1)),
            (other.rule.id, Hits(0, 1), began),
        ]
        clock.advance(KEEP)
        await hits.forget()
        assert [hour for hour, _ in await hits.of_rule(rule.rule.id, 24 * 60)] == [began + timedelta(hours=1)]
        with acting():
            await register.rules.delete(rule.rule.id, firewall_pb2.DeleteRuleRequest(), 0)
        assert await hits.of_rule(rule.rule.id, 24 * 60) == []

    async def test_hits_wait_while_the_database_is_away(self, clock: FixedClock, ids: IdMaker) -> None:
        away = await Database.open(
            Secret("postgresql://gateway_app:x@127.0.0.1:1/x"), service="gateway", role="app", pool_size=1
        )
        counter, rule = HitCounter(), ids.new()
        hits = HitCounts(away, counter, clock)
        counter.advance({rule: (1, 0)}, {rule})
        for _ in range(2):
            with pytest.raises(GatefoldError, match="database_unavailable"):
                await hits.flush()
        assert counter.take() == {rule: Hits(1, 0)}
        await away.close()
