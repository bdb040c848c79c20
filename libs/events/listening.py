"""Owns following what another service tells: by its stream, and now and then by asking for what that may have lost."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from redis.exceptions import RedisError

from libs.errors import GatefoldError, Kind
from libs.events.pause import pause

ASK_SECONDS = 5.0
"""How often is asked for what the stream may have lost."""
OFTEN_SECONDS = 0.5
"""How often while the stream is away, and for a while after."""
_BLOCK_MILLISECONDS = 400
_PATIENCE_SECONDS = 1.0
_AT_ONCE = 64
_PASSING = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.CONFLICT})

Step = Callable[[], Awaitable[None]]
Last = str | bytes
"""An entry of a stream; `0` stands before the first."""


class Streams(Protocol):
    """A store with streams; what libs.redis_client connects to."""

    def xread(self, streams: dict[Any, Any], *, count: int, block: int | None) -> Awaitable[Any]: ...


class Listening:
    """Hears and asks until it is told to stop; both must bear being told a thing twice.

    What keeps the stream or its service away for a while is said to `failed` with its part, `stream` or `service`, and
    outlasted; anything else is raised. `heard` is called whenever either has answered.
    """

    def __init__(
        self,
        hear: Step,
        ask: Step,
        *,
        failed: Callable[[Exception, str], None],
        heard: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float],
    ) -> None:
        """`hear` reads the stream, waiting for news for a moment; `ask` asks for all there is."""
        self._hear = hear
        self._ask = ask
        self._failed = failed
        self._heard = heard
        self._monotonic = monotonic

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set."""
        asked = trouble = float("-inf")
        while not stop.is_set():
            if not await self._steady(self._hear, "stream"):
                trouble = self._monotonic()
            now = self._monotonic()
            often = now - trouble < ASK_SECONDS
            if now - asked >= (OFTEN_SECONDS if often else ASK_SECONDS):
                asked = now
                await self._steady(self._ask, "service")
            if often:
                await pause(stop, OFTEN_SECONDS / 2)

    async def _steady(self, step: Step, part: str) -> bool:
        try:
            await step()
        except (GatefoldError, RedisError, TimeoutError) as error:
            if isinstance(error, GatefoldError) and error.kind not in _PASSING:
                raise
            self._failed(error, part)
            return False
        self._heard()
        return True


async def read(
    store: Streams,
    stream: str,
    last: Last,
    *,
    count: int = _AT_ONCE,
    waits: bool = True,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> tuple[list[Mapping[bytes, bytes]], Last]:
    """Returns what a stream tells after an entry, `count` entries at most, and the last entry.

    Where there is nothing yet it is waited for, for a moment, unless `waits` says otherwise. Raises what the store
    raises, and TimeoutError where it does not answer at all.
    """
    async with asyncio.timeout(patience_seconds):
        answer = await store.xread({stream: last}, count=count, block=_BLOCK_MILLISECONDS if waits else None)
    found: list[Mapping[bytes, bytes]] = []
    for _, entries in answer or ():
        for entry, fields in entries:
            found.append(fields)
            last = entry
    return found, last
