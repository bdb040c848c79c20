"""Owns how often a principal may try what can be guessed: codes and passwords, over all sign-ins and sessions."""

import math
from datetime import datetime

from libs import errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import factor as rules
from services.auth.domain.sign_in import Door
from services.auth.repository import factors


class FactorAttempts:
    """Counts tries in a row; each five without success impose a wait, and a hundred the wait of a day."""

    def __init__(self, db: Database, clock: WallClock) -> None:
        self._db = db
        self._clock = clock

    async def claim(self, door: Door) -> None:
        """Counts a try before anything is looked at; raises `too_many("second_factor_locked")` while one must wait.

        Counted first and atomically, so that tries in parallel are no more than those in a row.
        """
        now = self._clock.wall()
        until: datetime | None = None
        async with self._db.tenant(door.owner, "claim_factor_try") as conn:
            tries = await factors.count_attempt(conn, door.owner, door.principal, now, rules.MOST_IN_A_ROW)
            if tries is None:
                until = await factors.retry_at(conn, door.owner, door.principal)
            elif wait := rules.wait_after(tries):
                await factors.wait_until(conn, door.owner, door.principal, now + wait)
        if tries is None:
            seconds = math.ceil((until - now).total_seconds()) if until is not None else 1
            raise errors.too_many(
                "second_factor_locked",
                "Too many wrong tries. Wait, or use a recovery code or a passkey.",
                max(1, seconds),
            )

    async def lift(self, door: Door) -> None:
        """Opens what a hundred tries have shut to somebody who has proven the mailbox; shorter waits stay."""
        async with self._db.tenant(door.owner, "open_factor_tries") as conn:
            await factors.open_attempts(conn, door.owner, door.principal, rules.MOST_IN_A_ROW)

    async def succeeded(self, conn: Connection, door: Door) -> None:
        """Begins to count anew, in the transaction of what was proven."""
        async with as_tenant(conn, door.owner):
            await factors.forget_attempts(conn, door.owner, door.principal)
