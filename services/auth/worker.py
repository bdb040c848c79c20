"""Owns auth's background loops: rotating signing keys, clearing away what is over, telling of sessions that ended."""

import asyncio

from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.session_ends import PAGE, SessionEnds
from services.auth.usecases.signing_keys import SigningKeys

EVERY_SECONDS = 600.0
LOOK_SECONDS = 0.2
"""How often is looked for sessions that ended: gateways know of them within a second."""


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
