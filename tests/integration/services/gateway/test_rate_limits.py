"""Rate limits in a real Valkey: the same decisions as one integer GCRA, whole or not at all, never waited for."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.local.valkey import ValkeyServer
from libs import errors
from libs.config import Secret
from libs.redis_client import RedisConfig, Store, connect
from libs.telemetry import Telemetry
from services.gateway.http.limits import LocalLimiter, RateStore
from services.gateway.http.limits.limit import Limit
from services.gateway.http.limits.store import FAILURES_TO_OPEN, OPEN_SECONDS
from tests.support.gateway import SECRET_KEY, RunningGateway, running_gateway

HOUR = 3600


class Monotonic:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(store: Any, monotonic: Monotonic, seconds: float = 2.0) -> RateStore:
    return RateStore(
        store, LocalLimiter(monotonic), seconds=seconds, monotonic=monotonic, telemetry=Telemetry("gateway")
    )


def limit(key: str, amount: int, name: str = "read-server", seconds: int = HOUR) -> Limit:
    return Limit(name, f"gatefold:rate:{key}", amount, seconds)


async def test_a_whole_quota_may_be_used_at_once_and_nothing_beyond(redis: Store) -> None:
    store = limiter(redis, Monotonic())
    one = limit("a", 5)
    decisions = [await store.decide([one], 1) for _ in range(7)]
    assert [decision.admitted for decision in decisions] == [True] * 5 + [False] * 2
    # A unit comes back every 720 seconds.
    assert 700 < decisions[-1].retry_after_seconds <= 720
    assert decisions[4].headers()["RateLimit"].startswith('"read-server";r=0;t=')
    assert decisions[0].headers()["RateLimit-Policy"] == '"read-server";q=5;w=3600'


async def test_a_request_that_one_limit_refuses_moves_none(redis: Store) -> None:
    store = limiter(redis, Monotonic())
    wide, narrow = limit("wide", 10), limit("narrow", 1)
    assert (await store.decide([wide, narrow], 1)).admitted
    before = await redis.get(wide.key)
    for _ in range(5):
        assert not (await store.decide([wide, narrow], 1)).admitted
    assert await redis.get(wide.key) == before


async def test_a_cost_counts_as_so_many_requests(redis: Store) -> None:
    store = limiter(redis, Monotonic())
    one = limit("c", 10)
    assert (await store.decide([one], 8)).admitted
    assert not (await store.decide([one], 3)).admitted
    assert (await store.decide([one], 2)).admitted


async def test_units_come_back(redis: Store) -> None:
    store = limiter(redis, Monotonic())
    quick = limit("q", 1000, seconds=1)
    assert all([(await store.decide([quick], 1)).admitted for _ in range(1000)])
    assert await redis.pttl(quick.key) <= 2000


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(1, 4)), min_size=1, max_size=40))
async def test_what_is_asked_at_once_is_decided_as_if_one_by_one(
    redis: Store, asked: list[tuple[str, str, int]]
) -> None:
    await redis.flushall()
    store = limiter(redis, Monotonic())
    amounts = {"a": 3, "b": 7, "c": 20, "x": 9, "y": 30}
    decisions = await asyncio.gather(
        *(store.decide([limit(one, amounts[one]), limit(two, amounts[two])], cost) for one, two, cost in asked)
    )
    left = dict(amounts)
    for (one, two, cost), decision in zip(asked, decisions, strict=True):
        # What costs more than a whole quota takes the whole quota.
        costs = {name: min(cost, amounts[name]) for name in (one, two)}
        fits = all(left[name] >= costs[name] for name in costs)
        assert decision.admitted == fits
        if fits:
            for name, taken in costs.items():
                left[name] -= taken


async def test_the_checks_of_one_tick_are_one_call(redis: Store) -> None:
    store = limiter(redis, Monotonic())
    await store.decide([limit("warm", 10)], 1)
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await asyncio.gather(*(store.decide([limit("one", 1000), limit(str(number), 10)], 1) for number in range(50)))
    after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before == 1


async def test_a_flushed_script_is_loaded_again(redis: Store) -> None:
    monotonic = Monotonic()
    store = limiter(redis, monotonic)
    await store.decide([limit("s", 5)], 1)
    await redis.script_flush()
    decision = await store.decide([limit("s", 5)], 1)
    assert decision.headers()["RateLimit"].startswith('"read-server";r=3;')


class Broken:
    """A store whose script fails or hangs, and counts how often it was asked."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked = 0

    def register_script(self, source: str) -> Any:
        async def run(keys: Any, args: Any) -> Any:
            self.asked += 1
            if self.behaviour == "hangs":
                await asyncio.Event().wait()
            if self.behaviour == "breaks":
                raise RuntimeError("unable to perform operation on a closed transport")
            raise errors.unavailable("store_unavailable", "Away.")

        return run


