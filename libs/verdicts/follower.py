"""Owns the loop that follows verdicts: by their stream, and now and then by asking for what it may have lost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gatefold.activity.v1 import activity_pb2

from libs.clock import WallClock
from libs.events.listening import Listening
from libs.telemetry import Telemetry
from libs.verdicts.source import VerdictSource

Obey = Callable[[Sequence[activity_pb2.Verdict]], Awaitable[None]]
"""Acts on verdicts, or keeps them; must bear hearing one twice, and an older state of one after a later."""
Forget = Callable[[], Awaitable[None]]
"""Forgets what is over."""
PAGES = 100
"""Asked for at most before the stream is heard again, of 500 verdicts each; the rest is asked for the next time."""


class Follower:
    """Hands verdicts to whoever acts on them, from the beginning after each start."""

    def __init__(
        self,
        source: VerdictSource,
        obey: Obey,
        forget: Forget,
        *,
        clock: WallClock,
        telemetry: Telemetry,
        pages: int = PAGES,
    ) -> None:
        self._source = source
        self._obey = obey
        self._forget = forget
        self._clock = clock
        self._pages = pages
        self._log = telemetry.logger("verdicts")
        self._followed = telemetry.gauge(
            "verdicts_followed_timestamp_seconds", "When verdicts were last heard, or asked for, with an answer."
        )
        self._cursor = ""
        # From the beginning: what is read twice is acted on once.
        self._last: str | bytes = "0"

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. Without the stream verdicts are asked for; without both they come late."""
        # A process that never hears anything is stale from its start on, and not from 1970.
        self._answered()
        monotonic = asyncio.get_running_loop().time
        listening = Listening(
            self._hear, self._catch_up, failed=self._failed, heard=self._answered, monotonic=monotonic
        )
        await listening.run(stop)

    def _answered(self) -> None:
        self._followed.set(self._clock.wall().timestamp())

    def _failed(self, error: Exception, part: str) -> None:
        self._log.warning("verdicts cannot be followed", extra={"part": part, "why": type(error).__name__})

    async def _hear(self) -> None:
        told, last = await self._source.read(self._last)
        await self._obey(told)
        self._last = last

    async def _catch_up(self) -> None:
        for _ in range(self._pages):
            told, cursor = await self._source.ask(self._cursor)
            if not told:
                break
            await self._obey(told)
            # Only now: what could not be kept is asked for again.
            self._cursor = cursor
        else:
            self._log.warning("more verdicts have changed than are asked for at once", extra={"pages": self._pages})
        await self._forget()
