"""Owns time: the wall clock, each account's own clock, and how a test account's clock is moved."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from gatefold.clock.v1 import clock_pb2, clock_pb2_grpc

from libs import caller, errors


class WallClock(Protocol):
    """Whatever tells the time of day."""

    def wall(self) -> datetime:
        """Returns the present time, in UTC; what security expiries are measured by."""
        ...

    def seconds(self) -> float:
        """Returns the same in seconds of the epoch, at a tenth of the cost: for what is asked at every request."""
        ...


class Clock(WallClock, Protocol):
    """What use cases take: the wall's time and the account's."""

    def now(self, account: UUID) -> datetime:
        """Returns the account's time: the wall's, plus the account's offset (only test accounts have one)."""
        ...


class SystemClock:
    """The machine's clock with the accounts' offsets held in memory."""

    def __init__(self) -> None:
        self._offsets: dict[UUID, timedelta] = {}

    def wall(self) -> datetime:
        """Returns the machine's time, in UTC."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """Returns the machine's time in seconds of the epoch."""
        return time.time()

    def now(self, account: UUID) -> datetime:
        """Returns the account's time."""
        return self.wall() + self._offsets.get(account, timedelta())

    def offset(self, account: UUID) -> timedelta:
        """Returns how far the account's clock runs ahead."""
        return self._offsets.get(account, timedelta())

    def set_offset(self, account: UUID, offset: timedelta) -> None:
        """Sets how far the account's clock runs ahead."""
        self._offsets[account] = offset

    def replace_offsets(self, offsets: Mapping[UUID, timedelta]) -> None:
        """Sets all offsets at once; accounts that are not named run with the wall."""
        self._offsets = dict(offsets)


class FixedClock(SystemClock):
    """A clock that stands still until it is moved; for tests."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        super().__init__()
        self._at = at

    def wall(self) -> datetime:
        """Returns the time the clock was left at."""
        return self._at

    def seconds(self) -> float:
        """Returns the same in seconds of the epoch."""
        return self._at.timestamp()

    def advance(self, by: timedelta) -> None:
        """Moves the wall forward."""
        self._at += by

    def set(self, at: datetime) -> None:
        """Moves the wall to a time."""
        self._at = at


# libs/account_clock.AccountClocks has both.
ReadOffsets = Callable[[], Awaitable[Mapping[UUID, timedelta]]]
StoreOffset = Callable[[UUID, timedelta], Awaitable[None]]
Waiting = Callable[[UUID], Awaitable[int]]
"""Answers how many due jobs or events of the account are not worked off yet; 0 means drained."""


class OffsetRefresher:
    """Keeps the offsets in memory level with the service's `account_clock` table, which other replicas write too."""

    def __init__(self, clock: SystemClock, read: ReadOffsets, *, every_seconds: float = 1.0) -> None:
        self._clock = clock
        self._read = read
        self._every_seconds = every_seconds

    async def refresh(self) -> None:
        """Reads all offsets once."""
        self._clock.replace_offsets(await self._read())

    async def run(self, stop: asyncio.Event) -> None:
        """Refreshes every second until `stop` is set; a failing read ends it (the process starts it again)."""
        while not stop.is_set():
            await self.refresh()
            try:
                await asyncio.wait_for(stop.wait(), self._every_seconds)
            except TimeoutError:
                continue


class ClockServicer(clock_pb2_grpc.ClockServiceServicer):
    """gatefold.clock.v1 for one service: moves a test account's clock and answers when it is quiet again."""

    def __init__(
        self, clock: SystemClock, read: ReadOffsets, store: StoreOffset, waiting: Mapping[str, Waiting]
    ) -> None:
        self._clock = clock
        self._refresher = OffsetRefresher(clock, read)
        self._store = store
        self._waiting = dict(waiting)

    async def Advance(self, request: clock_pb2.AdvanceRequest, context: object) -> clock_pb2.AdvanceResponse:
        """Stores the offset; refuses live accounts and going backwards."""
        account = self._test_account()
        # Kept in whole seconds; rounded up, so that what was asked for has come.
        offset = timedelta(seconds=math.ceil(request.offset.ToTimedelta().total_seconds()))
        # Another replica may have moved the clock since the last refresh.
        await self._refresher.refresh()
        if offset < self._clock.offset(account):
            raise errors.invalid("clock_backwards", "A test clock only moves forward.", field="offset")
        await self._store(account, offset)
        self._clock.set_offset(account, offset)
        response = clock_pb2.AdvanceResponse()
        response.offset.FromTimedelta(offset)
        return response

    async def Drained(self, request: clock_pb2.DrainedRequest, context: object) -> clock_pb2.DrainedResponse:
        """Answers whether nothing of the account is due or waits."""
        account = self._test_account()
        counts = {name: int(await waiting(account)) for name, waiting in self._waiting.items()}
        left = {name: count for name, count in counts.items() if count > 0}
        return clock_pb2.DrainedResponse(drained=not left, waiting=left)

    def _test_account(self) -> UUID:
        acting = caller.current()
        if acting.live:
            raise errors.forbidden("live_clock", "The clock of a live account cannot be moved.")
        return acting.require_account()
