"""The sample of recent requests: bounded, fair within a minute, weighed by what was seen, forgotten after an hour."""

import random
from datetime import timedelta
from functools import partial

from libs.clock import FixedClock
from services.gateway.domain.lookback import KEPT_A_MINUTE, MINUTES, Lookback, Trial


def sample(clock: FixedClock) -> Lookback[int]:
    return Lookback(clock.wall, random.Random(7).random)


def total(lookback: Lookback[int], expect: int) -> Trial:
    return sum(lookback.trials(lambda fields: fields == expect), Trial())


def test_a_quiet_hour_is_kept_whole() -> None:
    clock = FixedClock()
    lookback = sample(clock)
    for number in range(100):
        lookback.note(partial(int, number % 2), clock.wall().timestamp())
    assert total(lookback, 1) == Trial(100, 100, 50, 50, clock.wall())


def test_a_busy_minute_is_sampled_and_its_matches_estimated() -> None:
    clock = FixedClock()
    lookback = sample(clock)
    for number in range(20_000):
        lookback.note(partial(int, number % 4), clock.wall().timestamp())
    found = total(lookback, 1)
    assert (found.seen, found.sampled) == (20_000, KEPT_A_MINUTE)
    assert found.estimated == round(found.matched * 20_000 / KEPT_A_MINUTE)
    # A quarter matches: five standard deviations of a sample of 200 around it.
    assert abs(found.matched / KEPT_A_MINUTE - 0.25) < 5 * (0.25 * 0.75 / KEPT_A_MINUTE) ** 0.5


def test_late_requests_of_a_minute_have_the_same_chance_as_early_ones() -> None:
    clock = FixedClock()
    lookback = sample(clock)
    for number in range(20_000):
        lookback.note(partial(int, number >= 10_000), clock.wall().timestamp())
    assert 0.3 < total(lookback, 1).matched / KEPT_A_MINUTE < 0.7


def test_minutes_weigh_by_what_was_seen_in_them() -> None:
    clock = FixedClock()
    lookback = sample(clock)
    for _ in range(10 * KEPT_A_MINUTE):
        lookback.note(lambda: 1, clock.wall().timestamp())
    clock.advance(timedelta(minutes=1))
    lookback.note(lambda: 0, clock.wall().timestamp())
    found = total(lookback, 1)
    assert (found.seen, found.sampled, found.matched) == (2_001, KEPT_A_MINUTE + 1, KEPT_A_MINUTE)
    assert found.estimated == 2_000


def test_what_is_kept_is_bounded_by_number_and_by_time() -> None:
    clock = FixedClock()
    lookback = sample(clock)
    for _ in range(3 * MINUTES):
        for number in range(2 * KEPT_A_MINUTE):
            lookback.note(partial(int, number), clock.wall().timestamp())
        clock.advance(timedelta(minutes=1))
        assert len(lookback) <= MINUTES * KEPT_A_MINUTE
    clock.advance(timedelta(minutes=MINUTES + 1))
    lookback.forget()
    assert len(lookback) == 0
    assert list(lookback.trials(lambda fields: True)) == []


def test_trials_of_several_gateways_add_up() -> None:
    clock = FixedClock()
    earlier = clock.wall() - timedelta(minutes=5)
    assert Trial(10, 5, 2, 4, clock.wall()) + Trial(1, 1, 1, 1, earlier) == Trial(11, 6, 3, 5, earlier)
    assert Trial() + Trial(1, 1, 0, 0, earlier) == Trial(1, 1, 0, 0, earlier)


def test_what_is_not_kept_is_not_copied() -> None:
    clock = FixedClock()
    lookback, at = sample(clock), clock.wall().timestamp()
    copied = []
    for number in range(20_000):
        lookback.note(lambda number=number: copied.append(number) or number, at)  # type: ignore[misc]
    assert KEPT_A_MINUTE <= len(copied) < 2_000
