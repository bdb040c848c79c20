"""Owns waiting for what lies outside of the test's own loop and tells nobody when it happens."""

import asyncio
import inspect
from collections.abc import Callable

PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; raises TimeoutError when it does not come about."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)
