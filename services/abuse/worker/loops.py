"""Owns the small loops: telling of verdicts at once, ending those whose time is over, clearing away."""

import asyncio

from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.postgres import Database
from libs.telemetry import Telemetry
from services.abuse.repository import detectors, retention
from services.abuse.usecases.verdicts import PAGE, Verdicts

LOOK_SECONDS = 0.2
EXPIRE_SECONDS = 1.0
CLEAR_SECONDS = 600.0
CLEAR_ROWS = 1_000
COUNT_SECONDS = 30.0


class Announcing:
    """Tells of verdicts that changed: at once when this process wrote them, within 200 ms otherwise."""

    def __init__(self, verdicts: Verdicts, telemetry: Telemetry) -> None:
        self._verdicts = verdicts
        self._log = telemetry.logger("abuse")
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Looks now."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. A store that is away is tried again at once: others ask until then."""
        while not stop.is_set():
            self._woken.clear()
            told = 0
            try:
                told = await self._verdicts.announce()
            except GatefoldError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                self._log.warning("verdicts cannot be told", extra={"reason": error.reason})
            if told < PAGE:
                await pause(stop, LOOK_SECONDS, self._woken)


class Expiring:
    """Ends verdicts whose time is over."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; a failure ends it, and the process starts it again."""
        while not stop.is_set():
            if await self._verdicts.expire() < PAGE:
                await pause(stop, EXPIRE_SECONDS)


class Counting:
    """Says in how many accounts people's labels have demoted each detector."""

    def __init__(self, jobs: Database, telemetry: Telemetry) -> None:
        self._jobs = jobs
        self._demotions = telemetry.gauge(
            "abuse_detector_demotions", "Accounts in which a detector is only noted, by what people said.", ["detector"]
        )
        self._said: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; a failure ends it, and the process starts it again."""
        while not stop.is_set():
            async with self._jobs.transaction("count_demotions", read_only=True) as conn:
                found = await detectors.demotions(conn)
            for detector in self._said - found.keys():
                self._demotions.labels(detector).set(0)
            for detector, accounts in found.items():
                self._demotions.labels(detector).set(accounts)
            self._said |= found.keys()
            await pause(stop, COUNT_SECONDS)


class Clearing:
    """Deletes what is kept no longer."""

    def __init__(self, jobs: Database, clock: WallClock) -> None:
        self._jobs = jobs
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; a failure ends it, and the process starts it again."""
        while not stop.is_set():
            async with self._jobs.transaction("clear_abuse") as conn:
                cleared = await retention.clear(conn, self._clock.wall(), CLEAR_ROWS)
            if cleared < CLEAR_ROWS:
                await pause(stop, CLEAR_SECONDS)
