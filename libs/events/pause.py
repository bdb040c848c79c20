"""Owns waiting between rounds of background work: for a time, a wake-up call or the end, whichever comes first."""

import asyncio


async def pause(stop: asyncio.Event, seconds: float, woken: asyncio.Event | None = None) -> None:
    """Returns after `seconds`, or as soon as `stop` or `woken` is set."""
    waits = [asyncio.create_task(event.wait()) for event in (stop, woken) if event is not None]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
