"""Owns beginning to serve the rules: once the database is there and fits this code, however long that takes."""

import asyncio
from collections.abc import Awaitable, Callable

from libs import errors
from libs.background import Stop
from libs.migrate import MigrationError

Step = Callable[[], Awaitable[None]]


class Opening:
    """Opens in the background: the edge answers requests without it."""

    def __init__(self, check: Step, serve: Step) -> None:
        """`check` raises while the schema cannot be served from; `serve` begins to listen and starts what goes on."""
        self._check = check
        self._serve = serve
        self._checked = False
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
        await self._serve()
