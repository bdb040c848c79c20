"""Owns how each kind of signal counts: whole numbers only, so that no cut into batches changes a figure."""

import math
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.abuse.domain.detector import Signal, SignalKind
from services.abuse.engine.columns import Flags, Floats, Ints, Keys
from services.abuse.engine.table import NEVER, Runs, Segments, ends_of

State: TypeAlias = dict[str, NDArray[Any]]

_HIGHEST_RANK = 40
_POWERS = np.array([1 << (_HIGHEST_RANK - rank) for rank in range(_HIGHEST_RANK + 1)], np.int64)
"""2^-rank as a whole number of 2^-40: sums of them are exact in any order."""
_EARTH_KM = 6371.0
_NEAR_KM = 500.0
"""Within which databases of places err."""
_LEAST_TRAVEL_MS = 60_000
_HOUR_MS = 3_600_000
_HOURS = 168
_MONDAY = 72
"""Hours from a Monday to 1970-01-01, a Thursday."""
_LEARNING = 0.2
"""Share of a new window in what its hour is used to."""
_ACCEPTED_AFTER_SECONDS = 86_400
"""What has surprised for so long is the new normal."""


class Kernel(Protocol):
    """One signal's state for every place of a table, and its way of counting."""

    state: State

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Counts events (`counted` says which, `of` what of them) and returns the value after each one."""
        ...


def kernel_of(signal: Signal, size: int) -> Kernel:
    """Returns what counts a signal in a table of a size."""
    window_ms = signal.window_seconds * 1000
    match signal.kind:
        case SignalKind.COUNT | SignalKind.SUM:
            return Total(size, window_ms)
        case SignalKind.DISTINCT:
            return Distinct(size, window_ms, signal.precision)
        case SignalKind.AGE:
            return Age(size)
        case SignalKind.TRAVEL:
            return Travel(size)
        case SignalKind.SURPRISE:
            return Surprise(size, window_ms, signal.least, signal.steps[0][0] if signal.steps else math.inf)
    raise AssertionError(f"{signal.kind} keeps nothing")


class Total:
    """A sum in a sliding window: this window's, and of the one before the share that the window still covers."""

    def __init__(self, size: int, window_ms: int) -> None:
        self._window_ms = window_ms
        self._now = np.zeros(size, np.int64)
        self._before = np.zeros(size, np.int64)
        self.state: State = {"now": self._now, "before": self._before}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the sums."""
        runs = segments.runs(self._window_ms)
        held = self._now[runs.slots]
        base = np.where(runs.goes_on, held, 0)
        before = np.where(runs.goes_on, self._before[runs.slots], np.where(runs.follows, held, 0))
        if counted.any():
            added = counted.astype(np.int64) if of is None else np.where(counted, of, 0)
            sums = within(added, runs.starts, runs.number) + base[runs.number]
            totals = sums[runs.ends]
        else:
            totals = base
            sums = base[runs.number]
        before[runs.chained] = totals[runs.chained - 1]
        self._now[segments.slots] = totals[runs.last]
        self._before[segments.slots] = before[runs.last]
        values: Floats = sums + before[runs.number] * runs.share
        return values


class Distinct:
    """Different values in a sliding window, by HyperLogLog (Flajolet and others 2007) with linear counting for few."""

    def __init__(self, size: int, window_ms: int, precision: int) -> None:
        self._window_ms = window_ms
        self._precision = np.uint64(precision)
        self._registers = registers = 1 << precision
        alpha = 0.7213 / (1 + 1.079 / registers) if registers >= 128 else {16: 0.673, 32: 0.697, 64: 0.709}[registers]
        self._scale = alpha * registers * registers * (1 << _HIGHEST_RANK)
        # A table instead of a function: the same whole number always gives the same estimate.
        self._few = np.array([0.0] + [registers * math.log(registers / empty) for empty in range(1, registers + 1)])
        self._now = np.zeros((size, registers), np.uint8)
        self._before = np.zeros((size, registers), np.uint8)
        self._empty = np.array([registers << _HIGHEST_RANK, registers] * 2, np.int64)
        # Sum of 2^-register and number of empty ones: of this window, and of it together with the one before.
        self._sums = np.zeros((size, 4), np.int64)
        self.state: State = {"now": self._now, "before": self._before, "sums": self._sums}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the estimates."""
        runs = segments.runs(self._window_ms)
        at = counted.nonzero()[0]
        run = runs.number[at]
        register, rank = self._rank(of[at])
        # Nearly all were counted before, and change nothing.
        new = ~(runs.goes_on[run] & (self._now[runs.slots[run], register] >= rank))
        news = None
        deltas = None
        if new.any():
            news = _News(run[new], register[new], rank[new], self._registers)
            deltas = self._deltas(runs, news, at[new], segments.rows.size)
        sums = self._summed(segments, runs, deltas)
        self._roll(segments, runs)
        if news is not None:
            self._write(runs, news)
        recent = self._estimate(sums[:, 0], sums[:, 1])
        older = self._estimate(sums[:, 2], sums[:, 3]) - recent
        if deltas is None:
            recent, older = recent[runs.number], older[runs.number]
        values: Floats = recent + older * runs.share
        return values

    def read(self, slots: Ints, latest: Ints, now_ms: int) -> Floats:
        """Returns the estimates of some places, whose keys were last seen at `latest`, without counting anything."""
        ahead = now_ms // self._window_ms - latest // self._window_ms
        sums = self._sums[slots]
        both = np.where((ahead <= 0)[:, None], sums[:, 2:], sums[:, :2])
        return np.where(ahead <= 1, self._estimate(both[:, 0], both[:, 1]), 0.0)

    def _rank(self, of: Keys) -> tuple[Ints, Ints]:
        register = (of & np.uint64(self._registers - 1)).astype(np.int64)
        rest = of >> self._precision
        lowest = rest & (~rest + np.uint64(1))
        rank = np.bitwise_count(lowest - np.uint64(1)).astype(np.int64) + 1
        return register, np.minimum(rank, _HIGHEST_RANK)

    def _deltas(self, runs: Runs, news: "_News", at: Ints, size: int) -> Ints:
        """Returns by how much each event changes the sums."""
        run, slots = news.run, runs.slots[news.run]
        held = self._now[slots, news.register].astype(np.int64)
        base = np.where(runs.goes_on[run], held, 0)
        news.peak = np.maximum(news.peak, base)
        # What the window before had in this register: from the table, or from the run before in these very events.
        before = np.where(runs.goes_on[run], self._before[slots, news.register], np.where(runs.follows[run], held, 0))
        if runs.chained.size:
            chained = np.isin(run, runs.chained).nonzero()[0]
            earlier = news.key[chained] - self._registers
            found = np.minimum(np.searchsorted(news.key, earlier), news.key.size - 1)
            carried = np.where(runs.goes_on[run[chained] - 1], held[chained], 0)
            before[chained] = np.where(news.key[found] == earlier, news.peak[found], carried)
        after = np.maximum(news.peaks, base[news.group])
        prior = np.where(news.begins, base[news.group], np.roll(after, 1))
        either = before[news.group]
        after_either, prior_either = np.maximum(after, either), np.maximum(prior, either)
        deltas = np.zeros((size, 4), np.int64)
        at = at[news.position]
        deltas[at, 0] = _POWERS[after] - _POWERS[prior]
        deltas[at, 1] = (after == 0).astype(np.int64) - (prior == 0)
        deltas[at, 2] = _POWERS[after_either] - _POWERS[prior_either]
        deltas[at, 3] = (after_either == 0).astype(np.int64) - (prior_either == 0)
        return deltas

    def _summed(self, segments: Segments, runs: Runs, deltas: Ints | None) -> Ints:
        """Returns the sums after each event; of each run where nothing changes within runs."""
        held = self._sums[runs.slots]
        if deltas is None and runs.goes_on.all():
            return held
        begin = np.where(runs.goes_on[:, None], held, self._empty)
        begin[runs.follows, 2:] = held[runs.follows, :2]
        if deltas is None:
            begin[runs.chained, 2:] = begin[runs.chained - 1, :2]
            self._sums[segments.slots] = begin[runs.last]
            return begin
        sums: Ints = within(deltas, runs.starts, runs.number)
        alone = begin[:, :2] + sums[runs.ends, :2]
        begin[runs.chained, 2:] = alone[runs.chained - 1]
        sums += begin[runs.number]
        self._sums[segments.slots] = sums[runs.ends[runs.last]]
        return sums

    def _roll(self, segments: Segments, runs: Runs) -> None:
        """Makes the table's windows those of the last runs."""
        last, slots = runs.last, segments.slots
        old = ~runs.goes_on[last]
        if not old.any():
            return
        kept = runs.follows[last]
        if runs.chained.size:
            kept = kept | (np.isin(last, runs.chained) & runs.goes_on[np.maximum(last - 1, 0)])
        keep, clear = slots[kept & old], slots[~kept & old]
        self._before[keep] = self._now[keep]
        self._before[clear] = 0
        self._now[slots[old]] = 0

    def _write(self, runs: Runs, news: "_News") -> None:
        """Writes what the last runs, and those chained before them, have in their registers."""
        last = np.zeros(runs.starts.size, np.bool_)
        last[runs.last] = True
        now = last[news.run]
        self._now[runs.slots[news.run[now]], news.register[now]] = news.peak[now]
        if runs.chained.size:
            past = np.zeros(runs.starts.size, np.bool_)
            past[runs.chained[last[runs.chained]] - 1] = True
            then = past[news.run]
            self._before[runs.slots[news.run[then]], news.register[then]] = news.peak[then]

    def _estimate(self, total: Ints, empty: Ints) -> Floats:
        raw = self._scale / total
        return np.where((raw <= 2.5 * self._registers) & (empty > 0), self._few[empty], raw)


