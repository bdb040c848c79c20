"""Owns how those are slowed down who are refused again and again: a flood has to wait for each of its answers."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.caches import Monotonic

_GOLDEN = 0.618034

Held = TypeVar("Held")
"""What is held: a connection or a call, which can have one answer held at a time."""


class Restraint(Generic[Held]):
    """The answers that are held back, the longest held first.

    To refuse costs less than to serve, and yet enough of it would leave no time for anybody else. One connection
    asks for nothing more while its answer is held, so that a client's next refusals are as many as its connections;
    where calls are held, as many as its calls that may be under way.
    """

    def __init__(self, bounds: ConnectionBounds, *, monotonic: Monotonic, most: int | None = None) -> None:
        """Of more than `most` at one time the one held longest is told; without it, whoever holds them bounds them."""
        self._bounds = bounds
        self._monotonic = monotonic
        self._most = most
        self._since = monotonic()
        self._refusals: Counter[str] = Counter()
        self._held: dict[Held, asyncio.Future[None]] = {}
        self._spread = 0.0
        self._ended = False

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held)

    async def hold(self, held: Held, client: str) -> None:
        """Returns when a client may be told that it is refused: at once, or, beyond so many a second, later.

        Whoever speaks for many, and has no name here, is never held.
        """
        if not client or self._ended or not self._too_many(client):
            return
        if len(self._held) == self._most:
            self.release(next(iter(self._held)))
        loop = asyncio.get_running_loop()
        # Between half and one and a half of it, evenly spread: answers that are held together do not end together.
        self._spread = (self._spread + _GOLDEN) % 1
        waiting = self._held[held] = loop.create_future()
        timer = loop.call_later(self._bounds.refusal_seconds * (0.5 + self._spread), _let_go, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._held.pop(held, None)

    def release(self, held: Held) -> None:
        """Holds an answer no longer, if it is held."""
        waiting = self._held.pop(held, None)
        if waiting is not None:
            _let_go(waiting)

    def end(self) -> None:
        """Holds nothing from now on."""
        self._ended = True
        for held in list(self._held):
            self.release(held)

    def _too_many(self, client: str) -> bool:
        now = self._monotonic()
        if now - self._since >= 1.0:
            self._since = now
            self._refusals.clear()
        self._refusals[client] += 1
        return self._refusals[client] > self._bounds.refusals_per_client


def _let_go(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
