"""Owns what people said is legitimate, in memory, for all shards of this process."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from libs import ids
from libs.clock import WallClock
from libs.postgres import PLATFORM, Database
from services.abuse.domain.finding import Entity
from services.abuse.repository import suppressions
from services.abuse.repository.suppressions import Suppression

MOST_HELD = 100_000


class Suppressed:
    """Answers the judge without waiting. Shards are handed what is new, so that they forget its strikes."""

    def __init__(self, jobs: Database, clock: WallClock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._held: Mapping[Entity, Mapping[str, datetime]] = {}
        self._newest: datetime | None = None

    def suppressed(self, entity: Entity, detector: str, at: datetime) -> bool:
        """Tells whether a detector is kept from an entity at a time."""
        held = self._held.get(entity)
        return held is not None and any(held.get(name, at) > at for name in (detector, ""))

    async def refresh(self) -> list[Entity]:
        """Reads what holds; returns entities of which it was said since the last time."""
        async with self._jobs.transaction("read_suppressions", read_only=True) as conn:
            found = await suppressions.every(conn, self._clock.wall(), MOST_HELD)
        held: dict[Entity, dict[str, datetime]] = {}
        for item in found:
            held.setdefault(_entity(item), {})[item.detector] = item.until
        self._held = held
        # Transactions end in another order than they began: what is a moment older may be new all the same.
        since = self._newest - timedelta(seconds=10) if self._newest else None
        if found:
            self._newest = found[0].since
        return list({_entity(item): None for item in found if since is None or item.since >= since})


def _entity(item: Suppression) -> Entity:
    return Entity(item.scope, item.entity, ids.encode("acct", item.account) if item.account != PLATFORM else None)
