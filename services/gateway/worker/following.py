"""Owns the loop that keeps this gateway at the newest version: the stream at once, the database now and then."""

import asyncio
from collections.abc import Callable

from redis.exceptions import RedisError

from libs.background import Stop
from libs.errors import GatefoldError
from libs.events.listening import Last
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.gateway.clients.bundle_feed import BundleFeed
from services.gateway.clients.bundle_file import BundleFile
from services.gateway.usecases.following import FILE, STREAM, Following

SWEEP_SECONDS = 2.0
"""How often the database is asked in any case, for what the stream may have lost."""
ASK_SECONDS = 0.5
"""How often it is asked while the stream is away."""
BEGIN_SECONDS = 3.0
"""How long a start waits for the stores before it goes on with the file."""
_AWAY = (GatefoldError, RedisError, TimeoutError, OSError)


class FollowingLoop:
    """Follows."""

    def __init__(
        self,
        following: Following,
        feed: BundleFeed,
        file: BundleFile | None,
        *,
        monotonic: Callable[[], float],
        telemetry: Telemetry,
    ) -> None:
        self._following = following
        self._feed = feed
        self._file = file
        self._monotonic = monotonic
        self._last: Last = b"0"
        self._log = telemetry.logger("bundles")
        self._failures = telemetry.counter(
            "gateway_bundle_failures", "Times that the newest version could not be asked for.", ("part",)
        )

    async def begin(self) -> None:
        """Takes a version before the first request: the newest, and the last known good where no store has one.

        Without either, what is enforced is what a fresh gateway does by itself.
        """
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                if await self._asked():
                    return
                await self._streamed(waits=False)
        except TimeoutError:
            self._failures.labels("begin").inc()
        if self._following.held.version == 0:
            await self._from_file()

    async def run(self, stop: Stop) -> None:
        """Follows until `stop` is set."""
        asked = trouble = float("-inf")
        while not stop.is_set():
            if not await self._streamed():
                trouble = self._monotonic()
            now = self._monotonic()
            often = now - trouble < SWEEP_SECONDS
            if now - asked >= (ASK_SECONDS if often else SWEEP_SECONDS):
                asked = now
                await self._asked()
            if often:
                await pause(stop, ASK_SECONDS / 2)

    async def _asked(self) -> bool:
        """Asks the database; answers whether it did."""
        try:
            return await self._following.ask()
        except _AWAY as error:
            self._failed(error, "database")
            return False

    async def _streamed(self, *, waits: bool = True) -> bool:
        """Reads the stream; answers whether it did."""
        try:
            found, self._last, unreadable = await self._feed.after(self._last, waits=waits)
        except _AWAY as error:
            self._failed(error, "stream")
            return False
        if unreadable:
            self._failures.labels("stream").inc(unreadable)
        # Entries may have been written by several processes, one of them late.
        for snapshot in sorted(found, key=lambda snapshot: snapshot.version, reverse=True):
            await self._following.take(snapshot, STREAM)
        return True

    async def _from_file(self) -> None:
        if self._file is None:
            return
        try:
            snapshot = await asyncio.to_thread(self._file.load)
        except GatefoldError:
            self._failures.labels("file").inc()
            self._log.error("the last known good is not whole, or others may write to it")
            return
        if snapshot is not None:
            await self._following.take(snapshot, FILE)

    def _failed(self, error: Exception, part: str) -> None:
        self._failures.labels(part).inc()
        reason = error.reason if isinstance(error, GatefoldError) else type(error).__name__
        self._log.warning("the newest version cannot be asked for", extra={"part": part, "reason": reason})
