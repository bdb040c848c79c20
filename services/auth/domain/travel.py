"""Owns telling a journey that nobody makes from one that somebody may make."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

FASTEST_KM_PER_HOUR = 900.0
"""An airliner's."""
NEAR_KM = 500.0
"""Within which databases of addresses err, and people with them: a telephone's may be told in another city."""

_EARTH_KM = 6371.0
_LEAST = timedelta(minutes=1)


@dataclass(frozen=True)
class Place:
    """Where an address is, about."""

    latitude: float
    longitude: float
    name: str = ""
    country: str = ""
    """ISO 3166 code; empty where none is known."""


def distance_km(one: Place, other: Place) -> float:
    """Returns the way between two places along the Earth's surface, in kilometres."""
    north, south = math.radians(one.latitude), math.radians(other.latitude)
    east = math.radians(other.longitude - one.longitude)
    half = math.sin((south - north) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(east / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def impossible(before: Place, then: datetime, after: Place, now: datetime) -> bool:
    """Tells whether nobody gets from the one place to the other in the time between."""
    away = distance_km(before, after)
    hours = max(now - then, _LEAST) / timedelta(hours=1)
    return away > NEAR_KM and away / hours > FASTEST_KM_PER_HOUR
