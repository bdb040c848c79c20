"""Owns the loops that tell others: gateways of new versions, the register of hits, everybody of what is held here."""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from libs.background import Stop
from libs.errors import GatefoldError, Kind
from libs.events.listening import Last
from libs.events.pause import pause
from libs.telemetry import Telemetry
from services.gateway.clients.back_test_board import BackTestBoard
from services.gateway.clients.roll_call import RollCall
from services.gateway.domain.lookback import Lookback
from services.gateway.usecases.back_tests import BackTests
from services.gateway.usecases.following import Following
from services.gateway.usecases.hits import HitCounts
from services.gateway.usecases.versions import Announcements

ANNOUNCE_SECONDS = 0.2
"""How often is looked for versions that a crash left untold."""
REPORT_SECONDS = 2.0
HITS_SECONDS = 5.0
_FORGET_EVERY = 720
"""Flushes of hits between two looks for old ones: an hour."""
_AWAY = (GatefoldError, RedisError, TimeoutError, OSError)


class Announcing:
    """Tells gateways of new versions."""

    def __init__(self, announcements: Announcements, telemetry: Telemetry) -> None:
        self._announcements = announcements
        self._log = telemetry.logger("bundles")
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Looks at once."""
        self._woken.set()

    async def run(self, stop: Stop) -> None:
        """Works until `stop` is set; a store that is away is tried again: gateways ask the database until then."""
        while not stop.is_set():
            self._woken.clear()
            try:
                await self._announcements.announce()
            except GatefoldError as error:
                if error.kind not in (Kind.UNAVAILABLE, Kind.CONFLICT, Kind.TIMEOUT):
                    raise
                self._log.warning("gateways cannot be told", extra={"reason": error.reason})
            await pause(stop, ANNOUNCE_SECONDS, self._woken)


class Reporting:
    """Says which version is held here."""

    def __init__(self, following: Following, roll_call: RollCall, name: str, software: str) -> None:
        self._following = following
        self._roll_call = roll_call
        self._name = name
        self._software = software

    async def run(self, stop: Stop) -> None:
        """Works until `stop` is set, and says good-bye."""
        while not stop.is_set():
            await self.report()
            await pause(stop, REPORT_SECONDS)
        try:
            await self._roll_call.leave(self._name)
        except _AWAY:
            return  # it is forgotten in seconds anyway

    async def report(self) -> None:
        """Says it once; a store that is away is no fault."""
        try:
            await self._roll_call.report(self._following.status(self._name, self._software))
        except _AWAY:
            return


class HitFlushing:
    """Keeps what was counted."""

    def __init__(self, hits: HitCounts, count: Callable[[], None], telemetry: Telemetry) -> None:
        """`count` takes note of what rules matched until now."""
        self._hits = hits
        self._count = count
        self._log = telemetry.logger("hits")

    async def run(self, stop: Stop) -> None:
        """Works until `stop` is set, and once more then."""
        flushed = 0
        while not stop.is_set():
            await pause(stop, HITS_SECONDS)
            try:
                self._count()
                await self._hits.flush()
                if flushed % _FORGET_EVERY == 0:
                    await self._hits.forget()
                flushed += 1
            except GatefoldError as error:
                if error.kind not in (Kind.UNAVAILABLE, Kind.CONFLICT, Kind.TIMEOUT):
                    raise
                self._log.warning("hits wait", extra={"reason": error.reason})


class Answering:
    """Answers back-tests for this gateway."""

    def __init__(self, back_tests: BackTests, board: BackTestBoard, lookback: Lookback[Any]) -> None:
        self._back_tests = back_tests
        self._board = board
        self._lookback = lookback

    async def run(self, stop: Stop) -> None:
        """Works until `stop` is set. Questions that nobody waits for any more are passed over."""
        last: Last = b"0"
        while not stop.is_set():
            self._lookback.forget()
            try:
                found, last = await self._board.questions(last)
                for question in found:
                    await self._back_tests.answer(question)
            except _AWAY:
                await pause(stop, REPORT_SECONDS)
