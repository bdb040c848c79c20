"""Owns the life of a service's process object within the test's own loop: until it is ready, and to its end."""

import asyncio
import io
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from libs.process import Process


@asynccontextmanager
async def living(process: Process, composing: Coroutine[Any, Any, None], log: io.StringIO) -> AsyncIterator[None]:
    """Lives from when it is ready, which its file says, until it is left; fails with its log where it cannot."""
    ready = process.config.ready_file
    assert ready is not None
    life = asyncio.create_task(process.live(composing))
    try:
        while not ready.exists():
            if life.done():
                life.result()
                raise AssertionError(log.getvalue())
            await asyncio.sleep(0.01)
        yield
    finally:
        process.stop()
        await asyncio.gather(life, return_exceptions=True)


async def end(process: Process) -> None:
    """Ends a process that was composed and never lived: its work, what it serves, and what it leaves open."""
    await process._background.stop()
    for served in process._servers:
        await served.drain(2)
    for hook in reversed(process._on_drain):
        await hook()