@pytest.mark.parametrize("behaviour", ["hangs", "fails", "breaks"])
async def test_a_store_that_is_away_is_asked_seldom_and_decided_without(behaviour: str) -> None:
    monotonic, broken = Monotonic(), Broken(behaviour)
    store = limiter(broken, monotonic, seconds=0.01)
    one = limit("l", 20)
    decisions = [await store.decide([one], 1) for _ in range(25)]
    assert [decision.admitted for decision in decisions] == [True] * 20 + [False] * 5
    assert broken.asked == FAILURES_TO_OPEN
    monotonic.now += OPEN_SECONDS
    await store.decide([one], 1)
    await store.decide([one], 1)
    assert broken.asked == FAILURES_TO_OPEN + 1


async def test_strict_limits_are_tighter_while_each_process_counts_alone() -> None:
    store = limiter(Broken("fails"), Monotonic())
    strict = Limit("strict-address", "p", 20, HOUR, strict=True)
    decisions = [await store.decide([strict], 1) for _ in range(8)]
    assert [decision.admitted for decision in decisions] == [True] * 5 + [False] * 3
    assert "q=5;" in decisions[0].headers()["RateLimit-Policy"]


class Recovering:
    """A store that is away until it is not."""

    def __init__(self) -> None:
        self.away = False

    def register_script(self, source: str) -> Any:
        async def run(keys: Any, args: Any) -> Any:
            if self.away:
                raise errors.unavailable("store_unavailable", "Away.")
            return [0, 0, 0]

        return run


async def test_that_the_store_is_away_and_that_it_is_back_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    monotonic, recovering = Monotonic(), Recovering()
    store = limiter(recovering, monotonic)
    one = limit("said", 1000)
    for state in (True, False, True):
        recovering.away = state
        for _ in range(20):
            monotonic.now += OPEN_SECONDS
            await store.decide([one], 1)
    said = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    away, back = "rate limits are counted in this process", "rate limits are counted in the store again"
    assert said == [away, back, away]


async def test_an_answer_that_comes_too_late_is_not_cut_off() -> None:
    came, ended = asyncio.Event(), []

    class Late:
        def register_script(self, source: str) -> Any:
            async def run(keys: Any, args: Any) -> Any:
                try:
                    await came.wait()
                except asyncio.CancelledError:
                    # The client would drop its connection with an answer still to come on it.
                    ended.append("cut off")
                    raise
                ended.append("answered")
                return [0, 0, 0]

            return run

    assert (await limiter(Late(), Monotonic(), seconds=0.01).decide([limit("late", 5)], 1)).admitted
    came.set()
    await asyncio.sleep(0)
    assert ended == ["answered"]


async def test_a_warm_limiter_has_a_connection_and_its_script(valkey_server: ValkeyServer, redis: Store) -> None:
    await redis.script_flush()
    client = connect(RedisConfig(valkey_server.url()))
    store = limiter(client, Monotonic())
    await store.warm()
    before = await redis.info("stats"), await redis.info("commandstats")
    await store.decide([limit("first", 5)], 1)
    after = await redis.info("stats"), await redis.info("commandstats")
    assert after[0]["total_connections_received"] == before[0]["total_connections_received"]
    assert after[1]["cmdstat_script|load"]["calls"] == before[1]["cmdstat_script|load"]["calls"]
    await client.aclose()


