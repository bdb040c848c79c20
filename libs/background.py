"""Owns loops that run beside the requests: started again with growing pauses, counted, stopped together."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from libs.errors import GatefoldError, Kind
from libs.telemetry import Telemetry

Stop = asyncio.Event
"""Set when a loop should end."""

Work = Callable[[Stop], Awaitable[None]]

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
_STEADY_SECONDS = 30.0


class Background:
    """The loops of one process."""

    def __init__(self, telemetry: Telemetry, randomness: Callable[[int], bytes]) -> None:
        self._log = telemetry.logger("background")
        self._failures = telemetry.counter("background_failures", "Background loops that failed", ("task",))
        self._randomness = randomness
        self._stop = Stop()
        self._started = False
        self._works: dict[str, Work] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, name: str, work: Work) -> None:
        """Adds a loop; it starts with the others, or now when they run already."""
        if name in self._works:
            raise ValueError(f"there is a background loop {name} already")
        self._works[name] = work
        self._failures.labels(name)
        if self._started:
            self._tasks.append(asyncio.create_task(self._keep(name, work), name=name))

    def start(self) -> None:
        """Starts all loops."""
        self._started = True
        self._tasks = [asyncio.create_task(self._keep(name, work), name=name) for name, work in self._works.items()]

    async def stop(self) -> None:
        """Asks all loops to end and waits for them; cancelling this cancels them."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _keep(self, name: str, work: Work) -> None:
        failed = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                await work(self._stop)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _being_cancelled():
                    raise
                # Also a cancellation of something that the loop awaited, which nobody meant for the loop.
                failed = 1 if time.monotonic() - began > _STEADY_SECONDS else failed + 1
                self._failures.labels(name).inc()
                if isinstance(error, GatefoldError) and error.kind is Kind.UNAVAILABLE:
                    self._log.warning("background loop interrupted", extra={"task": name, "reason": error.reason})
                else:
                    self._log.exception("background loop failed", extra={"task": name})
                await self._pause(failed)
            else:
                return

    async def _pause(self, failed: int) -> None:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failed - 1, 10))
        # Between half and all of it, so that replicas which failed together do not come back together.
        seconds = longest * (0.5 + self._randomness(1)[0] / 510)
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
