"""Signals against plain counting: sliding sums, different values, ages, journeys, and what an hour is used to."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.abuse.engine.arrays import Floats
from services.abuse.engine.signals.age import Age
from services.abuse.engine.signals.distinct import Distinct, ranked
from services.abuse.engine.signals.kernel import Kernel
from services.abuse.engine.signals.surprise import Surprise
from services.abuse.engine.signals.total import Total
from services.abuse.engine.signals.travel import Travel
from services.abuse.engine.table import Table, mixed

HOUR_MS = 3_600_000
MONDAY_MS = 1_793_000_400_000 // HOUR_MS * HOUR_MS


class Watch:
    """One kernel over one table, fed with keys and times."""

    def __init__(self, kernel: Kernel, size: int = 64) -> None:
        self.kernel = kernel
        self.table = Table(size)

    def see(self, keys: list[int], times: list[int], of: object = None, counted: list[bool] | None = None) -> Floats:
        values = np.zeros(len(keys))
        place = mixed([np.array(keys, np.uint64) + np.uint64(1)])
        flags = np.ones(len(keys), np.bool_) if counted is None else np.array(counted)
        segments, late = self.table.place(place, np.array(times, np.int64), np.ones(len(keys), np.uint64))
        assert not late.size
        if isinstance(self.kernel, Distinct):
            of = ranked(np.asarray(of), self.kernel.precision)
        column = None if of is None else np.asarray(of)[segments.rows]
        values[segments.rows] = self.kernel.step(segments, flags[segments.rows], column)
        self.table.touch(segments)
        return values


steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from((0, 1, 400, 999, 2500)), st.booleans()), min_size=1, max_size=60
)


@given(told=steps, cut=st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_a_sliding_sum_is_this_window_and_the_rest_of_the_one_before(
    told: list[tuple[int, int, bool]], cut: int
) -> None:
    window = 1000
    keys, times, counted, at = [], [], [], MONDAY_MS
    for key, later, counts in told:
        at += later
        keys.append(key)
        times.append(at)
        counted.append(counts)
    watch = Watch(Total(64, window))
    values: list[float] = []
    for part in (slice(None, cut), slice(cut, None)):
        if keys[part]:
            values += watch.see(keys[part], times[part], counted=counted[part]).tolist()
    for index, value in enumerate(values):
        buckets = {0: 0, 1: 0}
        for key, when, counts in zip(keys[: index + 1], times, counted, strict=False):
            ago = times[index] // window - when // window
            if key == keys[index] and counts and ago in buckets:
                buckets[ago] += 1
        assert value == pytest.approx(buckets[0] + buckets[1] * (1 - times[index] % window / window))


def test_a_sum_decays_to_nothing() -> None:
    watch = Watch(Total(64, 1000))
    assert watch.see([1] * 10, [MONDAY_MS] * 10)[-1] == 10
    later = watch.see([1, 1], [MONDAY_MS + 1500, MONDAY_MS + 2000], counted=[False, False])
    assert later.tolist() == [5.0, 0.0]


@pytest.mark.parametrize("precision", [6, 7, 8, 11])
@pytest.mark.parametrize("number", [3, 20, 100, 1000, 20_000])
def test_different_values_are_told_within_the_error_of_hyperloglog(precision: int, number: int) -> None:
    errors = []
    for seed in range(12):
        chance = random.Random(seed)
        watch = Watch(Distinct(64, HOUR_MS, precision))
        values = np.array([chance.getrandbits(64) for _ in range(number)], np.uint64)
        estimate = 0.0
        for start in range(0, number, 4000):
            part = values[start : start + 4000]
            # What is seen twice counts once.
            watch.see([1] * part.size, [MONDAY_MS] * part.size, part)
            estimate = float(watch.see([1] * part.size, [MONDAY_MS] * part.size, part)[-1])
        errors.append((estimate - number) / number)
    spread = math.sqrt(sum(error * error for error in errors) / len(errors))
    assert spread < 2.0 * 1.04 / math.sqrt(1 << precision)


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 80), max_size=6))
@settings(max_examples=80, deadline=None)
def test_different_values_are_those_of_this_window_and_share_of_the_one_before(seed: int, cuts: list[int]) -> None:
    chance = random.Random(seed)
    # Each has a register of its own, so that the estimate is nearly exact.
    names = [chance.getrandbits(53) << 11 | register for register in range(9)]
    times, keys, values, at = [], [], [], MONDAY_MS
    for _ in range(80):
        at += chance.choice((0, 10, 400, 1100, 2500))
        times.append(at)
        keys.append(chance.randrange(3))
        values.append(chance.choice(names))
    watch = Watch(Distinct(64, 1000, 11))
    estimates: list[float] = []
    for start, end in pairwise([0, *sorted(cuts), 80]):
        if start < end:
            of = np.array(values[start:end], np.uint64)
            estimates += watch.see(keys[start:end], times[start:end], of).tolist()
    for index, estimate in enumerate(estimates):
        ago: dict[int, set[int]] = {0: set(), 1: set()}
        for key, when, value in zip(keys[: index + 1], times, values, strict=False):
            window = times[index] // 1000 - when // 1000
            if key == keys[index] and window in ago:
                ago[window].add(value)
        exact = len(ago[0]) + (len(ago[0] | ago[1]) - len(ago[0])) * (1 - times[index] % 1000 / 1000)
        assert estimate == pytest.approx(exact, abs=0.15)


def plainly(told: list[tuple[int, int, int, bool]], window: int, precision: int) -> list[float]:
    """Returns what `Distinct` says of (key, time, hash, counted), worked out event by event."""
    size = 1 << precision
    alpha = 0.7213 / (1 + 1.079 / size) if size >= 128 else {16: 0.673, 32: 0.697, 64: 0.709}[size]

    def estimate(registers: list[int]) -> float:
        raw = alpha * size * size * (1 << 40) / sum(1 << (40 - rank) for rank in registers)
        empty = registers.count(0)
        return size * math.log(size / empty) if raw <= 2.5 * size and empty else raw

    held: dict[int, tuple[int, list[int], list[int]]] = {}
    values = []
    for key, at, hashed, counts in told:
        index, now, before = held.get(key, (at // window, [0] * size, [0] * size))
        if at // window > index:
            before = now if at // window == index + 1 else [0] * size
            now = [0] * size
        if counts:
            of = int(ranked(np.array([hashed], np.uint64), precision)[0])
            now[of >> 6] = max(now[of >> 6], of & 63)
        held[key] = (at // window, now, before)
        recent = estimate(now)
        both = estimate([max(pair) for pair in zip(now, before, strict=True)])
        values.append(recent + (both - recent) * (1.0 - at % window / window))
    return values


@pytest.mark.parametrize("precision", [4, 6, 7])
@pytest.mark.parametrize("seed", range(12))
def test_different_values_are_those_of_plain_counting_bit_for_bit(precision: int, seed: int) -> None:
    chance = random.Random(seed)
    pace, keys, values = chance.choice((1, 40, 700)), chance.choice((1, 4, 30)), chance.choice((6, 60, 2000))
    hashes = [chance.getrandbits(64) for _ in range(values)]
    told, at = [], MONDAY_MS
    for _ in range(600):
        at += chance.randrange(2 * pace)
        told.append((chance.randrange(keys), at, chance.choice(hashes), chance.random() < 0.8))
    watch = Watch(Distinct(512, 1000, precision), 512)
    seen: list[float] = []
    while len(seen) < len(told):
        key, when, of, counted = zip(*told[len(seen) : len(seen) + chance.choice((1, 30, 300))], strict=True)
        seen += watch.see(list(key), list(when), np.array(of, np.uint64), list(counted)).tolist()
    assert seen == plainly(told, 1000, precision)


def test_age_counts_from_the_first_event_that_counts() -> None:
    watch = Watch(Age(64))
    at = [MONDAY_MS + 1000 * second for second in (0, 5, 6, 16, 20)]
    assert watch.see([1] * 5, at, counted=[False, True, False, True, False]).tolist() == [0, 0, 1, 11, 15]
    assert watch.see([1, 2], [at[4] + 5000] * 2, counted=[True, True]).tolist() == [20, 0]


def test_a_place_that_was_given_to_another_key_remembers_nothing() -> None:
    kernels: list[tuple[Kernel, object]] = [
        (Age(8), None),
        (Total(8, HOUR_MS), None),
        (Distinct(8, HOUR_MS, 6), np.array([5], np.uint64)),
        (Travel(8), np.array([[52, 13]])),
        (Surprise(8, 600_000, 1, 2.0), None),
    ]
    for kernel, of in kernels:
        fresh = Watch(type(kernel)(*_made(kernel)), 8).see([99], [MONDAY_MS + 9000], of).tolist()
        used = Watch(kernel, 8)
        for number in range(8):
            used.see([number], [MONDAY_MS + number], of if of is None else np.array(of) + number)
        assert used.see([99], [MONDAY_MS + 9000], of).tolist() == fresh


def _made(kernel: Kernel) -> tuple[object, ...]:
    return {Age: (8,), Travel: (8,), Total: (8, HOUR_MS), Distinct: (8, HOUR_MS, 6), Surprise: (8, 600_000, 1, 2.0)}[
        type(kernel)
    ]


def test_speed_is_way_over_time_from_the_event_before() -> None:
    watch = Watch(Travel(64))
    berlin, sydney, paris = (52, 13), (-34, 151), (49, 2)
    places = np.array([berlin, sydney, sydney, paris, berlin])
    times = [MONDAY_MS + hour * HOUR_MS for hour in (0, 10, 11, 31, 32)]
    first, there, stays, back, near = watch.see([1] * 5, times, places).tolist()
    assert first == stays == 0
    assert there == pytest.approx(16_100 / 10, rel=0.02)
    assert back == pytest.approx(16_960 / 20, rel=0.02)
    assert near == pytest.approx(860, rel=0.05)


def test_a_journey_of_no_time_and_places_that_are_none_stay_within_bounds() -> None:
    watch = Watch(Travel(64))
    places = np.array([(90, 180), (-90, -180), (10**12, -(10**12))])
    speeds = watch.see([1] * 3, [MONDAY_MS] * 3, places)
    assert np.isfinite(speeds).all()
    assert (speeds >= 0).all()


def weeks(watch: Watch, number: int, busy_hour: int = 9) -> int:
    """Lets a key be seen twice in every window, and twenty times in those of one hour of Mondays; returns the end."""
    at = MONDAY_MS
    for _ in range(number * 168):
        times = 20 if (at // HOUR_MS + 72) % 168 == busy_hour else 2
        for window in range(6):
            watch.see([1] * times, [at + window * 600_000] * times)
        at += HOUR_MS
    return at


def next_hour(at: int, hour: int) -> int:
    while (at // HOUR_MS + 72) % 168 != hour:
        at += HOUR_MS
    return at


def test_each_hour_of_the_week_has_its_own_custom() -> None:
    quiet, busy = Watch(Surprise(64, 600_000, 5, 4.0)), Watch(Surprise(64, 600_000, 5, 4.0))
    at = weeks(quiet, 3, busy_hour=-1)
    weeks(busy, 3)
    twenty = [1] * 20
    assert quiet.see(twenty, [next_hour(at, 30)] * 20)[-1] > 4.0
    assert abs(busy.see(twenty, [next_hour(at, 9)] * 20)[-1]) < 1.0


def test_what_nobody_knows_surprises_nobody() -> None:
    assert Watch(Surprise(64, 600_000, 5, 4.0)).see([1] * 500, [MONDAY_MS] * 500).max() == 0


def test_an_attack_does_not_become_the_custom_unless_it_goes_on_for_weeks() -> None:
    watch = Watch(Surprise(64, 600_000, 5, 4.0))
    at = weeks(watch, 1, busy_hour=-1)
    surprises = [float(watch.see([1] * 200, [at + window * 600_000] * 200)[-1]) for window in range(3 * 1008)]
    assert min(surprises[:1008]) > 4.0
    assert surprises[-1] < 4.0
