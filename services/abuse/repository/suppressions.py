"""Owns the statements on what people said is legitimate."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.abuse.domain.finding import Scope


@dataclass(frozen=True)
class Suppression:
    """A detector, or with an empty name all, keeps from an entity for a time."""

    account: UUID
    scope: Scope
    entity: bytes
    detector: str
    since: datetime
    until: datetime


async def add(
    conn: Connection,
    account: UUID,
    case: UUID,
    scope: Scope,
    entity: bytes,
    detectors: Sequence[str],
    since: datetime,
    until: datetime,
) -> None:
    """Keeps detectors from an entity; a longer time that was said before stays."""
    await conn.execute(
        """
        INSERT INTO suppression AS kept (account_id, scope, entity_hash, detector, case_id, since, until)
        SELECT $1, $2, $3, detector, $5, $6, $7 FROM unnest($4::text[]) AS detector
        ON CONFLICT (account_id, scope, entity_hash, detector) DO UPDATE
        SET case_id = excluded.case_id, since = excluded.since, until = greatest(kept.until, excluded.until)
        """,
        account,
        scope.value,
        entity,
        list(detectors),
        case,
        since,
        until,
    )


async def remove(conn: Connection, account: UUID, case: UUID, scope: Scope, entity: bytes) -> None:
    """Lets detectors look at an entity again that a case kept them from."""
    await conn.execute(
        "DELETE FROM suppression WHERE account_id = $1 AND scope = $2 AND entity_hash = $3 AND case_id = $4",
        account,
        scope.value,
        entity,
        case,
    )


async def among(
    conn: Connection, account: UUID, entities: Sequence[bytes], now: datetime
) -> set[tuple[Scope, bytes, str]]:
    """Reads which of some entities are kept from, and by which detectors."""
    rows = await conn.fetch(
        "SELECT scope, entity_hash, detector FROM suppression"
        " WHERE account_id = $1 AND entity_hash = ANY($2::bytea[]) AND until > $3",
        account,
        list(entities),
        now,
    )
    return {(Scope(row["scope"]), row["entity_hash"], row["detector"]) for row in rows}


async def every(conn: Connection, now: datetime, limit: int) -> list[Suppression]:
    """Reads what holds in all accounts, that which was said last first; for the jobs role."""
    rows = await conn.fetch(
        "SELECT account_id, scope, entity_hash, detector, since, until FROM suppression WHERE until > $1"
        " ORDER BY since DESC LIMIT $2",
        now,
        limit,
    )
    return [
        Suppression(
            row["account_id"], Scope(row["scope"]), row["entity_hash"], row["detector"], row["since"], row["until"]
        )
        for row in rows
    ]
