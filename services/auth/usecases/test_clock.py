"""Owns moving a test account's clock: in every service, and then waiting until all that fell due is worked off."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from libs import caller, deadline, errors
from libs.account_clock import AccountClocks
from libs.clock import SystemClock
from libs.errors import GatefoldError, Kind
from services.auth.clients import PeerClock

LONGEST = timedelta(days=730)
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
        clocks: AccountClocks,
        peers: Sequence[PeerClock],
        waiting: Callable[[UUID], Awaitable[int]],
    ) -> None:
        self._clock = clock
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
        offset = (await self._clocks.read()).get(account, timedelta()) + by
        await asyncio.gather(*(peer.advance(offset) for peer in self._peers))
        await self._clocks.store(account, offset)
        self._clock.set_offset(account, offset)
        drained = await self._drained(account)
        return self._clock.now(account), drained

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
