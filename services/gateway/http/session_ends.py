"""Owns which sessions have ended before their access tokens did: those tokens are refused here."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from libs import errors
from libs.errors import GatefoldError
from libs.events import listening
from libs.events.listening import Listening, Streams
from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic

STREAM = "gatefold:session_ends"
"""auth writes it (services/auth/clients/session_feed.py)."""
FIELD = b"sessions"
KEEP_SECONDS = 900.0
"""Longer than an access token lives."""
_MOST_PAGES = 2_000

Fetch = Callable[[str, str], Awaitable[tuple[list[UUID], str]]]
"""Asks auth for the ends after a cursor; the second argument is a request id."""


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
        # From the beginning: what is read twice does no harm, and what is over lies there for a while only.
        self._last: listening.Last = "0"
        self._listening = Listening(self._hear, self.catch_up, failed=self._failed, monotonic=monotonic)
        self._log = telemetry.logger("session_ends")
        self._away = telemetry.counter("gateway_session_end_failures", "Times that ends of sessions could not be read")

    def __len__(self) -> int:
        return len(self._ended)

    def goes_on(self, session: UUID | None) -> bool:
        """Tells whether a session is not known to have ended; of none before auth was asked once."""
        return self._loaded and not (self._ended and session in self._ended)

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
        await self._listening.run(stop)

    async def _hear(self) -> None:
        found, last = await listening.read(self._store, STREAM, self._last)
        for fields in found:
            packed = fields.get(FIELD, b"")
            for start in range(0, len(packed) - 15, 16):
                self.add(UUID(bytes=packed[start : start + 16]))
        self._last = last

    def _failed(self, error: Exception, part: str) -> None:
        self._away.inc()
        reason = error.reason if isinstance(error, GatefoldError) else type(error).__name__
        self._log.warning("ends of sessions cannot be read", extra={"part": part, "reason": reason})
