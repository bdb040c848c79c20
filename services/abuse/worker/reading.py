"""Owns reading one shard of the activities, for as long as this replica holds it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar
from uuid import UUID

from prometheus_client import Counter, Gauge

from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry
from services.abuse.clients.activity_log import BEGINNING, ActivityLog, Entry
from services.abuse.clients.snapshots import Snapshots
from services.abuse.domain.finding import Entity
from services.abuse.usecases.verdicts import Verdicts
from services.abuse.usecases.watch import Read, Sighting, Watch, read

SNAPSHOT_SECONDS = 60.0
UNFINISHED_SECONDS = 15.0
"""After so long an entry that a former holder read and did not finish is taken over: longer than a lease."""
RETRY_SECONDS = 0.5
_T = TypeVar("_T")


class ReaderMetrics:
    """What is seen of reading from outside."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.activities: Counter = telemetry.counter("abuse_activities", "Activities looked at.", ["shard"])
        self.dropped: Counter = telemetry.counter(
            "abuse_activities_dropped", "Activities and entries that cannot be read."
        )
        self.lost: Counter = telemetry.counter("abuse_activities_lost", "Activities that senders say they lost.")
        self.verdicts: Counter = telemetry.counter("abuse_verdicts", "Verdicts made.", ["action", "shadow"])
        self.lag: Gauge = telemetry.gauge("abuse_lag_seconds", "Age of the entry looked at last.", ["shard"])
        self.waiting: Gauge = telemetry.gauge("abuse_entries_waiting", "Entries of a shard not read yet.", ["shard"])
        self.held: Gauge = telemetry.gauge("abuse_shards_held", "Shards that this replica reads.")


class Reader:
    """Reads a shard: first what is needed to know again what was known, then what is new.

    Decisions are written before entries are acknowledged; an entry that is read twice decides the same again, which
    writes nothing new. What the engine computes runs beside the loop.
    """

    def __init__(
        self,
        shard: int,
        replica: UUID,
        watch: Callable[[], Watch],
        log: ActivityLog,
        snapshots: Snapshots,
        verdicts: Verdicts,
        *,
        executor: Executor,
        clock: WallClock,
        kill_points: KillPoints,
        metrics: ReaderMetrics,
        telemetry: Telemetry,
        told: Callable[[], None],
    ) -> None:
        self.shard = shard
        self._replica = replica
        self._make = watch
        self._log = log
        self._snapshots = snapshots
        self._verdicts = verdicts
        self._executor = executor
        self._clock = clock
        self._kill_points = kill_points
        self._metrics = metrics
        self._logger = telemetry.logger("abuse")
        self._told = told
        self._place = BEGINNING
        self._kept = BEGINNING
        self._forgiven: list[Entity] = []

    def forgive(self, entities: Sequence[Entity]) -> None:
        """Has strikes and verdicts of entities forgotten before anything else is looked at."""
        self._forgiven += entities

    async def run(self, stop: asyncio.Event) -> None:
        """Reads until `stop` is set, and keeps what is known; raises LeaseLostError when another replica reads."""
        self._watch = await self._beside(self._make)
        await self._steady(stop, self._resume)
        now = self._clock.wall().timestamp()
        snapshot_at, unfinished_at = now + SNAPSHOT_SECONDS, now
        while not stop.is_set():
            now = self._clock.wall().timestamp()
            if now >= unfinished_at:
                unfinished_at = now + UNFINISHED_SECONDS / 3
                await self._steady(stop, self._take_over)
            await self._steady(stop, self._next)
            if now >= snapshot_at:
                snapshot_at = now + SNAPSHOT_SECONDS
                await self._keep()
        await self._keep()

    async def _resume(self) -> None:
        """Takes up the latest snapshot and looks again at what was read since, as far as the stream still has it."""
        kept = await self._snapshots.latest(self.shard)
        if kept is not None and await self._beside(lambda: self._watch.restore(kept[1])):
            self._place = self._kept = kept[0]
        while entries := await self._log.again(self.shard, self._place):
            await self._work(entries)

    async def _take_over(self) -> None:
        left = await self._log.unfinished(self.shard, UNFINISHED_SECONDS)
        while left:
            await self._work(left)
            left = await self._log.unfinished(self.shard, UNFINISHED_SECONDS)

    async def _next(self) -> None:
        entries = await self._log.read(self.shard)
        if entries:
            await self._work(entries)
        self._metrics.waiting.labels(str(self.shard)).set(await self._log.lag(self.shard))

    async def _work(self, entries: Sequence[Entry]) -> None:
        seen, sighting = await self._beside(lambda: self._look(entries))
        self._metrics.activities.labels(str(self.shard)).inc(len(seen.activities))
        self._metrics.dropped.inc(seen.dropped)
        self._metrics.lost.inc(seen.lost)
        await self._write(sighting)
        self._kill_points.at("ack", "before", "activities")
        await self._finish(entries)
        self._kill_points.at("ack", "after", "activities")
        last = entries[-1]
        self._place = max(self._place, last.id, key=_order)
        age = self._clock.wall().timestamp() - last.received_ms / 1000
        self._metrics.lag.labels(str(self.shard)).set(max(0.0, age))

    def _look(self, entries: Sequence[Entry]) -> tuple[Read, Sighting]:
        forgiven, self._forgiven = self._forgiven, []
        seen = read((entry.received_ms, entry.batch) for entry in entries)
        try:
            return seen, self._watch.take(seen, forgiven)
        except Exception:
            # What nobody thought of must not stop the shard: it would be read again and again.
            self._logger.exception("activities cannot be looked at", extra={"shard": self.shard})
            return Read(dropped=seen.dropped + len(seen.activities), lost=seen.lost), Sighting()

    async def _write(self, sighting: Sighting) -> None:
        """Writes, however often that takes: the engine has counted these events and must not see them again."""
        made = await self._patiently(lambda: self._verdicts.store(self._replica, self.shard, sighting))
        for verdict in made:
            self._metrics.verdicts.labels(verdict.action.name.lower(), str(verdict.shadow).lower()).inc()
        if made:
            self._told()

    async def _finish(self, entries: Sequence[Entry]) -> None:
        await self._patiently(lambda: self._log.finish(self.shard, entries))

    async def _patiently(self, work: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            try:
                return await work()
            except GatefoldError as error:
                if not _passes(error):
                    raise
                self._logger.warning("a shard waits", extra={"shard": self.shard, "reason": error.reason})
            await asyncio.sleep(RETRY_SECONDS)

    async def _keep(self) -> None:
        """Keeps a snapshot; without one whoever takes over has more to look at again, and loses nothing."""
        if self._place == self._kept:
            return
        place = self._place
        packed = await self._beside(self._watch.snapshot)
        try:
            await self._snapshots.keep(self.shard, place, packed)
        except GatefoldError as error:
            self._logger.warning("no snapshot is kept", extra={"shard": self.shard, "reason": error.reason})
        else:
            self._kept = place

    async def _steady(self, stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
        """Works, and after a store was away works again."""
        while not stop.is_set():
            try:
                await work()
            except GatefoldError as error:
                if not _passes(error):
                    raise
                self._logger.warning("a shard cannot be read", extra={"shard": self.shard, "reason": error.reason})
                await pause(stop, RETRY_SECONDS)
            else:
                return

    async def _beside(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _passes(error: GatefoldError) -> bool:
    return error.kind in (Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.CONFLICT)


def _order(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)
