"""Owns work that falls due: rows with a time on the account's clock, claimed by many workers, in fair turns."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from logging import Logger
from uuid import UUID

from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.postgres import Connection, Database

BEFORE_ALL = UUID(int=0)
FINISH_SECONDS = 2.0
LEASE_SECONDS = 15
_BEATS = 3
"""How often a lease is renewed while it lasts: a beat or two may be late."""

LONGEST_BACK_OFF = timedelta(hours=1)


@dataclass(frozen=True)
class Due:
    """One claimed row: `reference` names what the work is about, `attempts` counts claims, this one included."""

    account: UUID
    kind: str
    reference: UUID
    due_at: datetime
    attempts: int


Handler = Callable[[Due], Awaitable[None]]
"""Does the work and, in its own tenant transaction, calls `finish` or `schedule`. Must bear running twice."""


async def schedule(conn: Connection, account: UUID, kind: str, reference: UUID, due_at: datetime) -> None:
    """Makes work due at `due_at` on the account's clock, or moves it there; commits with the caller's transaction."""
    await conn.execute(
        """
        INSERT INTO due (account_id, kind, reference, due_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (account_id, kind, reference)
        DO UPDATE SET due_at = excluded.due_at, attempts = 0, leased_until = NULL
        """,
        account,
        kind,
        reference,
        due_at,
    )


async def schedule_many(conn: Connection, account: UUID, kind: str, references: list[UUID], due_at: datetime) -> None:
    """Makes much work of one kind due at once, in one statement."""
    await conn.execute(
        """
        INSERT INTO due (account_id, kind, reference, due_at)
        SELECT $1, $2, reference, $4 FROM unnest($3::uuid[]) reference
        ON CONFLICT (account_id, kind, reference)
        DO UPDATE SET due_at = excluded.due_at, attempts = 0, leased_until = NULL
        """,
        account,
        kind,
        references,
        due_at,
    )


async def cancel(conn: Connection, account: UUID, kind: str, reference: UUID) -> None:
    """Takes work off the queue, whenever it was due."""
    await conn.execute(
        "DELETE FROM due WHERE account_id = $1 AND kind = $2 AND reference = $3", account, kind, reference
    )


async def finish(conn: Connection, item: Due) -> None:
    """Takes the claimed row off the queue, unless it was scheduled anew in the meantime."""
    await conn.execute(
        "DELETE FROM due WHERE account_id = $1 AND kind = $2 AND reference = $3 AND due_at = $4",
        item.account,
        item.kind,
        item.reference,
        item.due_at,
    )


async def waiting(database: Database, clock_now: datetime, account: UUID, kinds: list[str]) -> int:
    """Counts the account's rows of some kinds that are due at `clock_now`, the account's time."""
    async with database.transaction("due_waiting", read_only=True) as conn:
        count = await conn.fetchval(
            "SELECT count(*) FROM due WHERE account_id = $1 AND due_at <= $2 AND kind = ANY($3)",
            account,
            clock_now,
            kinds,
        )
    return int(count)


class DueWorker:
    """Claims due rows in turns over the accounts and hands them to the handler of their kind.

    A row is leased for as long as its handler runs, however long that is, by renewing a short lease: what a crash
    leaves is taken up again within `lease_seconds`.
    """

    def __init__(
        self,
        jobs: Database,
        clock: WallClock,
        handlers: Mapping[str, Handler],
        logger: Logger,
        *,
        lease_seconds: int = LEASE_SECONDS,
        concurrency: int = 8,
        per_account: int = 4,
        poll_seconds: float = 0.25,
        finish_seconds: float = FINISH_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._handlers = dict(handlers)
        self._logger = logger
        self._lease = timedelta(seconds=lease_seconds)
        self._concurrency = concurrency
        self._per_account = per_account
        self._poll_seconds = poll_seconds
        self._finish_seconds = finish_seconds
        self._jitter = jitter
        self._awake = asyncio.Event()
        self._running: dict[asyncio.Task[None], Due] = {}
        self._next_beat = clock.wall()

    def wake(self) -> None:
        """Looks for due work now instead of at the next poll."""
        self._awake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. A slow handler holds its own slot only.

        What is under way at the end has `finish_seconds`; then it is cancelled, which to its row is a crash, except
        that the row is given back at once: whoever comes next takes it up.
        """
        try:
            await self._work(stop)
            if self._running:
                await asyncio.wait(self._running, timeout=self._finish_seconds)
        except asyncio.CancelledError:
            await self._cut_short()
            raise
        await self._cut_short()

    async def _work(self, stop: asyncio.Event) -> None:
        cursor = BEFORE_ALL
        while not stop.is_set():
            self._awake.clear()
            await self._renew_leases()
            items: list[Due] = []
            if len(self._running) < self._concurrency and (cursor != BEFORE_ALL or await self._anything_ripe()):
                items, cursor = await self.claim(cursor)
            for item in items:
                task = asyncio.create_task(self._handle(item))
                self._running[task] = item
                task.add_done_callback(self._ended)
            if not items:
                await self._rest(stop)

    async def _cut_short(self) -> None:
        slow = list(self._running)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._awake.set()

    async def _renew_leases(self) -> None:
        """Keeps what is under way from being claimed a second time."""
        now = self._clock.wall()
        if now < self._next_beat:
            return
        self._next_beat = now + self._lease / _BEATS
        running = list(self._running.values())
        if not running:
            return
        async with self._jobs.transaction("renew_due_leases") as conn:
            # A row that its handler holds locked is about to change anyway; to wait for it could be to wait in a ring.
            await conn.execute(
                """
                WITH held AS (
                    SELECT account_id, kind, reference
                    FROM due JOIN unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[])
                        AS running (account_id, kind, reference, due_at) USING (account_id, kind, reference, due_at)
                    WHERE leased_until IS NOT NULL
                    FOR UPDATE OF due SKIP LOCKED
                )
                UPDATE due SET leased_until = $5 FROM held
                WHERE due.account_id = held.account_id AND due.kind = held.kind AND due.reference = held.reference
                """,
                [item.account for item in running],
                [item.kind for item in running],
                [item.reference for item in running],
                [item.due_at for item in running],
                now + self._lease,
            )

    async def _anything_ripe(self) -> bool:
        """Asks cheaply whether a claim is worth its walk over the accounts."""
        async with self._jobs.transaction("look_for_due", read_only=True) as conn:
            found = await conn.fetchval(
                """
                SELECT EXISTS (
                    SELECT FROM due
                    WHERE due_at <= $1 AND kind = ANY($2) AND (leased_until IS NULL OR leased_until <= $1)
                ) OR EXISTS (
                    SELECT FROM account_clock JOIN due USING (account_id)
                    WHERE due_at <= $1::timestamptz + make_interval(secs => offset_seconds)
                      AND kind = ANY($2) AND (leased_until IS NULL OR leased_until <= $1)
                )
                """,
                self._clock.wall(),
                list(self._handlers),
            )
        return bool(found)

    async def claim(self, cursor: UUID) -> tuple[list[Due], UUID]:
        """Leases due rows of accounts from `cursor` on, a few an account, as many as there are free slots.

        The platform's own work has the first turn. Returns them with the next cursor: BEFORE_ALL once all had theirs.
        """
        free = self._concurrency - len(self._running)
        turns = Counter(item.account for item in self._running.values())
        busy = [account for account, count in turns.items() if count >= self._per_account]
        now = self._clock.wall()
        async with self._jobs.transaction("claim_due") as conn:
            rows = await conn.fetch(
                """
                WITH RECURSIVE account AS (
                    (SELECT account_id FROM due WHERE account_id >= $2 ORDER BY account_id LIMIT 1)
                    UNION ALL
                    SELECT (SELECT due.account_id FROM due WHERE due.account_id > account.account_id
                            ORDER BY due.account_id LIMIT 1)
                    FROM account WHERE account.account_id IS NOT NULL
                ),
                ripe AS (
                    SELECT account.account_id, taken.kind, taken.reference
                    FROM account
                    LEFT JOIN account_clock USING (account_id)
                    CROSS JOIN LATERAL (
                        SELECT due.kind, due.reference FROM due
                        WHERE due.account_id = account.account_id
                          AND due.kind = ANY($5)
                          AND due.due_at <= $1::timestamptz
                              + make_interval(secs => coalesce(account_clock.offset_seconds, 0))
                          AND (due.leased_until IS NULL OR due.leased_until <= $1)
                        ORDER BY due.due_at LIMIT $4
                        FOR UPDATE SKIP LOCKED
                    ) AS taken
                    WHERE account.account_id IS NOT NULL AND account.account_id <> ALL($7)
                    LIMIT $6
                )
                UPDATE due SET leased_until = $3, attempts = due.attempts + 1
                FROM ripe
                WHERE due.account_id = ripe.account_id AND due.kind = ripe.kind AND due.reference = ripe.reference
                RETURNING due.account_id, due.kind, due.reference, due.due_at, due.attempts
                """,
                now,
                cursor,
                now + self._lease,
                self._per_account,
                list(self._handlers),
                free,
                busy,
            )
        items = [Due(row["account_id"], row["kind"], row["reference"], row["due_at"], row["attempts"]) for row in rows]
        full = len(items) == free
        return items, UUID(int=max(item.account for item in items).int + 1) if full else BEFORE_ALL

    async def _handle(self, item: Due) -> None:
        try:
            await self._handlers[item.kind](item)
        except asyncio.CancelledError:
            self._logger.warning("due work was cut short", extra={"kind": item.kind, "attempts": item.attempts})
            with suppress(GatefoldError):  # its lease ends by itself
                await self._lease_until(item, None)
            raise
        except Exception:
            self._logger.exception("due work failed", extra={"kind": item.kind, "attempts": item.attempts})
            try:
                await self._back_off(item)
            except GatefoldError as error:
                # Its lease ends by itself and it is taken up again, only sooner.
                self._logger.warning("due work does not back off", extra={"kind": item.kind, "reason": error.reason})

    async def _back_off(self, item: Due) -> None:
        """Leaves the row leased for longer each time, with jitter, so that a failing vendor is not hammered."""
        seconds = min(2.0**item.attempts, LONGEST_BACK_OFF.total_seconds()) * (0.5 + self._jitter() / 2)
        await self._lease_until(item, self._clock.wall() + timedelta(seconds=seconds))

    async def _lease_until(self, item: Due, until: datetime | None) -> None:
        async with self._jobs.transaction("back_off_due") as conn:
            await conn.execute(
                """
                UPDATE due SET leased_until = $5
                WHERE account_id = $1 AND kind = $2 AND reference = $3 AND due_at = $4
                """,
                item.account,
                item.kind,
                item.reference,
                item.due_at,
                until,
            )

    async def _rest(self, stop: asyncio.Event) -> None:
        """Sleeps until the next poll, a wake-up or the end."""
        sleepers = [asyncio.ensure_future(self._awake.wait()), asyncio.ensure_future(stop.wait())]
        await asyncio.wait(sleepers, timeout=self._poll_seconds, return_when=asyncio.FIRST_COMPLETED)
        for sleeper in sleepers:
            sleeper.cancel()
