"""Owns how fast somebody would have had to travel."""

from typing import Any

import numpy as np

from services.abuse.engine.arrays import Flags, Floats, Ints, table
from services.abuse.engine.signals.total import State
from services.abuse.engine.table import NEVER, Segments

_EARTH_KM = 6371.0
_NEAR_KM = 500.0
"""Within which databases of places err."""
_LEAST_TRAVEL_MS = 60_000
_HOUR_MS = 3_600_000


class Travel:
    """Speed, in km/h, from the place of the event before to this one's; `of` has latitude and longitude."""

    def __init__(self, size: int) -> None:
        self._place = table((size, 2), np.int16)
        self._at = table(size, np.int64)
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
