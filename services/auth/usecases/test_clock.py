"""Owns moving a test account's clock: in every service, and then waiting until all that fell due is worked off."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from gatefold.auth.v1 import account_pb2
from gatefold.clock.v1 import clock_pb2

from libs import caller, deadline, errors, idempotency
from libs.account_clock import AccountClocks
from libs.caller import Caller
from libs.clock import SystemClock
from libs.errors import GatefoldError, Kind
from libs.postgres import Database
from services.auth.clients.peers import PeerClock

LONGEST = timedelta(days=730)
_ADVANCE = "gatefold.auth.v1.AccountService/AdvanceTestClock"
_QUIET_ROUNDS = 2
_PAUSE_SECONDS = 0.05
# What is left of the deadline for answering.
_RESERVE_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0
_AWAY = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT})


class TestClock:
    """The clock of a test account, over all services."""

    __test__ = False

    def __init__(
        self,
        clock: SystemClock,
        db: Database,
        clocks: AccountClocks,
        peers: Sequence[PeerClock],
        waiting: Callable[[UUID], Awaitable[int]],
    ) -> None:
        self._clock = clock
        self._db = db
        self._clocks = clocks
        self._peers = tuple(peers)
        self._waiting = waiting

    async def advance(self, by: timedelta) -> tuple[datetime, bool]:
        """Moves the clock and waits; returns the account's time and whether everything is worked off.

        The waiting is bounded by the call's deadline. The offset is stored here last, so that an attempt which broke
        off among the others asks them for the same time when it is repeated.
        """
        who = caller.current()
        account = who.require_account()
        if who.live:
            raise errors.forbidden("live_clock", "The clock of a live account cannot be moved.")
        if not timedelta(seconds=1) <= by <= LONGEST:
            raise errors.invalid("seconds_invalid", "A clock moves by one second to two years.", field="seconds")
        offset = await self._target(who, account, by)
        await asyncio.gather(*(peer.advance(offset) for peer in self._peers))
        await self._clocks.store(account, offset)
        self._clock.set_offset(account, offset)
        drained = await self._drained(account)
        return self._clock.now(account), drained

    async def _target(self, who: Caller, account: UUID, by: timedelta) -> timedelta:
        """Returns the offset to move to: under an idempotency key that of the first attempt, or where others led."""
        present = (await self._clocks.read()).get(account, timedelta())
        request = account_pb2.AdvanceTestClockRequest(seconds=int(by.total_seconds()))
        async with self._db.tenant(account, "advance_test_clock") as conn:
            claim = await idempotency.claim(conn, who, _ADVANCE, request, clock=self._clock)
            if claim.replay is not None:
                return max(present, clock_pb2.AdvanceRequest.FromString(claim.replay).offset.ToTimedelta())
            chosen = clock_pb2.AdvanceRequest()
            chosen.offset.FromTimedelta(present + by)
            await idempotency.record(conn, who, _ADVANCE, chosen)
        return present + by

    async def _drained(self, account: UUID) -> bool:
        """Waits until two rounds in a row find nothing: work of one service may make work for another in between."""
        allowed = min(deadline.remaining() or _PATIENCE_SECONDS, _PATIENCE_SECONDS) - _RESERVE_SECONDS
        quiet = 0
        try:
            async with asyncio.timeout(max(0.0, allowed)):
                while quiet < _QUIET_ROUNDS:
                    quiet = quiet + 1 if await self._quiet(account) else 0
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _quiet(self, account: UUID) -> bool:
        if await self._waiting(account):
            return False
        try:
            return all(await asyncio.gather(*(peer.drained() for peer in self._peers)))
        except GatefoldError as error:
            if error.kind in _AWAY:
                return False
            raise
