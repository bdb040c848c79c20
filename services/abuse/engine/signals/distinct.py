"""Owns how many different values there are in a sliding window."""

import math
from typing import Any

import numpy as np

from services.abuse.engine.arrays import Flags, Floats, Ints, Keys, table
from services.abuse.engine.signals.total import State, within
from services.abuse.engine.table import Runs, Segments, ends_of

_HIGHEST_RANK = 40
HIGHEST_PRECISION = 11
_EMPTY_BITS, _EMPTIES = 12, 4095
_WEIGHTS = np.array([1, *(1 << (_EMPTY_BITS + rank) for rank in range(_HIGHEST_RANK - 1, -1, -1))], np.int64)
"""What a register is in a sum, by its rank: 1 where it is empty, otherwise 2^-rank as a whole number of 2^-40, above
the bits that the number of empty ones takes. Sums of them are exact in any order.
"""
_RANK_BITS, _RANKS = 6, 63


def ranked(hashes: Keys, precision: int) -> Ints:
    """Returns, of each 64 bit hash, its register and rank in one number: what `Distinct.step` counts."""
    register = hashes & np.uint64((1 << precision) - 1)
    rest = hashes >> np.uint64(precision)
    lowest = rest & (~rest + np.uint64(1))
    rank = np.bitwise_count(lowest - np.uint64(1)).astype(np.int64) + 1
    return (register.astype(np.int64) << _RANK_BITS) | np.minimum(rank, _HIGHEST_RANK)


