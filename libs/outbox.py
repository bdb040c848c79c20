"""Owns the outbox: events written in the transaction of what they tell, and the relay that publishes them."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import redis.asyncio

from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events.event import Event
from libs.events.pause import pause
from libs.events.stream import FIELD, pack, stream_key
from libs.kill_points import KillPoints
from libs.postgres import Connection, Database
from libs.telemetry import Telemetry

CLAIM_ROWS = 512
ENTRY_ENVELOPES = 256
_DELETE_ROWS = 5_000
_DELETE_EVERY_SECONDS = 60.0
_LONGEST_BACK_OFF_SECONDS = 5.0


async def append(conn: Connection, *, event: Event) -> None:
    """Writes the event in the caller's transaction; it is published after the commit, at least once."""
    await append_all(conn, events=(event,))


async def append_all(conn: Connection, *, events: Sequence[Event]) -> None:
    """Writes events of one account in one statement, in their order."""
    await conn.execute(
        "INSERT INTO outbox (id, account_id, aggregate_type, aggregate_id, sequence, type, envelope, recorded_at)"
        " SELECT new.id, new.account_id, new.aggregate_type, new.aggregate_id, new.sequence, new.type, new.envelope,"
        " new.recorded_at"
        " FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[],"
        " $8::timestamptz[]) WITH ORDINALITY"
        " AS new (id, account_id, aggregate_type, aggregate_id, sequence, type, envelope, recorded_at, place)"
        " ORDER BY new.place",
        [event.id for event in events],
        [event.account for event in events],
        [event.aggregate[0] for event in events],
        [event.aggregate_id for event in events],
        [event.sequence for event in events],
        [event.type for event in events],
        [event.to_envelope().SerializeToString() for event in events],
        [event.recorded_at for event in events],
    )


async def outbox_waiting(jobs_db: Database, account: UUID) -> int:
    """Returns how many of the account's events no consumer's sweep can count on seeing yet; 0 means all are out."""
    async with jobs_db.transaction("count_outbox", read_only=True) as conn:
        count: int = await conn.fetchval(
            "SELECT count(*) FROM outbox WHERE account_id = $1"
            " AND (published_at IS NULL OR xid >= pg_snapshot_xmin(pg_current_snapshot()))",
            account,
        )
    return count


class Relay:
    """Publishes a service's outbox to its stream. Any number of replicas may run one; each row is claimed by one.

    Rows are marked published in the transaction that claimed them, after the stream has taken them: a crash between
    publishes them again, and consumers skip what they know. A store that is away loses nothing: rows wait.
    """

    def __init__(
        self,
        jobs_db: Database,
        redis: redis.asyncio.Redis,
        service: str,
        *,
        clock: WallClock,
        kill_points: KillPoints,
        telemetry: Telemetry,
        poll_seconds: float = 0.2,
        keep: timedelta = timedelta(days=7),
        stream_entries: int = 4_096,
    ) -> None:
        self._db = jobs_db
        self._redis = redis
        self._key = stream_key(service)
        self._clock = clock
        self._kill_points = kill_points
        self._log = telemetry.logger("libs.outbox")
        self._published = telemetry.counter("outbox_published", "Events published to the stream.")
        self._failures = telemetry.counter("outbox_failures", "Attempts to publish that failed.")
        self._poll_seconds = poll_seconds
        self._keep = keep
        self._stream_entries = stream_entries
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Publishes at once what was committed; otherwise it is found at the next poll, within 200 ms."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Publishes and tidies up until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy(stop))
            group.create_task(self._relay(stop))

    async def publish(self) -> int:
        """Publishes one batch, oldest first; returns how many events it took."""
        if not await self._any_waiting():
            return 0
        async with self._db.transaction("relay_outbox") as conn:
            rows = await conn.fetch(
                "SELECT position, envelope FROM outbox WHERE published_at IS NULL"
                " ORDER BY position LIMIT $1 FOR UPDATE SKIP LOCKED",
                CLAIM_ROWS,
            )
            if not rows:
                return 0
            self._kill_points.at("publish", "before", "relay_outbox")
            await self._add([row["envelope"] for row in rows])
            self._kill_points.at("publish", "after", "relay_outbox")
            await conn.execute(
                "UPDATE outbox SET published_at = $2 WHERE position = ANY($1::bigint[])",
                [row["position"] for row in rows],
                self._clock.wall(),
            )
        self._published.inc(len(rows))
        return len(rows)

    async def delete_old(self) -> int:
        """Deletes one batch of published rows that are older than is kept; returns how many."""
        async with self._db.transaction("delete_old_outbox") as conn:
            deleted = await conn.fetch(
                # Only the oldest rows are looked at, so that nothing to delete costs nothing.
                "DELETE FROM outbox WHERE position IN ("
                "SELECT position FROM"
                " (SELECT position, recorded_at, published_at FROM outbox ORDER BY position LIMIT $2) AS oldest"
                " WHERE recorded_at < $1 AND published_at IS NOT NULL) RETURNING position",
                self._clock.wall() - self._keep,
                _DELETE_ROWS,
            )
        return len(deleted)

    async def adopt_restored(self) -> None:
        """Gives rows that a logical restore brought from another cluster a transaction number of this one.

        Their own may lie in this cluster's future, where no sweep would find them.
        """
        async with self._db.transaction("adopt_restored_outbox") as conn:
            await conn.execute(
                "UPDATE outbox SET xid = pg_current_xact_id() WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
            )

    async def _relay(self, stop: asyncio.Event) -> None:
        adopted = False
        back_off = self._poll_seconds
        while not stop.is_set():
            self._woken.clear()
            try:
                if not adopted:
                    await self.adopt_restored()
                    adopted = True
                taken = await self.publish()
            except GatefoldError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                self._failures.inc()
                self._log.warning("the outbox waits", extra={"reason": error.reason})
                await pause(stop, back_off * random.uniform(0.5, 1))  # noqa: S311 — spreads retries
                back_off = min(back_off * 2, _LONGEST_BACK_OFF_SECONDS)
                continue
            back_off = self._poll_seconds
            if taken < CLAIM_ROWS:
                await pause(stop, self._poll_seconds, self._woken)

    async def _any_waiting(self) -> bool:
        """Answers without a writing transaction, which an idle relay would otherwise make five times a second."""
        async with self._db.transaction("look_into_outbox", read_only=True) as conn:
            waiting: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)")
        return waiting

    async def _add(self, envelopes: Sequence[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for start in range(0, len(envelopes), ENTRY_ENVELOPES):
            entry = pack(envelopes[start : start + ENTRY_ENVELOPES])
            pipeline.xadd(self._key, {FIELD: entry}, maxlen=self._stream_entries, approximate=True)
        await pipeline.execute()

    async def _tidy(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                deleted = await self.delete_old()
            except GatefoldError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                deleted = 0
            if deleted < _DELETE_ROWS:
                await pause(stop, _DELETE_EVERY_SECONDS)
