"""Several gateways on a real Valkey decide as one integer GCRA does: exactly without leases, within the bound with."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.redis_client import Store
from services.gateway.http.limits.decision import Decision
from services.gateway.http.limits.limit import Limit
from tests.support.rates import Microseconds, Oracle, TimedStore, gateway

GATEWAYS = 3
FRESH = itertools.count()
"""Each example has counters of its own."""

KINDS = {"a": (3, 1), "b": (7, 10), "c": (20, 2), "d": (100, 60)}
"""Units and seconds."""

PAUSE_MICROSECONDS = st.one_of(st.just(0), st.integers(0, 400_000), st.integers(0, 8_000_000))
TICKS = st.lists(
    st.tuples(
        PAUSE_MICROSECONDS,
        st.integers(0, GATEWAYS - 1),
        st.lists(st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.integers(1, 9)), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=40,
)


def _limit(name: str, amount: int, seconds: int, example: int) -> Limit:
    return Limit(f"read-{name}", f"exact:{example}:{name}", amount, seconds)


@pytest.mark.case("edge-1")
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(TICKS)
async def test_without_leases_every_decision_is_that_of_one_counter(
    redis: Store, ticks: list[tuple[int, int, list[tuple[set[str], int]]]]
) -> None:
    example, clock, oracle = next(FRESH), Microseconds(), Oracle()
    store = TimedStore(redis, clock)
    limiters = [gateway(store, clock) for _ in range(GATEWAYS)]
    limits = {name: _limit(name, amount, seconds, example) for name, (amount, seconds) in KINDS.items()}
    for pause, number, requests in ticks:
        clock.now += pause
        asked = [([limits[name] for name in sorted(names)], cost) for names, cost in requests]
        decisions = await asyncio.gather(*(limiters[number].decide(held, cost) for held, cost in asked))
        expected = [oracle.admits(held, cost, clock.now) for held, cost in asked]
        assert [decision.admitted for decision in decisions] == expected


def most_over(admitted: Sequence[tuple[int, int]], emission: int, tolerance: int) -> int:
    """Returns by how much the worst window exceeds rate × window + burst, in microseconds of emission."""
    worst = 0
    for first, (begin, _) in enumerate(admitted):
        units = 0
        for at, cost in admitted[first:]:
            units += cost
            worst = max(worst, units * emission - (at - begin) - tolerance)
    return worst


BURSTS = st.lists(
    st.tuples(
        st.integers(0, GATEWAYS - 1),
        st.integers(1, 60),
        st.sampled_from((0, 1_000, 20_000, 90_000)),
        st.sampled_from((0, 900_000, 1_990_000, 4_900_000, 60_000_000)),
    ),
    min_size=3,
    max_size=14,
)


@pytest.mark.case("edge-1")
@pytest.mark.parametrize(("amount", "seconds"), [(100, 10), (400, 400), (60, 3)])
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(BURSTS, st.sampled_from((1, 2)))
async def test_with_leases_no_window_has_more_than_rate_burst_and_what_may_be_held(
    redis: Store, amount: int, seconds: int, bursts: list[tuple[int, int, int, int]], cost: int
) -> None:
    clock, ttl = Microseconds(), 2_000_000
    store = TimedStore(redis, clock)
    limiters = [gateway(store, clock, lease_seconds=ttl / 1_000_000) for _ in range(GATEWAYS)]
    limit = _limit("hot", amount, seconds, next(FRESH))
    admitted: list[tuple[int, int]] = []
    for number, requests, gap, pause in bursts:
        for _ in range(requests):
            clock.now += gap
            if (await limiters[number].decide([limit], cost)).admitted:
                admitted.append((clock.now, cost))
        clock.now += pause
    lease = min(amount // 20, ttl // limit.emission)
    held = min(GATEWAYS * lease * limit.emission, ttl)
    assert most_over(admitted, limit.emission, limit.tolerance) <= held


@pytest.mark.case("edge-1")
@pytest.mark.parametrize(("amount", "seconds", "pause"), [(400, 4, 1.7), (400, 4, 5.0), (2000, 2000, 300.0)])
async def test_what_all_gateways_hoard_is_within_the_bound_and_nothing_once_it_expires(
    redis: Store, amount: int, seconds: int, pause: float
) -> None:
    clock, ttl = Microseconds(), 2_000_000
    store = TimedStore(redis, clock)
    limiters = [gateway(store, clock, lease_seconds=2) for _ in range(GATEWAYS)]
    limit = _limit("hoard", amount, seconds, next(FRESH))
    for limiter in limiters:
        for asked in range(60):
            calls = store.calls
            await limiter.decide([limit], 1)
            clock.now += 1_000
            if asked > 30 and store.calls > calls:
                break  # it has just leased as much as it may
    # What is owed comes back meanwhile, and what is leased is still held, or has expired.
    clock.now += int(pause * 1_000_000)
    admitted = 0
    for limiter in limiters:
        while (await limiter.decide([limit], 1)).admitted:
            admitted += 1
    lease = min(amount // 20, ttl // limit.emission)
    beyond = admitted - amount
    assert beyond <= min(GATEWAYS * lease, ttl // limit.emission)
    assert beyond > 0 if pause < 2 else beyond == 0


async def test_a_hot_quota_is_decided_here_and_one_near_its_end_in_the_store(redis: Store) -> None:
    clock = Microseconds()
    store = TimedStore(redis, clock)
    limiter, oracle = gateway(store, clock, lease_seconds=5), Oracle()
    limit = _limit("hot", 1000, 100, next(FRESH))
    for _ in range(300):
        clock.now += 20_000
        assert (await limiter.decide([limit], 1)).admitted
    assert store.calls < 60
    # The last fifth: each unit is counted where all gateways count.
    calls, admitted = store.calls, 0
    while (decision := await limiter.decide([limit], 1)).admitted:
        admitted += 1
    assert store.calls - calls >= 1000 // 5
    assert sum(oracle.admits([limit], 1, clock.now) for _ in range(1000)) >= admitted
    assert decision.headers()["RateLimit"].startswith('"read-hot";r=0;')


async def test_a_strict_quota_is_never_leased(redis: Store) -> None:
    clock = Microseconds()
    store = TimedStore(redis, clock)
    limiter = gateway(store, clock, lease_seconds=5)
    strict = Limit("strict-server", f"exact:{next(FRESH)}", 6000, 60, strict=True)
    for _ in range(50):
        clock.now += 1_000
        await limiter.decide([strict], 1)
    assert store.calls == 50


async def test_what_a_gateway_leased_and_did_not_spend_is_given_back_when_it_stops(redis: Store) -> None:
    clock = Microseconds()
    store = TimedStore(redis, clock)
    limiter, limit = gateway(store, clock, lease_seconds=5), _limit("hot", 1000, 100, next(FRESH))
    for _ in range(3):
        await limiter.decide([limit], 1)
    leased = _backlog(await redis.get(limit.key), clock) // limit.emission
    assert leased > 3
    await limiter.close()
    assert _backlog(await redis.get(limit.key), clock) == 3 * limit.emission


def _backlog(stored: bytes, clock: Microseconds) -> int:
    return int(stored.split(b"/")[0]) - clock.now


@pytest.mark.case("edge-3")
async def test_a_request_that_one_of_three_limits_refuses_moves_none_leased_or_not(redis: Store) -> None:
    clock, example = Microseconds(), next(FRESH)
    store = TimedStore(redis, clock)
    limiter = gateway(store, clock, lease_seconds=5)
    hot, wide, narrow = (
        _limit("hot", 2000, 2000, example), _limit("wide", 10, 3600, example), _limit("narrow", 2, 3600, example)
    )  # fmt: skip
    for _ in range(20):
        clock.now += 10_000
        await limiter.decide([hot], 1)
    for _ in range(2):
        assert (await limiter.decide([hot, wide, narrow], 1)).admitted
    other = gateway(store, clock, lease_seconds=5)
    left = (await limiter.decide([hot], 1)).states[0].backlog
    before = [await redis.get(limit.key) for limit in (hot, wide, narrow)]
    for asked in (limiter, other):
        for _ in range(5):
            decision = await asked.decide([hot, wide, narrow], 1)
            assert [limit.name for limit in decision.violated] == ["read-narrow"]
    assert [await redis.get(limit.key) for limit in (hot, wide, narrow)] == before
    after: Decision = await limiter.decide([hot], 1)
    assert after.states[0].backlog == left + hot.emission, "the leased units are all there"


@pytest.mark.case("edge-7")
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.tuples(st.integers(1, 50), st.integers(1, 100)),
    st.tuples(st.integers(0, 15_000), st.integers(0, 15_000)),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 5), st.integers(-20_000, 20_000)), min_size=1, max_size=4),
)
async def test_whoever_waits_as_long_as_told_is_let_through(
    redis: Store, quota: tuple[int, int], latency: tuple[int, int], cost: int, times: list[tuple[int, int]]
) -> None:
    clock = Microseconds()
    store = TimedStore(redis, clock, latency)
    limiter, limit = gateway(store, clock), _limit("retry", *quota, next(FRESH))
    while (await limiter.decide([limit], cost)).admitted:
        pass
    for seconds, around in times:
        # Around whole seconds before its time, where what is told is rounded up the least.
        clock.now = max(clock.now, await _let_through_at(redis, limit, cost) - seconds * 1_000_000 + around)
        decision = await limiter.decide([limit], cost)
        if not decision.admitted:
            told = clock.now + decision.retry_after_seconds * 1_000_000
            assert told >= await _let_through_at(redis, limit, cost)
            clock.now = told
            assert (await limiter.decide([limit], cost)).admitted


async def _let_through_at(redis: Store, limit: Limit, cost: int) -> int:
    arrival = int((await redis.get(limit.key)).split(b"/")[0])
    return arrival + min(cost, limit.amount) * limit.emission - limit.tolerance


async def test_what_is_used_up_is_refused_without_the_store_and_let_through_no_later_than_by_it(redis: Store) -> None:
    clock = Microseconds()
    store, oracle = TimedStore(redis, clock, (4_000, 9_000)), Oracle()
    limiter = gateway(store, clock)
    limit = _limit("used", 10, 100, next(FRESH))
    for _ in range(10):
        await limiter.decide([limit], 1)
    calls = store.calls
    for _ in range(500):
        assert not (await limiter.decide([limit], 1)).admitted
    assert store.calls == calls
    store.latency = (0, 0)
    # By the store's own word: as soon as it would, this gateway asks.
    clock.now = await _let_through_at(redis, limit, 1)
    assert (await limiter.decide([limit], 1)).admitted
    assert oracle.admits([limit], 1, clock.now)
