"""Owns unwrapped keys in memory: few of them, and not for long."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from libs.clock import WallClock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeyCache(Generic[K, V]):
    """Holds at most `size` values, each at most `lifetime`; drops the one not used for longest."""

    def __init__(self, clock: WallClock, *, size: int, lifetime: timedelta) -> None:
        self._clock = clock
        self._size = size
        self._lifetime = lifetime
        self._held: OrderedDict[K, tuple[datetime, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Returns the value, or None when it is not held or too old."""
        held = self._held.get(key)
        if held is None:
            return None
        expires_at, value = held
        if self._clock.wall() >= expires_at:
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Holds a value."""
        self._held[key] = (self._clock.wall() + self._lifetime, value)
        self._held.move_to_end(key)
        if len(self._held) > self._size:
            self._held.popitem(last=False)

    def drop(self, chosen: Callable[[K], bool]) -> None:
        """Forgets every value whose key is chosen."""
        for key in [key for key in self._held if chosen(key)]:
            del self._held[key]

    def discard(self, key: K) -> None:
        """Forgets one value."""
        self._held.pop(key, None)

    def __len__(self) -> int:
        return len(self._held)
