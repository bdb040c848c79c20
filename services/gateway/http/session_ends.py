"""Owns which sessions have ended before their access tokens did: those tokens are refused here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

from redis.exceptions import RedisError

from libs import errors
from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic

STREAM = "gatefold:session_ends"
"""auth writes it (services/auth/clients/session_feed.py)."""
FIELD = b"sessions"
KEEP_SECONDS = 900.0
"""Longer than an access token lives."""
ASK_SECONDS = 0.5
"""How often auth is asked while the stream is away, and for a while after."""
SWEEP_SECONDS = 5.0
"""How often auth is asked in any case, for what the stream may have lost."""
_BLOCK_MILLISECONDS = 400
_PATIENCE_SECONDS = 1.0
_MOST_PAGES = 2_000

Fetch = Callable[[str, str], Awaitable[tuple[list[UUID], str]]]
"""Asks auth for the ends after a cursor; the second argument is a request id."""


class Streams(Protocol):
    """A store with streams; what libs.redis_client connects to."""

    def xread(self, streams: dict[Any, Any], *, count: int, block: int) -> Awaitable[Any]: ...


class SessionEnds:
    """The sessions that have ended, each for as long as an access token of it may be shown."""

    def __init__(self, store: Streams, fetch: Fetch, *, monotonic: Monotonic, telemetry: Telemetry) -> None:
        self._store = store
        self._fetch = fetch
        self._monotonic = monotonic
        self._ended: dict[UUID, float] = {}
        self._cursor = ""
        self._loaded = False
        self._loading = asyncio.Lock()
        self._log = telemetry.logger("session_ends")
        self._away = telemetry.counter("gateway_session_end_failures", "Times that ends of sessions could not be read")

    def __len__(self) -> int:
        return len(self._ended)

    async def check(self, session: UUID | None) -> None:
        """Returns when a session is not known to have ended; raises `unauthenticated("session_ended")`.

        Nothing is believed before auth was asked once: a gateway that has just started would take anything.
        """
        if not self._loaded:
            await self.loaded()
        if session in self._ended:
            raise errors.unauthenticated(
                "session_ended", "This session has ended; sign in again.", metadata={"error": "invalid_token"}
            )

    def add(self, session: UUID) -> None:
        """Notes that a session has ended."""
        now = self._monotonic()
        self._ended.pop(session, None)
        self._ended[session] = now + KEEP_SECONDS
        while (oldest := next(iter(self._ended))) and self._ended[oldest] <= now:
            del self._ended[oldest]

    async def loaded(self) -> None:
        """Returns once auth was asked, asking it if need be; raises what keeps it away. For readiness as well."""
        async with self._loading:
            if not self._loaded:
                await self.catch_up()

    async def catch_up(self) -> None:
        """Asks auth for all that has ended since it was asked last."""
        for _ in range(_MOST_PAGES):
            found, cursor = await self._fetch(self._cursor, "session-ends")
            for session in found:
                self.add(session)
            self._cursor = cursor
            if not found:
                self._loaded = True
                return

    async def follow(self, stop: asyncio.Event) -> None:
        """Reads the stream until `stop` is set, and asks auth now and then; often while the stream is away."""
        # From the beginning: what is read twice does no harm, and what is over lies there for a while only.
        last: Any = "0"
        asked = trouble = float("-inf")
        while not stop.is_set():
            try:
                last = await self._read(last)
            except (GatefoldError, RedisError, TimeoutError) as error:
                trouble = self._monotonic()
                self._failed(error, "stream")
            now = self._monotonic()
            often = now - trouble < SWEEP_SECONDS
            if now - asked >= (ASK_SECONDS if often else SWEEP_SECONDS):
                asked = now
                try:
                    await self.catch_up()
                except GatefoldError as error:
                    if error.kind not in (Kind.UNAVAILABLE, Kind.TIMEOUT):
                        raise
                    self._failed(error, "auth")
            if often:
                await pause(stop, ASK_SECONDS / 2)

    async def _read(self, last: Any) -> Any:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            answer = await self._store.xread({STREAM: last}, count=64, block=_BLOCK_MILLISECONDS)
        for _, entries in answer or ():
            for entry, fields in entries:
                packed = fields.get(FIELD, b"")
                for start in range(0, len(packed) - 15, 16):
                    self.add(UUID(bytes=packed[start : start + 16]))
                last = entry
        return last

    def _failed(self, error: Exception, part: str) -> None:
        self._away.inc()
        reason = error.reason if isinstance(error, GatefoldError) else type(error).__name__
        self._log.warning("ends of sessions cannot be read", extra={"part": part, "reason": reason})