class _News:
    """Events by run and register, in order, and how high each register has risen after each."""

    def __init__(self, run: Ints, register: Ints, rank: Ints, registers: int) -> None:
        packed = ((run * registers + register) << 12) | np.arange(run.size)
        packed.sort()
        self.position = packed & 4095
        ordered = packed >> 12
        self.begins = np.ones(run.size, np.bool_)
        self.begins[1:] = ordered[1:] != ordered[:-1]
        self.group = self.begins.cumsum() - 1
        starts = self.begins.nonzero()[0]
        lift = self.group << 6
        self.peaks: Ints = np.maximum.accumulate(rank[self.position] + lift) - lift
        self.peak: Ints = self.peaks[ends_of(starts, run.size)]
        self.key = ordered[starts]
        self.run, self.register = np.divmod(self.key, registers)


class Age:
    """Seconds since a key was first counted; 0 before that, and at that moment."""

    def __init__(self, size: int) -> None:
        self._born = np.zeros(size, np.int64)
        self.state: State = {"born": self._born}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the ages."""
        born = np.where(segments.before == NEVER, 0, self._born[segments.slots])
        at = counted.nonzero()[0]
        segment, first = np.unique(segments.segment[at], return_index=True)
        unborn = born[segment] == 0
        born[segment[unborn]] = segments.times[at[first[unborn]]]
        self._born[segments.slots] = born
        since = born[segments.segment]
        return np.where((since > 0) & (since <= segments.times), (segments.times - since) / 1000.0, 0.0)


class Travel:
    """Speed, in km/h, from the place of the event before to this one's; `of` has latitude and longitude."""

    def __init__(self, size: int) -> None:
        self._place = np.zeros((size, 2), np.int16)
        self._at = np.zeros(size, np.int64)
        self.state: State = {"place": self._place, "at": self._at}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the speeds; 0 within 500 km, and where nothing is known."""
        speeds = np.zeros(counted.size)
        self._at[segments.slots[segments.before == NEVER]] = 0
        at = counted.nonzero()[0]
        if not at.size:
            return speeds
        segment, there, then = segments.segment[at], of[at], segments.times[at]
        begins = np.ones(at.size, np.bool_)
        begins[1:] = segment[1:] != segment[:-1]
        slots = segments.slots[segment]
        here = np.where(begins[:, None], self._place[slots], np.roll(there, 1, axis=0))
        before = np.where(begins, self._at[slots], np.roll(then, 1))
        km = _distance_km(here, there)
        hours = np.maximum(then - before, _LEAST_TRAVEL_MS) / _HOUR_MS
        speeds[at] = np.where((before > 0) & (km > _NEAR_KM), np.floor(km / hours), 0.0)
        last = np.append(begins[1:], True)
        self._place[slots[last]] = np.clip(there[last], -360, 360)
        self._at[slots[last]] = then[last]
        return speeds


def _distance_km(one: Ints, other: Ints) -> Floats:
    start, end = np.radians(one.astype(np.float64)), np.radians(other.astype(np.float64))
    north, east = (end - start).T
    half: Floats = np.sin(north / 2) ** 2 + np.cos(start[:, 0]) * np.cos(end[:, 0]) * np.sin(east / 2) ** 2
    km: Floats = 2 * _EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
    return km


class Surprise:
    """How far a window's count is above what this hour of the week is used to, in standard deviations.

    Windows that surprise are not learnt, until they have done so for a day: an attack does not become the custom.
    """

    def __init__(self, size: int, window_ms: int, least: float, surprising: float) -> None:
        self._window_ms = window_ms
        self._least = least
        self._surprising = surprising
        self._accepted = _ACCEPTED_AFTER_SECONDS * 1000 // window_ms
        self._count = np.zeros(size, np.int64)
        self._frozen = np.zeros(size, np.int64)
        # Per hour of the week, and last for all hours: mean, variance, and how many windows were learnt.
        self._used_to = np.zeros((size, _HOURS + 1, 3), np.float64)
        self.state: State = {"count": self._count, "frozen": self._frozen, "used_to": self._used_to}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the surprises."""
        runs = segments.runs(self._window_ms)
        slots = runs.slots
        fresh = segments.slots[segments.before == NEVER]
        self._used_to[fresh] = 0.0
        self._frozen[fresh] = 0
        held = np.where(runs.goes_on, self._count[slots], 0)
        counts = within(counted.astype(np.int64), runs.starts, runs.number) + held[runs.number]
        custom = np.zeros((slots.size, 3))
        before = self._window_of(segments.before)
        for run in range(slots.size):
            slot, index = int(slots[run]), int(runs.index[run])
            if runs.first[run]:
                done, then = int(self._count[slot]), int(before[runs.segment[run]])
            else:
                done, then = int(counts[runs.ends[run - 1]]), int(runs.index[run - 1])
            if 0 <= then < index:
                self._learn(slot, done, then, index)
            custom[run] = self._custom(slot, index)
        self._count[segments.slots] = counts[runs.ends[runs.last]]
        mean, variance, seen = custom[runs.number].T
        surprise = (counts - mean) / np.sqrt(variance + mean + 1.0)
        return np.where((seen > 0) & (counts >= self._least), surprise, 0.0)

    def _window_of(self, times: Ints) -> Ints:
        return np.where(times == NEVER, -1, times // self._window_ms)

    def _learn(self, slot: int, count: int, window: int, until: int) -> None:
        """Learns a window that is over and the empty ones after it; of a long silence its last week."""
        self._learn_one(slot, count, window)
        week = _HOURS * _HOUR_MS // self._window_ms
        for empty in range(max(window + 1, until - week), until):
            self._learn_one(slot, 0, empty)

    def _learn_one(self, slot: int, count: int, window: int) -> None:
        mean, variance, seen = self._custom(slot, window)
        surprised = seen > 0 and count >= self._least
        if surprised and (count - mean) / math.sqrt(variance + mean + 1.0) >= self._surprising:
            self._frozen[slot] += 1
            if self._frozen[slot] < self._accepted:
                return
        else:
            self._frozen[slot] = 0
        for hour in (self._hour(window), _HOURS):
            mean, variance, seen = self._used_to[slot, hour]
            share = max(_LEARNING, 1.0 / (seen + 1.0))
            away = count - mean
            self._used_to[slot, hour] = (
                mean + share * away,
                (1.0 - share) * (variance + share * away * away),
                min(seen + 1.0, 1000.0),
            )

    def _custom(self, slot: int, window: int) -> tuple[float, float, float]:
        """Returns what this hour is used to; while it has been seen too seldom, what all hours are."""
        own = self._used_to[slot, self._hour(window)]
        mean, variance, seen = own if own[2] * self._window_ms >= _HOUR_MS else self._used_to[slot, _HOURS]
        return float(mean), float(variance), float(seen)

    def _hour(self, window: int) -> int:
        return (window * self._window_ms // _HOUR_MS + _MONDAY) % _HOURS


def within(added: Any, starts: Ints, run: Ints) -> Any:
    """Returns running sums that begin anew with each run."""
    sums = np.cumsum(added, axis=0)
    base = sums[starts] - added[starts]
    return sums - base[run]
