"""Owns for how long keys have been known."""

from typing import Any

import numpy as np

from services.abuse.engine.arrays import Flags, Floats, table
from services.abuse.engine.signals.total import State
from services.abuse.engine.table import NEVER, Segments


class Age:
    """Seconds since a key was first counted; 0 before that, and at that moment."""

    def __init__(self, size: int) -> None:
        self._born = table(size, np.int64)
        self.state: State = {"born": self._born}

    def step(self, segments: Segments, counted: Flags, of: Any) -> Floats:
        """Returns the ages."""
        born = self._born.take(segments.slots)
        born[segments.before == NEVER] = 0
        at = counted.nonzero()[0]
        # From the last to the first, so that the first of each key stays; most keys are known.
        unborn = at[born.take(segments.segment.take(at)) == 0][::-1]
        born[segments.segment[unborn]] = segments.times[unborn]
        self._born[segments.slots] = born
        since = born.take(segments.segment)
        ages: Floats = (segments.times - since) / 1000.0
        ages[(since <= 0) | (since > segments.times)] = 0.0
        return ages
