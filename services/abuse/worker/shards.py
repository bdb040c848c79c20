"""Owns which shards this replica reads: its fair share, each by a lease that another replica takes when it ends."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.postgres import Database
from libs.telemetry import Telemetry
from services.abuse.domain.finding import Entity
from services.abuse.engine.catalogue import Catalogue
from services.abuse.repository import shards
from services.abuse.usecases.detectors import Detectors
from services.abuse.usecases.suppressed import Suppressed
from services.abuse.usecases.verdicts import LeaseLostError
from services.abuse.worker.reading import Reader, ReaderMetrics

NUMBER = 8
LEASE = timedelta(seconds=5)
BEAT_SECONDS = 1.0
STOP_SECONDS = 10.0

MakeReader = Callable[[int, Catalogue], Reader]


class Shards:
    """Holds shards and runs their readers."""

    def __init__(
        self,
        db: Database,
        replica: UUID,
        make: MakeReader,
        suppressed: Suppressed,
        detectors: Detectors,
        *,
        clock: WallClock,
        metrics: ReaderMetrics,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._replica = replica
        self._make = make
        self._suppressed = suppressed
        self._detectors = detectors
        self._clock = clock
        self._metrics = metrics
        self._log = telemetry.logger("abuse")
        self._reading: dict[int, _Reading] = {}
        self._renewed = clock.wall()
        self._catalogue: Catalogue | None = None

    @property
    def held(self) -> frozenset[int]:
        """Shards that are read here."""
        return frozenset(self._reading)

    async def run(self, stop: asyncio.Event) -> None:
        """Reads until `stop` is set; then lets go of all shards at once, so that others need not wait."""
        try:
            while not stop.is_set():
                try:
                    await self._beat()
                except GatefoldError as error:
                    if error.kind not in (Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.CONFLICT):
                        raise
                    self._log.warning("leases cannot be renewed", extra={"reason": error.reason})
                    if self._clock.wall() - self._renewed >= LEASE:
                        await self._end(list(self._reading))
                await pause(stop, BEAT_SECONDS)
        finally:
            mine = list(self._reading)
            await self._end(mine)
            # Away as well: then the leases end by themselves.
            with suppress(GatefoldError):
                async with self._db.transaction("leave_shards") as conn:
                    await shards.release(conn, self._replica, mine)
                    await shards.leave(conn, self._replica)

    async def _beat(self) -> None:
        now = self._clock.wall()
        await self._end([shard for shard, reading in self._reading.items() if reading.task.done()], release=True)
        async with self._db.transaction("renew_shards") as conn:
            alive = await shards.beat(conn, self._replica, now, now - LEASE)
            kept = await shards.renew(conn, self._replica, list(self._reading), now + LEASE)
        self._renewed = now
        await self._end([shard for shard in self._reading if shard not in kept])
        await self._learn()
        share = -(-NUMBER // max(1, alive))
        await self._end(sorted(self._reading)[share:], release=True)
        if len(self._reading) < share:
            async with self._db.transaction("claim_shards") as conn:
                taken = await shards.claim(conn, self._replica, share - len(self._reading), now, now + LEASE)
            for shard in taken:
                self._begin(shard)
        self._metrics.held.set(len(self._reading))

    async def _learn(self) -> None:
        """Takes note of what people said and changed: suppressions at once, detectors by readers that begin anew."""
        forgiven: list[Entity] = await self._suppressed.refresh()
        for reading in self._reading.values():
            reading.reader.forgive(forgiven)
        catalogue = await self._detectors.catalogue()
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            mine = list(self._reading)
            await self._end(mine)
            for shard in mine:
                self._begin(shard)

    def _begin(self, shard: int) -> None:
        assert self._catalogue is not None
        reader = self._make(shard, self._catalogue)
        stop = asyncio.Event()
        self._reading[shard] = _Reading(reader, stop, asyncio.create_task(reader.run(stop)))

    async def _end(self, numbers: list[int], *, release: bool = False) -> None:
        ending = {shard: self._reading.pop(shard) for shard in numbers}
        for reading in ending.values():
            reading.stop.set()
        if ending:
            await asyncio.wait([reading.task for reading in ending.values()], timeout=STOP_SECONDS)
        for shard, reading in ending.items():
            await self._ended(shard, reading)
        if numbers and release:
            async with self._db.transaction("release_shards") as conn:
                await shards.release(conn, self._replica, numbers)

    async def _ended(self, shard: int, reading: "_Reading") -> None:
        reading.task.cancel()
        try:
            await reading.task
        except (asyncio.CancelledError, LeaseLostError):
            self._log.warning("a shard was let go of in the middle", extra={"shard": shard})
        except Exception:  # noqa: BLE001 — its shard is let go of and read anew
            self._log.exception("a shard's reader failed", extra={"shard": shard})


class _Reading:
    def __init__(self, reader: Reader, stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
        self.reader = reader
        self.stop = stop
        self.task = task
