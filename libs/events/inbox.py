"""Owns the consumer's tables: last sequence of each aggregate, dead letters, how far each producer was swept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gatefold.events.v1 import envelope_pb2

from libs.postgres import Connection


@dataclass(frozen=True)
class DeadLetter:
    """An event that its handler could not take, and that waits to be replayed."""

    id: UUID
    producer: str
    type: str
    error: str
    attempts: int
    failed_at: datetime


async def advance(conn: Connection, account: UUID, producer: str, envelope: envelope_pb2.Envelope) -> bool:
    """Makes the envelope the last one taken of its aggregate if it is the next one; answers whether it was.

    Keeps other replicas off the aggregate until the end of the transaction.
    """
    if envelope.sequence == 1:
        statement = (
            "INSERT INTO consumer_position (account_id, producer, aggregate_type, aggregate_id, sequence)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING sequence"
        )
    else:
        statement = (
            "UPDATE consumer_position SET sequence = $5 WHERE account_id = $1 AND producer = $2"
            " AND aggregate_type = $3 AND aggregate_id = $4 AND sequence = $5 - 1 RETURNING sequence"
        )
    aggregate = (account, producer, envelope.aggregate_type, envelope.aggregate_id)
    return await conn.fetchval(statement, *aggregate, envelope.sequence) is not None


async def advance_all(
    conn: Connection, account: UUID, producer: str, envelopes: Sequence[envelope_pb2.Envelope]
) -> set[str]:
    """Does what `advance` does for envelopes of as many aggregates; returns the identifiers of those that were next."""
    advanced: set[str] = set()
    # Everybody takes aggregates in the same order, so that replicas do not wait for each other in a ring.
    ordered = sorted(envelopes, key=lambda envelope: (envelope.aggregate_type, envelope.aggregate_id))
    for first, statement in ((True, _BEGIN_ALL), (False, _ADVANCE_ALL)):
        some = [envelope for envelope in ordered if (envelope.sequence == 1) is first]
        if not some:
            continue
        rows = await conn.fetch(
            statement,
            account,
            producer,
            [envelope.aggregate_type for envelope in some],
            [envelope.aggregate_id for envelope in some],
            [envelope.sequence for envelope in some],
        )
        moved = {(row["aggregate_type"], row["aggregate_id"]) for row in rows}
        advanced.update(envelope.id for envelope in some if (envelope.aggregate_type, envelope.aggregate_id) in moved)
    return advanced


_BEGIN_ALL = """
    INSERT INTO consumer_position (account_id, producer, aggregate_type, aggregate_id, sequence)
    SELECT $1, $2, new.aggregate_type, new.aggregate_id, new.sequence
    FROM unnest($3::text[], $4::text[], $5::bigint[]) WITH ORDINALITY
      AS new (aggregate_type, aggregate_id, sequence, place)
    ORDER BY new.place
    ON CONFLICT DO NOTHING RETURNING aggregate_type, aggregate_id
"""
_ADVANCE_ALL = """
    UPDATE consumer_position AS position SET sequence = new.sequence
    FROM unnest($3::text[], $4::text[], $5::bigint[]) AS new (aggregate_type, aggregate_id, sequence)
    WHERE position.account_id = $1 AND position.producer = $2 AND position.aggregate_type = new.aggregate_type
      AND position.aggregate_id = new.aggregate_id AND position.sequence = new.sequence - 1
    RETURNING position.aggregate_type, position.aggregate_id
"""


async def lock_position(conn: Connection, account: UUID, producer: str, envelope: envelope_pb2.Envelope) -> int:
    """Returns the last sequence taken of the envelope's aggregate, and keeps other replicas off it until the end."""
    aggregate = (account, producer, envelope.aggregate_type, envelope.aggregate_id)
    last = await _locked(conn, *aggregate)
    if last is None:
        await conn.execute(
            "INSERT INTO consumer_position (account_id, producer, aggregate_type, aggregate_id, sequence)"
            " VALUES ($1, $2, $3, $4, 0) ON CONFLICT DO NOTHING",
            *aggregate,
        )
        last = await _locked(conn, *aggregate)
    assert last is not None
    return last


