"""Owns auth's background loops: rotating signing keys, clearing away what is over, telling of sessions that ended."""

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.auth.clients.verdict_source import VerdictSource
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.session_ends import PAGE, SessionEnds
from services.auth.usecases.signing_keys import SigningKeys
from services.auth.usecases.verdicts import Verdicts

EVERY_SECONDS = 600.0
LOOK_SECONDS = 0.2
"""How often is looked for sessions that ended: gateways know of them within a second."""


ASK_SECONDS = 5.0
"""How often the abuse service is asked for verdicts that its stream may have lost."""


class Housekeeping:
    """Looks every ten minutes for what is due."""

    def __init__(self, keys: SigningKeys, expiry: Expiry) -> None:
        self._keys = keys
        self._expiry = expiry

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; a failure ends it, and the process starts it again."""
        while not stop.is_set():
            await self._keys.rotate()
            if not await self._expiry.clear():
                await pause(stop, EVERY_SECONDS)


class Announcing:
    """Tells gateways of sessions that have ended."""

    def __init__(self, ends: SessionEnds, telemetry: Telemetry) -> None:
        self._ends = ends
        self._log = telemetry.logger("session_ends")

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. A store that is away is tried again at once: gateways ask until then."""
        while not stop.is_set():
            told = 0
            try:
                told = await self._ends.announce()
            except GatefoldError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                self._log.warning("gateways cannot be told", extra={"reason": error.reason})
            if told < PAGE:
                await pause(stop, LOOK_SECONDS)


class Obeying:
    """Follows the abuse service's verdicts: by its stream, and now and then by asking."""

    def __init__(self, source: VerdictSource, verdicts: Verdicts, telemetry: Telemetry) -> None:
        self._source = source
        self._verdicts = verdicts
        self._log = telemetry.logger("verdicts")
        self._cursor = ""
        # From the beginning: what is read twice is acted on once.
        self._last: str | bytes = "0"

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. Without the stream verdicts are asked for; without both they come late."""
        asked = float("-inf")
        while not stop.is_set():
            heard = await self._steady(self._hear)
            now = asyncio.get_running_loop().time()
            if now - asked >= (ASK_SECONDS if heard else LOOK_SECONDS):
                asked = now
                await self._steady(self._catch_up)
            if not heard:
                await pause(stop, LOOK_SECONDS)

    async def _steady(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except (GatefoldError, RedisError, TimeoutError) as error:
            passing = (Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.CONFLICT)
            if isinstance(error, GatefoldError) and error.kind not in passing:
                raise
            self._log.warning("verdicts cannot be followed", extra={"why": type(error).__name__})
            return False
        return True

    async def _hear(self) -> None:
        told, last = await self._source.read(self._last)
        await self._verdicts.obey(told)
        self._last = last

    async def _catch_up(self) -> None:
        while True:
            told, self._cursor = await self._source.ask(self._cursor)
            if not told:
                break
            await self._verdicts.obey(told)
        await self._verdicts.forget()
