"""Owns keeping and showing how often rules matched."""

from datetime import datetime, timedelta
from uuid import UUID

from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.postgres import Database, violated
from services.gateway.domain.hits import HitCounter
from services.gateway.domain.register import Hits
from services.gateway.repository import hits

USUAL_HOURS = 24
KEEP = timedelta(days=30)


class HitCounts:
    """Hits by rule and hour."""

    def __init__(self, db: Database, counter: HitCounter, clock: WallClock) -> None:
        """`counter` is what this process's edge counts with."""
        self._db = db
        self._counter = counter
        self._clock = clock

    async def flush(self) -> int:
        """Keeps what this process counted since the last time; returns how many rules had matches.

        While the database is away counts wait in memory, one number a rule. Raises `unavailable` then.
        """
        counted = self._counter.take()
        if not counted:
            return 0
        try:
            async with self._db.transaction("add_hits") as conn:
                await hits.add(conn, counted, _hour(self._clock.wall()))
        except Exception as error:
            # What may have been kept is not kept twice: a count that is short is better than one that is too high.
            if not (isinstance(error, GatefoldError) and error.kind is Kind.TIMEOUT):
                self._counter.give_back(counted)
            if violated(error):
                # A rule was removed at this moment: the next time it is passed over.
                return 0
            raise
        return len(counted)

    async def forget(self) -> None:
        """Deletes counts older than thirty days."""
        async with self._db.transaction("forget_hits") as conn:
            await hits.forget(conn, self._clock.wall() - KEEP)

    async def of_rule(self, rule: UUID, hours: int) -> list[tuple[datetime, Hits]]:
        """Returns a rule's hits by hour, newest first."""
        async with self._db.transaction("list_rule_hits", read_only=True) as conn:
            return await hits.of_rule(conn, rule, self._since(hours))

    async def summed(self, hours: int) -> list[tuple[UUID, Hits, datetime]]:
        """Returns all rules' hits and the last hour of each, most first."""
        async with self._db.transaction("sum_hits", read_only=True) as conn:
            return await hits.summed(conn, self._since(hours))

    def _since(self, hours: int) -> datetime:
        return _hour(self._clock.wall() - timedelta(hours=(hours or USUAL_HOURS) - 1))


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
