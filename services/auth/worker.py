"""Owns auth's background loops: rotating signing keys and clearing away what is over."""

import asyncio

from libs.events.pause import pause
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.signing_keys import SigningKeys

EVERY_SECONDS = 600.0


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