class Distinct:
    """Different values in a sliding window, by HyperLogLog (Flajolet and others 2007) with linear counting for few."""

    def __init__(self, size: int, window_ms: int, precision: int) -> None:
        self._window_ms = window_ms
        self.precision = precision
        self._registers = registers = 1 << precision
        alpha = 0.7213 / (1 + 1.079 / registers) if registers >= 128 else {16: 0.673, 32: 0.697, 64: 0.709}[registers]
        self._scale = alpha * registers * registers * (1 << _HIGHEST_RANK)
        # A table instead of a function: the same whole number always gives the same estimate.
        self._few = np.array([0.0] + [registers * math.log(registers / empty) for empty in range(1, registers + 1)])
        # From this sum of 2^-register on the raw estimate is low enough for linear counting.
        self._least_of_few = int(self._scale / (2.5 * registers)) - 4
        while self._scale / self._least_of_few > 2.5 * registers:
            self._least_of_few += 1
        self._now = table((size, registers), np.uint8)
        self._flat = self._now.reshape(-1)
        self._before = table((size, registers), np.uint8)
        # Where there is anything in it: the rest is never touched, and so takes no memory.
        self._had_before = table(size, np.bool_)
        # At most so many are empty where there are few enough of them for the raw estimate.
        self._most_empty = (self._least_of_few - 1) >> _HIGHEST_RANK
        # Sums of all registers: of this window, and of it together with the one before.
        self._sums = table((size, 2), np.int64)
        self.state: State = {
            "now": self._now,
            "before": self._before,
            "had_before": self._had_before,
            "sums": self._sums,
        }

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the estimates."""
        runs = segments.runs(self._window_ms)
        at = counted.nonzero()[0]
        news = None
        if at.size:
            run, ranked = runs.number.take(at), of.take(at)
            register, rank = ranked >> _RANK_BITS, ranked & _RANKS
            # Nearly all were counted before, and change nothing.
            new = self._flat.take((runs.slots.take(run) << self.precision) | register) < rank
            if not runs.steady:
                new |= ~runs.goes_on[run]
            changing = new.nonzero()[0]
            if changing.size:
                news = _News(run[changing], register[changing], rank[changing], self._registers)
        if news is None:
            sums, state = self._held(segments, runs), runs.number
        else:
            sums, state = self._summed(segments, runs, news, at[changing])
        if not runs.steady:
            self._roll(segments, runs)
        if news is not None:
            self._write(runs, news)
        recent, both = self._estimate(sums)
        values: Floats = both.take(state)
        recent = recent.take(state)
        values -= recent
        values *= runs.share
        values += recent
        return values

    def read(self, slots: Ints, latest: Ints, now_ms: int) -> Floats:
        """Returns the estimates of some places, whose keys were last seen at `latest`, without counting anything."""
        ahead = now_ms // self._window_ms - latest // self._window_ms
        recent, both = self._estimate(self._sums[slots])
        return np.where(ahead <= 0, both, np.where(ahead <= 1, recent, 0.0))

    def _deltas(self, runs: Runs, news: "_News") -> Ints:
        """Returns by how much each of the news changes the sums, as the events come."""
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
        prior = np.empty_like(after)
        prior[1:] = after[:-1]
        prior[news.starts] = base
        either = before[news.group]
        after_either, prior_either = np.maximum(after, either), np.maximum(prior, either)
        deltas, at = np.empty((after.size, 2), np.int64), news.position
        deltas[at, 0] = _WEIGHTS[after] - _WEIGHTS[prior]
        deltas[at, 1] = _WEIGHTS[after_either] - _WEIGHTS[prior_either]
        return deltas

    def _held(self, segments: Segments, runs: Runs) -> Ints:
        """Returns each run's sums where no register rises."""
        held = self._sums.take(runs.slots, axis=0)
        if runs.steady:
            return held
        begin = self._begun(runs, held)
        begin[runs.chained, 1] = begin[runs.chained - 1, 0]
        self._sums[segments.slots] = begin[runs.last]
        return begin

    def _begun(self, runs: Runs, held: Ints) -> Ints:
        """Makes of the sums that are held those with which runs begin, but for those that are chained."""
        followed = held[runs.following, 0]
        held[runs.apart] = self._registers
        held[runs.following, 1] = followed
        return held

    def _summed(self, segments: Segments, runs: Runs, news: "_News", events: Ints) -> tuple[Ints, Ints]:
        """Returns the sums with which runs begin and those after each of the news, and of each event which are its."""
        deltas, run = self._deltas(runs, news), runs.number[events]
        begins = np.ones(run.size, np.bool_)
        begins[1:] = run[1:] != run[:-1]
        starts = begins.nonzero()[0]
        ends, changed = ends_of(starts, run.size), run[starts]
        sums = within(deltas, starts, begins.cumsum() - 1)
        held = self._sums.take(runs.slots, axis=0)
        if runs.steady:
            begin = held
            sums += begin[run]
            self._sums[runs.slots[changed]] = sums[ends]
        else:
            begin = self._begun(runs, held)
            alone = begin[:, 0].copy()
            alone[changed] += sums[ends, 0]
            begin[runs.chained, 1] = alone[runs.chained - 1]
            sums += begin[run]
            done = begin.copy()
            done[changed] = sums[ends]
            self._sums[segments.slots] = done[runs.last]
        state = np.zeros(segments.rows.size, np.int64)
        state[events] = 1
        state = state.cumsum() - 1
        # Until the first of its news a run is as it began.
        state = np.where((run[state] == runs.number) & (state >= 0), state + begin.shape[0], runs.number)
        return np.concatenate((begin, sums)), state

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
        self._before[clear[self._had_before[clear]]] = 0
        self._before[keep] = kept_now = self._now[keep]
        self._had_before[clear], self._had_before[keep] = False, kept_now.any(axis=1)
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
            slots = runs.slots[news.run[then]]
            self._before[slots, news.register[then]] = news.peak[then]
            self._had_before[slots] = True

    def _estimate(self, sums: Ints) -> tuple[Floats, Floats]:
        """Returns the estimates of this window, and of it together with the one before."""
        return self._estimated(sums[:, 0]), self._estimated(sums[:, 1])

    def _estimated(self, sums: Ints) -> Floats:
        empty = sums & _EMPTIES
        estimates: Floats = self._few.take(empty)
        # Nearly all have few values.
        near = (empty <= self._most_empty).nonzero()[0]
        if near.size:
            whole = (sums[near] >> _EMPTY_BITS) + (empty[near] << _HIGHEST_RANK)
            many = (whole < self._least_of_few) | (empty[near] == 0)
            estimates[near[many]] = self._scale / whole[many]
        return estimates


class _News:
    """Events by run and register, in order, and how high each register has risen after each."""

    def __init__(self, run: Ints, register: Ints, rank: Ints, registers: int) -> None:
        packed = ((run * registers + register) << 12) | np.arange(run.size)
        packed.sort()
        self.position = packed & 4095
        ordered = packed >> 12
        begins = np.ones(run.size, np.bool_)
        begins[1:] = ordered[1:] != ordered[:-1]
        self.group = begins.cumsum() - 1
        self.starts = starts = begins.nonzero()[0]
        lift = self.group << 6
        self.peaks: Ints = np.maximum.accumulate(rank[self.position] + lift) - lift
        self.peak: Ints = self.peaks[ends_of(starts, run.size)]
        self.key = ordered[starts]
        self.run, self.register = np.divmod(self.key, registers)
