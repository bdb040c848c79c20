"""Owns what each hour of the week is used to."""

import math
from typing import Any

import numpy as np

from services.abuse.engine.arrays import Flags, Floats, Ints, table
from services.abuse.engine.signals.total import State, within
from services.abuse.engine.table import NEVER, Segments

_HOUR_MS = 3_600_000
_HOURS = 168
_MONDAY = 72
"""Hours from a Monday to 1970-01-01, a Thursday."""
_LEARNING = 0.2
"""Share of a new window in what its hour is used to."""


class Surprise:
    """How far a window's count is above what this hour of the week is used to, in standard deviations.

    Windows that surprise are not learnt, so that an attack does not become the custom; unless the same hour surprised
    the week before, too.
    """

    def __init__(self, size: int, window_ms: int, least: float, surprising: float) -> None:
        self._window_ms = window_ms
        self._least = least
        self._surprising = surprising
        self._count = table(size, np.int64)
        # Per hour of the week, and last for all hours: mean, variance, windows learnt, windows not learnt in a row.
        self._used_to = table((size, _HOURS + 1, 4), np.float32)
        self._a_day, self._an_hour = (hours * _HOUR_MS // window_ms for hours in (24, 1))
        self.state: State = {"count": self._count, "used_to": self._used_to}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the surprises."""
        runs = segments.runs(self._window_ms)
        slots = runs.slots
        fresh = segments.slots[segments.before == NEVER]
        self._used_to[fresh] = 0.0
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
        surprised = surprised and (count - mean) / math.sqrt(variance + mean + 1.0) >= self._surprising
        for hour, patience in ((self._hour(window), self._an_hour), (_HOURS, self._a_day)):
            mean, variance, seen, refused = map(float, self._used_to[slot, hour])
            if surprised and refused < patience:
                self._used_to[slot, hour, 3] = refused + 1.0
                continue
            share = max(_LEARNING, 1.0 / (seen + 1.0))
            away = count - mean
            self._used_to[slot, hour] = (
                mean + share * away,
                (1.0 - share) * (variance + share * away * away),
                min(seen + 1.0, 1000.0),
                refused if surprised else 0.0,
            )

    def _custom(self, slot: int, window: int) -> tuple[float, float, float]:
        """Returns what this hour is used to; while it has been seen too seldom, what all hours are."""
        own = self._used_to[slot, self._hour(window)]
        mean, variance, seen, _ = own if own[2] >= self._an_hour else self._used_to[slot, _HOURS]
        return float(mean), float(variance), float(seen)

    def _hour(self, window: int) -> int:
        return (window * self._window_ms // _HOUR_MS + _MONDAY) % _HOURS
