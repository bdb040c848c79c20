"""Owns waiting for what lies outside of the test's own loop and tells nobody when it happens."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; raises TimeoutError when it does not come about."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)


async def blocked(connection: Any, count: int) -> None:
    """Returns once so many transactions wait for a lock in the connection's own database, which others share a server
    with; the connection may be in a transaction itself.
    """
    # Not by pg_stat_activity, which a transaction sees as it was at first. A row's lock names no database, but whoever
    # waits for it has locked its table before.
    statement = """
        SELECT count(DISTINCT waiting.pid) FROM pg_locks AS waiting
        JOIN pg_locks AS held ON held.pid = waiting.pid
        JOIN pg_database ON pg_database.oid = held.database
        WHERE NOT waiting.granted AND datname = current_database()
    """

    async def enough() -> bool:
        return bool(await connection.fetchval(statement) >= count)

    await until(enough)