async def set_position(conn: Connection, account: UUID, producer: str, envelope: envelope_pb2.Envelope) -> None:
    """Stores that the envelope was the last one taken of its aggregate."""
    await conn.execute(
        "UPDATE consumer_position SET sequence = $5"
        " WHERE account_id = $1 AND producer = $2 AND aggregate_type = $3 AND aggregate_id = $4",
        account,
        producer,
        envelope.aggregate_type,
        envelope.aggregate_id,
        envelope.sequence,
    )


async def positions(
    conn: Connection, account: UUID, producer: str, aggregates: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], int]:
    """Returns the last sequences taken of the aggregates (type, id) that any event was taken of."""
    rows = await conn.fetch(
        "SELECT position.aggregate_type, position.aggregate_id, position.sequence"
        " FROM unnest($3::text[], $4::text[]) AS wanted (aggregate_type, aggregate_id)"
        " JOIN consumer_position AS position USING (aggregate_type, aggregate_id)"
        " WHERE position.account_id = $1 AND position.producer = $2",
        account,
        producer,
        [kind for kind, _ in aggregates],
        [identifier for _, identifier in aggregates],
    )
    return {(row["aggregate_type"], row["aggregate_id"]): row["sequence"] for row in rows}


async def erased(conn: Connection, account: UUID, subjects: Sequence[UUID]) -> set[UUID]:
    """Returns those of the subjects that have been erased here."""
    if not subjects:
        return set()
    rows = await conn.fetch(
        "SELECT subject_id FROM erased_subject WHERE account_id = $1 AND subject_id = ANY($2::uuid[])",
        account,
        subjects,
    )
    return {row["subject_id"] for row in rows}


async def bury(
    conn: Connection,
    account: UUID,
    producer: str,
    event_id: UUID,
    envelope: envelope_pb2.Envelope,
    *,
    error: str,
    attempts: int,
    at: datetime,
) -> None:
    """Keeps an event that its handler could not take."""
    await conn.execute(
        "INSERT INTO dead_letter"
        " (account_id, id, producer, aggregate_type, aggregate_id, sequence, type, envelope, error, attempts,"
        " failed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        account,
        event_id,
        producer,
        envelope.aggregate_type,
        envelope.aggregate_id,
        envelope.sequence,
        envelope.type,
        envelope.SerializeToString(),
        error,
        attempts,
        at,
    )


async def dead_letters(conn: Connection, account: UUID, limit: int) -> list[DeadLetter]:
    """Returns the account's dead letters that wait, oldest first."""
    rows = await conn.fetch(
        "SELECT id, producer, type, error, attempts, failed_at FROM dead_letter"
        " WHERE account_id = $1 ORDER BY failed_at, id LIMIT $2",
        account,
        limit,
    )
    return [DeadLetter(*row) for row in rows]


async def lock_dead_letter(conn: Connection, account: UUID, event_id: UUID) -> bytes | None:
    """Returns and locks the envelope of a dead letter that waits."""
    envelope: bytes | None = await conn.fetchval(
        "SELECT envelope FROM dead_letter WHERE account_id = $1 AND id = $2 FOR UPDATE",
        account,
        event_id,
    )
    return envelope


async def delete_dead_letter(conn: Connection, account: UUID, event_id: UUID) -> None:
    """Forgets a dead letter that was taken after all."""
    await conn.execute("DELETE FROM dead_letter WHERE account_id = $1 AND id = $2", account, event_id)


async def cursor(conn: Connection, producer: str) -> str:
    """Returns how far the producer was swept; empty for not at all."""
    return await conn.fetchval("SELECT cursor FROM consumer_cursor WHERE producer = $1", producer) or ""


async def set_cursor(conn: Connection, producer: str, reached: str) -> None:
    """Stores how far the producer was swept."""
    await conn.execute(
        "INSERT INTO consumer_cursor (producer, cursor) VALUES ($1, $2)"
        " ON CONFLICT (producer) DO UPDATE SET cursor = excluded.cursor",
        producer,
        reached,
    )


async def _locked(conn: Connection, account: UUID, producer: str, kind: str, identifier: str) -> int | None:
    last: int | None = await conn.fetchval(
        "SELECT sequence FROM consumer_position"
        " WHERE account_id = $1 AND producer = $2 AND aggregate_type = $3 AND aggregate_id = $4 FOR UPDATE",
        account,
        producer,
        kind,
        identifier,
    )
    return last
