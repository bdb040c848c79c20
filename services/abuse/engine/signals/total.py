"""Owns sums in a sliding window."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.abuse.engine.arrays import Flags, Floats, Ints, table
from services.abuse.engine.table import Segments

State: TypeAlias = dict[str, NDArray[Any]]
"""A signal's columns: something for every place of a table."""


class Total:
    """A sum in a sliding window: this window's, and of the one before the share that the window still covers."""

    def __init__(self, size: int, window_ms: int) -> None:
        self._window_ms = window_ms
        self._now = table(size, np.int64)
        self._before = table(size, np.int64)
        self.state: State = {"now": self._now, "before": self._before}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the sums."""
        runs = segments.runs(self._window_ms)
        held = self._now.take(runs.slots)
        before = self._before.take(runs.slots)
        if not runs.steady:
            before[runs.apart] = 0
            before[runs.following] = held[runs.following]
            held[runs.apart] = 0
        if counted.any():
            added = counted.astype(np.int64) if of is None else np.where(counted, of, 0)
            sums = within(added, runs.starts, runs.number)
            sums += held.take(runs.number)
            totals = sums.take(runs.ends)
        else:
            totals = held
            sums = held.take(runs.number)
        before[runs.chained] = totals[runs.chained - 1]
        self._now[segments.slots] = totals[runs.last]
        self._before[segments.slots] = before[runs.last]
        values: Floats = before.take(runs.number) * runs.share
        values += sums
        return values


def within(added: Any, starts: Ints, run: Ints) -> Any:
    """Returns running sums that begin anew with each run."""
    sums = added.cumsum(axis=0)
    base = sums.take(starts, axis=0)
    base -= added.take(starts, axis=0)
    sums -= base.take(run, axis=0)
    return sums
