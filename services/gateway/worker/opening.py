"""Owns beginning to serve the rules: once the database is there and fits this code, however long that takes."""

import asyncio
from collections.abc import Awaitable, Callable

from libs import errors
from libs.background import Stop
from libs.events.pause import pause
from libs.migrate import MigrationError
from libs.telemetry import Telemetry

TAKE_OVER_SECONDS = 0.5
"""How often an address that another gateway serves the rules at is tried, to serve there when it is gone."""

Step = Callable[[], Awaitable[None]]


class Opening:
    """Opens in the background: the edge answers requests without it.

    Gateways of one machine may be told the same address to serve the rules at. One of them does, for all of them, and
    another one takes over when it ends.
    """

    def __init__(self, check: Step, begin: Step, serve: Step, telemetry: Telemetry) -> None:
        """`check` raises while the schema cannot be served from; `begin` starts what goes on beside serving; `serve`
        listens, and raises RuntimeError for an address that is taken.
        """
        self._check = check
        self._begin = begin
        self._serve = serve
        self._log = telemetry.logger("rules")
        self._checked = False
        self._begun = False
        self._checking = asyncio.Lock()

    async def checked(self) -> None:
        """Returns when the schema fits this code; raises `unavailable` until then."""
        async with self._checking:
            if not self._checked:
                try:
                    await self._check()
                except MigrationError as error:
                    raise errors.unavailable("schema_behind", f"The rules cannot be served yet: {error}") from error
                self._checked = True

    async def run(self, stop: Stop) -> None:
        """Checks and serves; what is raised ends it, and it is started again after a pause."""
        await self.checked()
        if not self._begun:
            await self._begin()
            self._begun = True
        told = False
        while not stop.is_set():
            try:
                await self._serve()
            except RuntimeError as error:
                if not told:
                    self._log.info("another gateway serves the rules here", extra={"why": str(error)})
                told = True
                await pause(stop, TAKE_OVER_SECONDS)
            else:
                return
