"""Owns a small cache: bounded in number and age, asking once for what many want at the same time."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Monotonic = Callable[[], float]
"""Seconds that only rise; `time.monotonic` outside tests."""


class Cache(Generic[K, V]):
    """Values by key, each for `seconds` at most; the least recently used goes first. Failures are not kept."""

    def __init__(self, *, seconds: float, most: int, monotonic: Monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._monotonic = monotonic
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._asking: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """Returns the value, asking for it when it is not known or too old.

        The age counts from before the question was put, so that an answer is never believed longer than `seconds`
        after it held. What `ask` raises is raised to all who wait.
        """
        found = self._fresh(key)
        if found is not None:
            return found[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(self._ask(key, ask, self._monotonic() + self._seconds))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        # One waiter that is cancelled does not take the answer from the others.
        return await asyncio.shield(task)

    def known(self, key: K) -> V | None:
        """Returns the value if it is known and not too old, without asking; it counts as used."""
        found = self._fresh(key)
        return None if found is None else found[1]

    def peek(self, key: K) -> V | None:
        """Returns the value if it is known and not too old."""
        found = self._values.get(key)
        return found[1] if found is not None and found[0] > self._monotonic() else None

    def forget(self, key: K) -> None:
        """Forgets a value, though not one that is being asked for."""
        self._values.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._values.clear()

    def _fresh(self, key: K) -> tuple[float, V] | None:
        found = self._values.get(key)
        if found is None:
            return None
        if found[0] <= self._monotonic():
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return found

    async def _ask(self, key: K, ask: Callable[[], Awaitable[V]], until: float) -> V:
        value = await ask()
        self._values[key] = (until, value)
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value

    def _asked(self, key: K, task: "asyncio.Task[V]") -> None:
        del self._asking[key]
        # Whoever waited has been told; with nobody left the failure is of no use.
        if not task.cancelled():
            task.exception()
