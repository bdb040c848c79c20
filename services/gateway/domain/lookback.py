"""Owns the sample of recent requests that expressions are tried on: in memory alone, bounded by number and by time."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

MINUTES = 60
KEPT_A_MINUTE = 200
"""Requests of one minute that are kept, each of them with the same chance."""
_MINUTE = timedelta(minutes=1)

Fields = TypeVar("Fields")


@dataclass
class _Minute(Generic[Fields]):
    began: datetime
    seen: int = 0
    kept: list[Fields] = field(default_factory=list)


@dataclass(frozen=True)
class Trial:
    """What an expression would have matched."""

    seen: int = 0
    sampled: int = 0
    matched: int = 0
    estimated: int = 0
    """Matches among all that were seen."""
    since: datetime | None = None

    def __add__(self, other: "Trial") -> "Trial":
        began = [since for since in (self.since, other.since) if since is not None]
        return Trial(
            self.seen + other.seen,
            self.sampled + other.sampled,
            self.matched + other.matched,
            self.estimated + other.estimated,
            min(began, default=None),
        )


class Lookback(Generic[Fields]):
    """A random sample of each of the last sixty minutes (reservoir sampling, Vitter's algorithm R).

    A busy minute and a quiet one weigh by what was seen in them. What is held is never written anywhere, and is gone
    after an hour or with the process.
    """

    def __init__(self, wall: Callable[[], datetime], chance: Callable[[], float]) -> None:
        """Takes the time of day and what returns a random number from 0 up to 1."""
        self._wall = wall
        self._chance = chance
        self._minutes: deque[_Minute[Fields]] = deque(maxlen=MINUTES)
        self._over_at = 0.0

    def note(self, capture: Callable[[], Fields], at: float) -> None:
        """Takes a request into the sample, or not; what rules read of it is copied only then.

        The copy holds on to nothing of the request, and to no credential: it is there for an hour. `at` is when it
        came, in seconds of the epoch.
        """
        if at >= self._over_at or not self._minutes:
            self._begin()
        minute = self._minutes[-1]
        minute.seen += 1
        if len(minute.kept) < KEPT_A_MINUTE:
            minute.kept.append(capture())
            return
        place = int(self._chance() * minute.seen)
        if place < KEPT_A_MINUTE:
            minute.kept[place] = capture()

    def _begin(self) -> None:
        now = self._wall()
        self._forget(now)
        self._minutes.append(_Minute(now))
        self._over_at = (now + _MINUTE).timestamp()

    def forget(self) -> None:
        """Drops what is older than an hour; called now and then also while nobody comes."""
        self._forget(self._wall())

    def _forget(self, now: datetime) -> None:
        oldest = now - MINUTES * _MINUTE
        while self._minutes and self._minutes[0].began < oldest:
            self._minutes.popleft()

    def trials(self, matches: Callable[[Fields], bool]) -> Iterator[Trial]:
        """Yields what would have matched, minute by minute, so that who asks can do something else in between."""
        self.forget()
        for minute in tuple(self._minutes):
            kept = tuple(minute.kept)
            matched = sum(1 for fields in kept if matches(fields))
            estimated = round(matched * minute.seen / len(kept))
            yield Trial(minute.seen, len(kept), matched, estimated, minute.began)

    def __len__(self) -> int:
        return sum(len(minute.kept) for minute in self._minutes)
