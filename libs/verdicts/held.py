"""Owns verdicts as a service keeps them, to hold them against what it is asked to do."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import ids
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.postgres import PLATFORM, Connection, Database
from libs.telemetry import Telemetry

_HASH_BYTES = 16
_FORGOTTEN_AT_ONCE = 1_000

Begun = Callable[[Connection, UUID, Sequence[UUID]], Awaitable[None]]
"""Given an account and verdicts that hold there from now on, does in the same transaction what is to follow."""


@dataclass(frozen=True)
class _Kept:
    id: UUID
    account: UUID
    scope: str
    entity: bytes
    until: datetime
    lifted: bool
    revision: int


class HeldVerdicts:
    """Keeps the verdicts of some scopes and actions; whoever asks finds them by `in_force_until`.

    `actions` are of `activity_pb2.Verdict`. Shadow verdicts are not kept. Of two states of one verdict the later
    counts, whichever comes first, and hearing one twice changes nothing.
    """

    def __init__(
        self,
        app: Database,
        jobs: Database,
        scopes: Collection[str],
        actions: Collection[int],
        *,
        clock: WallClock,
        telemetry: Telemetry,
        begun: Begun | None = None,
    ) -> None:
        self._app = app
        self._jobs = jobs
        self._scopes = frozenset(scopes)
        self._actions = frozenset(actions)
        self._clock = clock
        self._log = telemetry.logger("verdicts")
        self._begun = begun

    async def obey(self, told: Sequence[activity_pb2.Verdict]) -> None:
        """Keeps what is to be held, each account's part in one transaction; killed in between, it is told again."""
        now = self._clock.wall()
        for account, verdicts in self._by_account(told).items():
            async with self._app.tenant(account, "hold_verdicts") as conn:
                changed = await _put(conn, account, verdicts)
                holding = [
                    verdict.id
                    for verdict in verdicts
                    if verdict.id in changed and not verdict.lifted and verdict.until > now
                ]
                if holding and self._begun is not None:
                    await self._begun(conn, account, holding)

    async def forget(self) -> None:
        """Forgets verdicts that are over in every state they had."""
        forgotten = _FORGOTTEN_AT_ONCE
        while forgotten == _FORGOTTEN_AT_ONCE:
            async with self._jobs.transaction("forget_verdicts") as conn:
                rows = await conn.fetch(
                    """
                    DELETE FROM held_verdict WHERE (account_id, verdict_id) IN (
                        SELECT account_id, verdict_id FROM held_verdict WHERE kept_until <= $1
                        ORDER BY kept_until LIMIT $2)
                    RETURNING verdict_id
                    """,
                    self._clock.wall(),
                    _FORGOTTEN_AT_ONCE,
                )
            forgotten = len(rows)

    def _by_account(self, told: Sequence[activity_pb2.Verdict]) -> dict[UUID, list[_Kept]]:
        found: dict[UUID, dict[UUID, _Kept]] = {}
        for verdict in told:
            known = verdict.scope in self._scopes and len(verdict.entity_hash) == _HASH_BYTES
            if not known or verdict.action not in self._actions or verdict.shadow:
                continue
            try:
                kept = _read(verdict)
            except GatefoldError:
                self._log.warning("a verdict cannot be read")
                continue
            of_account = found.setdefault(kept.account, {})
            before = of_account.get(kept.id)
            # One statement changes a row once.
            if before is None or before.revision < kept.revision:
                of_account[kept.id] = kept
        # Rows are locked in one order by every replica.
        return {account: [kept[key] for key in sorted(kept)] for account, kept in found.items()}


async def in_force_until(
    conn: Connection, account: UUID, entities: Sequence[tuple[str, bytes]], now: datetime
) -> datetime | None:
    """Returns until when the longest of the verdicts on one of `entities` (scope, hash) holds; None without any.

    `now` is the wall's: verdicts know no other clock. The connection is the account's.
    """
    until: datetime | None = await conn.fetchval(
        """
        SELECT max(held_verdict.until) FROM held_verdict
        JOIN unnest($3::text[], $4::bytea[]) AS wanted (scope, entity_hash) USING (scope, entity_hash)
        WHERE account_id IN ($1, $2) AND NOT lifted AND held_verdict.until > $5
        """,
        account,
        PLATFORM,
        [scope for scope, _ in entities],
        [entity for _, entity in entities],
        now,
    )
    return until


async def entity_of(conn: Connection, account: UUID, verdict: UUID, now: datetime) -> tuple[str, bytes] | None:
    """Returns scope and hash of what a verdict is about that holds in an account; None when it holds no more."""
    row = await conn.fetchrow(
        "SELECT scope, entity_hash FROM held_verdict"
        " WHERE account_id IN ($1, $2) AND verdict_id = $3 AND NOT lifted AND until > $4",
        account,
        PLATFORM,
        verdict,
        now,
    )
    return (row["scope"], row["entity_hash"]) if row else None


async def _put(conn: Connection, account: UUID, verdicts: Sequence[_Kept]) -> set[UUID]:
    """Writes later states alone; returns whose row is another now."""
    rows = await conn.fetch(
        """
        INSERT INTO held_verdict (account_id, verdict_id, scope, entity_hash, until, lifted, revision, kept_until)
        SELECT $1, new.id, new.scope, new.entity, new.until, new.lifted, new.revision, new.until
        FROM unnest($2::uuid[], $3::text[], $4::bytea[], $5::timestamptz[], $6::boolean[], $7::bigint[])
            AS new (id, scope, entity, until, lifted, revision)
        ON CONFLICT (account_id, verdict_id) DO UPDATE
            SET until = excluded.until, lifted = excluded.lifted, revision = excluded.revision,
                kept_until = greatest(held_verdict.kept_until, excluded.until)
            WHERE held_verdict.revision < excluded.revision
        RETURNING verdict_id
        """,
        account,
        [verdict.id for verdict in verdicts],
        [verdict.scope for verdict in verdicts],
        [verdict.entity for verdict in verdicts],
        [verdict.until for verdict in verdicts],
        [verdict.lifted for verdict in verdicts],
        [verdict.revision for verdict in verdicts],
    )
    return {row["verdict_id"] for row in rows}


def _read(verdict: activity_pb2.Verdict) -> _Kept:
    return _Kept(
        ids.decode("verdict", verdict.id),
        ids.decode("acct", verdict.account_id) if verdict.account_id else PLATFORM,
        verdict.scope,
        verdict.entity_hash,
        verdict.expires_at.ToDatetime(tzinfo=UTC),
        verdict.revoked,
        verdict.revision,
    )