async def test_a_loop_that_was_late_looks_once_more_for_the_answer(redis: Store) -> None:
    class Late(Monotonic):
        """A clock on which every look is a second after the last."""

        def __call__(self) -> float:
            self.now += 1.0
            return self.now

    class Slow:
        def register_script(self, source: str) -> Any:
            async def run(keys: Any, args: Any) -> Any:
                await asyncio.sleep(0.3)
                return [42_000_000, 0, 0]

            return run

    busy = await limiter(Slow(), Late(), seconds=0.2).decide([limit("busy", 5)], 1)
    assert busy.states[0].backlog == 42_000_000, "the store's decision"
    slow = await limiter(Slow(), Monotonic(), seconds=0.2).decide([limit("slow", 5)], 1)
    assert slow.states[0].backlog != 42_000_000, "this process's"


# -- through the gateway ----------------------------------------------------------------------------------------------


@pytest.fixture
async def narrow(run_directory: Path, valkey_server: ValkeyServer, redis: Store) -> AsyncIterator[RunningGateway]:
    """A gateway with small quotas that hardly come back."""
    quotas = (
        '{"read.server":[4,3600],"read.account":[6,3600],"strict.address":[3,3600],"read.address":[3,3600],'
        '"read.person":[100,3600]}'
    )
    async with running_gateway(run_directory, valkey_server.url(), rate_quotas=quotas) as running:
        yield running
    # What was used up here would be missed by the tests after.
    await redis.flushall()


async def test_beyond_a_quota_is_a_429_with_what_the_draft_asks_for(narrow: RunningGateway) -> None:
    answers = [await narrow.ask("GET", "/v1/offers", credential=SECRET_KEY) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 4 + [429] * 2
    refused = answers[-1]
    assert refused.reason == "rate_limited"
    assert 800 < int(refused.headers["Retry-After"]) <= 900
    assert refused.headers["RateLimit-Policy"] == '"read-server";q=4;w=3600, "read-account";q=6;w=3600'
    # Known here to be used up: nobody was asked what is left of the other.
    assert re.fullmatch(r'"read-server";r=0;t=\d+', refused.headers["RateLimit"])
    assert re.fullmatch(r'"read-server";r=0;t=\d+, "read-account";r=2;t=\d+', answers[3].headers["RateLimit"])
    assert refused.json["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert refused.json["violated-policies"] == ["read-server"]
    assert len(narrow.backend.calls) == 4


async def test_an_account_has_a_quota_of_its_own(narrow: RunningGateway) -> None:
    staff = narrow.backend.signer.staff()
    answers = [await narrow.ask("GET", "/v1/offers", credential=SECRET_KEY) for _ in range(4)]
    answers += [await narrow.ask("GET", "/v1/offers", credential=staff) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 6 + [429]


async def test_guessing_credentials_ends_in_a_429(narrow: RunningGateway) -> None:
    answers = [await narrow.ask("GET", "/v1/offers", credential=f"guess-{number}") for number in range(5)]
    assert [answer.status for answer in answers] == [401] * 3 + [429] * 2
    # Whoever has a good credential is not kept out by the neighbour's guesses.
    assert (await narrow.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200


async def test_readers_with_ended_tokens_are_told_so_beside_a_guesser(narrow: RunningGateway) -> None:
    for number in range(4):
        await narrow.ask("GET", "/v1/offers", credential=f"guess-{number}")
    ended = narrow.backend.signer.token(exp=1)
    answers = [await narrow.ask("GET", "/v1/offers", credential=ended) for _ in range(4)]
    assert [answer.reason for answer in answers] == ["access_token_expired"] * 3 + ["rate_limited"]


async def test_preflights_have_a_limit_before_origins_are_looked_up(narrow: RunningGateway) -> None:
    for number in range(6):
        headers = {"Origin": f"https://{number}.example", "Access-Control-Request-Method": "GET"}
        await narrow.ask("OPTIONS", "/v1/offers", headers=headers)
    assert len(narrow.backend.lookups) == 3


async def test_without_the_store_everything_goes_on(run_directory: Path) -> None:
    away = Secret(f"unix://{run_directory}/nothing.sock")
    async with running_gateway(run_directory, away, rate_quotas='{"read.server":[2,3600]}') as gateway:
        answers = [await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert gateway.metric("gatefold_gateway_rate_store_failures_total") >= 1
